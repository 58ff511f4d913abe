"""MODEL over lines that fail in every way, to a board whose power fails in any flash operation.

Whatever happens, the board boots a confirmed model, and an upload that is repeated often enough
ends with the new one. Both ends are the shipped code; time is simulated.
"""

from __future__ import annotations

import pytest
from device_board import digits_model, model_id
from faulty_world import CrashError, Moments, faults
from flash_model import Flash, PowerLossError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drip import wire
from drip.bench.line import Faults, LineEnd, SimDevice
from drip.deploy import deploy
from drip.device import Client
from drip.errors import DripError

CLEAN = Faults()
OLD, NEW = digits_model("01"), digits_model("02")
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
_STEPS = {wire.ModelOp.BEGIN, wire.ModelOp.TRIAL, wire.ModelOp.CONFIRM}

# At the n-th step of the simulated time that the host waits, or at the n-th request of that kind.
accidents = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["power", "cable", "crash", "banner"]), st.integers(1, 3000)),
        st.tuples(
            st.sampled_from([f"{when} {op.name}" for when in ("before", "after") for op in _STEPS]),
            st.integers(1, 3),
        ),
    ),
    max_size=5,
)
# Power fails during a flash operation, counted from the failure before; so much of it is done.
cuts = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 0.4, 1.0])), max_size=4)


class World:
    """A board that runs OLD, its line, and what will go wrong."""

    def __init__(
        self,
        line: Faults = CLEAN,
        plan: list[tuple[str, int]] | None = None,
        power: list[tuple[int, float]] | None = None,
        seed: int = 1,
    ) -> None:
        self.flash = Flash(slot_bytes=16384, journal_bytes=1024)
        self.device = SimDevice(
            seed=seed,
            card_bytes=1 << 20,
            segment_bytes=32 << 10,
            prepare=self.flash.attach,
        )
        self.boots: list[bytes] = []
        self.confirmed = False
        self.end = LineEnd(self.device)
        deploy(self.client(), OLD)
        self._step, self._boot, self._write = self.device.step, self.device.boot, self.end.write
        self.device.step = self._on_step  # type: ignore[method-assign]
        self.device.boot = self._on_boot  # type: ignore[method-assign]
        self.end.write = self._on_write  # type: ignore[method-assign]
        self.end.on_read = self._look
        self.device.suffer(line, seed)
        self.moments, self.power = Moments(plan or []), list(power or [])
        self.looks = 0
        self.asked: dict[int, int] = {}
        self._next_cut()

    def client(self, **options: object) -> Client:
        return Client(
            self.end, attempt_s=0.3, clock=self.end.clock, sleep=self.end.sleep, **options  # type: ignore[arg-type]
        )  # fmt: skip

    def peace(self) -> None:
        """From now on only the line fails."""
        self.moments.clear()
        self.power.clear()
        self.flash.cut_at = None

    def _next_cut(self) -> None:
        self.flash.cut_at = None
        if self.power:
            after, self.flash.torn = self.power.pop(0)
            self.flash.cut_at = self.flash.operations + after

    def _on_step(self) -> None:
        self._step()
        try:
            self.flash.check_power()
        except PowerLossError:
            self.device.boot()
            self._next_cut()

    def _on_boot(self) -> None:
        self.flash.power_off()
        self._boot()
        device = self.device.device
        assert device.has_model, "no model boots"
        self.boots.append(bytes(device.nn.header.model_id))
        assert self.boots[-1] in (
            {model_id(NEW)} if self.confirmed else {model_id(OLD), model_id(NEW)}
        )

    def _look(self) -> None:
        self.looks += 1
        self.moments.strike(self.end, self.looks)

    def _on_write(self, data: bytes) -> None:
        at = 1 + 1 + wire.FrameHeader.SIZE  # delimiter, the first length, header
        is_model = len(data) > at and data[2] == wire.FrameType.MODEL
        op = wire.ModelOp(data[at]) if is_model and data[at] in list(wire.ModelOp) else None
        if op not in _STEPS:
            self._write(data)
            return
        self.asked[op] = self.asked.get(op, 0) + 1
        if self.moments.due(f"before {op.name}", self.asked[op]):
            raise CrashError
        self._write(data)
        if self.moments.due(f"after {op.name}", self.asked[op]):
            raise CrashError

    def attempt(self) -> bool:
        """One run of the host's program; whether it ended well."""
        try:
            report = deploy(self.client(), NEW)
        except (DripError, CrashError):
            return False
        assert report.after_id == model_id(NEW)
        self.confirmed = True
        return True


def check(
    line: Faults, plan: list[tuple[str, int]], power: list[tuple[int, float]], seed: int
) -> None:
    world = World(line, plan, power, seed)
    for _ in range(12):
        if world.attempt():
            break
    else:
        world.peace()
        assert any(world.attempt() for _ in range(4)), "never came through"
    # Whatever else was planned happens to a board that is done.
    world.device.run(0.05)
    world.device.boot()
    assert world.boots[-1] == model_id(NEW)
    world.peace()
    assert world.attempt()
    info = world.client().model_info()
    assert info.active_id == info.confirmed_id == model_id(NEW)


everything = given(faults, accidents, cuts, st.integers(0, 1000))
WORST = Faults(1e-3, 1e-3, 1e-4, burst=2e-5, stall=5e-5, repeat=1e-3, reorder=1e-3)


@settings(max_examples=10, deadline=None, suppress_health_check=_SLOW)
@everything
@example(WORST, [], [], 1)
@example(Faults(), [("before CONFIRM", 1), ("after CONFIRM", 1), ("power", 1)], [], 2)
@example(Faults(), [("after TRIAL", 1), ("after BEGIN", 1)], [(0, 0.4), (0, 0.4), (3, 0.4)], 3)
def test_a_model_always_boots_and_in_the_end_the_new_one(line, plan, power, seed):
    check(line, plan, power, seed)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=_SLOW)
@everything
@example(
    Faults(flip=1e-3, drop=1e-3, burst=2e-5, repeat=1e-4),
    [("before CONFIRM", 1)] * 4 + [("after TRIAL", 3)],
    [(1, 0.0), (1, 0.0)],
    1,
)
def test_a_model_always_boots_and_in_the_end_the_new_one_many_times(line, plan, power, seed):
    check(line, plan, power, seed)


@pytest.mark.parametrize("torn", [0.0, 0.4, 1.0])
def test_power_fails_at_every_flash_operation_of_a_deployment(torn):
    """Among them those of CONFIRM: until its entry is complete the old one boots."""
    cut = 0
    while True:
        world = World(power=[(cut, torn)])
        came_through = world.attempt()
        if not world.boots:
            assert came_through and cut > 10
            return
        assert came_through or world.attempt() or world.attempt()
        world.device.boot()
        assert world.boots[-1] == model_id(NEW)
        cut += 1


@pytest.mark.parametrize("how", ["power", "cable", "crash"])
def test_an_upload_goes_on_where_it_was(how):
    """The host continues behind the bytes that are on the device, however it was interrupted."""
    world = World(plan=[(how, 600)])
    if how == "power":
        # The host's program lives on: it announces the model again and goes on.
        report = deploy(world.client(), NEW)
        assert (report.resumed_at, len(world.boots)) == (0, 1)
        assert len(NEW) <= report.bytes_sent <= len(NEW) + wire.MAX_CHUNK_BYTES
        return
    assert not world.attempt()
    world.device.boot()
    report = deploy(world.client(), NEW)
    assert 0 < report.resumed_at < len(NEW)
    assert report.bytes_sent + report.resumed_at == len(NEW)


def test_a_line_that_loses_large_frames_gets_smaller_ones():
    world = World()
    write, sizes = world.end.write, []

    def lossy(data: bytes) -> None:
        sizes.append(len(data))
        if len(data) < 400 or len(sizes) % 5 == 0:
            write(data)

    world.end.write = lossy  # type: ignore[method-assign]
    assert world.attempt()
    # Whole chunks would have to be sent five times each.
    assert sum(sizes) < 2.5 * len(NEW)


def test_a_device_that_restarts_twice_within_a_request_is_no_stranger():
    world = World(power=[(1, 0.0), (0, 0.0)])
    assert world.attempt()
    assert len(world.boots) == 2


def test_bytes_that_are_not_the_announced_ones_are_not_believed():
    world = World(plan=[("cable", 600)])
    assert not world.attempt()
    world.device.boot()
    target = world.device.device.slot.target
    world.flash.areas[target][100] ^= 0x10
    report = deploy(world.client(), NEW)
    assert (report.resumed_at, report.bytes_sent) == (0, len(NEW))
    assert report.after_id == model_id(NEW)
