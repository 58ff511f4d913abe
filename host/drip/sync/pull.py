"""Reading segments from a device into the spool, and acknowledging them there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drip import wire
from drip.device.client import Client
from drip.device.exchange import SilenceError
from drip.device.stream import LogStream, ReadChunk
from drip.errors import CardError, DeviceError, LinkError
from drip.records import (
    ParsedSegment,
    parse_segment,
    parse_segment_header,
    seal_segment_header,
    stand_in_header,
)
from drip.sync.spool import SpooledLog

__all__ = ["Pull"]

# While a device records without a pause, its open segment may outrun every acknowledgement.
_ATTEMPTS = 4
_REFUSED_HINT = "every frame that it sent is in the store; it frees none of them"
# Powers of two, in bytes.
_SEGMENT_SIZES = range(10, 26)
_FIRMWARE_HINT = "read the card itself with: drip card pull"


@dataclass(frozen=True)
class _Known:
    """What the segment after it says about a closed segment; None where it does not know."""

    records: int | None = None
    digest: int | None = None
    bytes: int | None = None


class _GoneError(Exception):
    """The device has given up a position.

    Args:
        position: Where to go on.
    """

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Pull:
    """One run over the segments that wait on a device.

    Args:
        client: The device.
        log: Where the segments go.
        keep: Acknowledge nothing.
        on_progress: Called with log bytes done and in all.

    Attributes:
        pending: Bytes that waited when the run began.
        bytes_log: Bytes of the log that were read.
        records: Frames in the segments, those spooled by an earlier run included.
        segments: Segments read, in part or whole.
        acked: Segments acknowledged.
        acked_below: Segments below this one are acknowledged.
        damaged: What could not be read, one line each.
        chunks_lost: Pieces of the log that were lost on the line and sent again.
        left_open: The newest segment outran its acknowledgement; it stays on the device too.
        gone_bytes: Bytes of the log that the device gave up before they could be read.
    """

    def __init__(
        self,
        client: Client,
        log: SpooledLog,
        *,
        keep: bool,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.client = client
        self.log = log
        self.keep = keep
        self.on_progress = on_progress
        self.pending = self.bytes_log = self.records = self.segments = 0
        self.acked = self.acked_below = self.gone_bytes = 0
        self.left_open = False
        self.chunks_lost = 0
        self.damaged: list[str] = []
        self._start = 0
        self._heads: dict[int, bytes] = {}
        self._segment_bytes = 0
        self._stream: LogStream | None = None
        self._refused: DeviceError | None = None

    def run(self, status: wire.Status) -> None:
        """Pull everything that ``status`` says is durable and not acknowledged.

        Raises:
            LinkError, DeviceError: The device stopped answering or refused.
            CardError: What it sends is no log.
            StoreError: The spool cannot be written.
        """
        position, end = status.log_acked, status.log_durable
        self._start, self.pending = position, max(0, end - position)
        if position < end and self.client.can_stream:
            self._stream = self.client.read_ahead(end)
        try:
            self._run(position, end, status)
        finally:
            if self._stream is not None:
                self.chunks_lost = self._stream.chunks_lost
                self._stream.close()
        if self._refused is not None:
            raise self._refused

    def _run(self, position: int, end: int, status: wire.Status) -> None:
        while position < end:
            try:
                header = self._header_or_stand_in(position, end)
                if position == status.log_acked:
                    self.acked_below = header.segment
                self._segment(header, end)
                position += header.segment_bytes
            except _GoneError as gone:
                if gone.position <= position:
                    raise CardError(
                        f"{self.client.name} lost log position {position} and names no other",
                        _FIRMWARE_HINT,
                    ) from None
                self.gone_bytes += gone.position - position
                position = gone.position
            self._progress(position)
        if not self.pending:
            self.acked_below = self._all_acked(status)

    def _all_acked(self, status: wire.Status) -> int:
        """First segment that is not acknowledged, when nothing waits and no header was read."""
        for segment in reversed(self.log.segments()):
            parsed = self.log.parsed(segment)
            if parsed is not None:
                return status.log_acked // parsed.header.segment_bytes
        return 0

    def _segment(self, header: wire.SegmentHeader, end: int) -> None:
        base = header.segment * header.segment_bytes
        closed = base + header.segment_bytes <= end
        self.segments += 1
        limit = min(end - base, header.segment_bytes)
        if self._stream is None:
            known = self._known(header, end)
            parsed = self._fetch(header, limit, closed, known)
        else:
            # The header behind it comes next in the stream; an unused end costs nothing there.
            parsed = self._fetch(header, limit, closed, _Known())
            known = self._known(header, end)
        if closed and not _agrees(parsed, known):
            # The card may have answered wrongly once: read all of it again.
            parsed = self._fetch(header, header.segment_bytes, closed, _Known(), again=True)
        if not self.keep and (closed or parsed.count):
            parsed = self._acknowledge(parsed, closed, known)
        self.records += parsed.frames
        self.damaged += _losses(parsed, known)
        self._heads.pop(base, None)

    def _acknowledge(self, parsed: ParsedSegment, closed: bool, known: _Known) -> ParsedSegment:
        header = parsed.header
        for attempt in range(_ATTEMPTS):
            count, digest = parsed.count, parsed.digest
            if known.records is not None and known.digest is not None and _losses(parsed, known):
                # It was read twice. All that can be read is safe, and what a person may still make
                # of the rest is put aside; without this the log would never move on.
                self.log.put_aside(header.segment)
                count, digest = known.records, known.digest
            try:
                self.acked_below = self.client.ack(header.segment, count, digest)
                self.acked += 1
                return parsed
            except DeviceError as error:
                if error.code != wire.Err.DIGEST:
                    raise
                if attempt + 1 == _ATTEMPTS and closed and not parsed.damage:
                    # Nothing behind it can be freed either, but all of it can be read.
                    self._refused = DeviceError(error.message, error.code, _REFUSED_HINT)
                    self.keep = True
                    return parsed
            # More was recorded into the open segment, or the card answered wrongly once.
            self.client.sync_log()
            limit = self.client.status().log_durable - header.segment * header.segment_bytes
            again = closed
            closed = limit >= header.segment_bytes
            limit = min(limit, header.segment_bytes)
            parsed = self._fetch(header, limit, closed, _Known(), again=again)
        self.left_open = True
        return parsed

    def _fetch(
        self,
        header: wire.SegmentHeader,
        limit: int,
        closed: bool,
        known: _Known,
        *,
        again: bool = False,
    ) -> ParsedSegment:
        """Read a segment up to ``limit`` bytes, or to its last record, and spool it."""
        base = header.segment * header.segment_bytes
        if known.bytes is not None:
            limit = min(limit, known.bytes)
        stored = b"" if again else self._spooled(header)
        unreadable = len(self.damaged)
        data = bytearray(stored or self._heads[base])
        if self._stream is not None:
            self._stream.extend(base + limit)
        try:
            while len(data) < limit:
                chunk = self._read(base + len(data), limit - len(data), ahead=True)
                if not chunk:
                    break
                data += chunk
                self._progress(base + len(data))
                if closed and known.bytes is None and not any(chunk):
                    seen = parse_segment(bytes(data))
                    # Zeros in place of what cannot be read do not end a segment.
                    if seen.finished and not seen.damage and len(self.damaged) == unreadable:
                        del data[-len(chunk) :]
                        break
        except (LinkError, KeyboardInterrupt):
            # What has arrived need not travel again.
            if not again and len(data) > max(len(stored), header.header_bytes):
                self.log.put(header.segment, bytes(data))
            raise
        if bytes(data) != stored:
            self.log.put(header.segment, bytes(data))
        return parse_segment(bytes(data))

    def _spooled(self, header: wire.SegmentHeader) -> bytes:
        """The whole blocks that an earlier run has brought in, if they are of this segment."""
        data = self.log.get(header.segment)
        data = data[: len(data) // wire.BLOCK_BYTES * wire.BLOCK_BYTES]
        parsed = self.log.parsed(header.segment)
        if parsed is None or parsed.damage or parsed.header != header:
            return b""
        return data

    def _head(self, position: int) -> bytes:
        """First block of the segment at a position."""
        if position not in self._heads:
            head = self._read(position, wire.SegmentHeader.SIZE, ahead=True)
            self._heads[position] = head
        return self._heads[position]

    def _header_or_stand_in(self, base: int, end: int) -> wire.SegmentHeader:
        """Header of the segment at a position; of one that is damaged, what is known without it."""
        try:
            header = parse_segment_header(self._head(base))
        except CardError as error:
            size = self._segment_bytes or self._find_size(base, end)
            if size == 0:
                raise CardError(
                    f"{self.client.name} at log position {base}: {error.message}", _FIRMWARE_HINT
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
        self.damaged.append(f"segment {number}: header is damaged")
        self._heads[base] = seal_segment_header(header)
        return header

    def _find_size(self, base: int, end: int) -> int:
        """Bytes of a segment, as an intact header behind a position says; 0 when there is none."""
        for number in reversed(self.log.segments()):
            parsed = self.log.parsed(number)
            if parsed is not None:
                return parsed.header.segment_bytes
        noted = len(self.damaged)
        for size in (1 << power for power in _SEGMENT_SIZES):
            position = base + size
            if base % size or position >= end:
                break
            try:
                found = parse_segment_header(self._read(position, wire.SegmentHeader.SIZE))
                self._check(found, position)
            except CardError:
                del self.damaged[noted:]  # It is noted when its turn comes.
                continue
            if base % found.segment_bytes == 0:
                return found.segment_bytes
        return 0

    def _check(self, header: wire.SegmentHeader, base: int) -> None:
        """Is a header that of this log at this position?"""
        if header.segment * header.segment_bytes != base:
            raise CardError(
                f"{self.client.name} sent segment {header.segment} for position {base}",
                _FIRMWARE_HINT,
            )
        if header.log_uuid != self.client.device.log_uuid:
            raise CardError(
                f"{self.client.name} sent a segment of another log", "its card was changed: retry"
            )

    def _known(self, header: wire.SegmentHeader, end: int) -> _Known:
        after = (header.segment + 1) * header.segment_bytes
        if end <= after:
            return _Known()
        try:
            following = parse_segment_header(self._head(after))
        except CardError:
            return _Known()
        if (
            following.segment != header.segment + 1
            or following.log_uuid != header.log_uuid
            or following.flags & wire.SegmentFlag.PREVIOUS_UNKNOWN
        ):
            return _Known()
        used = following.previous_bytes
        fits = header.header_bytes <= used <= header.segment_bytes
        return _Known(following.previous_records, following.previous_digest, used if fits else None)

    def _read(self, position: int, size: int, *, ahead: bool = False) -> bytes:
        """Read log bytes; whole blocks, so there may be more than ``size``."""
        blocks = -(-size // wire.BLOCK_BYTES) * wire.BLOCK_BYTES
        try:
            if ahead and self._stream is not None:
                chunk = self._read_stream(self._stream, position, blocks)
            else:
                chunk = self.client.read(position, min(blocks, wire.MAX_CHUNK_BYTES))
        except DeviceError as error:
            if error.code == wire.Err.RANGE:
                return b""
            if error.code == wire.Err.IO:
                return self._read_blocks(position, blocks)
            raise
        if chunk.gone:
            raise _GoneError(chunk.position)
        self.bytes_log += len(chunk.data)
        return chunk.data

    def _read_blocks(self, position: int, size: int) -> bytes:
        """Read block by block, up to a whole chunk; what stays unreadable becomes zeros."""
        stop = position - position % wire.MAX_CHUNK_BYTES + wire.MAX_CHUNK_BYTES
        data = b""
        for at in range(position, min(stop, position + size), wire.BLOCK_BYTES):
            data += self._read_block(at)
        self.bytes_log += len(data)
        return data

    def _read_block(self, position: int) -> bytes:
        for _ in range(_ATTEMPTS):
            try:
                chunk = self.client.read(position, wire.BLOCK_BYTES)
            except DeviceError as error:
                if error.code != wire.Err.IO:
                    raise
                continue
            if chunk.gone:
                raise _GoneError(chunk.position)
            return chunk.data
        self.damaged.append(f"position {position}: the card cannot read this block")
        return bytes(wire.BLOCK_BYTES)

    def _read_stream(self, stream: LogStream, position: int, size: int) -> ReadChunk:
        try:
            return stream.read(position, size)
        except SilenceError as error:
            raise LinkError(
                f"{self.client.name} stopped answering (READ)",
                "check cable and power, then run the command again: it continues",
            ) from error

    def _progress(self, position: int) -> None:
        if self.on_progress is not None:
            self.on_progress(min(position - self._start, self.pending), self.pending)


def _losses(parsed: ParsedSegment, known: _Known) -> list[str]:
    """What of a segment cannot be read, one line each."""
    number = parsed.header.segment
    lines = [f"segment {number}, {item.position}: {item.reason}" for item in parsed.damage]
    if known.records is not None and parsed.count < known.records:
        missing = known.records - parsed.count
        lines.append(f"segment {number}: {missing} of {known.records} records are lost")
    return lines


def _agrees(parsed: ParsedSegment, known: _Known) -> bool:
    if parsed.damage:
        return False
    return known.records is None or ((parsed.count, parsed.digest) == (known.records, known.digest))
