"""Both shipped ends on lines that fail in every way, restarted at any moment.

Whatever happens, the store ends with exactly the frames that the device had made durable.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from faulty_world import BANNER, CrashError, Moments, faults
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drip import wire
from drip.bench.line import Faults, LineEnd, SimDevice
from drip.device import Client
from drip.errors import DripError
from drip.store import Store
from drip.sync import sync_device

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

# What happens at the n-th moment that the host looks at the line, or when it is about to ACK.
accidents = st.lists(
    st.tuples(
        st.sampled_from(["power", "cable", "crash", "record", "banner", "before ack", "after ack"]),
        st.integers(1, 400),
    ),
    max_size=5,
)


class World:
    """A device, its line, and the accidents that wait for them."""

    def __init__(
        self, line: Faults, plan: list[tuple[str, int]], seed: int, raised: bool = False
    ) -> None:
        self.rng = random.Random(seed)
        self.most = 921_600 if raised else 0
        self.device = SimDevice(
            baud=115_200 if raised else 921_600,
            faults=line,
            seed=seed,
            card_bytes=1 << 20,
            segment_bytes=16 << 10,
            frame_bytes=2048,
        )
        self.device.run(0.5)
        self.end = LineEnd(self.device, on_read=self._look)
        self.frames: list[bytes] = []
        self.moments = Moments([(kind, at % 4 if "ack" in kind else at) for kind, at in plan])
        self.looks = self.acks = 0
        self._write = self.end.write
        self.end.write = self._on_write  # type: ignore[method-assign]

    def record(self, count: int) -> None:
        made = [self.rng.randbytes(self.rng.randrange(1, 2048)) for _ in range(count)]
        self.frames += made
        self.device.log_frames(made, every_s=0.0)

    def _look(self) -> None:
        self.looks += 1
        if self.moments.due("record", self.looks):
            self.record(3)
        self.moments.strike(self.end, self.looks)

    def _on_write(self, data: bytes) -> None:
        is_ack = len(data) > 3 and data[2] == wire.FrameType.ACK
        self.acks += is_ack
        if is_ack and self.moments.due("before ack", self.acks):
            raise CrashError
        self._write(data)
        if is_ack and self.moments.due("after ack", self.acks):
            raise CrashError

    def attempt(self, store: Store) -> bool:
        """One run of the host's program; whether it ended well."""
        client = Client(
            self.end, attempt_s=0.3, first_id=self.looks, clock=self.end.clock, sleep=self.end.sleep
        )
        # A program that was killed has left the board at another rate than this one begins with.
        self.device.host_baud = self.device.reset_baud
        try:
            if self.most:
                client.raise_baud(self.most)
            sync_device(client, store)
        except (DripError, CrashError):
            return False
        return True


everything = given(faults, accidents, st.integers(0, 1000), st.integers(1, 40), st.booleans())


@settings(max_examples=25, deadline=None, suppress_health_check=_SLOW)
@everything
@example(Faults(), [("before ack", 1), ("after ack", 1)], 1, 40, False)
@example(Faults(flip=1e-3), [("power", 20), ("cable", 40), ("record", 60)], 2, 40, False)
@example(Faults(), [("power", 120), ("power", 220), ("record", 60)], 2, 40, True)
@example(Faults(repeat=1e-3, reorder=1e-3), [("crash", 100), ("power", 200)], 3, 40, True)
def test_the_store_ends_equal_to_what_the_device_made_durable(line, plan, seed, count, raised):
    check(line, plan, seed, count, raised)


def test_one_chunk_alone_comes_through_a_bad_line():
    """Nothing behind it shows that it was lost, and at full size it hardly ever arrives whole."""
    line = Faults(flip=2e-3, drop=1e-3, double=1e-4, burst=2e-5, stall=5e-5, repeat=1e-4)
    for seed in range(24):
        world = World(line, [], seed)
        world.record(1)
        client = Client(
            world.end, attempt_s=0.3, first_id=1, clock=world.end.clock, sleep=world.end.sleep
        )
        stream = client.read_ahead(client.status().log_durable)
        assert len(stream.read(0, 1024).data) >= wire.BLOCK_BYTES


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=_SLOW)
@everything
def test_the_store_ends_equal_to_what_the_device_made_durable_many_times(
    line, plan, seed, count, raised
):
    check(line, plan, seed, count, raised)


def check(line: Faults, plan: list[tuple[str, int]], seed: int, count: int, raised: bool) -> None:
    world = World(line, plan, seed, raised)
    world.record(count)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        for _ in range(30):
            if world.attempt(store):
                break
        else:
            raise AssertionError("never came through")
        # The last run finds what was recorded at the end of the one before.
        world.moments.clear()
        assert any(world.attempt(store) for _ in range(3))
        found: list[bytes] = []
        seqs: list[int] = []
        for group in store.frame_groups():
            found += [row.tobytes() for row in group.x]
            seqs += [key.seq for key in group.keys]
        ordered = [data for _, data in sorted(zip(seqs, found, strict=True))]
        assert ordered == world.frames
        assert len(set(seqs)) == len(seqs)
        assert store.conflicts == 0


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(0, 100))
@settings(max_examples=25, deadline=None, suppress_health_check=_SLOW)
def test_stray_bytes_confuse_neither_end(pieces, seed):
    device = SimDevice(card_bytes=1 << 20, segment_bytes=16 << 10, seed=seed)
    device.run(0.2)
    end = LineEnd(device)
    client = Client(end, attempt_s=0.2, clock=end.clock, sleep=end.sleep)
    for piece in [BANNER, *pieces]:
        device.to_host.inject(device.now_us, piece)
        device.to_device.inject(device.now_us, piece)
        assert client.hello().device_id == bytes(range(16))
        assert client.status().card_state == wire.CardState.READY
