"""Reading segments from a device into the spool, and acknowledging them there."""

from __future__ import annotations

from collections.abc import Callable

from drip import wire
from drip.device.client import Client
from drip.errors import CardError, DeviceError, LinkError
from drip.gaps import Gaps, gaps_of
from drip.records import (
    ParsedSegment,
    parse_segment,
)
from drip.sync.heads import FIRMWARE_HINT, Heads, Known
from drip.sync.reader import GoneError, LogReader
from drip.sync.spool import SpooledLog

__all__ = ["Pull"]

# While a device records without a pause, its open segment may outrun every acknowledgement.
_ATTEMPTS = 4
_REFUSED_HINT = "every frame that it sent is in the store; it frees none of them"


class Pull:
    """One run over the segments that wait on a device.

    Args:
        client: The device.
        log: Where the segments go.
        keep: Acknowledge nothing.
        on_progress: Called with log bytes done and in all.

    Attributes:
        pending: Bytes that waited when the run began.
        records: Frames in the segments, those spooled by an earlier run included.
        segments: Segments read, in part or whole.
        acked: Segments acknowledged.
        acked_below: Segments below this one are acknowledged.
        chunks_lost: Pieces of the log that were lost on the line and sent again.
        gaps: What the device has noted as missing, by the segment that says so.
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
        self.pending = self.records = self.segments = 0
        self.acked = self.acked_below = self.gone_bytes = 0
        self.left_open = False
        self.chunks_lost = 0
        self.gaps: dict[int, Gaps] = {}
        self._start = 0
        self._reader = LogReader(client)
        self._heads = Heads(self._reader, log)
        self._refused: DeviceError | None = None

    @property
    def bytes_log(self) -> int:
        """Bytes of the log that were read."""
        return self._reader.bytes_log

    @property
    def damaged(self) -> list[str]:
        """What could not be read, one line each."""
        return self._reader.damaged

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
            self._reader.stream = self.client.read_ahead(end)
        try:
            self._run(position, end, status)
        finally:
            if self._reader.stream is not None:
                self.chunks_lost = self._reader.stream.chunks_lost
                self._reader.stream.close()
        if self._refused is not None:
            raise self._refused

    def _run(self, position: int, end: int, status: wire.Status) -> None:
        while position < end:
            try:
                header = self._heads.header_or_stand_in(position, end)
                if position == status.log_acked:
                    self.acked_below = header.segment
                self._segment(header, end)
                position += header.segment_bytes
            except GoneError as gone:
                if gone.position <= position:
                    raise CardError(
                        f"{self.client.name} lost log position {position} and names no other",
                        FIRMWARE_HINT,
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
        if self._reader.stream is None:
            known = self._heads.known(header, end)
            parsed = self._fetch(header, limit, closed, known)
        else:
            # The header behind it comes next in the stream; an unused end costs nothing there.
            parsed = self._fetch(header, limit, closed, Known())
            known = self._heads.known(header, end)
        if closed and not _agrees(parsed, known):
            # The card may have answered wrongly once: read all of it again.
            parsed = self._fetch(header, header.segment_bytes, closed, Known(), again=True)
        if not self.keep and (closed or parsed.count):
            parsed = self._acknowledge(parsed, closed, known)
        self.records += parsed.frames
        self.gaps[header.segment] = gaps_of(parsed.records)
        self._reader.damaged += _losses(parsed, known)
        self._heads.forget(base)

    def _acknowledge(self, parsed: ParsedSegment, closed: bool, known: Known) -> ParsedSegment:
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
            parsed = self._fetch(header, limit, closed, Known(), again=again)
        self.left_open = True
        return parsed

    def _fetch(
        self,
        header: wire.SegmentHeader,
        limit: int,
        closed: bool,
        known: Known,
        *,
        again: bool = False,
    ) -> ParsedSegment:
        """Read a segment up to ``limit`` bytes, or to its last record, and spool it."""
        base = header.segment * header.segment_bytes
        if known.bytes is not None:
            limit = min(limit, known.bytes)
        stored = b"" if again else self._spooled(header)
        unreadable = len(self._reader.damaged)
        data = bytearray(stored or self._heads.block(base))
        if self._reader.stream is not None:
            self._reader.stream.extend(base + limit)
        try:
            while len(data) < limit:
                chunk = self._reader.read(base + len(data), limit - len(data), ahead=True)
                if not chunk:
                    break
                data += chunk
                self._progress(base + len(data))
                if closed and known.bytes is None and not any(chunk):
                    seen = parse_segment(bytes(data))
                    # Zeros in place of what cannot be read do not end a segment.
                    readable = len(self._reader.damaged) == unreadable
                    if seen.finished and not seen.damage and readable:
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

    def _progress(self, position: int) -> None:
        if self.on_progress is not None:
            self.on_progress(min(position - self._start, self.pending), self.pending)


def _losses(parsed: ParsedSegment, known: Known) -> list[str]:
    """What of a segment cannot be read, one line each."""
    number = parsed.header.segment
    lines = [f"segment {number}, {item.position}: {item.reason}" for item in parsed.damage]
    if known.records is not None and parsed.count < known.records:
        missing = known.records - parsed.count
        lines.append(f"segment {number}: {missing} of {known.records} records are lost")
    return lines


def _agrees(parsed: ParsedSegment, known: Known) -> bool:
    if parsed.damage:
        return False
    return known.records is None or ((parsed.count, parsed.digest) == (known.records, known.digest))
