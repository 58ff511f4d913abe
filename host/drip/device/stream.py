"""Reading a range of the log as a stream: many chunks per request, only what was lost again.

The host keeps a few requests waiting on the device, so the line never idles for the way there and
back. Requests are served in order and chunks are numbered, so the first chunk behind a gap tells
what was lost; only that is asked for again. The device remembers nothing that must not be lost:
after silence the host asks anew for what it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from drip import wire
from drip.device.exchange import Exchange, SilenceError, answer_code
from drip.device.framing import Frame

__all__ = ["LogStream", "ReadChunk"]

_REQUEST_BYTES = 32 << 10
_WINDOW_BYTES = 128 << 10
# Longer than a stall of a USB bridge or a card that is busy; too short costs repetitions only.
_SHORTEST_WAIT_S = 0.12
_LOSS_MEMORY = 64
# From about 3 % lost chunks on, half the size brings more through although it costs more framing.
_LOSS_HIGH, _LOSS_LOW = 0.03, 0.004


@dataclass(frozen=True)
class ReadChunk:
    """Bytes of the device's log.

    Attributes:
        position: Log position of the first byte; after ``gone``, where to go on.
        data: The bytes.
        end: Nothing durable lies beyond them.
        gone: The position asked for is no longer on the card; ``data`` is empty.
    """

    position: int
    data: bytes
    end: bool
    gone: bool = False


@dataclass
class _Asked:
    """A request on its way: ``number`` is the chunk expected next."""

    id: int
    position: int
    size: int
    chunk: int
    sent_s: float
    number: int = 0

    @property
    def next(self) -> int:
        return self.position + self.number * self.chunk

    @property
    def end(self) -> int:
        return self.position + self.size


class LogStream:
    """Log bytes in order, from a device that can stream.

    Args:
        exchange: The line; requests may be made on it between two reads.
        end: Position up to which to read ahead.
        timeout_s: How long the device may stay silent.
        attempt_s: The longest wait before asking again.

    Attributes:
        chunks_lost: Chunks that were asked for again.
    """

    def __init__(self, exchange: Exchange, end: int, *, timeout_s: float, attempt_s: float) -> None:
        self.chunks_lost = 0
        self._exchange = exchange
        self._timeout_s, self._attempt_s = timeout_s, attempt_s
        self._position, self._end = -1, end
        self._wanted: list[tuple[int, int]] = []
        self._asked: list[_Asked] = []
        self._got: dict[int, bytes] = {}
        self._errors: dict[int, bytes] = {}
        self._tail = 0
        self._fresh = True
        self._loss = 0.0
        self._round_s: float | None = None
        self._heard_s = exchange.clock()
        self._garbled = exchange.garbled
        exchange.on_answer = self._take

    def close(self) -> None:
        """Stop reading ahead; what is still on its way is ignored."""
        if self._exchange.on_answer == self._take:
            self._exchange.on_answer = None
        self._asked.clear()
        self._wanted.clear()

    def extend(self, end: int) -> None:
        """Read ahead up to ``end``, when that is further than before."""
        if end > self._end:
            if self._position >= 0:
                self._want(max(self._end, self._position), end)
            self._end = end

    def read(self, position: int, size: int) -> ReadChunk:
        """Return 1 to ``size`` bytes from a position; waits for the first.

        Positions that only grow are read ahead; another one starts anew.

        Args:
            position: Log position, a multiple of ``wire.BLOCK_BYTES``.
            size: Bytes wanted at most. Beyond the end there are none: ``end`` is set.

        Raises:
            SilenceError: The device has stopped answering.
            DeviceError: It cannot read its card there.
        """
        self._seek(position)
        silent_since = self._exchange.clock()
        wait_s = self._patience()
        while True:
            if position in self._got:
                return self._deliver(position, size)
            if position < self._tail:
                return ReadChunk(self._tail, b"", end=False, gone=True)
            if position in self._errors:
                body = self._errors[position]
                self._position = -1  # whoever tries again starts anew
                self._exchange.check(body, f"READ at {position}")
            if position >= self._end:
                return ReadChunk(position, b"", end=True)
            self._fill()
            heard_s = self._heard_s
            now = self._exchange.clock()
            garbled = self._exchange.garbled
            self._exchange.pump(max(0.0, max(heard_s, silent_since) + wait_s - now))
            now = self._exchange.clock()
            if self._heard_s != heard_s:
                silent_since, wait_s = self._heard_s, self._patience()
            elif now >= max(heard_s, silent_since) + wait_s or not self._asked:
                if now - silent_since >= self._timeout_s:
                    raise SilenceError
                self._ask_again()
                heard_s = self._heard_s = now
                wait_s = min(2 * wait_s, self._attempt_s)
            elif self._exchange.garbled != garbled:
                # Bytes arrive: the device lives, and the next whole chunk tells what is missing.
                self._heard_s = now

    # -- what is wanted

    def _patience(self) -> float:
        rounds = 0.0 if self._round_s is None else 4 * self._round_s
        return min(max(_SHORTEST_WAIT_S, rounds), max(self._attempt_s, _SHORTEST_WAIT_S))

    def _seek(self, position: int) -> None:
        # Of a range with an unreadable block nothing behind that has come.
        passed = any(at < position for at in self._errors)
        if passed or not 0 <= self._position <= position:
            self._got.clear()
            self._errors.clear()
            self._asked.clear()
            self._fresh = True
            self._tail = 0
            start = position - position % wire.MAX_CHUNK_BYTES
            self._wanted = [(start, self._end)] if start < self._end else []
        elif position > self._position:
            for at in [at for at in self._got if at < position]:
                data = self._got.pop(at)
                if at + len(data) > position:
                    self._got[position] = data[position - at :]
            self._wanted = [(max(a, position), b) for a, b in self._wanted if b > position]
        self._position = position
        self._errors = {at: body for at, body in self._errors.items() if at >= position}

    def _want(self, start: int, end: int) -> None:
        """Note that a range is missing; neighbours become one."""
        start = max(start, self._position - self._position % wire.MAX_CHUNK_BYTES)
        if start >= end:
            return
        merged: list[tuple[int, int]] = []
        for a, b in sorted([*self._wanted, (start, end)]):
            if merged and a <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
            else:
                merged.append((a, b))
        self._wanted = merged

    def _fill(self) -> None:
        """Keep requests waiting on the device: the oldest gap first."""
        while self._wanted and len(self._asked) < wire.READ_QUEUE:
            start, end = self._wanted[0]
            if start >= self._position + _WINDOW_BYTES:
                return
            chunk = wire.MAX_CHUNK_BYTES
            if self._loss > _LOSS_HIGH or start % chunk:
                chunk = wire.BLOCK_BYTES
            size = min(end - start, _REQUEST_BYTES)
            request = wire.ReadRequest(
                position=start,
                size=size,
                chunk=chunk,
                flags=wire.StreamFlag.FRESH if self._fresh else 0,
            )
            self._fresh = False
            request_id = self._exchange.post(wire.FrameType.READ, request.pack())
            now = self._exchange.clock()
            if not self._asked:
                self._heard_s = now
            self._asked.append(_Asked(request_id, start, size, chunk, now))
            if start + size < end:
                self._wanted[0] = (start + size, end)
            else:
                del self._wanted[0]

    def _ask_again(self) -> None:
        """Nothing comes: give up what was asked for and start over with what is missing."""
        garbled, self._garbled = self._garbled, self._exchange.garbled
        if self._garbled != garbled:
            # Something came: chunks are lost, also where no later one shows the gap.
            self._count_lost(1)
        for asked in self._asked:
            self._want(asked.next, asked.end)
        self._asked.clear()
        self._fresh = True
        self._exchange.repetitions += 1

    # -- what arrives

    def _take(self, frame: Frame) -> None:
        """Sort in a chunk or a notice; anything else is an answer to somebody long gone."""
        if frame.type != wire.FrameType.READ | wire.RESPONSE:
            return
        at = next((i for i, asked in enumerate(self._asked) if asked.id == frame.id), None)
        if at is None or len(frame.body) < wire.ReadChunk.SIZE:
            return
        asked = self._asked[at]
        number = wire.ReadChunk.unpack(frame.body).number & ~wire.CHUNK_TRIMMED
        if number < asked.number or number * asked.chunk >= asked.size:
            return
        now = self._exchange.clock()
        self._heard_s = now
        if at == 0 and asked.number == 0 and number == 0 and len(self._asked) == 1:
            took = now - asked.sent_s
            self._round_s = took if self._round_s is None else 0.75 * self._round_s + 0.25 * took
        # Requests are served in order: what is missing before this chunk will not come any more.
        for earlier in self._asked[:at]:
            self._lose(earlier, earlier.end)
        del self._asked[:at]
        self._lose(asked, asked.position + number * asked.chunk)
        asked.number = number
        data = _log_bytes(frame.body)
        if answer_code(frame.body) == wire.Err.OK and data and not len(data) % wire.BLOCK_BYTES:
            self._take_chunk(asked, data)
        elif len(frame.body) >= wire.ReadNotice.SIZE:
            self._take_notice(asked, frame.body)
        else:
            self._want(asked.next, asked.end)
            self._asked.remove(asked)
        self._fill()

    def _lose(self, asked: _Asked, end: int) -> None:
        if end > asked.next:
            self._count_lost(-(-(end - asked.next) // asked.chunk))
            self._want(asked.next, end)

    def _count_lost(self, chunks: int) -> None:
        self.chunks_lost += chunks
        for _ in range(min(chunks, _LOSS_MEMORY)):
            self._loss += (1 - self._loss) / _LOSS_MEMORY

    def _store(self, position: int, data: bytes) -> None:
        if position + len(data) <= self._position:
            return
        if position < self._position:
            data = data[self._position - position :]
            position = self._position
        self._got.setdefault(position, data)

    def _take_chunk(self, asked: _Asked, data: bytes) -> None:
        full = min(asked.chunk, asked.end - asked.next)
        if len(data) > full:
            return
        self._store(asked.next, data)
        self._loss -= self._loss / _LOSS_MEMORY
        if self._loss < _LOSS_LOW:
            self._loss = 0.0
        if len(data) < full:
            # The durable end was there. What has become durable since is asked for anew.
            self._asked.remove(asked)
            if asked.next + len(data) < asked.end:
                self._want(asked.next + len(data), asked.end)
            return
        asked.number += 1
        if asked.next >= asked.end:
            self._asked.remove(asked)

    def _take_notice(self, asked: _Asked, body: bytes) -> None:
        notice = wire.ReadNotice.unpack(body)
        at = asked.next
        if notice.code == wire.Err.OK and notice.position > at:
            # Zeros are not sent; a range may end among them.
            stop = min(notice.position, asked.end)
            self._store(at, bytes(stop - at))
            asked.number += -(-(stop - at) // asked.chunk)
            if asked.next >= asked.end:
                self._asked.remove(asked)
            return
        self._asked.remove(asked)
        if notice.code == wire.Err.GONE and notice.position > at:
            self._tail = max(self._tail, notice.position)
            self._wanted = [(max(a, self._tail), b) for a, b in self._wanted if b > self._tail]
            self._want(max(at, self._tail), asked.end)
        elif notice.code == wire.Err.RANGE:
            self._end = min(self._end, max(at, self._position))
            self._wanted = [(a, min(b, self._end)) for a, b in self._wanted if a < self._end]
        elif notice.code == wire.Err.BUSY:
            self._want(at, asked.end)
        else:
            self._errors[max(at, self._position)] = body

    def _deliver(self, position: int, size: int) -> ReadChunk:
        parts: list[bytes] = []
        at, left = position, size
        while left > 0 and at in self._got:
            data = self._got.pop(at)
            if len(data) > left:
                self._got[at + left] = data[left:]
                data = data[:left]
            parts.append(data)
            at += len(data)
            left -= len(data)
        self._position = at
        return ReadChunk(position, b"".join(parts), end=at >= self._end)


def _log_bytes(body: bytes) -> bytes:
    """The log bytes of a chunk; none when it is a notice or does not fit together."""
    data = body[wire.ReadChunk.SIZE :]
    if not wire.ReadChunk.unpack(body).number & wire.CHUNK_TRIMMED:
        return data if len(body) != wire.ReadNotice.SIZE else b""
    if len(data) < wire.ReadTrim.SIZE:
        return b""
    trim = wire.ReadTrim.unpack(data)
    data = data[wire.ReadTrim.SIZE :]
    sizes = [trim.first] if trim.second == 0xFFFF else [trim.first, trim.second]
    if max(sizes) > wire.BLOCK_BYTES or sum(sizes) != len(data):
        return b""
    blocks = [data[: trim.first], data[trim.first :]][: len(sizes)]
    return b"".join(block.ljust(wire.BLOCK_BYTES, b"\0") for block in blocks)
