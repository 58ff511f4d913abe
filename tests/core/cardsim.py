"""A simulated card, and the compiled log stage on it, for tests.

The card takes effect when a transfer is polled done, not when it starts: a log that lets its buffer
go too early fails here. Every block written is noted, so that a test can rebuild the card as it was
when power failed at any block, or in the middle of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from drip._core import ffi, lib

from drip import wire

BLOCK = wire.BLOCK_BYTES
OK = int(wire.Err.OK)
REFUSED = int(lib.DRIP_LOG_REFUSED)
BUSY = int(wire.Err.BUSY)


@dataclass
class SimCard:
    """Blocks in memory.

    Attributes:
        data: Content.
        polls_busy: Polls that each transfer stays busy for.
        writes: Every block written, in order: number, content.
        read_errors: Blocks that cannot be read.
        write_errors: Blocks that cannot be written.
        lie_at: The read with this number (as ``reads`` counts) comes back with a bit flipped.
        lie: Which bit of it.
        absent: Every operation answers NO_CARD.
        protected: Every write answers PROTECTED when it is polled.
    """

    data: bytearray
    polls_busy: int = 0
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    reads: int = 0
    read_errors: set[int] = field(default_factory=set)
    write_errors: set[int] = field(default_factory=set)
    lie_at: int = -1
    lie: int = 0
    absent: bool = False
    protected: bool = False
    time_us: int = 0

    def __post_init__(self) -> None:
        self._transfer: tuple[str, int, object, int] | None = None
        self._busy = 0
        self.port = ffi.new("drip_port_t *")
        self._keep = [
            ffi.callback("uint64_t(void *)", lambda _: self.time_us),
            ffi.callback("int(void *, uint32_t *)", self._blocks),
            ffi.callback("int(void *, uint32_t, uint8_t *, uint32_t)", self._read),
            ffi.callback("int(void *, uint32_t, const uint8_t *, uint32_t)", self._write),
            ffi.callback("int(void *)", self._poll),
        ]
        port = self.port
        (port.time_us, port.card_blocks, port.card_read, port.card_write, port.card_poll) = (
            self._keep
        )

    @property
    def blocks(self) -> int:
        return len(self.data) // BLOCK

    def _blocks(self, _: object, blocks: object) -> int:
        blocks[0] = self.blocks  # type: ignore[index]
        return int(wire.Err.NO_CARD) if self.absent else OK

    def _start(self, kind: str, block: int, data: object, count: int) -> int:
        assert self._transfer is None, "two transfers at a time"
        if self.absent:
            return int(wire.Err.NO_CARD)
        assert count > 0 and block + count <= self.blocks, "outside of the card"
        self._transfer = (kind, block, data, count)
        self._busy = self.polls_busy
        return OK

    def _read(self, _: object, block: int, data: object, count: int) -> int:
        return self._start("read", block, data, count)

    def _write(self, _: object, block: int, data: object, count: int) -> int:
        return self._start("write", block, data, count)

    def _poll(self, _: object) -> int:
        if self._busy > 0:
            self._busy -= 1
            return BUSY
        assert self._transfer is not None, "nothing to poll"
        kind, block, data, count = self._transfer
        self._transfer = None
        if self.absent:
            return int(wire.Err.NO_CARD)
        if self.protected and kind == "write":
            return int(wire.Err.PROTECTED)
        broken = self.read_errors if kind == "read" else self.write_errors
        if any(number in broken for number in range(block, block + count)):
            return int(wire.Err.IO)
        view = ffi.buffer(ffi.cast("uint8_t *", data), count * BLOCK)
        at = block * BLOCK
        if kind == "read":
            lies = self.reads <= self.lie_at < self.reads + count
            view[:] = bytes(self.data[at : at + count * BLOCK])
            if lies:
                wrong = (self.lie_at - self.reads) * BLOCK + self.lie // 8
                view[wrong : wrong + 1] = bytes([view[wrong][0] ^ 1 << self.lie % 8])
            self.reads += count
            return OK
        self.data[at : at + count * BLOCK] = view[:]
        for number in range(count):
            self.writes.append((block + number, bytes(view[number * BLOCK : (number + 1) * BLOCK])))
        return OK


def config(
    commit_ms: int = 1_000_000,
    commit_bytes: int = 0,
    full_mode: int = wire.FullMode.OVERWRITE_ACKED,
) -> object:
    """A log configuration; by default nothing is committed unless asked."""
    made = ffi.new("drip_log_config_t *")
    made.commit_ms, made.commit_bytes, made.full_mode = commit_ms, commit_bytes, int(full_mode)
    return made


def format_card(
    card: SimCard,
    *,
    uuid: bytes = bytes(range(16)),
    first_block: int = 0,
    blocks: int | None = None,
    unit_blocks: int = 4,
    segment_blocks: int = 8,
) -> int:
    """Make an empty log; returns the core's result."""
    geometry = ffi.new("drip_log_geometry_t *")
    geometry.uuid = uuid
    geometry.first_block = first_block
    geometry.blocks = card.blocks - first_block if blocks is None else blocks
    geometry.unit_blocks, geometry.segment_blocks = unit_blocks, segment_blocks
    return lib.drip_log_format(card.port, geometry, ffi.new("drip_superblock_t *"))


class Log:
    """The log stage on a simulated card, driven until idle by every call."""

    def __init__(self, card: SimCard, settings: object | None = None, first_block: int = 0) -> None:
        self.card = card
        self.settings = config() if settings is None else settings
        self.log = ffi.new("drip_log_t *")
        self.first_block = first_block
        self.mount()

    def mount(self) -> int:
        assert (
            lib.drip_log_mount(self.log, self.card.port, self.settings, self.first_block, 0) == OK
        )
        self.drive()
        return self.state

    @property
    def state(self) -> int:
        return self.log.card

    @property
    def segment_bytes(self) -> int:
        return self.log.super.segment_blocks * BLOCK

    @property
    def tail(self) -> int:
        return lib.drip_log_tail(self.log)

    @property
    def durable(self) -> int:
        return lib.drip_log_durable(self.log)

    @property
    def acked(self) -> int:
        return lib.drip_log_acked(self.log)

    @property
    def pending(self) -> int:
        return lib.drip_log_pending(self.log)

    def drive(self, limit: int = 1_000_000) -> None:
        step, log = lib.drip_log_step, self.log
        while step(log):
            limit -= 1
            assert limit > 0, "the log never comes to rest"

    def start_append(self, payload: bytes, **fields: object) -> tuple[int, int, object]:
        """Start an append: its result, sequence number, and the payload that must live on."""
        header = ffi.new("drip_record_header_t *")
        header.payload_bytes = len(payload)
        for name, value in fields.items():
            setattr(header, name, value)
        buffer = ffi.from_buffer("uint8_t[]", bytes(payload))
        return lib.drip_log_append(self.log, header, buffer), header.seq, buffer

    def append(self, payload: bytes, **fields: object) -> int:
        """Append and return the sequence number, 0 when it is refused, or the error (negative)."""
        result, seq, keep = self.start_append(payload, **fields)
        self.drive()
        del keep
        if result == REFUSED:
            return 0
        return seq if result == OK else result

    def sync(self) -> int:
        result = lib.drip_log_sync(self.log)
        self.drive()
        return result

    def ack(self, segment: int, records: int, digest: int) -> int:
        result = lib.drip_log_ack(self.log, segment, records, digest)
        if result != OK:
            return result
        self.drive()
        return lib.drip_log_ack_poll(self.log)

    def read(self, position: int, size: int = 2 * BLOCK) -> bytes | int:
        """Bytes from a position, or the error (negative)."""
        out = ffi.new("uint8_t[]", size)
        result = lib.drip_log_read(self.log, position, out, size)
        if result != OK:
            return result
        self.drive()
        result = lib.drip_log_read_poll(self.log)
        return ffi.buffer(out)[:result] if result >= 0 else result

    def segments(self) -> dict[int, bytes]:
        """Everything that is durable, by segment number."""
        found: dict[int, bytes] = {}
        position = self.tail
        while position < self.durable:
            chunk = self.read(position, 16 * BLOCK)
            assert isinstance(chunk, bytes) and chunk, (position, chunk)
            number = position // self.segment_bytes
            found[number] = found.get(number, b"") + chunk
            position += len(chunk)
        return found
