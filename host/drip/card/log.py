"""Looking at a card's log without a device; making an empty one: layout.py.

Layout and recovery are in docs/SPEC.md, section Card. Nothing here needs the compiled core: what is
found equals what a device would find.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drip import wire
from drip.card.layout import LARGEST_SEGMENT_BLOCKS
from drip.card.volume import Region, find_region
from drip.errors import CardError
from drip.gaps import Gaps, gaps_of
from drip.records import (
    ParsedSegment,
    is_frame,
    parse_records,
    parse_segment_header,
    stand_in_header,
)

__all__ = [
    "CardLog",
    "CardReport",
    "SegmentReport",
    "damage_of",
    "inspect_image",
    "log_paths",
    "open_log",
    "read_segments",
]

_BLOCK = wire.BLOCK_BYTES
_REBUILD_PROBES = (13, *range(17))  # the usual erase unit first, as the firmware does
_NO_LOG_HINT = "make one with: drip card format"


@dataclass(frozen=True)
class SegmentReport:
    """What one segment of a card holds.

    Attributes:
        number: Its number.
        parsed: Its records, and what is damaged or torn in it.
        acked: The host has acknowledged it.
        closed: No record will be added.
        header_damaged: Its header cannot be read; its records can.
        expected: Records that the next segment's header says it has; None where that is unknown.
    """

    number: int
    parsed: ParsedSegment
    acked: bool
    closed: bool
    header_damaged: bool
    expected: int | None


@dataclass(frozen=True)
class CardReport:
    """What a card holds.

    Attributes:
        superblock: The newest intact superblock, or what the segments say when none is.
        superblocks: Of both copies: "ok", or what is wrong.
        segments: Oldest first; their records without the frames, which may not fit into memory.
        bytes_used: Bytes of the segments that a device may not overwrite or has not overwritten.
        bytes_total: Bytes of all segments.
        damage: One line per thing that is lost or cannot be read; empty for a healthy card.
        file_system: "fat16", "fat32" or "exfat"; "raw" for a log without one, or a copied file.
        first_block: Of the log on the card.
    """

    superblock: wire.Superblock
    superblocks: tuple[str, str]
    segments: tuple[SegmentReport, ...]
    bytes_used: int
    bytes_total: int
    damage: tuple[str, ...]
    file_system: str = "raw"
    first_block: int = 0

    @property
    def records(self) -> int:
        """Intact frames on the card."""
        return sum(segment.parsed.frames for segment in self.segments)

    @property
    def gaps(self) -> Gaps:
        """What the device has noted as missing."""
        records = (segment.parsed.records for segment in self.segments)
        return gaps_of(itertools.chain.from_iterable(records))

    @property
    def oldest(self) -> wire.RecordHeader | None:
        """Header of the oldest intact record."""
        found = (record.header for item in self.segments for record in item.parsed.records)
        return next(found, None)

    @property
    def newest(self) -> wire.RecordHeader | None:
        """Header of the newest intact record."""
        for segment in reversed(self.segments):
            if segment.parsed.records:
                return segment.parsed.records[-1].header
        return None


def inspect_image(path: str | os.PathLike[str]) -> CardReport:
    """Read all of a card image and say what it holds.

    Raises:
        CardError: The file is missing, unreadable, or holds no log.
    """
    with open_log(path) as log:
        superblock, states, place = log.superblock, log.superblocks, log.region
        segments = tuple(_without_frames(segment) for segment, _ in log.segments())
    damage = [
        f"superblock {name}: {state}"
        for name, state in zip("AB", states, strict=True)
        if state != "ok"
    ]
    for segment in segments:
        damage += damage_of(segment)
    size = superblock.segment_blocks * _BLOCK
    return CardReport(
        superblock=superblock,
        superblocks=states,
        segments=segments,
        bytes_used=sum(size if item.closed else item.parsed.end for item in segments),
        bytes_total=size * superblock.segment_count,
        damage=tuple(damage),
        file_system=place.volume.kind if place.volume is not None else "raw",
        first_block=place.first_block,
    )


def read_segments(path: str | os.PathLike[str]) -> Iterator[SegmentReport]:
    """Yield the segments of a card image, oldest first, one at a time.

    Raises:
        CardError: The file is missing, unreadable, or holds no log.
    """
    with open_log(path) as log:
        for segment, _ in log.segments():
            yield segment


@dataclass(frozen=True)
class CardLog:
    """A log on a card that is open for reading.

    Attributes:
        region: Where it lies.
        superblock: The newest intact superblock, or what the segments say when none is.
        superblocks: Of both copies: "ok", or what is wrong.
    """

    region: Region
    superblock: wire.Superblock
    superblocks: tuple[str, str]

    def segments(self) -> Iterator[tuple[SegmentReport, bytes]]:
        """Yield the segments, oldest first, one at a time, and their bytes."""
        return _segments(self.region, self.superblock)

    @property
    def segment_total(self) -> int:
        """About how many there are."""
        found = len(_headers(self.region, self.superblock))
        return max(found, min(self.superblock.segment_count, self.superblock.next_segment))


@contextlib.contextmanager
def open_log(path: str | os.PathLike[str]) -> Iterator[CardLog]:
    """Open the log of a card image, a block device, a copied log file, or a folder with log files.

    Raises:
        CardError: The file is missing, unreadable, or holds no log.
    """
    with _open(path) as region:
        superblock, states = _find_log(region, path)
        yield CardLog(region, superblock, states)


def _without_frames(segment: SegmentReport) -> SegmentReport:
    records = tuple(
        dataclasses.replace(item, payload=b"") if is_frame(item.header) else item
        for item in segment.parsed.records
    )
    return dataclasses.replace(segment, parsed=dataclasses.replace(segment.parsed, records=records))


def damage_of(segment: SegmentReport) -> list[str]:
    """Say what of a segment is lost or cannot be read, one line each."""
    found = []
    if segment.header_damaged:
        found.append(f"segment {segment.number}: header is damaged")
    for item in segment.parsed.damage:
        found.append(f"segment {segment.number}, position {item.position}: {item.reason}")
    missing = (segment.expected or 0) - segment.parsed.count
    if missing > 0:
        found.append(f"segment {segment.number}: {missing} of {segment.expected} records are lost")
    return found


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Region]:
    """The log region of a card image, a copied log file, or the log files in a folder."""
    with contextlib.ExitStack() as stack:
        try:
            if Path(path).is_dir():
                files = [stack.enter_context(item.open("rb")) for item in log_paths(path)]
                if not files:
                    raise CardError(f"{path} cannot be read: it has no DRIP00.LOG", _NO_LOG_HINT)
                pieces = ((file, 0, file.seek(0, os.SEEK_END) // _BLOCK) for file in files)
                yield Region(tuple(pieces))
                return
            file = stack.enter_context(Path(path).open("rb"))
            blocks = file.seek(0, os.SEEK_END) // _BLOCK
        except OSError as error:
            raise CardError(
                f"{path} cannot be read: {error.strerror}", "check the path and its permissions"
            ) from error
        yield find_region(file, path, blocks)


def log_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The log files in a folder such as a mounted card, from DRIP00.LOG on without a gap."""
    found = {item.name.upper(): item for item in Path(folder).iterdir()}
    names = (f"DRIP{number:02d}.LOG" for number in range(100))
    return [found[name] for name in itertools.takewhile(found.__contains__, names)]


def _find_log(
    region: Region, path: str | os.PathLike[str]
) -> tuple[wire.Superblock, tuple[str, str]]:
    blocks = region.blocks
    first = _check_superblock(region.read(0, 1), blocks)
    if isinstance(first, wire.Superblock):
        blocks = first.region_blocks
    last = _check_superblock(region.read(max(0, blocks - 1), 1), blocks)
    found = [item for item in (first, last) if isinstance(item, wire.Superblock)]
    states = tuple("ok" if isinstance(item, wire.Superblock) else item for item in (first, last))
    if found:
        return max(found, key=lambda item: item.generation), (states[0], states[1])
    for step in _REBUILD_PROBES:
        block = (region.first_block // (1 << step) + 1) * (1 << step) - region.first_block
        rebuilt = _from_header(region.read(block, 1), block, region.blocks)
        if rebuilt is not None:
            return rebuilt, (states[0], states[1])
    raise CardError(f"{path} holds no log (superblock: {states[0]})", _NO_LOG_HINT)


def _check_superblock(data: bytes, blocks: int) -> wire.Superblock | str:
    if len(data) < wire.Superblock.SIZE:
        return "cannot be read"
    found = wire.Superblock.unpack(data)
    if found.magic != wire.SUPERBLOCK_MAGIC:
        return "missing"
    if zlib.crc32(data[: wire.Superblock.OFFSETS["crc"]]) != found.crc:
        return "damaged"
    if found.version != wire.SUPERBLOCK_VERSION:
        return f"of another version ({found.version})"
    if found.region_blocks > blocks:
        return f"of a card of {found.region_blocks} blocks, this has {blocks}"
    return found if _is_sane(found) else "contradicts itself"


def _is_sane(found: wire.Superblock) -> bool:
    segment, unit = found.segment_blocks, found.unit_blocks
    return (
        2 <= segment <= LARGEST_SEGMENT_BLOCKS
        and not segment & (segment - 1)
        and unit > 0
        and not unit & (unit - 1)
        and found.segment_count >= 2
        and 0 < found.data_block < found.region_blocks
        and found.data_block + found.segment_count * segment < found.region_blocks
        and found.acked_segment <= found.next_segment
    )


def _from_header(data: bytes, block: int, blocks: int) -> wire.Superblock | None:
    """A superblock as far as a segment header knows it, None when the block is no such header."""
    try:
        header = parse_segment_header(data)
    except CardError:
        return None
    made = wire.Superblock(
        magic=wire.SUPERBLOCK_MAGIC,
        version=wire.SUPERBLOCK_VERSION,
        header_bytes=wire.Superblock.SIZE,
        log_uuid=header.log_uuid,
        unit_blocks=header.unit_blocks,
        segment_blocks=header.segment_bytes // _BLOCK,
        segment_count=header.segment_count,
        next_segment=header.segment + 1,
        acked_segment=header.acked_segment,
        next_seq=header.first_seq,
        boot_id=header.boot_id,
        data_block=header.data_block,
        region_blocks=header.region_blocks,
    )
    if not _is_sane(made) or made.region_blocks > blocks:
        return None
    slot = header.segment % made.segment_count
    return made if made.data_block + slot * made.segment_blocks == block else None


def _headers(region: Region, superblock: wire.Superblock) -> dict[int, wire.SegmentHeader]:
    """Intact headers by segment, without those that the log has passed over."""
    count = superblock.segment_count
    headers: dict[int, wire.SegmentHeader] = {}
    for slot in range(count):
        try:
            header = parse_segment_header(
                region.read(superblock.data_block + slot * superblock.segment_blocks, 1)
            )
        except CardError:
            continue
        stale = header.segment >= superblock.next_segment and header.boot_id < superblock.boot_id
        if header.log_uuid == superblock.log_uuid and header.segment % count == slot and not stale:
            headers[header.segment] = header
    newest = headers.get(max(headers, default=-1))
    if newest is not None and newest.victim:
        block = superblock.data_block + newest.segment % count * superblock.segment_blocks
        parsed = parse_records(region.read(block, superblock.segment_blocks), newest)
        if not any(record.header.seq >= newest.next_seq for record in parsed.records):
            # Power failed while it took records over: its victim still has them all.
            del headers[newest.segment]
    return headers


def _segments(region: Region, superblock: wire.Superblock) -> Iterator[tuple[SegmentReport, bytes]]:
    count = superblock.segment_count
    headers = _headers(region, superblock)
    following = max([superblock.next_segment, *(number + 1 for number in headers)])
    acked = max([superblock.acked_segment, *(header.acked_segment for header in headers.values())])
    newest = headers.get(following - 1)
    tail = max(0, following - count, superblock.tail_segment)
    if newest is not None:
        tail = max(tail, min(following, max(newest.tail_segment, newest.victim)))
    for number in range(tail, following):
        if number not in headers and number == following - count and number < acked:
            # Power failed while it was being overwritten, which it was free for.
            continue
        block = superblock.data_block + number % count * superblock.segment_blocks
        data = region.read(block, superblock.segment_blocks)
        after = headers.get(number + 1)
        known = after is not None and not after.flags & wire.SegmentFlag.PREVIOUS_UNKNOWN
        if after is not None:
            data = data[: after.previous_bytes]
        size = superblock.segment_blocks * _BLOCK
        header = headers.get(number) or stand_in_header(superblock.log_uuid, number, size)
        report = SegmentReport(
            number=number,
            parsed=parse_records(data, header),
            acked=number < acked,
            closed=number + 1 < following or number < acked,
            header_damaged=number not in headers,
            expected=after.previous_records if after is not None and known else None,
        )
        yield report, data
