"""Pruned training with ``model.fit``, on any Keras 3 backend.

Keras fixes the number of batches when ``fit`` begins, and a pruned epoch is shorter than a full
one: hence one call of ``fit`` per epoch, between which :meth:`PrunedData.epochs` reads the losses
of the visits, runs the inference pass where the method wants one, and chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from drip.errors import UsageError
from drip.prune.policies import Cost, Pruner, Selection
from drip.prune.scores import cross_entropy

__all__ = ["Progress", "PrunedData", "StepSchedule", "VisitRecorder", "rate", "read_losses"]

Transform = Callable[[NDArray[Any], np.random.Generator | None], NDArray[Any]]
"""From raw samples ``[B, ...]`` to the model's input; the generator is None when measuring."""

WARMUP_SHARE = 0.05


def rate(progress: float, peak: float) -> float:
    """Learning rate at a share of all steps: a linear warm-up, then half a cosine down to 0.

    Loshchilov and Hutter, SGDR, arXiv:1608.03983, without restarts. A function of steps done over
    steps planned, not of epochs: a training of half the steps anneals as completely as a full one.

    Args:
        progress: Steps done over all steps, 0 to 1.
        peak: Largest rate.
    """
    if progress < WARMUP_SHARE:
        return peak * (0.05 + 0.95 * progress / WARMUP_SHARE)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


class Progress:
    """How far a training is, when the number of its steps is planned but not certain.

    What is left is estimated anew at every epoch, so that progress is exact where the plan is, and
    ends at exactly 1 where it is not (InfoBatch).
    """

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner
        self.done = 0.0

    def epoch(self, epoch: int, samples: int) -> tuple[float, float]:
        """Progress at the first step of an epoch of that many samples, and after its last."""
        later = sum(self._pruner.expected(e) for e in range(epoch + 1, self._pruner.epochs))
        first = self.done
        self.done = 1.0 if not later else first + (1 - first) * samples / (samples + later)
        return first, self.done


class StepSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """:func:`rate` along the steps of a pruned training.

    Args:
        peak: Largest rate.
    """

    def __init__(self, peak: float) -> None:
        self.peak = peak
        self._first: Any = None

    def attach(self, optimizer: Any) -> None:
        """Add what the schedule needs to the optimizer's own variables.

        A compiled step treats other variables as constants, so these must belong to the optimizer.
        """
        self._first, self._from, self._slope = (
            optimizer.add_variable((), initializer="zeros", dtype="float32", name=name)
            for name in ("prune_first_step", "prune_progress", "prune_slope")
        )
        self._steps = optimizer.iterations

    def begin(self, progress: tuple[float, float], steps: int) -> None:
        """Spread the progress of an epoch over its steps."""
        if self._first is None:
            raise UsageError("the schedule has no optimizer", "call schedule.attach(optimizer)")
        self._first.assign(float(keras.ops.convert_to_numpy(self._steps)))
        self._from.assign(progress[0])
        self._slope.assign((progress[1] - progress[0]) / steps)

    def __call__(self, step: Any) -> Any:
        ops = keras.ops
        if self._first is None:
            return ops.convert_to_tensor(self.peak, "float32")
        done = ops.cast(step, "float32") - ops.convert_to_tensor(self._first)
        at = ops.convert_to_tensor(self._from) + done * ops.convert_to_tensor(self._slope)
        warm = 0.05 + 0.95 * at / WARMUP_SHARE
        falling = ops.clip((at - WARMUP_SHARE) / (1 - WARMUP_SHARE), 0.0, 1.0)
        cosine = 0.5 * (1 + ops.cos(math.pi * falling))
        return self.peak * ops.where(at < WARMUP_SHARE, warm, cosine)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves with a compiled model."""
        return {"peak": self.peak}


class VisitRecorder(keras.metrics.Metric):  # type: ignore[misc]
    """A metric that remembers every sample's loss of an epoch, in the order of training.

    Its own result is the mean loss.

    Args:
        samples: Most samples of an epoch.
        batch: Samples per batch.
        from_logits: Whether the model outputs logits or probabilities.
    """

    def __init__(
        self, samples: int, batch: int, *, from_logits: bool = True, name: str = "visits"
    ) -> None:
        super().__init__(name=name)
        self._batch, self.from_logits = batch, from_logits
        size = -(-samples // batch) * batch
        self._losses = self.add_variable((size,), "zeros", name="losses")
        self._right = self.add_variable((size,), "zeros", name="right")
        self._count = self.add_variable((), "zeros", dtype="int32", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        ops = keras.ops
        y = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        losses = keras.losses.sparse_categorical_crossentropy(
            y, y_pred, from_logits=self.from_logits
        )
        right = ops.cast(ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), y), "float32")
        at = ops.reshape(ops.convert_to_tensor(self._count), (1,))
        for buffer, new in ((self._losses, ops.cast(losses, "float32")), (self._right, right)):
            buffer.assign(ops.slice_update(ops.convert_to_tensor(buffer), at, new))
        self._count.assign(ops.add(self._count, self._batch))

    def result(self) -> Any:
        ops = keras.ops
        count = ops.maximum(ops.cast(self._count, "float32"), 1.0)
        size = self._losses.shape[0]
        seen = ops.cast(ops.less(ops.arange(size), ops.convert_to_tensor(self._count)), "float32")
        return ops.sum(ops.convert_to_tensor(self._losses) * seen) / count

    def reset_state(self) -> None:
        # Only the position: what was recorded is read after Keras has reset its metrics.
        self._count.assign(0)

    def _losses_seen(self) -> bool:
        return bool(np.any(keras.ops.convert_to_numpy(self._losses) != 0))

    def read(self, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Losses and whether answers were right, of an epoch's first samples; None: none seen."""
        if not self._losses_seen():
            return None
        losses = np.asarray(keras.ops.convert_to_numpy(self._losses), np.float64)[:count]
        return losses, np.asarray(keras.ops.convert_to_numpy(self._right))[:count] > 0.5


class PrunedData(keras.utils.PyDataset):  # type: ignore[misc]
    """Samples for ``model.fit``, of which every epoch sees those that a pruner chose.

    Every batch has the same shape: what the last one lacks is filled up with the epoch's first
    samples at weight 0, so that nothing is compiled twice and no sample counts twice.

    Args:
        x: Samples ``[N, ...]``.
        y: True classes ``[N]``.
        pruner: Chooses; see :mod:`drip.prune.policies`.
        batch: Samples per step.
        transform: From samples to the model's input, augmentation included.
        from_logits: Whether the model outputs logits or probabilities.
        weights: Factor of each sample's loss ``[N]``; None: 1.
        recorder: One of an earlier training of the same size, so that Keras need not compile anew.
        schedule: Told what share of the training an epoch is; its optimizer must be attached.

    Attributes:
        recorder: A metric for ``compile``, through which losses of training batches come back.
        cost: What has been spent so far.
        selection: What the present epoch trains on.
        visits: Of the epoch that has ended: losses, and whether the answers were right.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[np.integer],
        pruner: Pruner,
        *,
        batch: int,
        transform: Transform | None = None,
        from_logits: bool = True,
        weights: NDArray[np.floating] | None = None,
        recorder: VisitRecorder | None = None,
        schedule: StepSchedule | None = None,
    ) -> None:
        super().__init__()
        if len(x) != pruner.n or len(y) != pruner.n:
            raise UsageError(
                f"{len(x)} samples, {len(y)} labels, a pruner of {pruner.n}", "use one count"
            )
        self.x, self.y, self.pruner, self.batch = x, y, pruner, batch
        self.recorder = recorder or VisitRecorder(len(x), batch, from_logits=from_logits)
        self.cost = Cost()
        self.epoch = 0
        self.selection: Selection = Selection(np.arange(len(x)), np.ones(len(x), np.float32))
        self.visits: tuple[NDArray[np.float64], NDArray[np.bool_]] | None = None
        self._transform = transform
        self._weights = None if weights is None else np.asarray(weights, np.float32)
        self._schedule = schedule
        self._progress = Progress(pruner)

    def __len__(self) -> int:
        return -(-len(self.selection.indices) // self.batch)

    def __getitem__(self, step: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
        indices, weights = padded(self.selection, self.batch)
        part = slice(step * self.batch, (step + 1) * self.batch)
        at, weight = indices[part], weights[part]
        if self._weights is not None:
            weight = weight * self._weights[at]
        x = self.x[at]
        if self._transform is not None:
            # One generator per batch: the result does not depend on who asked before.
            x = self._transform(x, np.random.default_rng((self.pruner.seed, self.epoch, step)))
        return x, self.y[at], weight

    def epochs(self, model: Any, on_end: Callable[[], object] | None = None) -> Iterator[int]:
        """Yield every epoch to be trained, with its samples chosen; use one ``fit`` for each.

        Args:
            model: Compiled with ``metrics=[data.recorder]`` where the method needs the losses of
                training batches.
            on_end: Called when an epoch has ended and the next is not chosen yet: the time to save
                :meth:`state` and the weights.

        Raises:
            UsageError: The method needs them, and the model was compiled without.
        """
        while self.epoch < self.pruner.epochs:
            if self.pruner.wants_losses(self.epoch):
                self.pruner.observe_all(self.losses(model))
                self.cost += Cost(scored=len(self.x))
            self.selection = self.pruner.select(self.epoch)
            count = len(self.selection.indices)
            progress = self._progress.epoch(self.epoch, count)
            if self._schedule is not None:
                self._schedule.begin(progress, len(self))
            yield self.epoch
            self.cost += Cost(trained=count)
            self.visits = self.recorder.read(count)
            if self.visits is not None:
                self.pruner.observe_visited(self.selection.indices, self.visits[0])
            elif self.pruner.wants_visits:
                raise UsageError(
                    f"{type(self.pruner).__name__} learns nothing of the losses in training",
                    "compile the model with metrics=[data.recorder]",
                )
            self.epoch += 1
            if on_end is not None:
                on_end()

    def losses(self, model: Any) -> NDArray[np.float64]:
        """Cross-entropy of every sample ``[N]`` as the model is now, without augmentation."""
        return read_losses(
            model,
            self.x,
            self.y,
            self.batch,
            self._transform,
            from_logits=self.recorder.from_logits,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """What :meth:`restore` needs to go on after the epochs that have ended."""
        own = {
            "epoch": np.array(self.epoch),
            "progress": np.array(self._progress.done),
            "cost": np.array([self.cost.trained, self.cost.scored]),
        }
        return own | {f"pruner_{key}": value for key, value in self.pruner.state().items()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from :meth:`state`; the model's and the optimizer's weights are the caller's."""
        self.epoch = int(state["epoch"])
        self._progress.done = float(state["progress"])
        self.cost = Cost(*(float(value) for value in state["cost"]))
        prefix = "pruner_"
        self.pruner.restore({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})


def padded(selection: Selection, batch: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and weights of whole batches: filled up with the first samples at weight 0."""
    missing = -len(selection.indices) % batch
    fill = np.resize(selection.indices, missing)
    return (
        np.concatenate([selection.indices, fill]),
        np.concatenate([selection.weights, np.zeros(missing, np.float32)]),
    )


def read_losses(
    model: Any,
    x: NDArray[Any],
    y: NDArray[np.integer],
    batch: int,
    transform: Transform | None = None,
    *,
    from_logits: bool = True,
) -> NDArray[np.float64]:
    """Cross-entropy ``[N]`` of samples in inference mode, in batches of one shape."""
    parts = []
    for start in range(0, len(x), batch):
        at = np.resize(np.arange(start, min(start + batch, len(x))), batch)
        inputs = x[at] if transform is None else transform(x[at], None)
        out = np.asarray(model.predict_on_batch(inputs), np.float64)
        out = out if from_logits else np.log(np.clip(out, 1e-12, 1.0))
        parts.append(cross_entropy(out, y[at])[: min(batch, len(x) - start)])
    return np.concatenate(parts)
