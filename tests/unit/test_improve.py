"""Retraining that cannot make things worse: loss, balance, resuming, comparison, card, lineage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip import on_ray
from drip.data import DIGITS_SCALING, Dataset, Splits, digits, split
from drip.errors import DataError, LinkError, ModelError, UsageError, VerifyError
from drip.improve import Comparison, Measured, calibration_error, improve, improve_on_ray
from drip.lineage import card_path, history, read_card, summary, write_card
from drip.models import BUILDERS
from drip.retrain import Recipe, balance, retrain_pruned, robust_loss

MODELS = Path(__file__).parents[2] / "models"
RECIPE = Recipe(steps=60, batch=32)


def measured(accuracy: float, balanced: float) -> Measured:
    return Measured(accuracy, balanced, (0.0, 1.0), 100, {"a": accuracy, "b": balanced}, 0.1)


def parts() -> Splits:
    return split(digits(), seed=0, fit=300, calibration=200, stream=600, test=400)


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    # Two at 0.9 of which one is right, two at 0.6 which are both right: (0.4 + 0.4) / 2.
    assert calibration_error(p, np.array([0, 1, 1, 1])) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("accuracy", "balanced", "fine"),
    [(0.90, 0.90, True), (0.89, 0.90, True), (0.88, 0.90, False), (0.95, 0.88, False)],
)
def test_a_model_may_be_worse_by_the_margin(accuracy: float, balanced: float, fine: bool) -> None:
    comparison = Comparison(
        measured(0.9, 0.9), measured(accuracy, balanced), accuracy, 1.0, margin=0.01
    )
    assert comparison.acceptable is fine
    assert comparison.gain == pytest.approx(accuracy - 0.9)


def test_balance_keeps_every_frame_and_levels_the_classes() -> None:
    y = np.array([0] * 10 + [1] * 3 + [2] * 1)
    chosen = balance(y, 4)
    assert np.bincount(y[chosen]).tolist() == [10, 10, 10]
    assert set(chosen.tolist()) == set(range(14))
    # 3 frames fill 10 places: 3 or 4 times each.
    assert sorted(np.bincount(chosen)[10:13].tolist()) == [3, 3, 4]
    assert np.array_equal(chosen, balance(y, 4))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="no pruning method"):
        Recipe(pruning="best").pruner(10, 0)


def test_recipe_spends_the_steps_it_was_given() -> None:
    assert Recipe(steps=1500, batch=32).pruner(480, 0).epochs == 100


def test_robust_loss_by_hand() -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    p = np.array([[0.2, 0.8], [1.0, 0.0]], np.float32)
    loss = np.asarray(robust_loss(np.array([0, 0]), p, from_logits=False))
    assert loss == pytest.approx([(1 - 0.2**0.7) / 0.7, 0.0], abs=1e-6)
    logits = np.log(np.array([[0.2, 0.8]], np.float32))
    assert np.asarray(robust_loss(np.array([0]), logits, from_logits=True)) == pytest.approx(
        [(1 - 0.2**0.7) / 0.7], abs=1e-6
    )


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    data = digits().take(range(200))

    def train(folder: Path | None, stop_at: int | None = None) -> Any:
        def progress(done: int, _: int) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        return retrain_pruned(
            data,
            builder=BUILDERS["cnn"],
            scaling=DIGITS_SCALING,
            seed=5,
            recipe=dataclasses.replace(RECIPE, steps=40),
            checkpoints=folder,
            on_progress=progress,
        )

    whole = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "points", stop_at=3)
    resumed = train(tmp_path / "points")
    assert resumed.history["resumed_at"] == [3.0]
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert resumed.history["cost"] == whole.history["cost"]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_checkpoint_of_other_data_is_not_gone_on_from(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")

    def stop(done: int, _: int) -> None:
        raise KeyboardInterrupt

    options: dict[str, Any] = {
        "builder": BUILDERS["cnn"],
        "scaling": DIGITS_SCALING,
        "seed": 5,
        "recipe": dataclasses.replace(RECIPE, steps=12),
        "checkpoints": tmp_path,
    }
    with pytest.raises(KeyboardInterrupt):
        retrain_pruned(digits().take(range(128)), on_progress=stop, **options)
    assert len(list(tmp_path.iterdir())) == 1
    result = retrain_pruned(digits().take(range(1, 129)), **options)
    assert result.history["resumed_at"] == [0.0]


def _improve(base: bytes, **options: Any) -> Any:
    cut = parts()
    defaults: dict[str, Any] = {
        "builder": BUILDERS["cnn"],
        "builder_name": "cnn",
        "scaling": DIGITS_SCALING,
        "recipe": Recipe(steps=400),
        "seed": 3,
        "target_ratio": 0.5,
    }
    return improve(base, cut, cut.stream, **(defaults | options))


def _weak_base() -> bytes:
    """A model that has seen little: to be improved upon."""
    from drip.compile import compile_model
    from drip.convert import convert

    cut = parts()
    few = cut.fit.take(range(60))
    trained = retrain_pruned(
        few,
        builder=BUILDERS["cnn"],
        scaling=DIGITS_SCALING,
        seed=1,
        recipe=dataclasses.replace(RECIPE, pruning="full"),
    )
    tflite = convert(
        trained.model, few.x, scaling=DIGITS_SCALING, classes=few.classes, metadata={"seed": 1}
    )
    return compile_model(tflite, source_name="first")


@pytest.mark.slow
def test_a_better_model_names_parent_data_and_seed_and_is_repeatable(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    from drip.core import Model

    base = _weak_base()
    result = _improve(base)
    assert result.comparison.acceptable and result.comparison.gain > 0
    card = result.card
    assert card["parent"] == Model(base).model_id.hex()
    assert card["model_id"] == Model(result.blob).model_id.hex()
    assert card["data"]["kept"] == 600 and card["data"]["frames"] == 900
    assert card["measured"]["candidate"]["n"] == 400
    assert "equal to tflite-micro" in card["bit_exact"]
    assert 0.9 < card["measured"]["agreement"] <= 1.0
    json.dumps(card)
    assert _improve(base).blob == result.blob

    (tmp_path / "a.drip").write_bytes(base)
    (tmp_path / "b.drip").write_bytes(result.blob)
    write_card(tmp_path / "b.drip", card)
    line = history(tmp_path / "b.drip")
    assert [one.path and one.path.name for one in line] == ["b.drip", "a.drip"]
    assert line[0].data_digest == card["data"]["digest"] and line[0].seed == 3
    assert line[0].card is not None and line[1].parent == ""


@pytest.mark.slow
def test_a_worse_model_is_refused_unless_forced() -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    good = _improve(_weak_base()).blob
    hopeless = dataclasses.replace(RECIPE, steps=1)
    with pytest.raises(VerifyError, match="worse than the deployed one"):
        _improve(good, recipe=hopeless)
    forced = _improve(good, recipe=hopeless, force=True)
    assert forced.card["forced"] and not forced.card["acceptable"]
    assert any(line.startswith("FORCED") for line in summary(forced.card))


@pytest.mark.slow
def test_a_cluster_makes_the_same_model() -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    pytest.importorskip("ray", reason="needs Ray: pip install .[ray]")
    cut = parts()
    options: dict[str, Any] = {
        "builder_name": "cnn",
        "scaling": DIGITS_SCALING,
        "recipe": dataclasses.replace(RECIPE, steps=100),
        "seed": 3,
        "target_ratio": 0.5,
        "force": True,
    }
    base = _weak_base()
    here = improve(base, cut, cut.stream, builder=BUILDERS["cnn"], **options)
    there = improve_on_ray(base, cut, cut.stream, **options)
    assert there.blob == here.blob and there.card == here.card
    with pytest.raises(VerifyError, match="worse than the deployed one") as caught:
        hopeless = {"recipe": dataclasses.replace(RECIPE, steps=1), "force": False}
        improve_on_ray(here.blob, cut, cut.stream, **(options | hopeless))
    assert caught.value.hint.startswith("label more frames")


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install .[ray]")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(LinkError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        on_ray.call(len, [])


@pytest.mark.slow
def test_wrong_labels_cost_less_with_the_robust_loss() -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    from drip.train import predict

    cut = parts()
    clean = Dataset.concat(cut.fit, cut.stream)
    rng = np.random.default_rng(8)
    wrong = rng.random(len(clean)) < 0.1
    noisy = np.where(wrong, (clean.y + rng.integers(1, 10, len(clean))) % 10, clean.y)
    data = Dataset(clean.x, noisy, clean.classes)
    right = {}
    for robust in (False, True):
        trained = retrain_pruned(
            data,
            builder=BUILDERS["cnn"],
            scaling=DIGITS_SCALING,
            seed=2,
            recipe=Recipe(steps=1200, robust=robust),
        )
        answers = predict(trained.model, cut.test.x, DIGITS_SCALING).argmax(axis=1)
        right[robust] = float((answers == cut.test.y).mean())
    assert right[True] > 0.9
    assert right[True] >= right[False] - 0.01


def test_held_out_frames_must_be_unseen() -> None:
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    cut = parts()
    with pytest.raises(DataError, match="held-out frames are also trained on"):
        improve(
            (MODELS / "digits" / "model.drip").read_bytes(),
            cut,
            cut.test.take(range(3)),
            builder=BUILDERS["cnn"],
            builder_name="cnn",
            scaling=DIGITS_SCALING,
            recipe=RECIPE,
            seed=0,
            target_ratio=0.5,
        )


def test_card_of_another_model_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    model = tmp_path / "model.drip"
    write_card(model, {"model_id": "aa"})
    assert read_card(model, "aa") == {"model_id": "aa"}
    assert read_card(model, "bb") is None
    card_path(model).write_text("{")
    with pytest.raises(ModelError, match="cannot read"):
        read_card(model, "aa")


def test_history_says_what_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    from drip.compile import compile_model

    tflite = (MODELS / "digits" / "model.tflite").read_bytes()
    child = tmp_path / "child.drip"
    child.write_bytes(compile_model(tflite, parent="ab" * 16))
    line = history(child)
    assert [one.model_id for one in line][1:] == ["ab" * 16]
    assert line[1].path is None and line[0].parent == "ab" * 16
