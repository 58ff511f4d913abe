"""Training many copies of the benchmark's network at once on an accelerator, with JAX.

One small network leaves a large accelerator idle; copies that differ in data, labels and seed are
a batch axis. Convolutions are matrix products over patches, which batch over copies where grouped
convolutions do not. Optimiser, schedule, initialisation and batch normalisation are those of
``drip.train`` and Keras; the weights are Keras's list.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.select_net import EPSILON, MOMENTUM, Augmentation, Conv, layers_for
from drip.errors import MissingDependencyError

_STEPS_PER_CALL = 250
_EVAL_BATCH = 200


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes:
        key: Names it.
        train: Rows of the shared frames.
        labels: One per row of ``train``.
        evaluate: Rows to predict.
        steps: Optimiser steps.
        seed: Of weights, order and augmentation.
    """

    key: str
    train: NDArray[np.int64]
    labels: NDArray[np.int64]
    evaluate: NDArray[np.int64]
    steps: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """A trained network: Keras's list of weights, and int64 predictions of ``evaluate``."""

    job: Job
    weights: list[NDArray[np.float32]]
    predictions: NDArray[np.int64]
    seconds: float


def train_jobs(
    frames: NDArray[Any],
    classes: int,
    jobs: Sequence[Job],
    *,
    scale: float,
    augmentation: Augmentation,
    batch: int = 64,
    learning_rate: float = 3e-3,
    at_once: int = 64,
    on_progress: Callable[[str], None] | None = None,
) -> Iterator[Trained]:
    """Train networks, ``at_once`` together; jobs of similar length go together.

    Args:
        frames: All raw frames that any job names, ``[N, h, w, c]`` or ``[N, time, channels]``.
        classes: Number of logits.
        jobs: What to train.
        scale: Model units per raw unit.
        augmentation: Of training batches.
        batch: Frames per step.
        learning_rate: Peak of the cosine schedule of :func:`drip.train.train`.
        at_once: Networks per call.
        on_progress: Told what was done.

    Yields:
        Results, each chunk as it is done.

    Raises:
        MissingDependencyError: JAX is not installed.
    """
    jax = _jax()
    shape = tuple(frames.shape[1:])
    pool = jax.device_put(frames if frames.ndim == 4 else frames[:, :, None, :])
    ordered = sorted(jobs, key=lambda job: (job.steps, len(job.evaluate)))
    size = -(-len(ordered) // max(1, -(-len(ordered) // at_once)))
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        started = time.monotonic()
        # Chunks of one size are compiled once; the last is filled up with copies.
        filled = part + [part[-1]] * (size - len(part))
        results = _chunk(
            jax, pool, shape, classes, filled, scale, augmentation, batch, learning_rate
        )
        yield from itertools.islice(results, len(part))
        if on_progress is not None:
            took = time.monotonic() - started
            on_progress(f"{len(part)} networks, {part[-1].steps} steps: {took:.1f} s")


def initial_weights(
    frame_shape: tuple[int, ...], classes: int, seed: int
) -> list[NDArray[np.float32]]:
    """Glorot-uniform kernels (Glorot and Bengio, AISTATS 2010), as Keras orders them."""
    rng = np.random.default_rng((seed, 4711))
    weights: list[NDArray[np.float32]] = []
    channels = frame_shape[-1]

    def uniform(shape: tuple[int, ...], fan_in: int, fan_out: int) -> NDArray[np.float32]:
        limit = np.sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-limit, limit, shape).astype(np.float32)

    for layer in layers_for(frame_shape):
        area = layer.kernel[0] * layer.kernel[1]
        kernel = layer.kernel if len(frame_shape) == 3 else layer.kernel[:1]
        weights.append(
            uniform((*kernel, channels, layer.filters), area * channels, area * layer.filters)
        )
        zeros, ones = np.zeros(layer.filters, np.float32), np.ones(layer.filters, np.float32)
        weights += [ones, zeros, zeros.copy(), ones.copy()]
        channels = layer.filters
    weights.append(uniform((channels, classes), channels, classes))
    weights.append(np.zeros(classes, np.float32))
    return weights


def forward(
    weights: Sequence[Any], x: Any, layers: Sequence[Conv], *, training: bool
) -> tuple[Any, list[Any]]:
    """Logits ``[B, classes]`` of scaled frames ``[B, h, w, c]``, and the batch statistics."""
    import jax.numpy as jnp

    statistics: list[Any] = []
    for n, layer in enumerate(layers):
        kernel, gamma, beta, mean, variance = weights[5 * n : 5 * n + 5]
        x = _patches(x, layer) @ kernel.reshape(-1, layer.filters)
        if training:
            mean = x.mean((0, 1, 2))
            variance = ((x - mean) ** 2).mean((0, 1, 2))
            statistics += [mean, variance]
        x = (x - mean) * (gamma / jnp.sqrt(variance + EPSILON)) + beta
        x = jnp.maximum(x, 0)
    return x.mean((1, 2)) @ weights[-2] + weights[-1], statistics


def _patches(x: Any, layer: Conv) -> Any:
    """``[B, h', w', kh * kw * c]`` under TensorFlow's SAME padding."""
    import jax.numpy as jnp

    pads, sizes = [], []
    for size, k, s in zip(x.shape[1:3], layer.kernel, layer.stride, strict=True):
        out = -(-size // s)
        total = max(0, (out - 1) * s + k - size)
        pads.append((total // 2, total - total // 2))
        sizes.append(out)
    x = jnp.pad(x, ((0, 0), pads[0], pads[1], (0, 0)))
    (sy, sx), (h, w) = layer.stride, sizes
    pieces = [
        x[:, dy : dy + sy * (h - 1) + 1 : sy, dx : dx + sx * (w - 1) + 1 : sx]
        for dy in range(layer.kernel[0])
        for dx in range(layer.kernel[1])
    ]
    return jnp.concatenate(pieces, axis=-1)


def _jax() -> Any:
    try:
        import jax
    except ImportError as error:
        raise MissingDependencyError(
            "the trainer jax needs JAX", "pip install jax, or use --trainer keras"
        ) from error
    return jax


def _chunk(
    jax: Any,
    pool: Any,
    shape: tuple[int, ...],
    classes: int,
    jobs: Sequence[Job],
    scale: float,
    augmentation: Augmentation,
    batch: int,
    learning_rate: float,
) -> Iterator[Trained]:
    import jax.numpy as jnp

    layers = layers_for(shape)
    started = time.monotonic()
    start = [initial_weights(shape, classes, job.seed) for job in jobs]
    weights = [jnp.stack([w[n] for w in start]) for n in range(len(start[0]))]
    moments = ([jnp.zeros_like(w) for w in weights], [jnp.zeros_like(w) for w in weights])
    totals = jnp.array([job.steps for job in jobs])
    keys = jnp.stack([jax.random.key(job.seed) for job in jobs])
    run = _runner(layers, scale, augmentation, learning_rate)
    longest = max(job.steps for job in jobs)
    orders = [_Order(job, batch) for job in jobs]
    for first in range(0, longest, _STEPS_PER_CALL):
        # The last call is as long as the others, so that nothing is compiled twice.
        rows = np.stack([o.take(first, _STEPS_PER_CALL)[0] for o in orders], 1)
        labels = np.stack([o.take(first, _STEPS_PER_CALL)[1] for o in orders], 1)
        weights, moments = run(pool, weights, moments, totals, keys, rows, labels, first)
    evaluate = _evaluator(layers, scale)
    most = max(len(job.evaluate) for job in jobs)
    most += -most % _EVAL_BATCH
    rows = np.stack([np.resize(job.evaluate, most).astype(np.int32) for job in jobs])
    predicted = np.concatenate(
        [
            np.asarray(evaluate(pool, weights, rows[:, at : at + _EVAL_BATCH]))
            for at in range(0, most, _EVAL_BATCH)
        ],
        axis=1,
    )
    host = [np.asarray(w) for w in weights]
    seconds = (time.monotonic() - started) / len(jobs)
    for n, job in enumerate(jobs):
        own = [np.array(w[n], np.float32) for w in host]
        hits = predicted[n, : len(job.evaluate)].astype(np.int64)
        yield Trained(job, own, hits, seconds)


class _Order:
    """Which rows a job sees at which step: every epoch once through all, in a new order."""

    def __init__(self, job: Job, batch: int) -> None:
        rng = np.random.default_rng(job.seed)
        epochs = -(-job.steps * batch // len(job.train))
        order = np.concatenate([rng.permutation(len(job.train)) for _ in range(epochs)])
        order = order[: job.steps * batch].reshape(job.steps, batch)
        self._rows = job.train[order].astype(np.int32)
        self._labels = job.labels[order].astype(np.int32)

    def take(self, first: int, count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        at = np.minimum(np.arange(first, first + count), len(self._rows) - 1)
        return self._rows[at], self._labels[at]


@functools.cache
def _runner(
    layers: tuple[Conv, ...], scale: float, augmentation: Augmentation, learning_rate: float
) -> Any:
    jax = _jax()
    import jax.numpy as jnp

    trainable = [n for n in range(5 * len(layers) + 2) if n >= 5 * len(layers) or n % 5 < 3]

    def rate(step: Any, total: Any) -> Any:
        warmup = total // 20
        low = learning_rate / 20
        ramp = low + (learning_rate - low) * step / jnp.maximum(warmup, 1)
        done = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1), 0, 1)
        decayed = learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(step < warmup, ramp, decayed)

    def loss(part: list[Any], weights: list[Any], x: Any, y: Any) -> tuple[Any, list[Any]]:
        full = list(weights)
        for n, w in zip(trainable, part, strict=True):
            full[n] = w
        logits, statistics = forward(full, x, layers, training=True)
        chosen = jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]
        return -chosen.mean(), statistics

    def one(
        weights: list[Any], moments: Any, total: Any, key: Any, x: Any, y: Any, step: Any
    ) -> Any:
        x = augment(x.astype(jnp.float32) * scale, jax.random.fold_in(key, step), augmentation)
        part = [weights[n] for n in trainable]
        gradient, statistics = jax.grad(loss, has_aux=True)(part, weights, x, y)
        active = step < total
        weights, m, v = list(weights), list(moments[0]), list(moments[1])
        t = (step + 1).astype(jnp.float32)
        size = rate(step, total) * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for n, g in zip(trainable, gradient, strict=True):
            m[n] = jnp.where(active, 0.9 * m[n] + 0.1 * g, m[n])
            v[n] = jnp.where(active, 0.999 * v[n] + 0.001 * g * g, v[n])
            new = weights[n] - size * m[n] / (jnp.sqrt(v[n]) + 1e-7)
            weights[n] = jnp.where(active, new, weights[n])
        for layer in range(len(layers)):
            for offset in (3, 4):
                n = 5 * layer + offset
                moved = MOMENTUM * weights[n] + (1 - MOMENTUM) * statistics[2 * layer + offset - 3]
                weights[n] = jnp.where(active, moved, weights[n])
        return weights, (m, v)

    many = jax.vmap(one, in_axes=(0, 0, 0, 0, 0, 0, None))

    def run(
        pool: Any, weights: Any, moments: Any, totals: Any, keys: Any, rows: Any, y: Any, first: Any
    ) -> Any:
        def body(state: Any, xs: Any) -> Any:
            step, at, labels = xs
            state = many(*state, totals, keys, pool[at], labels, step)
            return state, None

        steps = first + jnp.arange(rows.shape[0])
        state, _ = jax.lax.scan(body, (weights, moments), (steps, rows, y))
        return state

    return jax.jit(run, donate_argnums=(1, 2))


def augment(x: Any, key: Any, augmentation: Augmentation) -> Any:
    """Shift and mirror a batch ``[B, h, w, c]``; zeros move in."""
    jax = _jax()
    import jax.numpy as jnp

    (dy, dx), count = augmentation.shift, x.shape[0]
    a, b, c = jax.random.split(key, 3)
    if augmentation.flip:
        mirrored = jax.random.bernoulli(a, 0.5, (count, 1, 1, 1))
        x = jnp.where(mirrored, x[:, :, ::-1], x)
    if not dy and not dx:
        return x
    h, w = x.shape[1:3]
    ys = jax.random.randint(b, (count, 1), 0, 2 * dy + 1) + jnp.arange(h)
    xs = jax.random.randint(c, (count, 1), 0, 2 * dx + 1) + jnp.arange(w)
    x = jnp.pad(x, ((0, 0), (dy, dy), (dx, dx), (0, 0)))
    x = jnp.take_along_axis(x, ys[:, :, None, None], 1)
    return jnp.take_along_axis(x, xs[:, None, :, None], 2)


@functools.cache
def _evaluator(layers: tuple[Conv, ...], scale: float) -> Any:
    jax = _jax()
    import jax.numpy as jnp

    def one(weights: list[Any], x: Any) -> Any:
        logits, _ = forward(weights, x.astype(jnp.float32) * scale, layers, training=False)
        return logits.argmax(1)

    def run(pool: Any, weights: Any, rows: Any) -> Any:
        return jax.vmap(one)(weights, pool[rows])

    return jax.jit(run)
