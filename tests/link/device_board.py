"""The whole device, compiled, on a simulated card, flash and line in memory."""

from __future__ import annotations

import random
import zlib
from functools import cache
from pathlib import Path

from cardsim import SimCard, format_card
from drip._core import ffi, lib
from flash_model import Flash

from drip import wire
from drip.compile import compile_model
from drip.device.framing import Frame, FrameReader, encode_frame

ROOT = Path(__file__).resolve().parents[2]
TFLITE = ROOT / "models" / "digits" / "model.tflite"
FRAME_BYTES = 64
FRAMES = [random.Random(7).randbytes(64) for _ in range(40)]
FRAMES = [bytes(byte % 17 for byte in frame) for frame in FRAMES]


@cache
def digits_model(parent: str = "") -> bytes:
    """Return the compiled model of the digits; another `parent`, another id."""
    return compile_model(TFLITE.read_bytes(), parent=parent)


def model_id(blob: bytes) -> bytes:
    return wire.BlobHeader.unpack(blob).model_id


def begin_fields(blob: bytes) -> dict[str, object]:
    """What MODEL BEGIN says about a blob."""
    header = wire.BlobHeader.unpack(blob)
    return {
        "total_bytes": len(blob),
        "arena_bytes": header.arena_bytes,
        "op_bitmap": header.op_bitmap,
        "blob_crc": zlib.crc32(blob),
        "model_id": header.model_id,
    }


class DeviceBoard:
    """A device and everything around it; `reset` is the power switch.

    Attributes:
        card: The card; kept over resets, as is `flash`.
        sensor: Frames that the sensor will deliver.
        sent: Bytes that the device sent and nobody has read yet.
        line_free: Bytes that the line still takes.
        resets: How often the device restarted itself.
    """

    def __init__(
        self,
        *,
        card: SimCard | None = None,
        flash: Flash | None = None,
        model: bytes | None = None,
        arena_bytes: int = 1 << 16,
        capture_bytes: int = 4096,
        sensor: bool = False,
    ) -> None:
        self.card = SimCard(bytearray(0), absent=True) if card is None else card
        self.flash = flash
        self.model = model
        self.sensor: list[bytes] = []
        self.sent = bytearray()
        self.line_free = 1 << 30
        self.resets = 0
        self.steps = 0
        self._to_device = bytearray()
        self._ids = 0
        port = self.card.port
        self._keep = [
            ffi.callback("int(void *, uint8_t *, uint32_t)", self._read),
            ffi.callback("int(void *, const uint8_t *, uint32_t)", self._write),
            ffi.callback("void(void *)", self._reset),
            ffi.callback("int(void *, uint8_t *, uint32_t, drip_frame_t *)", self._sensor),
        ]
        port.link_read, port.link_write, port.reset = self._keep[:3]
        port.sensor_poll = self._keep[3] if sensor else ffi.NULL
        port.device_id = bytes(range(16))
        port.name = b"memory"
        if flash is not None:
            flash.attach(port)
        self._lend(arena_bytes, capture_bytes)
        self.device = ffi.new("drip_device_t *")
        self.boot()

    def _lend(self, arena_bytes: int, capture_bytes: int) -> None:
        self._memory = [self._aligned(size) for size in (arena_bytes, capture_bytes, 4096)]
        self.memory = ffi.new("drip_device_memory_t *")
        self.memory.arena, self.memory.capture, self.memory.scratch = (
            pointer for _, pointer in self._memory
        )
        self.memory.arena_bytes = arena_bytes
        self.memory.capture_bytes = capture_bytes
        self.memory.scratch_bytes = 4096
        if self.model is not None:
            self._memory.append(self._aligned(len(self.model)))
            ffi.memmove(self._memory[-1][1], self.model, len(self.model))
            self.memory.fixed_model = self._memory[-1][1]
            self.memory.fixed_model_bytes = len(self.model)

    @staticmethod
    def _aligned(size: int) -> tuple[object, object]:
        owner = ffi.new("uint8_t[]", size + 16)
        address = int(ffi.cast("uintptr_t", owner))
        return owner, ffi.cast("uint8_t *", address + (-address) % 16)

    def _read(self, _context: object, data: object, size: int) -> int:
        count = min(size, len(self._to_device))
        ffi.memmove(data, bytes(self._to_device[:count]), count)
        del self._to_device[:count]
        return count

    def _write(self, _context: object, data: object, size: int) -> int:
        count = min(size, self.line_free)
        self.line_free -= count
        self.sent += ffi.buffer(data, count)[:]
        return count

    def _reset(self, _context: object) -> None:
        self.resets += 1

    def _sensor(self, _context: object, buffer: object, size: int, frame: object) -> int:
        if not self.sensor:
            return 0
        data = self.sensor.pop(0)
        assert len(data) <= size
        ffi.memmove(buffer, data, len(data))
        frame.size = len(data)  # type: ignore[attr-defined]
        frame.time_us = self.card.time_us  # type: ignore[attr-defined]
        return 1

    def boot(self) -> None:
        """Start the device from what card and flash hold."""
        ffi.memmove(self.device, b"\xa5" * ffi.sizeof("drip_device_t"), ffi.sizeof("drip_device_t"))
        assert lib.drip_device_init(self.device, self.card.port, self.memory) == 0
        self.reader = FrameReader()
        self.sent.clear()
        self._to_device.clear()

    def run(self, steps: int = 100_000, step_us: int = 100) -> None:
        """Let it work until it would sleep."""
        for _ in range(steps):
            self.steps += 1
            self.card.time_us += step_us
            if not lib.drip_device_step(self.device):
                return
        raise AssertionError("never idle")

    def wait(self, seconds: float) -> None:
        """Let it work through some time, a millisecond at a time."""
        for _ in range(int(seconds * 1000)):
            self.card.time_us += 1000
            lib.drip_device_step(self.device)

    def post(self, frame_type: int, body: bytes = b"", request_id: int | None = None) -> int:
        """Put a request on the line; return its id."""
        if request_id is None:
            self._ids += 1
            request_id = self._ids
        self._to_device += encode_frame(frame_type, request_id, body)
        return request_id

    def answers(self) -> list[Frame]:
        """Take the frames that the device has sent."""
        frames = self.reader.feed(bytes(self.sent))
        self.sent.clear()
        return frames

    def ask(self, frame_type: int, body: bytes = b"", request_id: int | None = None) -> bytes:
        """Send a request, let the device work, return the body of the only answer."""
        number = self.post(frame_type, body, request_id)
        self.run()
        frames = [frame for frame in self.answers() if frame.type != wire.FrameType.EVENT]
        assert [(frame.type, frame.id) for frame in frames] == [
            (frame_type | wire.RESPONSE, number)
        ]
        return frames[0].body

    def code(self, frame_type: int, body: bytes = b"", request_id: int | None = None) -> int:
        """Return only the code of the answer."""
        return wire.Response.unpack(self.ask(frame_type, body, request_id)).code

    def hello(self, schema_hash: int = wire.SCHEMA_HASH) -> wire.Hello:
        request = wire.HelloRequest(size=16, version=1, protocol=1, schema_hash=schema_hash)
        return wire.Hello.unpack(self.ask(wire.FrameType.HELLO, request.pack()), 4)

    def status(self) -> wire.Status:
        return wire.Status.unpack(self.ask(wire.FrameType.STATUS), 4)

    def config(self, **settings: int) -> int:
        items = [
            wire.ConfigItem(key=wire.Config[name.upper()], length=4, value=value).pack()
            for name, value in settings.items()
        ]
        return self.code(wire.FrameType.CONFIG_SET, b"".join(items))

    def feed(self, frame: bytes, token: int = 1, kind: int = wire.FrameType.FEED) -> wire.Result:
        body = self.ask(kind, feed_body(frame, token=token))
        assert wire.Response.unpack(body).code == 0
        return wire.Result.unpack(body, 4)

    def model_op(self, op: int, chunk: bytes = b"", **fields: object) -> wire.ModelResponse:
        request = wire.ModelRequest(op=op, **fields)  # type: ignore[arg-type]
        return wire.ModelResponse.unpack(self.ask(wire.FrameType.MODEL, request.pack() + chunk))

    def upload(self, blob: bytes) -> wire.ModelResponse:
        answer = self.model_op(wire.ModelOp.BEGIN, **begin_fields(blob))
        while answer.code == 0 and answer.offset < len(blob):
            chunk = blob[answer.offset : answer.offset + 1024]
            answer = self.model_op(wire.ModelOp.DATA, chunk, offset=answer.offset)
        return answer


def feed_body(
    frame: bytes, *, offset: int = 0, size: int = 1024, token: int = 1, stream_id: int = 0
) -> bytes:
    """Return the body of FEED or SCORE with one chunk of a frame."""
    head = wire.Feed(stream_id=stream_id, frame_bytes=len(frame), offset=offset, token=token)
    return head.pack() + frame[offset : offset + size]


def new_card(blocks: int = 2048) -> SimCard:
    card = SimCard(bytearray(blocks * 512))
    assert format_card(card, segment_blocks=64) == 0
    return card


def new_flash() -> Flash:
    return Flash(slot_bytes=32768, journal_bytes=512)


def board(**options: object) -> DeviceBoard:
    options.setdefault("model", digits_model())
    made = DeviceBoard(**options)  # type: ignore[arg-type]
    made.run()
    made.hello()
    return made
