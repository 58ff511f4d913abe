"""Calibration: quantiles, thresholds, what they keep, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drip import wire
from drip.data import Dataset, sample_hashes
from drip.errors import DataError, ModelError, UsageError
from drip.wire import BlobCalibration, Config, Drop, PolicyKind, ScoreKind, Section

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.calibrate import (
    MIN_CLASS_SAMPLES,
    CalibrationReport,
    ScoreCalibration,
    calibrate,
    ratio_for_budget,
)
from drip.compile import compile_model
from drip.compile.blob import unpack_blob
from drip.core import Model
from drip.simulate import Device

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "model.tflite"
CLASSES = tuple(str(n) for n in range(10))


@pytest.fixture(scope="module")
def blob() -> bytes:
    return compile_model(DIGITS.read_bytes())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
    from drip.data import digits as load

    return load()


@pytest.fixture(scope="module")
def report(blob: bytes, digits: Dataset) -> CalibrationReport:
    return calibrate(blob, digits.take(np.arange(900)), target_ratio=0.3)


def of(report: CalibrationReport, kind: ScoreKind) -> ScoreCalibration:
    return next(score for score in report.scores if score.kind == kind)


def test_every_kind_of_score_is_calibrated(report: CalibrationReport) -> None:
    assert [score.kind for score in report.scores] == list(ScoreKind)
    parts = [p for p in unpack_blob(report.blob).parts if p.kind == Section.CALIBRATION]
    assert [p.flags for p in parts] == [int(kind) for kind in ScoreKind]
    for part in parts:
        fixed = BlobCalibration.unpack(part.content)
        assert (fixed.classes, fixed.knots, fixed.samples) == (10, wire.KNOTS, 900)
        assert fixed.target_ratio == round(0.3 * 65535)
        assert fixed.flags == wire.CalibrationFlag.SHARES and fixed.redundancy > 0
        tables = BlobCalibration.SIZE + 10 * (4 * wire.KNOTS + 2)
        assert len(part.content) == tables + 2 * (wire.HISTOGRAM_BINS + 10)
        shares = np.frombuffer(part.content[tables:], "<u2")
        for total in (shares[: wire.HISTOGRAM_BINS].sum(), shares[wire.HISTOGRAM_BINS :].sum()):
            assert 65536 - 16 <= total <= 65536


@pytest.mark.parametrize("kind", [k for k in ScoreKind if k != ScoreKind.RANDOM])
def test_about_the_target_is_kept(report: CalibrationReport, kind: ScoreKind) -> None:
    score = of(report, kind)
    assert score.ci95[0] <= 0.3 <= score.ci95[1]
    assert score.samples == 900 == sum(c.samples for c in score.classes)
    assert score.kept == sum(c.kept for c in score.classes)
    for c in score.classes:
        if not c.pooled and kind in (ScoreKind.CAM_EVIDENCE, ScoreKind.CAM_CONTRAST):
            # Real scores hardly tie: each class keeps its share up to one frame.
            assert abs(c.kept - 0.3 * c.samples) <= 1


def test_the_core_agrees_with_the_report(report: CalibrationReport, digits: Dataset) -> None:
    model = Model(report.blob)
    frames = digits.x[:900]
    for score in report.scores:
        if score.kind == ScoreKind.RANDOM:
            continue
        scores = model.score_all(frames, score.kind)
        threshold = np.array([c.threshold for c in score.classes])[scores.class_1]
        assert int((scores.percentile >= threshold).sum()) == score.kept


def test_retention_holds_on_other_frames(report: CalibrationReport, digits: Dataset) -> None:
    model = Model(report.blob)
    for kind in (ScoreKind.CAM_EVIDENCE, ScoreKind.CAM_CONTRAST, ScoreKind.RANDOM):
        scores = model.score_all(digits.x[900:], kind)
        threshold = np.array([c.threshold for c in of(report, kind).classes])[scores.class_1]
        assert abs(float((scores.percentile >= threshold).mean()) - 0.3) < 0.1


def test_percentile_is_the_share_of_less_important_frames(
    report: CalibrationReport, digits: Dataset
) -> None:
    scores = Model(report.blob).score_all(digits.x[:900], ScoreKind.CAM_EVIDENCE)
    for c in range(10):
        mine = scores.class_1 == c
        if mine.sum() < MIN_CLASS_SAMPLES:
            continue
        raw, percentile = scores.raw[mine], scores.percentile[mine] / 65535
        below = np.array([(raw < r).mean() for r in raw])
        # Linear between quantiles that are 1/32 apart.
        assert np.abs(percentile - below).max() < 1 / 32 + 1 / mine.sum()


def test_calibration_leaves_the_network_alone(blob: bytes, report: CalibrationReport) -> None:
    before, after = Model(blob), Model(report.blob)
    frame = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) % 17
    assert before.score(frame).raw == after.score(frame).raw
    assert before.model_id != after.model_id
    assert after.selftest() == before.selftest()
    assert before.score(frame).percentile == wire.PERCENTILE_ONE


def test_calibrating_again_replaces(report: CalibrationReport, digits: Dataset) -> None:
    again = calibrate(report.blob, digits.take(np.arange(900)), target_ratio=0.3)
    assert again.blob == report.blob
    other = calibrate(report.blob, digits.take(np.arange(900)), target_ratio=0.1)
    assert len(unpack_blob(other.blob).parts) == len(unpack_blob(report.blob).parts)
    assert of(other, ScoreKind.CAM_EVIDENCE).kept < of(report, ScoreKind.CAM_EVIDENCE).kept


def test_rare_classes_borrow_from_all(blob: bytes, digits: Dataset) -> None:
    predicted = Model(blob).score_all(digits.x, ScoreKind.MARGIN).class_1
    most = int(np.bincount(predicted, minlength=10).argmax())
    few = np.flatnonzero(predicted != most)[: MIN_CLASS_SAMPLES - 1]
    chosen = np.concatenate([np.flatnonzero(predicted == most)[:60], few])
    report = calibrate(blob, digits.take(chosen), target_ratio=0.2)
    score = of(report, ScoreKind.CAM_EVIDENCE)
    for c in score.classes:
        assert c.pooled == (c.name != str(most))
    part = unpack_blob(report.blob).find(Section.CALIBRATION, int(ScoreKind.CAM_EVIDENCE))
    assert part is not None
    knots = np.frombuffer(part.content, "<i4", 10 * wire.KNOTS, BlobCalibration.SIZE)
    knots = knots.reshape(10, wire.KNOTS)
    pooled = [knots[c].tolist() for c in range(10) if c != most]
    assert all(row == pooled[0] for row in pooled)
    assert pooled[0] != knots[most].tolist()
    assert (np.diff(knots, axis=1) >= 0).all()


def test_equal_scores_do_not_break_it(blob: bytes, digits: Dataset) -> None:
    same = Dataset(np.repeat(digits.x[:1], 40, axis=0), np.zeros(40, np.int64), CLASSES)
    report = calibrate(blob, same, target_ratio=0.3)
    assert {score.kept for score in report.scores if score.kind != ScoreKind.RANDOM} <= {0, 40}


def test_training_frames_are_refused(digits: Dataset) -> None:
    fit, held_out = digits.take(np.arange(500)), digits.take(np.arange(500, 900))
    tflite = DIGITS.read_bytes()
    recorded = compile_model(tflite, training_hashes=sample_hashes(fit.x))
    assert calibrate(recorded, held_out, target_ratio=0.3).shared == 0
    with pytest.raises(DataError, match="were in training") as caught:
        calibrate(recorded, fit, target_ratio=0.3)
    assert "--force" in caught.value.hint
    assert calibrate(recorded, fit, target_ratio=0.3, force=True).shared > 100

    plain = compile_model(tflite)
    mixed = digits.take(np.arange(499, 900))
    with pytest.raises(DataError, match="1 of 401"):
        calibrate(plain, mixed, target_ratio=0.3, training_hashes=sample_hashes(fit.x))


def test_bad_arguments_are_refused(blob: bytes, digits: Dataset) -> None:
    for ratio in (0.0, 1.0, -1.0, 2.0):
        with pytest.raises(UsageError, match="cannot be kept"):
            calibrate(blob, digits, target_ratio=ratio)
    with pytest.raises(DataError, match="too few"):
        calibrate(blob, digits.take(np.arange(5)), target_ratio=0.3)
    other = Dataset(np.zeros((30, 4, 4, 1), np.uint8), np.zeros(30, np.int64), CLASSES)
    with pytest.raises(DataError, match="the model takes"):
        calibrate(blob, other, target_ratio=0.3)
    with pytest.raises(ModelError):
        calibrate(b"nonsense", digits, target_ratio=0.3)


def test_progress_reaches_the_end(blob: bytes, digits: Dataset) -> None:
    seen: list[tuple[int, int]] = []
    data = digits.take(np.arange(300))
    calibrate(blob, data, target_ratio=0.3, on_progress=lambda done, n: seen.append((done, n)))
    assert seen == [(256, 300), (300, 300)]


def test_the_scores_named_are_calibrated_and_the_first_is_the_models_own(
    blob: bytes, digits: Dataset
) -> None:
    kinds = [ScoreKind.MARGIN, ScoreKind.CAM_PAPER]
    report = calibrate(blob, digits.take(np.arange(300)), target_ratio=0.3, kinds=kinds)
    assert [score.kind for score in report.scores] == kinds
    parts = [p for p in unpack_blob(report.blob).parts if p.kind == Section.CALIBRATION]
    assert [p.flags for p in parts] == [int(kind) for kind in kinds]
    with pytest.raises(UsageError, match="no score"):
        calibrate(report.blob, digits.take(np.arange(300)), target_ratio=0.3, kinds=[])


def test_a_budget_becomes_a_share() -> None:
    # 64 bytes of header and 56 of frame: 120 bytes a record, 86400 of them a day.
    ratio = ratio_for_budget(86400 * 12, seconds=86400, frames_per_second=1, frame_bytes=50)
    assert ratio == pytest.approx(0.1)
    assert ratio_for_budget(1 << 30, seconds=1, frames_per_second=1, frame_bytes=1) == 0.999
    with pytest.raises(UsageError, match="would fit"):
        ratio_for_budget(1000, seconds=86400, frames_per_second=1, frame_bytes=50)
    with pytest.raises(UsageError, match="above zero"):
        ratio_for_budget(1000, seconds=0, frames_per_second=1, frame_bytes=50)


def test_distinct_frames_are_hardly_ever_taken_for_duplicates(
    report: CalibrationReport, digits: Dataset
) -> None:
    """About one distinct frame in a hundred; a frame that is shown again always."""
    settings = {
        Config.POLICY_KIND: PolicyKind.THRESHOLD,
        Config.THRESHOLD: 0,
        Config.RANDOM_SHARE: 0,
        Config.REDUNDANCY: 65536,
    }
    device = Device(report.blob, settings=settings)
    fresh = np.random.default_rng(0).permutation(digits.x[900:1700])  # one writer after the other
    kept = np.array([r.keep for r in device.run(fresh)])
    assert 0.95 < kept.mean() < 1
    again = [device.feed(frame) for frame in fresh[:20] for _ in range(3)]
    seen = [(r.keep, r.drop) for r in again]
    assert all(b[0] == 0 and b[1] == Drop.REDUNDANT for b in seen[1::3] + seen[2::3])
    assert device.status().dropped_redundant == int((kept == 0).sum()) + sum(
        d == Drop.REDUNDANT for _, d in seen
    )
