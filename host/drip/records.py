"""Raw segments of a device's log, as they lie on a card and come over the link.

Nothing here raises for damaged records: what can be read is returned, what cannot is named.
Layout: docs/SPEC.md, segment_header and record_header. Fields of later versions only follow those
of the first, so segments of every version can be read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from drip import wire
from drip.errors import CardError

__all__ = [
    "Damage",
    "ParsedSegment",
    "Record",
    "is_frame",
    "iter_records",
    "parse_records",
    "parse_segment",
    "parse_segment_header",
    "seal_segment_header",
    "stand_in_header",
]

_HEADER_CRC_AT = wire.RecordHeader.OFFSETS["header_crc"]
_AREA = wire.MARK_BLOCKS * wire.BLOCK_BYTES
_MARK = wire.LogMark.SIZE
_SEGMENT_CRC_AT = wire.SegmentHeader.OFFSETS["crc"]
_SMALLEST = wire.RecordHeader.SIZE + wire.RECORD_ALIGN
_MAGIC = wire.RECORD_MAGIC.to_bytes(2, "little")


@dataclass(frozen=True)
class Record:
    """One record whose checksums are right.

    Attributes:
        header: Its header.
        payload: The frame as captured.
        position: Log position of its first byte.
    """

    header: wire.RecordHeader
    payload: bytes
    position: int


@dataclass(frozen=True)
class Damage:
    """Bytes between records that are neither a record nor padding.

    Attributes:
        position: Log position of the first of them.
        size: How many.
        reason: What is wrong, in a few words.
    """

    position: int
    size: int
    reason: str


@dataclass(frozen=True)
class ParsedSegment:
    """What a segment holds.

    Attributes:
        header: The segment's header.
        records: The records that are intact, in order.
        damage: What was a record once and cannot be read, in order; empty for a healthy segment.
        torn: What a power loss cut short before it was durable; nothing is missing for it.
        end: Offset in the segment behind the last intact record.
        count: Intact records, as an acknowledgement names it.
        digest: CRC-32 over the ``header_crc`` of those records, in order.
        finished: The end of the records was seen: a block of zeros follows, or there is no room
            for another.
    """

    header: wire.SegmentHeader
    records: tuple[Record, ...]
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]
    end: int
    count: int
    digest: int
    finished: bool

    @property
    def frames(self) -> int:
        """Intact records that hold a frame."""
        return sum(is_frame(record.header) for record in self.records)


def is_frame(header: wire.RecordHeader) -> bool:
    """Whether a record holds a sensor frame, and not a note of the device."""
    return header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.FRAME


def parse_segment_header(data: bytes) -> wire.SegmentHeader:
    """Read and check the header of a segment.

    Raises:
        CardError: These bytes do not start a segment.
    """
    if len(data) < wire.SegmentHeader.SIZE:
        raise CardError(f"a segment header is cut off after {len(data)} bytes")
    header = wire.SegmentHeader.unpack(data)
    if header.magic != wire.SEGMENT_MAGIC:
        raise CardError("these bytes do not start a log segment")
    if zlib.crc32(data[:_SEGMENT_CRC_AT]) != header.crc:
        raise CardError(f"the header of segment {header.segment} is damaged")
    if (
        header.header_bytes < wire.SegmentHeader.SIZE
        or header.header_bytes % wire.RECORD_ALIGN
        or header.segment_bytes < header.header_bytes
        or header.segment_bytes % wire.BLOCK_BYTES
    ):
        raise CardError(f"the header of segment {header.segment} contradicts itself")
    return header


def stand_in_header(log_uuid: bytes, segment: int, segment_bytes: int) -> wire.SegmentHeader:
    """What is known of a segment whose header is damaged: enough to check its records."""
    return wire.SegmentHeader(
        magic=wire.SEGMENT_MAGIC,
        version=wire.SEGMENT_VERSION,
        header_bytes=wire.SegmentHeader.SIZE,
        log_uuid=log_uuid,
        segment=segment,
        segment_bytes=segment_bytes,
    )


def seal_segment_header(header: wire.SegmentHeader) -> bytes:
    """The block of a segment header, with its checksum."""
    content = header.pack()[:_SEGMENT_CRC_AT]
    return content + zlib.crc32(content).to_bytes(4, "little")


def parse_segment(data: bytes) -> ParsedSegment:
    """Read a segment, or as much of it as there is.

    Args:
        data: Its bytes from the first on; a prefix gives the records that are complete in it.

    Raises:
        CardError: The bytes do not start with an intact segment header.
    """
    header = parse_segment_header(data)
    return parse_records(data, header)


def parse_records(data: bytes, header: wire.SegmentHeader) -> ParsedSegment:
    """Read the records of a segment whose header is known, from this segment or otherwise.

    Args:
        data: The segment's bytes from the first on; its header may be damaged.
        header: Of it; ``log_uuid``, ``segment``, ``segment_bytes`` and ``first_seq`` count.
    """
    data = data[: header.segment_bytes]
    marked = data
    data = without_marks(marked)
    records = tuple(_iter_records(data, header))
    damage: list[Damage] = []
    torn: list[Damage] = []
    base = header.segment * header.segment_bytes

    def damaged(start: int, stop: int, reason: str) -> Damage:
        first = _with_marks(start)
        return Damage(base + first, _with_marks(stop - 1) + 1 - first, reason)

    at, boot = header.header_bytes, header.boot_id
    digest = 0
    for record in records:
        place = record.position - base
        start = _without_marks(place)
        gap = _gap(data, at, start)
        if gap is not None:
            restarted = record.header.boot_id != boot and (
                _may_restart(start - at, place) or _was_passed_by(data, gap[0], header, place)
            )
            found = damaged(*gap, _reason(data, gap[0], header))
            (torn if restarted else damage).append(found)
        at = _aligned(start + record.header.header_bytes + record.header.payload_bytes)
        boot = record.header.boot_id
        digest = zlib.crc32(record.header.header_crc.to_bytes(4, "little"), digest)
    end = _with_marks(at - 1) + 1
    after = -(-end // wire.BLOCK_BYTES) * wire.BLOCK_BYTES
    block = marked[after : after + wire.BLOCK_BYTES]
    finished = end + _SMALLEST > header.segment_bytes or (
        len(block) == wire.BLOCK_BYTES and not any(block)
    )
    return ParsedSegment(
        header,
        records,
        tuple(damage),
        tuple(torn),
        min(end, len(marked)),
        len(records),
        digest,
        finished,
    )


def iter_records(data: bytes, header: wire.SegmentHeader) -> Iterator[Record]:
    """Yield the intact records of a segment, by the rule that devices recover by.

    At every multiple of RECORD_ALIGN: an intact record counts and is skipped, anything else is not
    one. Sequence numbers only grow.

    Args:
        data: The segment's bytes from the first on; its header may be damaged.
        header: Of the segment, read from it or known otherwise.
    """
    return _iter_records(without_marks(data[: header.segment_bytes]), header)


def without_marks(data: bytes) -> bytes:
    """Return a segment's bytes without its marks: records flow around them."""
    pieces = [data[:_AREA]]
    pieces += [data[at + _MARK : at + _AREA] for at in range(_AREA, len(data), _AREA)]
    return b"".join(pieces)


def _with_marks(offset: int) -> int:
    """Where a byte of ``without_marks`` lies in the segment."""
    return offset + (offset - _MARK) // (_AREA - _MARK) * _MARK if offset >= _AREA else offset


def _without_marks(offset: int) -> int:
    return offset - offset // _AREA * _MARK


def _may_restart(gap: int, place: int) -> bool:
    """Whether the log may have gone on at an offset after a power loss.

    It goes on in the next block, or behind the block of the last mark.
    """
    area = place % _AREA
    if place > _AREA and area == _MARK:
        return gap < wire.BLOCK_BYTES
    if place % wire.BLOCK_BYTES:
        return False
    return gap < wire.BLOCK_BYTES or (place > _AREA and area == wire.BLOCK_BYTES)


def _was_passed_by(data: bytes, at: int, segment: wire.SegmentHeader, place: int) -> bool:
    """Whether the log may have gone on at an offset because a cut record claims what is before."""
    header = _claim(data, at - at % wire.RECORD_ALIGN, segment)
    if header is None:
        return False
    stop = at - at % wire.RECORD_ALIGN + header.header_bytes + header.payload_bytes
    return place == -(-(_with_marks(stop - 1) + 1) // wire.BLOCK_BYTES) * wire.BLOCK_BYTES


def _claim(data: bytes, at: int, segment: wire.SegmentHeader) -> wire.RecordHeader | None:
    """Intact header of a record at an offset, whatever became of its frame."""
    if data[at : at + 2] != _MAGIC or at + wire.RecordHeader.SIZE > len(data):
        return None
    header = wire.RecordHeader.unpack(data, at)
    place = zlib.crc32(segment.log_uuid + segment.segment.to_bytes(4, "little"))
    return (
        header if zlib.crc32(data[at : at + _HEADER_CRC_AT], place) == header.header_crc else None
    )


def _iter_records(data: bytes, header: wire.SegmentHeader) -> Iterator[Record]:
    base = header.segment * header.segment_bytes
    at, seq = header.header_bytes, header.first_seq
    # Bound to its log and segment: what an earlier log left behind does not pass.
    seed = zlib.crc32(header.log_uuid + header.segment.to_bytes(4, "little"))
    while True:
        at = data.find(_MAGIC, at)
        if at < 0 or at + _SMALLEST > len(data):
            return
        if at % wire.RECORD_ALIGN:
            at += 1
            continue
        found = _record(data, at, seed, seq)
        if found is None:
            at += wire.RECORD_ALIGN
            continue
        stop = at + found.header_bytes + found.payload_bytes
        yield Record(found, data[at + found.header_bytes : stop], base + _with_marks(at))
        at, seq = _aligned(stop), found.seq + 1


def _record(data: bytes, at: int, seed: int, seq: int) -> wire.RecordHeader | None:
    """Header of the record at an offset, None when there is no intact one."""
    header = wire.RecordHeader.unpack(data, at)
    stop = at + header.header_bytes + header.payload_bytes
    if (
        zlib.crc32(data[at : at + _HEADER_CRC_AT], seed) != header.header_crc
        or header.version < wire.RECORD_VERSION
        or header.header_bytes < wire.RecordHeader.SIZE
        or not 0 < header.payload_bytes <= wire.MAX_FRAME_BYTES
        or header.seq < seq
        or stop > len(data)
        or zlib.crc32(data[at + wire.RecordHeader.SIZE : stop]) != header.payload_crc
    ):
        return None
    return header


def _gap(data: bytes, start: int, stop: int) -> tuple[int, int] | None:
    """The bytes between two records without the zeros around them, None when there is nothing."""
    inside = data[start:stop]
    kept = inside.rstrip(b"\0")
    if not kept:
        return None
    return start + len(inside) - len(inside.lstrip(b"\0")), start + len(kept)


def _reason(data: bytes, at: int, segment: wire.SegmentHeader) -> str:
    """Say what a gap is: a record that names itself, or not even that."""
    header = _claim(data, at - at % wire.RECORD_ALIGN, segment)
    return "no record header" if header is None else f"frame of record {header.seq} is damaged"


def _aligned(offset: int) -> int:
    return -(-offset // wire.RECORD_ALIGN) * wire.RECORD_ALIGN
