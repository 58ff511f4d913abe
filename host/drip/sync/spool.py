"""The spool: raw segments on their way from a device into a store.

    STORE/spool/LOG_UUID/log.json        the device, and how its clock relates to UTC per boot
    STORE/spool/LOG_UUID/SEGMENT.seg     bytes of a segment from its first on, all records verified

A file is on the disk (file and folder synced) before its segment is acknowledged, and stays until
its records are in the store and the device has freed the segment.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from drip.data.files import write_atomic
from drip.disk import disk_error, make_folder
from drip.errors import CardError, StoreError
from drip.records import ParsedSegment, is_frame, parse_segment
from drip.store.rows import StoreRecord
from drip.wire import (
    RECORD_KIND_SHIFT,
    Dtype,
    RecordClock,
    RecordHeader,
    RecordKind,
    SegmentHeader,
    Stream,
)

__all__ = ["LogNotes", "SpooledLog", "clock_notes", "store_records"]

_DTYPES = {Dtype.U8: "uint8", Dtype.I8: "int8", Dtype.I16: "int16"}
_YEAR_10000_US = 253_402_300_800_000_000
_ITEM_BYTES = {"uint8": 1, "int8": 1, "int16": 2}


@dataclass(frozen=True)
class LogNotes:
    """What is known about a log beside its bytes.

    Attributes:
        device_id: Hex, None when a card was read without its device.
        utc_offset_us: Per boot: what to add to a device time to get UTC.
        estimated_us: The same for boots that no host has seen, as if they had followed at once.
    """

    device_id: str | None = None
    utc_offset_us: dict[int, int] = field(default_factory=dict)
    estimated_us: dict[int, int] = field(default_factory=dict)


class SpooledLog:
    """The spooled segments of one log.

    Args:
        spool: The store's spool folder.
        log_uuid: Of the log.

    Raises:
        StoreError: The folder cannot be made.
    """

    def __init__(self, spool: Path, log_uuid: bytes) -> None:
        self.log_uuid = str(uuid.UUID(bytes=log_uuid))
        self.folder = spool / self.log_uuid
        try:
            make_folder(self.folder)
            # What a killed program left half written is nobody's.
            for file in self.folder.glob(".*.tmp"):
                file.unlink()
        except OSError as error:
            raise disk_error(self.folder, error) from error

    def notes(self) -> LogNotes:
        """Read what is known about the log; nothing when nobody has noted anything."""
        file = self.folder / "log.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            offsets = {int(boot): int(us) for boot, us in found["utc_offset_us"].items()}
            return LogNotes(found["device_id"], offsets)
        except FileNotFoundError:
            return LogNotes()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{file} is damaged", "delete it; only the wall time of older records is lost"
            ) from error

    def note(self, device_id: str | None, utc_offset_us: dict[int, int]) -> None:
        """Remember whose log it is and how the clocks of boots relate to UTC."""
        notes = self.notes()
        offsets = {**utc_offset_us, **notes.utc_offset_us}
        if notes == LogNotes(device_id, offsets):
            return
        text = json.dumps({"device_id": device_id, "utc_offset_us": offsets}, indent=1) + "\n"
        self._write(self.folder / "log.json", text.encode())

    def put(self, segment: int, data: bytes) -> None:
        """Store the bytes of a segment so that not even a power cut loses them.

        Raises:
            StoreError: The disk is full or read-only; what was there before is untouched.
        """
        self._write(self._file(segment), data)

    def get(self, segment: int) -> bytes:
        """Return what is there of a segment, ``b""`` when nothing is."""
        try:
            return self._file(segment).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StoreError(
                f"cannot read {self._file(segment)}: {error.strerror}", "check the disk"
            ) from error

    def segments(self) -> list[int]:
        """Numbers of the segments that are there, ordered."""
        return sorted(int(file.stem) for file in self.folder.glob("*.seg") if file.stem.isdigit())

    def parsed(self, segment: int) -> ParsedSegment | None:
        """Read a spooled segment; None when the file is no intact segment of this log."""
        try:
            found = parse_segment(self.get(segment))
        except CardError:
            return None
        same = uuid.UUID(bytes=found.header.log_uuid) == uuid.UUID(self.log_uuid)
        return found if same and found.header.segment == segment else None

    def drop(self, segment: int) -> None:
        """Forget a segment whose records are in the store and which the device has freed."""
        with contextlib.suppress(FileNotFoundError):
            self._file(segment).unlink()

    def put_aside(self, segment: int) -> None:
        """Keep a copy of a damaged segment for a person to look at; nothing reads it again."""
        self._write(self.folder / f"{segment:010d}.damaged", self.get(segment))

    def _file(self, segment: int) -> Path:
        return self.folder / f"{segment:010d}.seg"

    def _write(self, file: Path, data: bytes) -> None:
        try:
            write_atomic(file, lambda stream: stream.write(data))
        except OSError as error:
            raise disk_error(file, error) from error


def clock_notes(notes: LogNotes, segments: Iterable[ParsedSegment]) -> LogNotes:
    """Add what the records of a log say about its clock, beside what is noted.

    CLOCK records give the offset of their boot; what a host has noted itself goes first. A boot
    without any is taken to have followed the last record of the one before at once: its estimate
    is the earliest possible time.

    Args:
        notes: What is known so far.
        segments: Of the log, in order.
    """
    offsets = dict(notes.utc_offset_us)
    last_us: dict[int, int] = {}
    for parsed in segments:
        for record in parsed.records:
            header = record.header
            last_us[header.boot_id] = max(header.time_us, last_us.get(header.boot_id, 0))
            clock = header.flags >> RECORD_KIND_SHIFT == RecordKind.CLOCK
            if clock and len(record.payload) >= RecordClock.SIZE:
                found = RecordClock.unpack(record.payload)
                offsets.setdefault(header.boot_id, found.unix_us - found.time_us)
    estimates: dict[int, int] = {}
    end_us: int | None = None
    for boot in sorted(last_us.keys() | offsets.keys()):
        if boot in offsets:
            end_us = offsets[boot] + last_us.get(boot, 0)
        elif end_us is not None:
            estimates[boot] = end_us
            end_us += last_us[boot]
    return LogNotes(notes.device_id, offsets, estimates)


RecordMark = tuple[int, int, int]
"""Number and checksums of a record: what tells it from any other of its log."""


def mark_of(record: StoreRecord) -> RecordMark:
    """The mark of a record."""
    return record.seq, record.header_crc, record.payload_crc


def store_records(parsed: ParsedSegment, notes: LogNotes) -> list[StoreRecord]:
    """Turn the frames of a segment into rows of the store; the device's own notes are no rows.

    Args:
        parsed: A segment of any device or card.
        notes: What is known about its log.
    """
    streams = {stream.id: stream for stream in parsed.header.streams[: parsed.header.stream_count]}
    return [
        _row(parsed.header, record.header, record.payload, streams, notes)
        for record in parsed.records
        if is_frame(record.header)
    ]


def _row(
    segment: SegmentHeader,
    header: RecordHeader,
    payload: bytes,
    streams: dict[int, Stream],
    notes: LogNotes,
) -> StoreRecord:
    dtype, shape, scale, offset = _form(streams.get(header.stream_id), len(payload))
    utc_us, time_source = _utc_us(header, notes)
    return StoreRecord(
        log_uuid=str(uuid.UUID(bytes=segment.log_uuid)),
        seq=header.seq,
        device_id=notes.device_id,
        boot_id=header.boot_id,
        time_us=header.time_us,
        utc_us=utc_us,
        time_source=time_source,
        stream_id=header.stream_id,
        raw_score=header.raw_score,
        percentile=header.percentile,
        policy=header.policy_id,
        score_kind=header.score_kind,
        flags=header.flags,
        class_1=header.class_1,
        class_2=header.class_2,
        logit_1=header.logit_1,
        logit_2=header.logit_2,
        model_id=header.model_id.hex(),
        frame=payload,
        dtype=dtype,
        shape=shape,
        scale=scale,
        offset=offset,
        header_crc=header.header_crc,
        payload_crc=header.payload_crc,
    )


def _utc_us(header: RecordHeader, notes: LogNotes) -> tuple[int | None, str]:
    for source, offsets in (
        ("host_clock", notes.utc_offset_us),
        ("estimate", notes.estimated_us),
    ):
        offset = offsets.get(header.boot_id)
        if offset is not None and 0 <= header.time_us + offset < _YEAR_10000_US:
            return header.time_us + offset, source
    return None, "unknown"


def _form(stream: Stream | None, size: int) -> tuple[str, tuple[int, ...], float, float]:
    """Type, shape, scale and offset of a frame; plain bytes when its stream does not say."""
    if stream is not None and stream.dtype in list(Dtype) and 1 <= stream.rank <= 4:
        dtype = _DTYPES[Dtype(stream.dtype)]
        shape = stream.shape[: stream.rank]
        elements = 1
        for length in shape:
            elements *= length
        if elements * _ITEM_BYTES[dtype] == size:
            return dtype, tuple(shape), stream.scale, stream.offset
    return "uint8", (size,), 1.0, 0.0
