"""Segment headers of a device's log, and what stands in for those that are damaged."""

from __future__ import annotations

from dataclasses import dataclass

from drip import wire
from drip.errors import CardError
from drip.records import parse_segment_header, seal_segment_header, stand_in_header
from drip.sync.reader import LogReader
from drip.sync.spool import SpooledLog

__all__ = ["FIRMWARE_HINT", "Heads", "Known"]

FIRMWARE_HINT = "read the card itself with: drip card pull"
# Powers of two, in bytes.
_SEGMENT_SIZES = range(10, 26)


@dataclass(frozen=True)
class Known:
    """What the segment after it says about a closed segment; None where it does not know."""

    records: int | None = None
    digest: int | None = None
    bytes: int | None = None


class Heads:
    """The first blocks of segments, each read once.

    Args:
        reader: Reads them.
        log: What an earlier run has spooled of this log.
    """

    def __init__(self, reader: LogReader, log: SpooledLog) -> None:
        self.reader = reader
        self.client = reader.client
        self.log = log
        self._heads: dict[int, bytes] = {}
        self._segment_bytes = 0

    def block(self, base: int) -> bytes:
        """The header at a position that :meth:`header_or_stand_in` was asked for."""
        return self._heads[base]

    def forget(self, base: int) -> None:
        """Its segment is done."""
        self._heads.pop(base, None)

    def _head(self, position: int) -> bytes:
        """First block of the segment at a position."""
        if position not in self._heads:
            head = self.reader.read(position, wire.SegmentHeader.SIZE, ahead=True)
            self._heads[position] = head
        return self._heads[position]

    def header_or_stand_in(self, base: int, end: int) -> wire.SegmentHeader:
        """Header of the segment at a position; of one that is damaged, what is known without it."""
        try:
            header = parse_segment_header(self._head(base))
        except CardError as error:
            size = self._segment_bytes or self._find_size(base, end)
            if size == 0:
                raise CardError(
                    f"{self.client.name} at log position {base}: {error.message}", FIRMWARE_HINT
                ) from error
            return self._stand_in(base, size)
        if header.segment_bytes == self._segment_bytes and self._is_earlier(header, base):
            # The header could not be written: that of an earlier pass is still there.
            return self._stand_in(base, self._segment_bytes)
        self._check(header, base)
        self._segment_bytes = header.segment_bytes
        return header

    def _is_earlier(self, header: wire.SegmentHeader, base: int) -> bool:
        same_log = header.log_uuid == self.client.device.log_uuid
        return same_log and header.segment * header.segment_bytes < base

    def _stand_in(self, base: int, size: int) -> wire.SegmentHeader:
        number = base // size
        spooled = self.log.parsed(number)
        header = stand_in_header(self.client.device.log_uuid, number, size)
        if spooled is not None and spooled.header.segment_bytes == size:
            header = spooled.header
        self.reader.damaged.append(f"segment {number}: header is damaged")
        self._heads[base] = seal_segment_header(header)
        return header

    def _find_size(self, base: int, end: int) -> int:
        """Bytes of a segment, as an intact header behind a position says; 0 when there is none."""
        for number in reversed(self.log.segments()):
            parsed = self.log.parsed(number)
            if parsed is not None:
                return parsed.header.segment_bytes
        noted = len(self.reader.damaged)
        for size in (1 << power for power in _SEGMENT_SIZES):
            position = base + size
            if base % size or position >= end:
                break
            try:
                found = parse_segment_header(self.reader.read(position, wire.SegmentHeader.SIZE))
                self._check(found, position)
            except CardError:
                del self.reader.damaged[noted:]  # It is noted when its turn comes.
                continue
            if base % found.segment_bytes == 0:
                return found.segment_bytes
        return 0

    def _check(self, header: wire.SegmentHeader, base: int) -> None:
        """Is a header that of this log at this position?"""
        if header.segment * header.segment_bytes != base:
            raise CardError(
                f"{self.client.name} sent segment {header.segment} for position {base}",
                FIRMWARE_HINT,
            )
        if header.log_uuid != self.client.device.log_uuid:
            raise CardError(
                f"{self.client.name} sent a segment of another log", "its card was changed: retry"
            )

    def known(self, header: wire.SegmentHeader, end: int) -> Known:
        """What the segment behind it says of a segment."""
        after = (header.segment + 1) * header.segment_bytes
        if end <= after:
            return Known()
        try:
            following = parse_segment_header(self._head(after))
        except CardError:
            return Known()
        if (
            following.segment != header.segment + 1
            or following.log_uuid != header.log_uuid
            or following.flags & wire.SegmentFlag.PREVIOUS_UNKNOWN
        ):
            return Known()
        used = following.previous_bytes
        fits = header.header_bytes <= used <= header.segment_bytes
        return Known(following.previous_records, following.previous_digest, used if fits else None)
