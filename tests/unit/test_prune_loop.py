"""Pruned training through ``model.fit``: what Keras sees, records and anneals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from drip.errors import UsageError
from drip.prune import make_pruner

pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")

N, BATCH = 50, 16


@pytest.fixture
def keras() -> Any:
    from drip.models.backend import keras

    return keras()


def frames() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.5)


def make(keras: Any, method: str, epochs: int = 6, peak: float = 1e-2, **settings: Any) -> Any:
    from drip.prune import PrunedData, StepSchedule

    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    x, y = frames()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    schedule = StepSchedule(peak)
    optimizer = keras.optimizers.Adam(schedule)
    schedule.attach(optimizer)
    pruner = make_pruner(method, N, epochs, 5, **settings)
    data = PrunedData(x, y, pruner, batch=BATCH, schedule=schedule)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=[data.recorder])
    return model, data


def fit(model: Any, data: Any) -> list[int]:
    counts = []
    for epoch in data.epochs(model):
        counts.append(len(data.selection.indices))
        model.fit(data, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
    return counts


def test_batches_have_one_shape_and_show_every_chosen_sample_once(keras: Any) -> None:
    model, data = make(keras, "uniform", prune=0.5, period=1)
    next(epochs := data.epochs(model))
    model.fit(data, epochs=1, shuffle=False, verbose=0)
    next(epochs)
    batches = [data[step] for step in range(len(data))]
    assert [x.shape for x, _, _ in batches] == [(BATCH, 4)] * 2
    weights = np.concatenate([w for _, _, w in batches])
    # 25 of 50 samples fill 32 places; the last 7 weigh nothing.
    assert weights.tolist() == [1.0] * 25 + [0.0] * 7
    seen = np.concatenate([x for x, _, _ in batches])[:25]
    assert np.array_equal(seen, data.x[data.selection.indices])


def test_recorder_brings_back_the_losses_of_the_visits(keras: Any) -> None:
    # Without learning, the losses in training are those of a pass over everything.
    model, data = make(keras, "full", epochs=1, peak=0.0)
    fit(model, data)
    losses, right = data.visits
    assert losses == pytest.approx(data.losses(model)[data.selection.indices], rel=1e-5)
    answers = np.asarray(model(data.x)).argmax(axis=1)
    order = data.selection.indices
    assert right.tolist() == (answers[order] == data.y[order]).tolist()


def test_same_seed_same_weights(keras: Any) -> None:
    ends = []
    for _ in range(2):
        model, data = make(keras, "eps-greedy", prune=0.5, period=2, a=0.5, eps=0.5)
        assert fit(model, data) == [50, 50, 25, 25, 25, 25]
        ends.append([w.tobytes() for w in model.get_weights()])
    assert ends[0] == ends[1]


def test_cost_counts_passes(keras: Any) -> None:
    model, data = make(keras, "ucb", prune=0.5, period=2, a=0.5, c=1.0)
    fit(model, data)
    assert (data.cost.trained, data.cost.scored) == (200.0, 100.0)


def test_infobatch_prunes_by_what_it_saw(keras: Any) -> None:
    model, data = make(keras, "infobatch", epochs=8)
    counts = fit(model, data)
    assert counts[0] == counts[7] == 50
    assert all(count < 50 for count in counts[1:7])


def test_a_method_that_needs_visits_says_so(keras: Any) -> None:
    from drip.prune import PrunedData

    x, y = frames()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = PrunedData(x, y, make_pruner("infobatch", N, 6, 1), batch=BATCH)
    with pytest.raises(UsageError, match="learns nothing of the losses"):
        fit(model, data)


def test_rate_follows_steps_and_ends_at_zero(keras: Any) -> None:
    from drip.prune.loop import rate

    model, data = make(keras, "uniform", epochs=4, prune=0.5, period=1)
    seen = []
    for _ in data.epochs(model):
        for step in range(len(data)):
            model.train_on_batch(*data[step])
            seen.append(float(model.optimizer.learning_rate))
    # 50, 25, 25, 25 samples in 4 + 3 x 2 steps; the rate after a step is that of the next.
    progress = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert seen == pytest.approx([rate(p, 1e-2) for p in progress], abs=1e-7)
    assert len(seen) == 10


def test_rate_by_hand() -> None:
    pytest.importorskip("keras")
    from drip.prune.loop import rate

    assert rate(0.0, 2.0) == pytest.approx(0.1)
    assert rate(0.05, 2.0) == pytest.approx(2.0)
    assert rate(0.525, 2.0) == pytest.approx(1.0)
    assert rate(1.0, 2.0) == pytest.approx(0.0)
    assert rate(0.7625, 2.0) == pytest.approx(1 + math.cos(0.75 * math.pi))


def test_progress_ends_at_one_however_chance_falls() -> None:
    from drip.prune.loop import Progress

    progress = Progress(make_pruner("infobatch", 100, 4, 1))
    ends = [progress.epoch(epoch, samples) for epoch, samples in enumerate((100, 51, 88, 100))]
    assert [end for _, end in ends[:-1]] == [start for start, _ in ends[1:]]
    assert ends[0][0] == 0.0 and ends[-1][1] == 1.0


def test_goes_on_from_a_saved_state(keras: Any) -> None:
    settings = {"prune": 0.5, "period": 2, "a": 0.5, "c": 1.0}
    model, data = make(keras, "ucb", **settings)
    fit(model, data)
    expected = [w.tobytes() for w in model.get_weights()]

    model, data = make(keras, "ucb", **settings)
    saved: dict[str, Any] = {}

    def save() -> None:
        saved["data"] = {key: value.copy() for key, value in data.state().items()}
        saved["model"] = [np.array(w) for w in model.get_weights()]
        saved["optimizer"] = [np.array(v) for v in model.optimizer.variables]

    for epoch in data.epochs(model, save):
        if epoch == 3:
            break
        model.fit(data, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)

    model, again = make(keras, "ucb", **settings)
    model.optimizer.build(model.trainable_variables)
    again.restore(saved["data"])
    model.set_weights(saved["model"])
    for variable, value in zip(model.optimizer.variables, saved["optimizer"], strict=True):
        variable.assign(value)
    assert fit(model, again) == [25, 25, 25]
    assert [w.tobytes() for w in model.get_weights()] == expected
    assert (again.cost.trained, again.cost.scored) == (200.0, 100.0)
