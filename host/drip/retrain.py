"""Retraining on seed and kept frames, and measuring compiled models with the C core.

:func:`retrain` sees every frame in every epoch; :func:`retrain_pruned` leaves frames out by one of
the methods of ``drip.prune``, can balance classes and stand wrong labels, and goes on after a stop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.data import Dataset, InputScaling, count_shared_samples
from drip.data.files import write_atomic
from drip.errors import DataError, UsageError
from drip.models import Builder
from drip.models.backend import keras
from drip.prune import METHODS, Pruner, make_pruner
from drip.train import Augment, TrainResult, _build, _check_labelled, _ends_in_softmax, train

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Evaluation:
    """How often predictions were right.

    Attributes:
        accuracy: Share of frames whose class was predicted.
        balanced_accuracy: Mean over the classes present of the share predicted; one rare class
            weighs as much as a common one.
        n: Labelled frames measured.
        ci95: Wilson interval of ``accuracy``.
        predictions: int64 ``[n]``, the predicted class of each labelled frame, in order.
    """

    accuracy: float
    balanced_accuracy: float
    n: int
    ci95: tuple[float, float]
    predictions: NDArray[np.int64]


def retrain(
    base: Dataset,
    kept: Dataset,
    *,
    builder: Builder,
    scaling: InputScaling,
    seed: int,
    steps: int,
    batch: int = 32,
    validation: Dataset | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    augment: Augment | None = None,
) -> TrainResult:
    """Train from scratch on the seed frames and the labelled frames that devices kept.

    Frames that nobody has labelled yet are left out. The number of steps is the caller's, so that
    models trained on selections of different size have had equal training.

    Args:
        base: Seed frames.
        kept: Frames from the store; those labelled -1 are skipped.
        builder: As in :func:`drip.train.train`, like all that follow.
        scaling: From raw frames to the model's input.
        seed: Fixes weights, order and augmentation.
        steps: Optimiser steps.
        batch: Frames per step.
        validation: Measured once at the end; must not share frames with what is trained on.
        on_progress: Called with ``(steps done, steps)``.
        augment: Changes each training batch after scaling.

    Raises:
        DataError: The sets do not fit each other, or validation frames are in the training set.
    """
    data = Dataset.concat(base, kept.take(np.flatnonzero(kept.y >= 0)))
    if validation is not None:
        shared = count_shared_samples(validation.x, data.x)
        if shared:
            raise DataError(
                f"{shared} validation frames are also trained on",
                "label them reject in the store, or keep the data of the project out of it",
            )
    return train(
        builder,
        data,
        validation=validation,
        steps=steps,
        batch=batch,
        seed=seed,
        scaling=scaling,
        on_progress=on_progress,
        augment=augment,
    )


@dataclass(frozen=True)
class Recipe:
    """How a model is retrained.

    Attributes:
        pruning: A key of :data:`drip.prune.METHODS`.
        prune: Share left out; of InfoBatch, the probability ``r``. ``full`` ignores it.
        period: Epochs between choices of uniform, eps-greedy and ucb.
        a, eps, c: Of eps-greedy and ucb; see :mod:`drip.prune`.
        steps: Optimiser steps that as many epochs as nothing is left out take.
        batch: Frames per step.
        learning_rate: Peak of the schedule.
        balanced: Show rare classes as often as the most common one.
        robust: Stand wrong labels: generalised cross-entropy instead of cross-entropy.
    """

    pruning: str = "infobatch"
    prune: float = 0.5
    period: int = 1
    a: float = 0.5
    eps: float = 0.75
    c: float = 0.3
    steps: int = 1500
    batch: int = 32
    learning_rate: float = 3e-3
    balanced: bool = False
    robust: bool = False

    def pruner(self, count: int, seed: int) -> Pruner:
        """The pruner for so many frames."""
        epochs = max(1, round(self.steps * self.batch / count))
        settings: dict[str, Any] = {"prune": self.prune}
        if self.pruning in ("uniform", "eps-greedy", "ucb"):
            settings["period"] = self.period
        if self.pruning in ("eps-greedy", "ucb"):
            settings["a"] = self.a
        if self.pruning == "eps-greedy":
            settings["eps"] = self.eps
        elif self.pruning == "ucb":
            settings["c"] = self.c
        elif self.pruning == "infobatch":
            settings = {"r": self.prune}
        elif self.pruning == "full":
            settings = {}
        elif self.pruning not in METHODS:
            raise UsageError(f"no pruning method {self.pruning}", f"use {', '.join(METHODS)}")
        return make_pruner(self.pruning, count, epochs, seed, **settings)


GCE_Q = 0.7


def robust_loss(y_true: Any, y_pred: Any, *, from_logits: bool) -> Any:
    """Generalised cross-entropy ``(1 - p_y^q) / q`` with ``q = 0.7``, ``[B]``.

    Zhang and Sabuncu, arXiv:1805.07836: between cross-entropy (q to 0) and the mean absolute error
    (q = 1); a frame that the model finds impossible, as wrong labels look, pulls little.
    """
    k = keras()
    p = k.ops.softmax(y_pred) if from_logits else y_pred
    hot = k.ops.one_hot(k.ops.cast(k.ops.reshape(y_true, (-1,)), "int32"), p.shape[-1])
    chosen = k.ops.clip(k.ops.sum(p * hot, axis=-1), 1e-7, 1.0)
    return (1.0 - k.ops.power(chosen, GCE_Q)) / GCE_Q


def balance(y: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Indices that hold every frame, and of each class as many as of the most common one.

    Args:
        y: Labels ``[N]``.
        seed: Of which frames of the rarer classes come once more often than others.
    """
    labels, counts = np.unique(y, return_counts=True)
    parts = []
    for label in labels:
        own = np.random.default_rng((seed, int(label))).permutation(np.flatnonzero(y == label))
        parts.append(np.resize(own, int(counts.max())))
    return np.sort(np.concatenate(parts))


def retrain_pruned(
    data: Dataset,
    *,
    builder: Builder,
    scaling: InputScaling,
    seed: int,
    recipe: Recipe,
    checkpoints: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    augment: Augment | None = None,
) -> TrainResult:
    """Train from scratch, each epoch on the frames that the recipe's method chooses.

    Args:
        data: Labelled frames.
        builder: As in :func:`drip.train.train`.
        scaling: From raw frames to the model's input.
        seed: Fixes weights, choices, order and augmentation.
        recipe: How.
        checkpoints: Folder; after every epoch, what is needed to go on is written there, and a
            checkpoint of the same data, recipe and seed is gone on from. Removed at the end.
        on_progress: Called with ``(epochs done, epochs)``.
        augment: Changes each training batch after scaling.

    Returns:
        The model; ``history`` has ``"loss"``, ``"cost"`` (as a share of training on everything) and
        ``"resumed_at"``, the epoch gone on from.

    Raises:
        DataError: A frame is not labelled, or there are none.
        UsageError: The recipe makes no sense.
        ModelError: The builder failed or its model does not fit the data.
        MissingDependencyError: TensorFlow is not installed.
    """
    _check_labelled(data)
    k = keras()
    from drip.prune.loop import PrunedData, StepSchedule

    if recipe.balanced:
        data = data.take(balance(data.y, seed))
    started = time.monotonic()
    k.utils.clear_session()
    k.utils.set_random_seed(seed)
    model = _build(builder, data, scaling.input_shape(data.frame_shape))
    from_logits = not _ends_in_softmax(model)
    schedule = StepSchedule(recipe.learning_rate)
    optimizer = k.optimizers.Adam(schedule)
    schedule.attach(optimizer)

    def transform(x: NDArray[Any], rng: np.random.Generator | None) -> NDArray[Any]:
        scaled = scaling.apply(x)
        return scaled if rng is None or augment is None else augment(scaled, rng)

    pruned = PrunedData(
        data.x,
        data.y,
        recipe.pruner(len(data), seed),
        batch=recipe.batch,
        transform=transform,
        from_logits=from_logits,
        schedule=schedule,
    )

    def robust(y_true: Any, y_pred: Any) -> Any:
        return robust_loss(y_true, y_pred, from_logits=from_logits)

    plain = k.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model.compile(
        optimizer,
        robust if recipe.robust else plain,
        metrics=[pruned.recorder],
        jit_compile=False,
    )
    optimizer.build(model.trainable_variables)
    key = _checkpoint_key(data, recipe, seed, scaling, model)
    file = None if checkpoints is None else checkpoints / f"{key}.npz"
    resumed = 0
    if file is not None and file.exists():
        resumed = _load_checkpoint(file, model, pruned)
        if resumed and on_progress is not None:
            on_progress(resumed, pruned.pruner.epochs)
    steps, epochs = 0, pruned.pruner.epochs
    history: dict[str, list[float]] = {"loss": []}

    def ended() -> None:
        if file is not None and pruned.epoch < epochs:
            _save_checkpoint(file, model, pruned)
        if on_progress is not None:
            on_progress(pruned.epoch, epochs)

    for epoch in pruned.epochs(model, ended):
        steps += len(pruned)
        seen = model.fit(pruned, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
        history["loss"].append(float(seen.history["loss"][-1]))
    if file is not None:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other trainings may have theirs there
            file.parent.rmdir()
    history["cost"] = [pruned.cost.total / (epochs * len(data))]
    history["resumed_at"] = [float(resumed)]
    seconds = time.monotonic() - started
    return TrainResult(model, history, seconds, steps, pruned.cost.trained / len(data))


def _checkpoint_key(
    data: Dataset, recipe: Recipe, seed: int, scaling: InputScaling, model: Any
) -> str:
    what = [data.digest(), dataclasses.asdict(recipe), seed, scaling.to_json(), model.to_json()]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


def _save_checkpoint(file: Path, model: Any, pruned: Any) -> None:
    arrays = {f"data_{key}": value for key, value in pruned.state().items()}
    for kind, variables in (("model", model.weights), ("optimizer", model.optimizer.variables)):
        for n, variable in enumerate(variables):
            arrays[f"{kind}_{n}"] = keras().ops.convert_to_numpy(variable)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, lambda stream: np.savez(stream, **arrays))


def _load_checkpoint(file: Path, model: Any, pruned: Any) -> int:
    """Go on from a checkpoint; an unreadable one is as good as none."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError):
        return 0
    for kind, variables in (("model", model.weights), ("optimizer", model.optimizer.variables)):
        for n, variable in enumerate(variables):
            variable.assign(arrays[f"{kind}_{n}"])
    pruned.restore({k[5:]: v for k, v in arrays.items() if k.startswith("data_")})
    return int(pruned.epoch)


def evaluate_int8(
    blob: bytes,
    data: Dataset,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a compiled model as the device runs it: every prediction is the C core's.

    Args:
        blob: A ``.drip`` model.
        data: Raw frames; those labelled -1 are left out.
        on_progress: Called with ``(frames done, frames)``.

    Raises:
        ModelError: The blob is not a usable model.
        DataError: The frames do not fit the model, or none is labelled.
        MissingDependencyError: The compiled core is not there.
    """
    from drip.core import Model
    from drip.wire import ScoreKind

    model = Model(blob)
    labelled = data.take(np.flatnonzero(data.y >= 0))
    predictions = np.empty(len(labelled), np.int64)
    for i, frame in enumerate(labelled.x):
        predictions[i] = model.score(frame, ScoreKind.MARGIN).class_1
        if on_progress is not None:
            on_progress(i + 1, len(labelled))
    return evaluate(predictions, labelled.y)


def evaluate(predictions: NDArray[np.int64], y: NDArray[np.int64]) -> Evaluation:
    """Compare predicted classes ``[N]`` with true ones ``[N]``.

    Raises:
        DataError: There is nothing to compare.
    """
    if not len(y):
        raise DataError("there are no labelled frames to measure on", "pass labelled frames")
    right = predictions == y
    per_class = [float(right[y == label].mean()) for label in np.unique(y)]
    return Evaluation(
        float(right.mean()),
        float(np.mean(per_class)),
        len(y),
        wilson(int(right.sum()), len(y)),
        predictions,
    )


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion: Wilson, J. Am. Stat. Assoc. 22, 1927.

    Args:
        hits: Successes.
        n: Trials, at least 1.
    """
    share, z2 = hits / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
