"""What a device carries over power cycles and deep sleep: retention, powered-on time, decisions."""

from __future__ import annotations

import dataclasses
import random
import zlib
from pathlib import Path

import pytest

from drip import wire
from drip.errors import DeviceError
from drip.wire import Config, PolicyKind

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.compile import compile_model
from drip.data import Dataset
from drip.simulate import Device

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "model.tflite"
TARGET = 0.1
SETTINGS = {
    Config.POLICY_KIND: PolicyKind.TARGET,
    Config.TARGET: round(TARGET * 65536),
    Config.RANDOM_SHARE: 0,
    Config.SCORE_KIND: wire.ScoreKind.MARGIN,
}
STATE = wire.DeviceState


@pytest.fixture(scope="module")
def digits() -> Dataset:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
    from drip.data import digits as load

    return load()


@pytest.fixture(scope="module")
def blob() -> bytes:
    return compile_model(DIGITS.read_bytes())


def sealed(state: wire.DeviceState) -> bytes:
    packed = state.pack()
    return packed[:-4] + zlib.crc32(packed[:-4]).to_bytes(4, "little")


def cycles(blob: bytes, digits: Dataset, count: int, seed: int) -> tuple[int, int, float, int]:
    """Power cycles of 5 to 120 s at a frame per second: frames, kept, seconds, seconds counted."""
    chance = random.Random(seed)
    device = Device(blob, card_bytes=1 << 27, settings=SETTINGS, period_us=1_000_000)
    frames = kept = before = 0
    seconds = 0.0
    for _ in range(count):
        uptime = chance.randint(5, 120)
        for number in chance.choices(range(len(digits.x)), k=uptime):
            kept += device.feed(digits.x[number]).keep
            counted = device.status().powered_s
            assert counted >= before, "powered-on time runs backwards"
            before = counted
        frames += uptime
        seconds += uptime
        device.power_cycle(SETTINGS)
        assert device.status().powered_s >= before
    assert device.status().boot_id == count + 1
    return frames, kept, seconds, before


def check_cycles(frames: int, kept: int, seconds: float, counted: int) -> None:
    # A tenth of what was to be kept, and three standard deviations of a fair draw.
    tolerance = 0.1 * TARGET + 3 * (TARGET * (1 - TARGET) / frames) ** 0.5
    assert abs(kept / frames - TARGET) < tolerance, (kept, frames)
    # Each cycle loses at most 11 s, or an eighth of it.
    assert 0.75 * seconds < counted <= seconds + 1


def test_power_cycles_keep_the_target_and_the_time(blob, digits):
    check_cycles(*cycles(blob, digits, 60, 1))


@pytest.mark.slow
def test_a_thousand_power_cycles_keep_the_target_and_the_time(blob, digits):
    check_cycles(*cycles(blob, digits, 1000, 2))


def test_a_device_goes_on_from_deep_sleep_as_if_it_had_not_slept(blob, digits):
    settings = {**SETTINGS, Config.RANDOM_SHARE: 3000, Config.SEED: 77, Config.FLOOR_SHARE: 2000}
    awake, sleeper = (Device(blob, settings=settings) for _ in range(2))
    order = random.Random(3).choices(range(len(digits.x)), k=600)
    for at, number in enumerate(order):
        if at % 50 == 49:
            state = sleeper.sleep()
            assert len(state) == STATE.SIZE == 256
            sleeper.wake(state)
        one, other = awake.feed(digits.x[number]), sleeper.feed(digits.x[number])
        assert (other.keep, other.reason) == (one.keep, one.reason), at
        assert other.raw_score == one.raw_score
    status = sleeper.status()
    assert (status.records_pending, status.boot_id) == (status.records_pending, 13)


@pytest.mark.parametrize("kind", [wire.ScoreKind.RANDOM, wire.ScoreKind.CAM_EVIDENCE])
def test_random_scores_go_on_where_they_were(blob, digits, kind):
    settings = {**SETTINGS, Config.SCORE_KIND: kind, Config.SEED: 5}
    awake, sleeper = (Device(blob, settings=settings) for _ in range(2))
    for frame in digits.x[:20]:
        assert awake.feed(frame).raw_score == sleeper.feed(frame).raw_score
    sleeper.wake(sleeper.sleep())
    scores = {awake.feed(frame).raw_score for frame in digits.x[20:60]}
    assert scores == {sleeper.feed(frame).raw_score for frame in digits.x[20:60]}
    assert len(scores) > 5


def test_every_setting_has_a_place_in_the_state(blob):
    """But EVENTS, which is one host's wish."""
    state = STATE.unpack(Device(blob).sleep())
    keys = [key for key in Config if key != Config.EVENTS]
    assert max(keys) <= len(state.settings)
    assert state.present == sum(1 << (key - 1) for key in keys)


def test_foreign_and_damaged_bytes_are_refused(blob, digits):
    device = Device(blob, settings=SETTINGS)
    for frame in digits.x[:50]:
        device.feed(frame)
    good = device.sleep()
    state = STATE.unpack(good)
    assert sealed(state) == good
    bad = [bytes(256), b"\xff" * 256, random.Random(1).randbytes(256)]
    bad += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(256)]
    bad += [
        sealed(dataclasses.replace(state, **change))
        for change in ({"version": 2}, {"device": 1}, {"policy_bytes": 133}, {"powered_us": 10**6})
    ]
    for data in bad:
        with pytest.raises(DeviceError, match="refused"):
            device.wake(data)
    device.wake(good)
    with pytest.raises(DeviceError, match="refused"):
        device.wake(good[:-1] + b"\0")


def test_nonsense_with_a_right_checksum_does_no_harm(blob, digits):
    """Whatever a state says, frames are decided on afterwards; the sanitizers watch."""
    device = Device(blob, settings=SETTINGS)
    state = STATE.unpack(device.sleep())
    chance = random.Random(11)
    for turn in range(150):
        policy = bytearray(chance.randbytes(132) if turn % 3 else state.policy)
        for _ in range(chance.randrange(4)):
            policy[chance.randrange(132)] = chance.randrange(256)
        policy[:2] = (1).to_bytes(2, "little")
        settings = tuple(
            chance.choice([value, 0, 1, 0xFFFF, 65536, chance.getrandbits(32)])
            for value in state.settings
        )
        changed = dataclasses.replace(
            state,
            policy=bytes(policy),
            policy_bytes=chance.randint(0, 132),
            settings=settings,
            present=chance.getrandbits(32),
            score_rng=chance.getrandbits(32),
            powered_s=chance.getrandbits(32),
        )
        device.wake(sealed(changed))
        for frame in digits.x[:5]:
            device.feed(frame)
        status = device.status()
        decided = status.frames_kept + status.frames_dropped_policy + status.frames_dropped_card
        assert status.frames_seen == decided == 5


def test_a_state_after_the_first_frame_comes_too_late(blob, digits):
    device = Device(blob)
    state = device.sleep()
    device.feed(digits.x[0])
    assert device._lib.drip_device_restore(device._device, state) == wire.Err.STATE


def test_the_card_of_another_device_says_nothing_of_this_one(blob, digits):
    device = Device(blob, settings=SETTINGS, period_us=1_000_000)
    for frame in digits.x[:30]:
        device.feed(frame)
    device.power_cycle()
    assert device.status().powered_s >= 9
    device._port.device_id = b"another board   "
    device.power_cycle()
    assert device.status().powered_s == 0


def test_with_a_card_that_comes_later_nothing_is_forgotten(blob, digits):
    device = Device(blob, settings=SETTINGS, period_us=1_000_000)
    for frame in digits.x[:100]:
        device.feed(frame)
    powered = device.status().powered_s
    assert powered >= 80
    card, device.card = device.card, bytearray(0)
    device.power_cycle(SETTINGS)
    for frame in digits.x[:10]:
        device.feed(frame)
    assert device.status().card_state == wire.CardState.ABSENT
    device.card = card
    for frame in digits.x[:20]:
        device.feed(frame)
    assert device.status().card_state == wire.CardState.READY
    assert device.status().powered_s >= powered + 10
