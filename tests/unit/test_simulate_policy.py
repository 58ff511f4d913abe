"""Policies in a whole device: what they keep of real frames, and what STATUS says about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip import wire
from drip.wire import Config, Drop, PolicyKind, Reason, ScoreKind

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
from drip.bench.select_plan import Plan
from drip.calibrate import calibrate
from drip.data import Dataset
from drip.data import digits as load_digits
from drip.simulate import Device

ROOT = Path(__file__).parents[2]
BLOB = (ROOT / "models" / "digits" / "model.drip").read_bytes()
PLANS = ROOT / "docs" / "results" / "select" / "plans"
TARGET = {Config.POLICY_KIND: PolicyKind.TARGET}
FIXED = {Config.POLICY_KIND: PolicyKind.THRESHOLD, Config.REDUNDANCY: 0}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_digits()


@pytest.fixture(scope="module")
def blob(digits: Dataset) -> bytes:
    return calibrate(BLOB, digits.take(np.arange(600)), target_ratio=0.3, force=True).blob


def drifting(digits: Dataset) -> Any:
    """Known digits, then darker ones with fewer classes, then noise over all."""
    rng = np.random.default_rng(0)
    known = digits.x[600:1797]
    dark = known[np.isin(digits.y[600:1797], (1, 4, 7))] // 2
    noisy = np.clip(known + rng.integers(-4, 5, known.shape), 0, 16).astype(known.dtype)
    return np.concatenate([known, dark, dark, dark, noisy])


@pytest.mark.parametrize("kind", list(ScoreKind))
@pytest.mark.parametrize("target", [0.2, 0.61])
def test_the_target_is_kept_within_two_points_under_drift(
    blob: bytes, digits: Dataset, kind: ScoreKind, target: float
) -> None:
    stream = drifting(digits)
    # The stream repeats itself, which is another rule's business.
    settings = {Config.SCORE_KIND: kind, Config.TARGET: round(target * 65536), Config.REDUNDANCY: 0}
    device = Device(blob, settings=settings)
    kept = np.array([r.keep for r in device.run(stream)])
    assert abs(kept.mean() - target) < 0.01
    for part in np.array_split(kept, 3):
        assert abs(part.mean() - target) < 0.02
    assert round(device.status().target / 65535, 3) == target


def test_a_board_that_was_told_nothing_does_what_was_validated(
    blob: bytes, digits: Dataset
) -> None:
    """docs/results/select/plans/confirm.json, policy default, at the calibrated share."""
    plan = Plan.load(PLANS / "confirm.json")
    settings = plan.policy("default").resolve(0.3)
    assert (settings[Config.POLICY_KIND], settings[Config.REDUNDANCY]) == (PolicyKind.TARGET, 65536)
    frames = np.repeat(digits.x[600:1200], 2, axis=0)
    told, untold = Device(blob, settings=settings), Device(blob)
    assert told.run(frames) == untold.run(frames)
    status = untold.status()
    assert status.dropped_redundant > 50 and status.kept_random > 20
    assert status.target / 65535 == pytest.approx(0.3, abs=1e-3)
    fixed = Device(blob, settings=FIXED)
    assert [r.keep for r in fixed.run(frames)] != [r.keep for r in untold.run(frames)]


def test_a_fixed_threshold_drifts_and_the_status_tells(blob: bytes, digits: Dataset) -> None:
    device = Device(blob, settings=FIXED)
    fixed = np.array([r.keep for r in device.run(digits.x[600:1797])])
    assert abs(fixed.mean() - 0.3) < 0.06
    calm = device.status()
    assert (calm.psi_score, calm.psi_class) != (0, 0)
    assert max(calm.psi_score, calm.psi_class) < 250
    later = np.array([r.keep for r in device.run(drifting(digits)[1197:2400])])
    assert abs(later.mean() - 0.3) > 0.1
    drifted = device.status()
    assert max(drifted.psi_score, drifted.psi_class) > 250
    assert drifted.class_count == 10 and 240 < sum(drifted.class_share) <= 255


def test_the_reasons_are_in_the_result_and_counted(blob: bytes, digits: Dataset) -> None:
    settings = {
        **TARGET,
        Config.TARGET: 13107,
        Config.FLOOR_COUNT: 2,
        Config.REDUNDANCY: 65536,
        Config.RANDOM_SHARE: 6554,
    }
    device = Device(blob, settings=settings)
    frames = np.repeat(digits.x[600:900], 3, axis=0)  # every frame comes three times
    results = device.run(frames)
    status = device.status()
    for bit, counter in (
        (Reason.FLOOR, status.kept_floor),
        (Reason.RANDOM_SHARE, status.kept_random),
        (Reason.THRESHOLD, status.kept_threshold),
    ):
        assert sum(bool(r.reason & bit) for r in results) == counter > 0
    assert sum(r.drop == Drop.REDUNDANT for r in results) == status.dropped_redundant > 50
    assert all((r.drop == Drop.NONE) == bool(r.keep) for r in results)
    # Redundant frames leave their place in the budget to others.
    assert abs(np.mean([r.keep for r in results]) - 0.2) < 0.03
    chosen = np.array([bool(r.keep) and not r.reason & Reason.RANDOM_SHARE for r in results])
    assert chosen.reshape(-1, 3).sum(axis=1).max() == 1


def test_pacing_reads_the_card(blob: bytes, digits: Dataset) -> None:
    """A card of 2 MB in ten minutes at ten frames a second: some 3800 of 6000 frames fit."""
    settings = {**TARGET, Config.PACE_S: 600}
    device = Device(blob, card_bytes=1 << 20, settings=settings, period_us=1_000_000)
    for number in range(500):
        device.feed(digits.x[number % 1797])
    status = device.status()
    left = status.log_capacity - (status.log_end - status.log_acked)
    record = 64 + 64
    assert status.target > 0
    assert status.target / 65535 == pytest.approx(min(1.0, left / (100 * record)), abs=0.05)


def test_records_say_which_rule_kept_them(blob: bytes, digits: Dataset) -> None:
    device = Device(blob, settings={**TARGET, Config.FLOOR_COUNT: 1})
    results = device.run(digits.x[600:700])
    device.sync()
    card = bytes(device.card)
    magic = wire.RECORD_MAGIC.to_bytes(2, "little")
    flags = {}
    at = card.find(magic)
    while at >= 0:
        header = wire.RecordHeader.unpack(card[at : at + wire.RecordHeader.SIZE])
        if header.version == 1 and header.payload_bytes == 64:
            flags[header.seq] = header.flags & 0xFF
        at = card.find(magic, at + 8)
    kept = {r.seq: r.reason for r in results if r.keep}
    assert kept == {seq: flags[seq] for seq in kept}
    assert any(reason & Reason.FLOOR for reason in kept.values())
