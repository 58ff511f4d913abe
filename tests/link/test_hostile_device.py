"""A device that answers anything at all: the host ends with a result or with one of its errors."""

from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drip import wire
from drip.device import Client, encode_frame
from drip.device.exchange import SilenceError
from drip.device.framing import FrameReader
from drip.errors import DripError
from drip.store import Store
from drip.sync import sync_device

HELLO = wire.Hello(
    size=wire.Hello.SIZE,
    version=1,
    protocol=wire.PROTOCOL,
    schema_hash=wire.SCHEMA_HASH,
    capabilities=0xFFFFFFFF,
    log_uuid=bytes(range(16)),
    baud=115_200,
    baud_most=921_600,
    slot_bytes=65536,
    arena_bytes=65536,
)
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

# What becomes of an answer: its code, and bytes that are cut off, added or changed.
mischief = st.tuples(
    st.sampled_from(["right", "right", "event", "other id", "other type", "noise", "silence"]),
    st.sampled_from([0, 0, 0, *(int(code) for code in wire.Err), 77, -99]),
    st.integers(0, 2**32),
)


class Liar:
    """A transport whose other end makes its answers up; simulated time.

    Attributes:
        sent: Requests of the host.
    """

    name = "liar"

    def __init__(self, plan: list[tuple[str, int, int]]) -> None:
        self.plan = plan
        self.sent: list[int] = []
        self.now = 0.0
        self._reader = FrameReader()
        self._incoming = b""

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def set_baud(self, baud: int) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self, size: int, timeout_s: float) -> bytes:
        data, self._incoming = self._incoming[:size], self._incoming[size:]
        if not data:
            self.now += max(timeout_s, 0.001)
        return data

    def write(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self.sent.append(frame.type)
            how, code, seed = self.plan[len(self.sent) % len(self.plan)]
            self._incoming += self._answer(frame.type, frame.id, how, code, random.Random(seed))

    def _answer(self, kind: int, number: int, how: str, code: int, rng: random.Random) -> bytes:
        body = code.to_bytes(2, "little", signed=True)
        body += rng.randbytes(rng.choice([0, 2, 6, 14, 46, 54, 199, 516, 1030]))
        if kind == wire.FrameType.HELLO and how == "right" and rng.random() < 0.9:
            body = bytes(4) + HELLO.pack()
        if how == "silence":
            return b""
        if how == "noise":
            return rng.randbytes(rng.randrange(2000))
        if how == "event":
            event = rng.randrange(6).to_bytes(2, "little") + rng.randbytes(rng.randrange(20))
            return encode_frame(wire.FrameType.EVENT, number, event)
        if how == "other id":
            return encode_frame(kind | wire.RESPONSE, number ^ 1, body)
        if how == "other type":
            return encode_frame(rng.randrange(256), number, body)
        return encode_frame(kind | wire.RESPONSE, number, body)


def everything(client: Client) -> list[object]:
    """Requests of every kind, with what the host makes of their answers."""
    return [
        client.hello,
        client.status,
        client.time,
        client.config_get,
        lambda: client.config_set({1: 2}),
        lambda: client.feed(bytes(2500)),
        lambda: client.score(b"frame"),
        lambda: client.read(512, 700),
        lambda: client.ack(1, 2, 3),
        client.sync_log,
        client.model_info,
        lambda: client.model_begin(
            total_bytes=9, arena_bytes=1, op_bitmap=0, blob_crc=0, model_id=bytes(16)
        ),
        lambda: client.model_data(0, bytes(16)),
        lambda: client.set_baud(921_600),
        lambda: client.raise_baud(3_000_000),
        lambda: client.reset(wait_s=1.0),
        lambda: client.read_ahead(1 << 16).read(0, 4096),
        client.close,
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=_SLOW)
@given(st.lists(mischief, min_size=1, max_size=12))
def test_no_answer_breaks_a_request(plan):
    line = Liar(plan)
    seen: list[object] = []
    client = Client(
        line, timeout_s=1.0, attempt_s=0.2, busy_s=1.0, on_event=seen.append,
        clock=line.clock, sleep=line.sleep,
    )  # fmt: skip
    for act in everything(client):
        with contextlib.suppress(DripError, SilenceError):
            act()  # type: ignore[operator]
    # Until HELLO was answered nothing but HELLO is sent.
    assert line.sent[0] == wire.FrameType.HELLO


@settings(max_examples=30, deadline=None, suppress_health_check=_SLOW)
@given(st.lists(mischief, min_size=1, max_size=12))
def test_no_answer_breaks_a_sync(plan):
    line = Liar(plan)
    client = Client(
        line, timeout_s=1.0, attempt_s=0.2, busy_s=1.0, clock=line.clock, sleep=line.sleep
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store", create=True)
        with contextlib.suppress(DripError):
            sync_device(client, store)
        assert len(store) == 0, "nothing that it said was a frame"


def test_an_event_with_the_id_of_a_request_is_no_answer():
    kept = wire.EventKept(kind=wire.Event.KEPT, size=wire.EventKept.SIZE, seq=5).pack()
    odd = [b"", b"\1", kept[:6], b"\x63\0" + bytes(30), kept + bytes(8)]

    class Talkative(Liar):
        def _answer(self, kind, number, how, code, rng):
            events = [encode_frame(wire.FrameType.EVENT, number, body) for body in odd]
            body = bytes(4) + HELLO.pack()
            return b"".join(events) + encode_frame(kind | wire.RESPONSE, number, body)

    line = Talkative([("right", 0, 0)])
    seen: list[object] = []
    client = Client(line, on_event=seen.append, clock=line.clock, sleep=line.sleep)
    assert client.hello().device_id == HELLO.device_id
    assert [event.seq for event in seen] == [5]
    assert client.repetitions == 0
