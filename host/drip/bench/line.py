"""A device and the line to it in simulated time: the shipped C code, a card, a UART, a cable.

Time only passes while the host waits, so a run gives the same figures on every machine. What a host
computes takes no time here; what the card and the line take does.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from drip import wire
from drip.errors import LinkError, MissingDependencyError

__all__ = ["Faults", "LineEnd", "SimDevice"]

BITS_PER_BYTE = 10
TX_RING_BYTES = 80
RX_RING_BYTES = 48
_STEP_US = 100
_READ_US, _WRITE_US, _BLOCK_US = 400, 1000, 250


@dataclass(frozen=True)
class Faults:
    """What a line does to bytes, in both directions.

    Attributes:
        flip: Share of bytes with a wrong bit.
        drop: Share of bytes that vanish.
        double: Share of bytes that come twice.
        burst: Share of bytes at which ``burst_bytes`` bytes of noise begin.
        burst_bytes: Length of a burst.
        stall: Share of bytes before which the line stands still for ``stall_s``.
        stall_s: How long.
        repeat: Share of bytes at which all that was sent at once arrives twice.
        reorder: Share of bytes at which all that was sent at once arrives behind what follows.
    """

    flip: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    burst: float = 0.0
    burst_bytes: int = 64
    stall: float = 0.0
    stall_s: float = 0.05
    repeat: float = 0.0
    reorder: float = 0.0


class _Lane:
    """One direction: bytes leave at the line's rate, suffer, and arrive later."""

    def __init__(self, faults: Faults, rng: random.Random, latency_us: float) -> None:
        self.latency_us = latency_us
        self.free_us = 0.0
        self.bytes = 0
        self._faults = faults
        self._rng = rng
        self._kinds = [
            (name, share)
            for name in ("flip", "drop", "double", "burst", "stall", "repeat", "reorder")
            if (share := getattr(faults, name)) > 0
        ]
        self._next = {name: self._gap(share) for name, share in self._kinds}
        self._noise = 0
        self._late: list[bytes] = []
        # When the last byte arrives, the bytes, and how far apart they are.
        self._arriving: deque[tuple[float, bytes, float]] = deque()

    def _gap(self, share: float) -> int:
        return int(self._rng.expovariate(share)) + 1

    def send(self, now_us: float, data: bytes, byte_us: float) -> None:
        """Put bytes on the line behind those that are there."""
        self.bytes += len(data)
        self.free_us = max(now_us, self.free_us)
        if not self._kinds:
            self.free_us += len(data) * byte_us
            self._arriving.append((self.free_us + self.latency_us, data, byte_us))
            return
        out = bytearray()
        self._again = self._held = False
        for byte in data:
            self.free_us += byte_us
            out += self._suffer(byte)
        if self._held and not self._late:
            self._late.append(bytes(out))
            return
        pieces = [bytes(out)] * (2 if self._again else 1) + self._late
        self._late = []
        for piece in filter(None, pieces):
            self._arriving.append((self.free_us + self.latency_us, piece, byte_us))

    def _suffer(self, byte: int) -> bytes:
        copies = 1
        for name, share in self._kinds:
            self._next[name] -= 1
            if self._next[name] > 0:
                continue
            self._next[name] = self._gap(share)
            if name == "flip":
                byte ^= 1 << self._rng.randrange(8)
            elif name == "drop":
                copies = 0
            elif name == "double":
                copies = 2
            elif name == "burst":
                self._noise = self._faults.burst_bytes
            elif name == "repeat":
                self._again = True
            elif name == "reorder":
                self._held = True
            else:
                self.free_us += self._faults.stall_s * 1e6
        if self._noise:
            self._noise -= 1
            byte = self._rng.randrange(256)
        return bytes([byte]) * copies

    def inject(self, now_us: float, data: bytes) -> None:
        """Let bytes arrive that nobody sent."""
        self._arriving.append((max(now_us, self.free_us) + self.latency_us, data, 0.0))

    def clear(self) -> None:
        """Lose what is on the line."""
        self._arriving.clear()
        self._late = []

    def take(self, now_us: float) -> bytes:
        """Return what has arrived."""
        out = bytearray()
        while self._arriving:
            last_us, data, byte_us = self._arriving[0]
            if last_us <= now_us:
                out += data
                self._arriving.popleft()
                continue
            # A UART hands over byte by byte: a whole request would not fit into the ring.
            missing = math.ceil((last_us - now_us) / byte_us) if byte_us else len(data)
            if missing < len(data):
                out += data[: len(data) - missing]
                self._arriving[0] = (last_us, data[len(data) - missing :], byte_us)
            break
        return bytes(out)


@dataclass
class _Transfer:
    write: bool
    block: int
    data: Any
    count: int
    done_us: float


class _Card:
    """Blocks in memory that take their time."""

    def __init__(self, content: bytearray, ffi: Any, now: Callable[[], float]) -> None:
        self.content = content
        self._ffi, self._now = ffi, now
        self._transfer: _Transfer | None = None
        self.callbacks = {
            "card_blocks": ffi.callback("int(void *, uint32_t *)", self._blocks),
            "card_read": ffi.callback("int(void *, uint32_t, uint8_t *, uint32_t)", self._read),
            "card_write": ffi.callback(
                "int(void *, uint32_t, const uint8_t *, uint32_t)", self._write
            ),
            "card_poll": ffi.callback("int(void *)", self._poll),
        }

    def power_loss(self) -> None:
        """What was under way does not happen."""
        self._transfer = None

    def _blocks(self, _context: object, blocks: Any) -> int:
        blocks[0] = len(self.content) // wire.BLOCK_BYTES
        return 0

    def _start(self, write: bool, block: int, data: Any, count: int) -> int:
        if self._transfer is not None:
            return int(wire.Err.STATE)
        took = (_WRITE_US if write else _READ_US) + _BLOCK_US * count
        self._transfer = _Transfer(write, block, data, count, self._now() + took)
        return 0

    def _read(self, _context: object, block: int, data: Any, count: int) -> int:
        return self._start(False, block, data, count)

    def _write(self, _context: object, block: int, data: Any, count: int) -> int:
        return self._start(True, block, data, count)

    def _poll(self, _context: object) -> int:
        job = self._transfer
        if job is None:
            return int(wire.Err.STATE)
        if self._now() < job.done_us:
            return int(wire.Err.BUSY)
        self._transfer = None
        at, size = job.block * wire.BLOCK_BYTES, job.count * wire.BLOCK_BYTES
        view = self._ffi.buffer(self._ffi.cast("uint8_t *", job.data), size)
        if job.write:
            self.content[at : at + size] = view[:]
        else:
            view[:] = bytes(self.content[at : at + size])
        return 0


class SimDevice:
    """The firmware's core on a simulated board; :class:`LineEnd` is the host's end of its line.

    Args:
        baud: Bits per second, 10 per byte.
        latency_s: Each way.
        faults: What the line does.
        seed: Of the faults.
        card_bytes, segment_bytes: Of the card and its log.
        frame_bytes: Of the capture buffer.
        tx_ring, rx_ring: Bytes that the UART's interrupts hold.
        step_s: From one look of the owner at the line to the next.
        model: A fixed model; without one every frame is kept.
        prepare: Called with the port before the device starts, for instance to add flash.

    Raises:
        MissingDependencyError: The core was not compiled.
    """

    def __init__(
        self,
        *,
        baud: int = 921_600,
        latency_s: float = 0.001,
        faults: Faults | None = None,
        seed: int = 1,
        card_bytes: int = 4 << 20,
        segment_bytes: int = 256 << 10,
        frame_bytes: int = 1024,
        tx_ring: int = TX_RING_BYTES,
        rx_ring: int = RX_RING_BYTES,
        step_s: float = _STEP_US / 1e6,
        model: bytes | None = None,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        try:
            from drip._core import ffi, lib
        except ImportError as error:
            raise MissingDependencyError(
                "the core is not compiled", "run: python tools/build/compile_core.py"
            ) from error
        self.ffi, self.lib = ffi, lib
        self.now_us = 0.0
        self.baud = self.host_baud = baud
        self.fastest, self.reset_baud = 3_000_000, baud
        self.resets = 0
        self.restart_wanted = False
        self._latency_us = latency_s * 1e6
        self.suffer(faults or Faults(), seed)
        self.overruns = 0
        self._step_us = step_s * 1e6
        self._tx_ring, self._rx_ring = tx_ring, rx_ring
        self._received = bytearray()
        self.card = _Card(bytearray(card_bytes), ffi, lambda: self.now_us)
        self._make_port()
        if prepare is not None:
            prepare(self.port)
        self._format(card_bytes, segment_bytes)
        self._lend(frame_bytes, model)
        self.device = ffi.new("drip_device_t *")
        self.boot()

    def suffer(self, faults: Faults, seed: int) -> None:
        """Put another line between device and host; what is on the old one is lost."""
        rng = random.Random(seed)
        self.to_host = _Lane(faults, rng, self._latency_us)
        self.to_device = _Lane(faults, rng, self._latency_us)

    def _make_port(self) -> None:
        ffi = self.ffi
        self._callbacks = {
            "time_us": ffi.callback("uint64_t(void *)", lambda _context: int(self.now_us)),
            "link_read": ffi.callback("int(void *, uint8_t *, uint32_t)", self._link_read),
            "link_write": ffi.callback("int(void *, const uint8_t *, uint32_t)", self._link_write),
            "link_baud": ffi.callback("int(void *, uint32_t)", self._link_baud),
            "reset": ffi.callback("void(void *)", self._reset),
            **self.card.callbacks,
        }
        self.port = ffi.new("drip_port_t *")
        for name, callback in self._callbacks.items():
            setattr(self.port, name, callback)
        self.port.device_id = bytes(range(16))
        self.port.name = b"simulated"
        self.port.baud_most = self.fastest

    def _format(self, card_bytes: int, segment_bytes: int) -> None:
        ffi = self.ffi
        geometry = ffi.new("drip_log_geometry_t *")
        geometry.uuid = bytes(range(16))
        geometry.blocks = card_bytes // wire.BLOCK_BYTES
        geometry.unit_blocks = min(64, segment_bytes // wire.BLOCK_BYTES)
        geometry.segment_blocks = segment_bytes // wire.BLOCK_BYTES
        # Formatting waits for the card, so time must pass meanwhile.
        clock = ffi.callback("int(void *)", self._poll_at_once)
        poll, self.port.card_poll = self.port.card_poll, clock
        result = self.lib.drip_log_format(self.port, geometry, ffi.new("drip_superblock_t *"))
        self.port.card_poll = poll
        if result != 0:
            raise ValueError(f"the card cannot be formatted: {result}")

    def _poll_at_once(self, _context: object) -> int:
        self.now_us += 1e6
        return self.card._poll(None)

    def _lend(self, frame_bytes: int, model: bytes | None) -> None:
        sizes = (1 << 16, frame_bytes, 4096, len(model or b""))
        self._owned = [self._aligned(size) for size in sizes]
        memory = self.ffi.new("drip_device_memory_t *")
        memory.arena, memory.capture, memory.scratch = (at for _, at in self._owned[:3])
        memory.arena_bytes, memory.capture_bytes, memory.scratch_bytes = sizes[:3]
        if model:
            self.ffi.memmove(self._owned[3][1], model, len(model))
            memory.fixed_model, memory.fixed_model_bytes = self._owned[3][1], len(model)
        self.memory = memory

    def _aligned(self, size: int) -> tuple[Any, Any]:
        owner = self.ffi.new("uint8_t[]", size + 16)
        address = int(self.ffi.cast("uintptr_t", owner))
        return owner, self.ffi.cast("uint8_t *", address + (-address) % 16)

    # -- the UART

    @property
    def byte_us(self) -> float:
        """How long a byte takes."""
        return BITS_PER_BYTE * 1e6 / self.baud

    def hear(self, data: bytes) -> bytes:
        """What arrives of bytes when both ends may have different rates."""
        if self.baud == self.host_baud:
            return data
        return bytes((byte * 37 + 11) & 0xFF for byte in data)

    def _link_write(self, _context: object, data: Any, size: int) -> int:
        waiting = max(0.0, self.to_host.free_us - self.now_us) / self.byte_us
        # A line that stands still must not look like a full ring of bytes for ever.
        count = min(size, max(0, int(self._tx_ring - waiting)))
        if count:
            sent = self.hear(self.ffi.buffer(data, count)[:])
            self.to_host.send(self.now_us, sent, self.byte_us)
        return count

    def _link_read(self, _context: object, data: Any, size: int) -> int:
        self._received += self.to_device.take(self.now_us)
        count = min(size, len(self._received))
        self.ffi.memmove(data, bytes(self._received[:count]), count)
        del self._received[:count]
        return count

    def _link_baud(self, _context: object, baud: int) -> int:
        if self.to_host.free_us > self.now_us:
            return int(wire.Err.BUSY)
        if baud > self.fastest:
            return int(wire.Err.ARGUMENT)
        self.baud = baud
        return 0

    def _interrupt(self) -> None:
        """Bytes that arrive while the ring is full are lost."""
        self._received += self.to_device.take(self.now_us)
        if len(self._received) > self._rx_ring:
            self.overruns += len(self._received) - self._rx_ring
            del self._received[self._rx_ring :]

    # -- running

    def _reset(self, _context: object) -> None:
        self.resets += 1
        self.restart_wanted = True

    def boot(self) -> None:
        """Start, or restart after a power loss: only the card keeps what it holds."""
        self.port.boot_reason = (
            wire.BootReason.REQUEST if self.restart_wanted else wire.BootReason.POWER
        )
        self.restart_wanted = False
        self.card.power_loss()
        self._received.clear()
        self.baud = self.reset_baud
        if self.lib.drip_device_init(self.device, self.port, self.memory) != 0:
            raise ValueError("the device cannot start")

    def step(self) -> None:
        """Let the device work for one piece of time."""
        self._interrupt()
        self.lib.drip_device_step(self.device)
        if self.restart_wanted:
            self.boot()
        self.now_us += self._step_us

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now_us + seconds * 1e6
        while self.now_us < until:
            self.step()

    def status(self) -> Any:
        """The device's counters, without asking over the line."""
        out = self.ffi.new("drip_status_t *")
        self.lib.drip_device_status(self.device, out)
        return out

    def log_frames(self, frames: list[bytes], every_s: float = 0.01) -> None:
        """Give the device frames as if from its sensor, and wait until all are durable."""
        for data in frames:
            frame = self.ffi.new("drip_frame_t *")
            held = self.ffi.from_buffer("uint8_t[]", data)
            frame.data, frame.size, frame.time_us = held, len(data), int(self.now_us)
            while self.lib.drip_device_offer(self.device, frame) != 0:
                self.step()
            until = self.now_us + every_s * 1e6
            while not self.lib.drip_device_idle(self.device, self.ffi.NULL):
                self.step()
            self.now_us = max(self.now_us, until)
        self.lib.drip_log_sync(self.ffi.addressof(self.device, "log"))
        while self.status().records_pending:
            self.step()


@dataclass
class LineEnd:
    """The host's end of the line to a simulated device: a transport.

    Attributes:
        device: What is at the other end.
        cut_at_us: From then on the cable is out.
        on_read: Called before every wait, for faults at a moment of choice.
    """

    device: SimDevice
    name: str = "simulated"
    cut_at_us: float | None = None
    on_read: Callable[[], None] | None = None
    _arrived: bytearray = field(default_factory=bytearray)

    def clock(self) -> float:
        """Simulated seconds."""
        return self.device.now_us / 1e6

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass."""
        self.device.run(seconds)

    def _check(self) -> None:
        if self.cut_at_us is not None and self.device.now_us >= self.cut_at_us:
            raise LinkError(f"{self.name} has gone: cable out", "plug it in again")

    def read(self, size: int, timeout_s: float) -> bytes:
        """See :class:`drip.device.Transport`."""
        device = self.device
        until = device.now_us + max(0.0, timeout_s) * 1e6
        while True:
            self._check()
            if self.on_read is not None:
                self.on_read()
            self._arrived += device.to_host.take(device.now_us)
            if self._arrived or device.now_us >= until:
                data = bytes(self._arrived[:size])
                del self._arrived[:size]
                return data
            device.step()

    def write(self, data: bytes) -> None:
        """See :class:`drip.device.Transport`."""
        self._check()
        device = self.device
        device.to_device.send(device.now_us, device.hear(data), device.byte_us)

    def set_baud(self, baud: int) -> None:
        """See :class:`drip.device.transport.HasBaud`."""
        self.device.run(max(0.0, self.device.to_device.free_us - self.device.now_us) / 1e6)
        self.device.host_baud = baud

    def close(self) -> None:
        """See :class:`drip.device.Transport`."""
