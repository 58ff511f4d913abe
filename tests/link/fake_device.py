"""A device in a few lines, for faults on the line that a real one cannot be asked to have.

It is no oracle: the same tests run against the native device wherever a fault is not needed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from drip import wire
from drip.device import Client, Frame, FrameReader, encode_frame

UUID = bytes(range(16))
SEGMENT_BYTES = 4096
MODEL = b"old model id 16b"
_NEED_SCHEMA = (
    wire.FrameType.FEED,
    wire.FrameType.SCORE,
    wire.FrameType.CONFIG_SET,
    wire.FrameType.MODEL,
)


@dataclass
class FakeLog:
    """Segments of a log, laid out as docs/SPEC.md says."""

    uuid: bytes = UUID
    segment_bytes: int = SEGMENT_BYTES
    streams: tuple[wire.Stream, ...] = (
        wire.Stream(id=0, dtype=wire.Dtype.U8, rank=2, shape=(8, 8, 1, 1), scale=0.5, offset=-1.0),
    )
    segments: list[bytearray] = field(default_factory=list)
    acked: int = 0
    tail: int = 0
    offset: int = 0
    durable_offset: int = 0
    open: bool = False
    next_seq: int = 0
    crcs: list[list[int]] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    frames: dict[int, bytes] = field(default_factory=dict)

    def append(self, payload: bytes, **fields: int) -> int:
        """Append a record; return its sequence number."""
        need = -(-(wire.RecordHeader.SIZE + len(payload)) // 8) * 8
        if not self.open or self.offset + need > self.segment_bytes:
            self._open()
        seq = self.next_seq
        self.next_seq += 1
        header = wire.RecordHeader(
            magic=wire.RECORD_MAGIC,
            version=wire.RECORD_VERSION,
            header_bytes=wire.RecordHeader.SIZE,
            payload_bytes=len(payload),
            seq=seq,
            time_us=1000 * seq,
            boot_id=7,
            model_id=MODEL[:8],
            payload_crc=zlib.crc32(payload),
            **fields,
        )
        number = len(self.segments) - 1
        place = self.uuid + number.to_bytes(4, "little")
        crc = zlib.crc32(place + header.pack()[:60])
        data = replace(header, header_crc=crc).pack() + payload
        self.segments[-1][self.offset : self.offset + len(data)] = data
        self.offset += need
        self.crcs[-1].append(crc)
        self.frames[seq] = payload
        return seq

    def commit(self) -> None:
        """Make everything durable: the block is filled up."""
        self.offset = -(-self.offset // 512) * 512
        self.durable_offset = self.offset
        if self.open:
            self.used[-1] = self.offset

    def digest(self, segment: int) -> tuple[int, int]:
        """Records of a segment, and the digest over their header CRCs."""
        crcs = self.crcs[segment]
        return len(crcs), zlib.crc32(b"".join(struct.pack("<I", crc) for crc in crcs))

    @property
    def durable(self) -> int:
        """First position that is not durable."""
        if not self.open:
            return len(self.segments) * self.segment_bytes
        return (len(self.segments) - 1) * self.segment_bytes + self.durable_offset

    def read(self, position: int, size: int) -> bytes:
        """Bytes that are durable, never past the end of a segment."""
        number, at = divmod(position, self.segment_bytes)
        limit = self.segment_bytes
        if self.open and number == len(self.segments) - 1:
            limit = self.durable_offset
        return bytes(self.segments[number][at : min(at + size, limit)])

    def _open(self) -> None:
        number = len(self.segments)
        previous = self.digest(number - 1) if number else (0, 0)
        if number:
            self.used[-1] = self.offset if self.open else self.used[-1]
        streams = self.streams + (wire.Stream(),) * (4 - len(self.streams))
        header = wire.SegmentHeader(
            magic=wire.SEGMENT_MAGIC,
            version=wire.SEGMENT_VERSION,
            header_bytes=wire.SegmentHeader.SIZE,
            log_uuid=self.uuid,
            segment=number,
            boot_id=7,
            first_seq=self.next_seq,
            segment_bytes=self.segment_bytes,
            previous_records=previous[0],
            previous_digest=previous[1],
            previous_bytes=self.used[-1] if number else 0,
            stream_count=len(self.streams),
            streams=streams,
        )
        raw = header.pack()
        raw = raw[:508] + struct.pack("<I", zlib.crc32(raw[:508]))
        self.segments.append(bytearray(raw + bytes(self.segment_bytes - len(raw))))
        self.crcs.append([])
        self.used.append(len(raw))
        self.offset = self.durable_offset = len(raw)
        self.open = True


class FakeDevice:
    """Answers requests; also the transport to itself, on a clock of its own.

    Attributes:
        seen: Types of the requests that arrived, in order.
        on_request: Called with (index, frame) before a request is handled; may raise.
        on_answer: Gets and returns the bytes of an answer; ``b""`` loses it.
    """

    name = "fake"

    def __init__(self, log: FakeLog | None = None) -> None:
        self.log = log or FakeLog()
        self.seen: list[int] = []
        self.on_request: Callable[[int, Frame], None] = lambda index, frame: None
        self.on_answer: Callable[[int, bytes], bytes] = lambda index, data: data
        self.busy = 0
        self.boot_id = 7
        self.schema_hash = wire.SCHEMA_HASH
        self.hello_bytes = wire.Hello.SIZE
        self.schema_ok = False
        self.card_state = int(wire.CardState.READY)
        self.fed: list[bytes] = []
        self.partial = b""
        self.last_result: tuple[int, bytes] | None = None
        self.config = {int(wire.Config.SEED): 1}
        self.confirmed = self.active = MODEL
        self.upload = b""
        self.begun: wire.ModelRequest | None = None
        self.selftest_passes = True
        self.now = 0.0
        self._reader = FrameReader()
        self._out = bytearray()

    def client(self, **options: float) -> Client:
        """A client on this device and its clock."""
        return Client(self, clock=lambda: self.now, sleep=self._sleep, **options)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    # -- the transport

    def read(self, size: int, timeout_s: float) -> bytes:
        data = bytes(self._out[:size])
        del self._out[:size]
        if not data:
            self.now += max(timeout_s, 0.001)
        return data

    def write(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            index = len(self.seen)
            self.seen.append(frame.type)
            self.on_request(index, frame)
            body = self._answer(frame)
            answer = encode_frame(frame.type | wire.RESPONSE, frame.id, body)
            self._out += self.on_answer(index, answer)

    def close(self) -> None:
        pass

    def say(self, data: bytes) -> None:
        """Put stray bytes on the line."""
        self._out += data

    def restart(self) -> None:
        """What is only in RAM is gone."""
        self.boot_id += 1
        self.schema_ok = False
        self.partial = b""
        self.begun = None
        self.upload = b""
        self.active = self.confirmed

    # -- the device

    def _answer(self, frame: Frame) -> bytes:
        kind = wire.FrameType(frame.type)
        if self.busy and kind != wire.FrameType.HELLO:
            self.busy -= 1
            return self._code(wire.Err.BUSY)
        if kind in _NEED_SCHEMA and not self.schema_ok:
            return self._code(wire.Err.SCHEMA)
        return getattr(self, f"_{kind.name.lower()}")(frame.body)

    @staticmethod
    def _code(code: int) -> bytes:
        return wire.Response(code=code).pack()

    def _hello(self, body: bytes) -> bytes:
        self.schema_ok = wire.HelloRequest.unpack(body).schema_hash == self.schema_hash
        hello = wire.Hello(
            size=self.hello_bytes,
            version=1,
            protocol=wire.PROTOCOL,
            schema_hash=self.schema_hash,
            device_id=b"D" * 16,
            model_id=self.active,
            log_uuid=self.log.uuid,
            op_bitmap=0xFFFF,
            capabilities=wire.Capability.MODEL_PUSH | wire.Capability.FEED,
            max_body=wire.MAX_BODY_BYTES,
            arena_bytes=65536,
            slot_bytes=65536,
            boot_id=self.boot_id,
            card_state=self.card_state,
        ).pack()
        grown = hello + b"\xee" * 64
        return self._code(0) + grown[: self.hello_bytes]

    def _status(self, body: bytes) -> bytes:
        log = self.log
        status = wire.Status(
            size=wire.Status.SIZE,
            version=1,
            log_tail=log.tail * log.segment_bytes,
            log_durable=log.durable,
            log_end=log.durable,
            log_acked=max(log.acked, log.tail) * log.segment_bytes,
            card_state=self.card_state,
            boot_id=self.boot_id,
        )
        return self._code(0) + status.pack()

    def _time(self, body: bytes) -> bytes:
        return wire.TimeResponse(boot_id=self.boot_id, time_us=5_000_000).pack()

    def _sync(self, body: bytes) -> bytes:
        self.log.commit()
        return self._code(0)

    def _read(self, body: bytes) -> bytes:
        request = wire.ReadRequest.unpack(body)
        log = self.log
        if request.position < log.tail * log.segment_bytes:
            return wire.ReadResponse(
                code=wire.Err.GONE, position=log.tail * log.segment_bytes
            ).pack()
        if request.position >= log.durable:
            return wire.ReadResponse(code=wire.Err.RANGE, position=request.position).pack()
        assert request.position % 512 == 0
        assert 512 <= request.size <= wire.MAX_CHUNK_BYTES
        data = log.read(request.position, request.size // 512 * 512)
        return wire.ReadResponse(size=len(data), position=request.position).pack() + data

    def _ack(self, body: bytes) -> bytes:
        ack = wire.Ack.unpack(body)
        log = self.log
        code = wire.Err.OK
        if ack.segment >= log.acked:
            if ack.segment != max(log.acked, log.tail) or ack.segment >= len(log.segments):
                code = wire.Err.STATE
            elif (ack.records, ack.digest) != log.digest(ack.segment):
                code = wire.Err.DIGEST
            else:
                log.acked = ack.segment + 1
                if log.acked == len(log.segments) and log.open:
                    log.commit()
                    log.open = False
        return wire.AckResponse(code=code, acked_segment=log.acked).pack()

    def _feed(self, body: bytes) -> bytes:
        feed, chunk = wire.Feed.unpack(body), body[wire.Feed.SIZE :]
        if self.last_result is not None and self.last_result[0] == feed.token:
            return self._code(0) + self.last_result[1]
        if feed.offset == 0:
            self.partial = b""
        if feed.offset != len(self.partial):
            return self._code(wire.Err.STATE)
        self.partial += chunk
        if len(self.partial) < feed.frame_bytes:
            return self._code(0)
        self.fed.append(self.partial)
        seq = self.log.append(self.partial)
        result = wire.Result(token=feed.token, keep=1, percentile=9, seq=seq).pack()
        self.last_result = (feed.token, result)
        return self._code(0) + result

    def _config_get(self, body: bytes) -> bytes:
        items = (wire.ConfigItem(key, 4, value).pack() for key, value in self.config.items())
        # A key of another length, as a later schema may bring.
        return self._code(0) + struct.pack("<HHH", 99, 2, 5) + b"".join(items)

    def _config_set(self, body: bytes) -> bytes:
        for at in range(0, len(body), wire.ConfigItem.SIZE):
            item = wire.ConfigItem.unpack(body, at)
            if item.key not in list(wire.Config):
                return self._code(wire.Err.ARGUMENT)
            self.config[item.key] = item.value
        return self._code(0)

    def _reset(self, body: bytes) -> bytes:
        self.restart()
        return self._code(0)

    def _model(self, body: bytes) -> bytes:
        request, chunk = wire.ModelRequest.unpack(body), body[wire.ModelRequest.SIZE :]
        code = wire.Err.OK
        op = wire.ModelOp(request.op)
        if op == wire.ModelOp.BEGIN:
            if self.begun is None or self.begun.blob_crc != request.blob_crc:
                self.begun, self.upload = request, b""
        elif op == wire.ModelOp.DATA:
            if self.begun is None:
                code = wire.Err.STATE
            elif request.offset > len(self.upload):
                code = wire.Err.RANGE
            else:
                self.upload = self.upload[: request.offset] + chunk
        elif op == wire.ModelOp.TRIAL:
            if self.begun is None or zlib.crc32(self.upload) != self.begun.blob_crc:
                code = wire.Err.CRC
            elif not self.selftest_passes:
                code = wire.Err.SELFTEST
            else:
                self.active = self.begun.model_id
        elif op == wire.ModelOp.CONFIRM:
            self.confirmed = self.active
        elif op == wire.ModelOp.ABORT:
            self.active, self.begun, self.upload = self.confirmed, None, b""
        state = wire.SlotState.CONFIRMED if self.active == self.confirmed else wire.SlotState.TRIAL
        return wire.ModelResponse(
            code=code,
            slot=1,
            state=state,
            offset=len(self.upload),
            slot_bytes=65536,
            active_id=self.active,
            confirmed_id=self.confirmed,
            crc=zlib.crc32(self.upload),
        ).pack()
