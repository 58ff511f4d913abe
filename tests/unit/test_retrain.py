"""Retraining and the figures it is judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drip.data import DIGITS_SCALING, Dataset, digits, split
from drip.errors import DataError, ModelError
from drip.models import BUILDERS
from drip.retrain import evaluate, evaluate_int8, retrain, wilson

MODELS = Path(__file__).parents[2] / "models"


def test_wilson_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs scipy: pip install .[train]")
    for hits, n in ((0, 1), (1, 1), (5, 10), (487, 497), (497, 497), (3, 1000)):
        reference = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_evaluation_counts_classes_equally() -> None:
    y = np.array([0] * 8 + [2] * 2)
    result = evaluate(np.array([0] * 8 + [2, 0]), y)
    assert result.accuracy == 0.9
    assert result.balanced_accuracy == 0.75
    assert result.n == 10
    assert result.ci95[0] < 0.9 < result.ci95[1]
    with pytest.raises(DataError):
        evaluate(np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_validation_frames_must_be_unseen() -> None:
    data = digits()
    with pytest.raises(DataError, match="3 validation frames"):
        retrain(
            data.take(range(10)),
            data.take(range(10, 20)),
            builder=BUILDERS["cnn"],
            scaling=DIGITS_SCALING,
            seed=0,
            steps=1,
            validation=data.take(range(17, 40)),
        )


def test_evaluation_is_the_cores_and_skips_unlabelled_frames() -> None:
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    from drip.compile import compile_model

    blob = compile_model((MODELS / "digits" / "model.tflite").read_bytes())
    test = split(digits(), seed=0, fit=900, calibration=1, stream=1, test=400).test
    y = test.y.copy()
    y[:100] = -1
    progress: list[tuple[int, int]] = []
    result = evaluate_int8(
        blob,
        Dataset(test.x, y, test.classes),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert result.n == 300
    assert progress[-1] == (300, 300) and len(progress) == 300
    assert result.accuracy == (result.predictions == test.y[100:]).mean() > 0.97
    assert result.ci95 == wilson(round(result.accuracy * 300), 300)
    with pytest.raises(DataError):
        evaluate_int8(blob, Dataset(test.x[:, :7], test.y, test.classes))
    with pytest.raises(DataError, match="no labelled"):
        evaluate_int8(blob, test.take([]))
    with pytest.raises(ModelError):
        evaluate_int8(blob[:-1], test)


@pytest.mark.slow
def test_kept_frames_raise_accuracy_and_unlabelled_ones_are_skipped() -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    parts = split(digits(), seed=0, fit=60, calibration=40, stream=900, test=497)
    y = parts.stream.y.copy()
    y[::3] = -1
    kept = Dataset(parts.stream.x, y, parts.stream.classes)
    none = kept.take([])

    def accuracy(extra: Dataset) -> tuple[float, float]:
        result = retrain(
            parts.fit,
            extra,
            builder=BUILDERS["cnn"],
            scaling=DIGITS_SCALING,
            seed=0,
            steps=200,
            validation=parts.test,
        )
        return result.history["validation_accuracy"][0], result.epochs

    before, epochs_before = accuracy(none)
    after, epochs_after = accuracy(kept)
    assert epochs_before == pytest.approx(200 * 32 / 60)
    assert epochs_after == pytest.approx(200 * 32 / 660)
    assert before < 0.92
    assert after > 0.95
