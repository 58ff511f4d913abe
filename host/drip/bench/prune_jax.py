"""Trainings of the pruning benchmark side by side on one device, by JAX.

The same arithmetic as :func:`drip.bench.prune_train.train_keras`; only the random numbers of
augmentation and the rounding differ.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.prune_train import Done, Job, Problem
from drip.errors import MissingDependencyError
from drip.prune.policies import Cost, Selection
from drip.prune.scores import cross_entropy

__all__ = ["train_jax"]

_CHUNK = 16
_SCAN = 500


@dataclass(eq=False)
class _Lane:
    """One of the networks that are trained side by side."""

    job: Job
    progress: Any
    cost: Cost = field(default_factory=Cost)
    steps: int = 0
    selection: Selection | None = None

    def begin(self, epoch: int) -> tuple[float, float] | None:
        """Choose, unless the training has ended; its progress at both ends of the epoch."""
        if epoch >= self.job.stop:
            self.selection = None
            return None
        self.selection = self.job.pruner.select(epoch)
        count = len(self.selection.indices)
        self.cost += Cost(trained=count)
        first, last = self.progress.epoch(epoch, count)
        return float(first), float(last)

    def end(self, losses: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
        """Take in what the epoch's visits showed, in the order of training."""
        assert self.selection is not None
        count = len(self.selection.indices)
        self.job.pruner.observe_visited(self.selection.indices, losses[:count])
        if self.job.on_visits is not None:
            self.job.on_visits(self.selection.indices, right[:count])


def train_jax(problem: Problem, jobs: Sequence[Job], *, at_once: int = 16) -> Iterator[Done]:
    """Train ``at_once`` networks side by side; data and weights stay on the device.

    Args:
        problem: What is learned.
        jobs: Trainings; those that take alike many steps per epoch should be neighbours.
        at_once: Networks per call; a last call that is not full trains copies that are dropped.

    Yields:
        Results, call by call.

    Raises:
        MissingDependencyError: Keras does not run on JAX.
    """
    import keras

    if keras.backend.backend() != "jax":
        raise MissingDependencyError(
            f"Keras runs on {keras.backend.backend()}", "pip install jax; set KERAS_BACKEND=jax"
        )
    fleet = _fleet(problem)
    for start in range(0, len(jobs), at_once):
        yield from fleet.run(jobs[start : start + at_once], at_once)


class _Fleet:
    def __init__(self, problem: Problem) -> None:
        import jax

        from drip.bench.prune_nets import build

        self.problem = problem
        self.model = build(
            problem.net, problem.train.frame_shape, len(problem.train.classes), patches=True
        )
        self.train_x, self.test_x = (
            jax.device_put(_whole(part.x, _SCAN)) for part in (problem.train, problem.test)
        )
        self.train_y = jax.device_put(problem.train.y.astype(np.int32))
        self._step, self._answer = self._functions()
        self._compiled: set[int] = set()

    def run(self, jobs: Sequence[Job], lanes: int) -> Iterator[Done]:
        """Train these jobs together in so many lanes."""
        from drip.prune.loop import Progress

        compile_seconds = self._compile(lanes)
        started = time.monotonic()
        active = [_Lane(job, Progress(job.pruner)) for job in jobs]
        spare = lanes - len(jobs)
        state = self._start([job.seed for job in jobs] + [0] * spare)
        for epoch in range(max(job.stop for job in jobs)):
            wanting = [
                n
                for n, lane in enumerate(active)
                if epoch < lane.job.stop and lane.job.pruner.wants_losses(epoch)
            ]
            if wanting:
                logits = self._answers(state, train=True)[0]
                for n in wanting:
                    lane = active[n]
                    lane.job.pruner.observe_all(cross_entropy(logits[n], self.problem.train.y))
                    lane.cost += Cost(scored=len(self.problem.train))
            state = self._epoch(state, active, lanes, epoch)
        predictions = self._answers(state, train=False)[0].argmax(axis=2).astype(np.int64)
        probes: tuple[Any, Any] = (None, None)
        if any(job.probe for job in jobs):
            probes = self._answers(state, train=True)
        seconds = time.monotonic() - started
        everything = sum(lane.cost.total for lane in active)
        for n, lane in enumerate(active):
            probe = lane.job.probe
            yield Done(
                lane.job,
                lane.cost + Cost(scored=len(self.problem.train) if probe else 0),
                lane.steps,
                predictions[n],
                seconds * lane.cost.total / everything,
                compile_seconds / len(jobs),
                probes[0][n] if probe else None,
                probes[1][n] if probe else None,
            )

    def _epoch(self, state: Any, active: Sequence[_Lane], lanes: int, epoch: int) -> Any:
        from drip.prune.loop import padded, rate

        batch = self.problem.batch
        ends = [lane.begin(epoch) for lane in active]
        sizes = [
            0 if lane.selection is None else -(-len(lane.selection.indices) // batch)
            for lane in active
        ]
        steps = -(-max(sizes) // _CHUNK) * _CHUNK
        rows = np.zeros((steps, lanes, batch), np.int32)
        weights = np.zeros((steps, lanes, batch), np.float32)
        rates = np.zeros((steps, lanes), np.float32)
        at = np.zeros((steps, lanes), np.int32)
        for n, (lane, end, size) in enumerate(zip(active, ends, sizes, strict=True)):
            if lane.selection is None or end is None:
                continue
            chosen, factor = padded(lane.selection, batch)
            rows[:size, n], weights[:size, n] = (
                chosen.reshape(size, batch),
                factor.reshape(size, batch),
            )
            rates[:size, n] = [
                rate(end[0] + (end[1] - end[0]) * s / size, self.problem.peak) for s in range(size)
            ]
            at[:size, n] = lane.steps + 1 + np.arange(size)
            lane.steps += size
        parts = []
        for first in range(0, steps, _CHUNK):
            piece = slice(first, first + _CHUNK)
            state, seen = self._step(
                state, self.train_x, self.train_y, rows[piece], weights[piece], rates[piece],
                at[piece],
            )  # fmt: skip
            parts.append(seen)
        losses, right = (np.concatenate([np.asarray(p[n]) for p in parts]) for n in (0, 1))
        for n, lane in enumerate(active):
            if lane.selection is not None:
                lane.end(losses[:, n].reshape(-1).astype(np.float64), right[:, n].reshape(-1))
        return state

    def _compile(self, lanes: int) -> float:
        """Run everything once on nothing; how long that took, 0 when it was compiled before."""
        if lanes in self._compiled:
            return 0.0
        self._compiled.add(lanes)
        started = time.monotonic()
        state = self._start([0] * lanes)
        shape = (_CHUNK, lanes, self.problem.batch)
        state, _ = self._step(
            state, self.train_x, self.train_y, np.zeros(shape, np.int32),
            np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32),
            np.zeros(shape[:2], np.int32),
        )  # fmt: skip
        self._answers(state, train=True)
        self._answers(state, train=False)
        return time.monotonic() - started

    def _start(self, seeds: Sequence[int]) -> Any:
        import jax
        import jax.numpy as jnp

        from drip.bench.prune_nets import initial_weights

        names = {weight.path: n for n, weight in enumerate(self.model.weights)}
        drawn = [initial_weights(self.model, seed) for seed in seeds]
        trained, kept = (
            [jnp.stack([d[names[v.path]] for d in drawn]) for v in variables]
            for variables in (self.model.trainable_variables, self.model.non_trainable_variables)
        )
        zeros = [jnp.zeros_like(w) for w in trained]
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        return trained, kept, zeros, [jnp.zeros_like(w) for w in trained], keys

    def _answers(self, state: Any, *, train: bool) -> tuple[NDArray[np.float32], Any]:
        x = self.train_x if train else self.test_x
        count = len(self.problem.train if train else self.problem.test)
        logits, features = self._answer(state[0], state[1], x)
        return np.asarray(logits)[:, :count], np.asarray(features)[:, :count]

    def _functions(self) -> tuple[Any, Any]:
        import jax
        import jax.numpy as jnp

        from drip.bench.select_jax import augment

        model, problem = self.model, self.problem
        image = len(problem.train.frame_shape) == 3

        def loss(trained: Any, kept: Any, x: Any, y: Any, weight: Any) -> Any:
            (logits, _), kept = model.stateless_call(trained, kept, x, training=True)
            each = -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]
            return (each * weight).mean(), (each, logits.argmax(1) == y, kept)

        def one(state: Any, x: Any, y: Any, weight: Any, rate: Any, at: Any) -> Any:
            trained, kept, first, second, key = state
            x = x.astype(jnp.float32) * problem.scale
            x = x if image else x[:, :, None, :]
            x = augment(x, jax.random.fold_in(key, at), problem.augmentation)
            x = x if image else x[:, :, 0, :]
            gradient, (each, right, new) = jax.grad(loss, has_aux=True)(trained, kept, x, y, weight)
            active, t = at > 0, jnp.maximum(at, 1).astype(jnp.float32)
            size = rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            first = [
                jnp.where(active, 0.9 * m + 0.1 * g, m)
                for m, g in zip(first, gradient, strict=True)
            ]
            second = [
                jnp.where(active, 0.999 * v + 0.001 * g * g, v)
                for v, g in zip(second, gradient, strict=True)
            ]
            trained = [
                w - jnp.where(active, size, 0.0) * m / (jnp.sqrt(v) + 1e-7)
                for w, m, v in zip(trained, first, second, strict=True)
            ]
            kept = [jnp.where(active, b, a) for a, b in zip(kept, new, strict=True)]
            return (trained, kept, first, second, key), (each, right)

        many = jax.vmap(one)

        def run(
            state: Any, frames: Any, labels: Any, rows: Any, weights: Any, rates: Any, at: Any
        ) -> Any:
            def body(state: Any, xs: Any) -> Any:
                rows, weights, rates, at = xs
                return many(state, frames[rows], labels[rows], weights, rates, at)

            return jax.lax.scan(body, state, (rows, weights, rates, at))

        def answer(trained: Any, kept: Any, frames: Any) -> Any:
            pieces = frames.reshape(-1, _SCAN, *frames.shape[1:])

            def lane(trained: Any, kept: Any, x: Any) -> Any:
                return model.stateless_call(trained, kept, x, training=False)[0]

            def body(_: Any, x: Any) -> Any:
                scaled = x.astype(jnp.float32) * problem.scale
                return None, jax.vmap(lane, in_axes=(0, 0, None))(trained, kept, scaled)

            _, (logits, features) = jax.lax.scan(body, None, pieces)
            return tuple(
                jnp.swapaxes(a, 0, 1).reshape(a.shape[1], -1, a.shape[-1])
                for a in (logits, features)
            )

        return jax.jit(run, donate_argnums=0), jax.jit(answer)


@functools.lru_cache(maxsize=2)
def _fleet(problem: Problem) -> _Fleet:
    return _Fleet(problem)


def _whole(x: NDArray[Any], size: int) -> NDArray[Any]:
    missing = -len(x) % size
    return np.concatenate(
        [x, x[:missing] if missing <= len(x) else np.resize(x, (missing, *x.shape[1:]))]
    )
