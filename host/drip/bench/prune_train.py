"""Trainings of the pruning benchmark, one after the other, by Keras on any backend."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.select_net import Augmentation, augmenter
from drip.data import Dataset
from drip.prune.policies import Cost, Pruner

__all__ = ["Done", "Job", "Problem", "train_keras"]

Visits = Callable[[NDArray[np.int64], NDArray[np.bool_]], None]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is learned, by what.

    Attributes:
        net: A key of :data:`drip.bench.prune_nets.NETS`.
        train, test: Frames.
        scale: Model units per raw unit.
        augmentation: Of training batches.
        batch: Samples per step.
        peak: Largest learning rate.
    """

    net: str
    train: Dataset
    test: Dataset
    scale: float
    augmentation: Augmentation
    batch: int
    peak: float


@dataclass(eq=False)
class Job:
    """One training.

    Attributes:
        key: For the caller.
        seed: Of weights and augmentation.
        pruner: Chooses samples.
        stop: Epochs after which the training is left, at most the pruner's.
        probe: Return logits and features of the training samples.
        on_visits: Told after each epoch which samples were visited and whether answers were right.
    """

    key: str
    seed: int
    pruner: Pruner
    stop: int
    probe: bool = False
    on_visits: Visits | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """A training that has ended.

    Attributes:
        job: What was asked for.
        cost: Samples trained and scored.
        steps: Optimiser steps.
        predictions: Classes of the test frames.
        seconds: Wall-clock without compiling; of a training among many, its share by samples.
        compile_seconds: Of the compilation that this training had to wait for.
        logits, features: Of the training samples, if asked for.
    """

    job: Job
    cost: Cost
    steps: int
    predictions: NDArray[np.int64]
    seconds: float
    compile_seconds: float
    logits: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None


def train_keras(problem: Problem, jobs: Sequence[Job]) -> Iterator[Done]:
    """Train one after the other with ``model.fit``; compiled once."""
    import keras

    from drip.bench.prune_nets import initial_weights
    from drip.prune.loop import PrunedData

    started = time.monotonic()
    both, model, schedule, recorder, transform = _keras_model(problem)
    compile_seconds = time.monotonic() - started
    for job in jobs:
        keras.utils.set_random_seed(job.seed)
        model.set_weights(initial_weights(model, job.seed))
        for variable in model.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))
        data = PrunedData(
            problem.train.x,
            problem.train.y,
            job.pruner,
            batch=problem.batch,
            transform=transform,
            recorder=recorder,
            schedule=schedule,
        )
        started, steps = time.monotonic(), 0
        for epoch in data.epochs(model):
            if epoch >= job.stop:
                break
            steps += len(data)
            model.fit(data, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
            if job.on_visits is not None:
                seen = recorder.read(len(data.selection.indices))
                assert seen is not None
                job.on_visits(data.selection.indices, seen[1])
        answers = _predict(both, problem.test.x, transform, problem.batch)
        cost, logits, features = data.cost, None, None
        if job.probe:
            logits, features = _predict(both, problem.train.x, transform, problem.batch)
            cost += Cost(scored=len(problem.train))
        hits = answers[0].argmax(axis=1).astype(np.int64)
        seconds = time.monotonic() - started
        yield Done(job, cost, steps, hits, seconds, compile_seconds, logits, features)
        compile_seconds = 0.0


@functools.lru_cache(maxsize=1)
def _keras_model(problem: Problem) -> tuple[Any, Any, Any, Any, Any]:
    """Network with and without features, schedule, recorder and transform; compiled, run once."""
    import keras

    from drip.bench.prune_nets import build
    from drip.prune.loop import PrunedData, StepSchedule
    from drip.prune.policies import Static

    change = augmenter(problem.augmentation)

    def transform(x: NDArray[Any], rng: np.random.Generator | None) -> NDArray[Any]:
        scaled = x.astype(np.float32) * np.float32(problem.scale)
        return np.asarray(scaled if rng is None else change(scaled, rng), np.float32)

    train = problem.train
    both = build(problem.net, train.frame_shape, len(train.classes))
    model = keras.Model(both.inputs, both.outputs[0])
    schedule = StepSchedule(problem.peak)
    optimizer = keras.optimizers.Adam(schedule)
    schedule.attach(optimizer)
    few = Static(len(train), 1, 0, prune=max(0.0, 1 - 2 * problem.batch / len(train)))
    data = PrunedData(
        train.x, train.y, few, batch=problem.batch, transform=transform, schedule=schedule
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[data.recorder],
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    for _ in data.epochs(model):
        model.fit(data, epochs=1, shuffle=False, verbose=0)
        data.losses(model)
    _predict(both, train.x[: problem.batch], transform, problem.batch)
    return both, model, schedule, data.recorder, transform


def _predict(
    model: Any, x: NDArray[Any], transform: Any, batch: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    parts: list[tuple[Any, Any]] = []
    for start in range(0, len(x), batch):
        at = np.resize(np.arange(start, min(start + batch, len(x))), batch)
        out = model.predict_on_batch(transform(x[at], None))
        size = min(batch, len(x) - start)
        parts.append((out[0][:size], out[1][:size]))
    logits, features = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
    return np.asarray(logits, np.float32), np.asarray(features, np.float32)
