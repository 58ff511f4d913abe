"""Scores and percentiles."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import oracle
import pytest
from drip._core import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from nets import Engine, Net, exact, head_net

from drip import wire
from drip.wire import Err, Op, ScoreKind, Section

KNOTS = wire.KNOTS
CAM_KINDS = (
    ScoreKind.CAM_EVIDENCE,
    ScoreKind.CAM_CONTRAST,
    ScoreKind.CAM_PAPER,
    ScoreKind.CAM_PAPER_LOW,
)


class Scorer:
    """A score stage over an engine."""

    def __init__(self, engine: Engine, kind: ScoreKind, seed: int = 1) -> None:
        assert engine.code == 0
        self.score: Any = ffi.new("drip_score_t *")
        self.code = lib.drip_score_open(self.score, engine.nn, kind, seed)
        self.scratch = exact(lib.drip_score_scratch_bytes(self.score)) if self.code == 0 else None

    def __call__(self) -> Any:
        result = ffi.new("drip_score_result_t *")
        assert lib.drip_score_compute(self.score, self.scratch, result) == 0
        return result


def logits_net(classes: int) -> Engine:
    """A network whose logits are its input."""
    net = Net()
    x = net.tensor(1, 1, classes)
    out = net.tensor(1, 1, classes)
    net.op(Op.REQUANTIZE, x, out, mult0=1 << 30, shift0=1)
    return Engine(net.blob(out))


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=8))
def test_classes_and_logit_scores(values: list[int]) -> None:
    engine = logits_net(len(values))
    logits = np.array(values, np.int8)
    engine.run(logits.reshape(1, 1, -1))
    first, second = oracle.top_two(logits)
    for kind, raw in (
        (ScoreKind.MARGIN, values[second] - values[first]),
        (ScoreKind.MAX_LOGIT, -values[first]),
    ):
        result = Scorer(engine, kind)()
        assert (result.class_1, result.class_2) == (first, second)
        assert (result.logit_1, result.logit_2) == (values[first], values[second])
        assert result.raw == raw
        assert result.percentile == 65535  # not calibrated: nothing is unimportant


def test_random_scores_follow_their_seed_and_are_percentiles() -> None:
    engine = logits_net(3)
    engine.run(np.zeros((1, 1, 3), np.int8))
    rng = ffi.new("drip_rng_t *")
    lib.drip_rng_seed(rng, 9)
    scorer = Scorer(engine, ScoreKind.RANDOM, 9)
    results = [scorer() for _ in range(2000)]
    assert [r.raw for r in results] == [lib.drip_rng_next(rng) >> 1 for _ in range(2000)]
    assert all(r.percentile == r.raw >> 15 for r in results)
    assert abs(np.mean([r.percentile for r in results]) - 32768) < 1500


@pytest.mark.parametrize("hidden", [0, 7])
def test_cam_scores_equal_the_oracle(hidden: int) -> None:
    evidence_missing = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        _, blob = head_net(rng, hidden=hidden, shift=6)
        engine = Engine(blob)
        engine.run(rng.integers(-128, 128, (5, 4, 2)).astype(np.int8))
        cam = ffi.new("drip_cam_t *")
        assert lib.drip_cam_open(cam, engine.nn) == 0
        results = [Scorer(engine, kind)() for kind in CAM_KINDS]
        logits = engine.read(engine.nn.header.logits_tensor).reshape(-1)
        first, second = oracle.top_two(logits)
        rows = hidden + hidden % 2 or 3
        table = np.frombuffer(ffi.buffer(cam.table, rows * 12), "<i2").reshape(rows, 6)
        if hidden:
            table = oracle.unpaired(table.reshape(-1, 6, 2))[:hidden]
        features = engine.read(1)
        if hidden:
            dense = np.frombuffer(ffi.buffer(cam.dense, 3 * hidden), np.int8).reshape(3, hidden)
            active = engine.read(3).reshape(-1) > -128
            weights = [oracle.hidden_weights(table, dense, 6, active, c) for c in range(3)]
        else:
            weights = [oracle.direct_weights(table, c) for c in range(3)]
        evidence = oracle.cam_sum(oracle.cam_map(weights[first], features, -20))
        contrast = oracle.cam_sum(oracle.cam_map(weights[first] - weights[second], features, -20))
        assert results[1].raw == -contrast
        if evidence > 0:
            assert results[0].raw == -evidence
        else:
            evidence_missing += 1
            assert results[0].raw == 1 + (1 << 30) - min(contrast, 1 << 30)
    assert hidden or evidence_missing > 0


def test_cam_scores_need_a_head_and_kinds_are_known() -> None:
    engine = logits_net(3)
    for kind in CAM_KINDS:
        assert Scorer(engine, kind).code == Err.NO_CAM
    for number in (0, max(ScoreKind) + 1, 255):
        score = ffi.new("drip_score_t *")
        assert lib.drip_score_open(score, engine.nn, number, 1) == Err.UNSUPPORTED


def test_a_score_before_any_arena_is_refused() -> None:
    engine = logits_net(3)
    scorer = Scorer(engine, ScoreKind.MARGIN)
    engine.nn.arena = ffi.NULL
    result = ffi.new("drip_score_result_t *")
    assert lib.drip_score_compute(scorer.score, ffi.NULL, result) == Err.STATE


raw_scores = st.integers(-(1 << 31), (1 << 31) - 1)


@given(
    st.one_of(
        st.lists(raw_scores, min_size=KNOTS, max_size=KNOTS),
        st.lists(st.integers(-40, 40), min_size=KNOTS, max_size=KNOTS),
    ),
    st.data(),
)
def test_percentiles_are_linear_between_knots(values: list[int], data: st.DataObject) -> None:
    knots = sorted(values)
    raw = data.draw(st.one_of(raw_scores, st.integers(-45, 45), st.sampled_from(knots)))
    table = ffi.new("int32_t[]", knots)
    found = lib.drip_score_percentile(table, raw)
    # Knots over 2^21 apart are halved first: that may cost one unit.
    assert abs(found - oracle.percentile(knots, raw)) <= (
        1 if knots[-1] - knots[0] > 1 << 21 else 0
    )


def test_percentiles_rise_with_the_score() -> None:
    knots = ffi.new(
        "int32_t[]", sorted(np.random.default_rng(1).integers(-9999, 9999, KNOTS).tolist())
    )
    found = [lib.drip_score_percentile(knots, raw) for raw in range(-10100, 10100, 7)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 65535)


def calibration(thresholds: list[int], knots: list[list[int]], declared: int = KNOTS) -> bytes:
    head = wire.BlobCalibration(len(thresholds), declared, 0, 0, 100, 0, 0, bytes(8)).pack()
    flat = [k for row in knots for k in row]
    return (
        head
        + struct.pack(f"<{len(flat)}i", *flat)
        + struct.pack(f"<{len(thresholds)}H", *thresholds)
    )


def with_shares(content: bytes, shares: bytes) -> bytes:
    """The same section with the flag that says that shares follow."""
    head = wire.BlobCalibration.unpack(content)
    flagged = dataclasses.replace(head, flags=int(wire.CalibrationFlag.SHARES)).pack()
    return flagged + content[len(flagged) :] + shares


ROWS = [[-4000 + 100 * i for i in range(KNOTS)], [-64 + 2 * i for i in range(KNOTS)], [0] * KNOTS]


def test_calibration_of_the_kind_is_found_and_used_per_class() -> None:
    content = calibration([1000, 2000, 3000], ROWS)
    rng = np.random.default_rng(4)
    _, blob = head_net(rng, calibration=content)
    engine = Engine(blob)
    scorer = Scorer(engine, ScoreKind.CAM_EVIDENCE)
    assert [scorer.score.thresholds[c] for c in range(3)] == [1000, 2000, 3000]
    assert Scorer(engine, ScoreKind.MARGIN).score.knots == ffi.NULL
    seen = set()
    for _ in range(40):
        level = rng.uniform(-128, 128, 2)
        frame = np.clip(rng.normal(level, 30, (5, 4, 2)), -128, 127)
        engine.run(frame.astype(np.int8))
        result = scorer()
        seen.add(result.class_1)
        assert result.percentile == oracle.percentile(ROWS[result.class_1], result.raw)
    assert len(seen) > 1


@pytest.mark.parametrize(
    "content",
    [
        calibration([1, 2, 3], ROWS)[:-2],
        calibration([1, 2], ROWS[:2]),
        calibration([1, 2, 3], ROWS, KNOTS - 1),
        calibration([1, 2, 3], [ROWS[0], ROWS[1], [1, *[0] * (KNOTS - 1)]]),
        b"\0" * 8,
        with_shares(calibration([1, 2, 3], ROWS), bytes(2 * (wire.HISTOGRAM_BINS + 3) - 2)),
    ],
    ids=["short", "classes", "knots", "descending", "no head", "short shares"],
)
def test_a_calibration_that_does_not_fit_is_refused(content: bytes) -> None:
    _, blob = head_net(np.random.default_rng(0), calibration=content)
    assert Scorer(Engine(blob), ScoreKind.CAM_EVIDENCE).code == Err.CORRUPT
    assert Scorer(Engine(blob), ScoreKind.MARGIN).code == 0


def test_shares_of_calibration_are_found() -> None:
    shares = list(range(wire.HISTOGRAM_BINS + 3))
    content = with_shares(calibration([1, 2, 3], ROWS), struct.pack(f"<{len(shares)}H", *shares))
    _, blob = head_net(np.random.default_rng(0), calibration=content)
    scorer = Scorer(Engine(blob), ScoreKind.CAM_EVIDENCE)
    assert [scorer.score.shares[i] for i in range(len(shares))] == shares
    assert scorer.score.calibration.samples == 100


def test_sections_of_other_kinds_are_passed_over() -> None:
    net, _ = head_net(np.random.default_rng(0))
    for kind, value in ((ScoreKind.MARGIN, 7), (ScoreKind.MAX_LOGIT, 9)):
        net.section(Section.CALIBRATION, calibration([value] * 3, ROWS), 1, kind)
    engine = Engine(net.blob(3, 1, cam_head=wire.CamHead.DIRECT))
    assert Scorer(engine, ScoreKind.MAX_LOGIT).score.thresholds[2] == 9
    assert Scorer(engine, ScoreKind.RANDOM).score.thresholds == ffi.NULL


def softmax_entropy(logits: np.ndarray, scale: float) -> float:
    p = np.exp((logits.astype(float) - logits.max()) * scale)
    p /= p.sum()
    return float(-(p * np.log2(np.maximum(p, 1e-300))).sum())


def scaled_logits_net(classes: int, scale: float) -> Engine:
    """A network whose logits are its input, with a scale."""
    net = Net()
    x = net.tensor(1, 1, classes)
    out = net.tensor(1, 1, classes)
    net.tensors[out] = dataclasses.replace(net.tensors[out], scale=scale)
    net.op(Op.REQUANTIZE, x, out, mult0=1 << 30, shift0=1)
    return Engine(net.blob(out))


@pytest.mark.parametrize("scale", [1e-6, 0.003, 0.0625, 0.11, 0.5, 1.0, 3.7, 60.0, 1e6])
def test_entropy_is_numpys(scale: float) -> None:
    rng = np.random.default_rng(4)
    for classes in (2, 10, 64):
        engine = scaled_logits_net(classes, scale)
        scorer = Scorer(engine, ScoreKind.ENTROPY)
        for _ in range(10):
            logits = rng.integers(-128, 128, classes).astype(np.int8)
            engine.run(logits.reshape(1, 1, -1))
            # Beyond 22 nats a step one class takes all, on the device and in numbers.
            assert abs(scorer().raw / 4096 - softmax_entropy(logits, scale)) < 0.004
        engine.run(np.full((1, 1, classes), 5, np.int8))
        assert abs(scorer().raw / 4096 - np.log2(classes)) < 0.002


@pytest.mark.parametrize("hidden", [0, 7])
def test_the_papers_score_is_the_mean_of_the_normalised_map(hidden: int) -> None:
    empty = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        engine = Engine(head_net(rng, hidden=hidden, shift=6)[1])
        engine.run(rng.integers(-128, 128, (5, 4, 2)).astype(np.int8))
        high = Scorer(engine, ScoreKind.CAM_PAPER)()
        low = Scorer(engine, ScoreKind.CAM_PAPER_LOW)()
        cam = ffi.new("drip_cam_t *")
        assert lib.drip_cam_open(cam, engine.nn) == 0
        field, total = ffi.new("int32_t[20]"), ffi.new("int32_t *")
        scratch = exact(lib.drip_cam_scratch_bytes(cam))
        assert lib.drip_cam_sum(cam, high.class_1, -1, scratch, field, total) == 0
        positive = np.maximum(np.array(list(field)), 0)
        empty += positive.max() == 0
        expected = positive.mean() / max(1, positive.max())
        assert abs(high.raw / 65535 - expected) < 1e-4
        assert low.raw == -high.raw
    assert hidden or 0 < empty < 25
