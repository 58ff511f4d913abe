"""Training with a fixed number of steps, repeatable by seed.

A fixed step count, not a fixed number of epochs, is what makes models trained on data sets of
different size comparable; the result records both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.data import Dataset, InputScaling
from drip.errors import DataError, ModelError, UsageError
from drip.models import Builder
from drip.models.backend import keras, tensorflow

Augment = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]
"""From a scaled batch ``[B, ...]`` to another of the same shape, using only the generator given."""

# Python is re-entered once per this many steps; more is no faster, less slows small nets down.
_STEPS_PER_CALL = 10


@dataclass(frozen=True)
class TrainResult:
    """A trained model and how it came to be.

    Attributes:
        model: The ``keras.Model``; it outputs what the builder made it output: logits, or
            probabilities where it ends in softmax.
        history: ``"step"``, ``"loss"`` and ``"accuracy"`` along the training (running means), and
            ``"validation_accuracy"`` with one value if there was a validation set.
        seconds: Wall-clock time of the training.
        steps: Optimiser steps taken.
        epochs: How often each frame was seen, on average.
    """

    model: Any
    history: dict[str, list[float]]
    seconds: float
    steps: int
    epochs: float


def train(
    builder: Builder,
    data: Dataset,
    *,
    validation: Dataset | None = None,
    steps: int,
    batch: int = 32,
    seed: int,
    scaling: InputScaling,
    on_progress: Callable[[int, int], None] | None = None,
    augment: Augment | None = None,
    learning_rate: float = 3e-3,
) -> TrainResult:
    """Train a new model from scratch with Adam and a cosine learning rate.

    Training starts a new Keras session, so that names, and with them the bytes of a converted
    model, depend on nothing that ran before.

    Args:
        builder: Makes the untrained model.
        data: Labelled frames; every epoch sees each once, in a new order.
        validation: Measured once at the end; never used to choose anything.
        steps: Optimiser steps.
        batch: Frames per step.
        seed: Fixes weights, order and augmentation: same machine, versions, data and seed give the
            same model.
        scaling: From raw frames to the model's input.
        on_progress: Called with ``(steps done, steps)``.
        augment: Changes each training batch after scaling.
        learning_rate: Peak of the schedule: Loshchilov and Hutter, SGDR, arXiv:1608.03983, with
            one warm-up twentieth and no restarts.

    Raises:
        DataError: A frame is not labelled, or there are none.
        ModelError: The builder failed or its model does not fit the data.
        MissingDependencyError: TensorFlow is not installed.
    """
    if steps < 1 or batch < 1:
        raise UsageError(f"{steps} steps of {batch} frames", "both must be at least 1")
    _check_labelled(data)
    k = keras()
    started = time.monotonic()
    k.utils.clear_session()
    k.utils.set_random_seed(seed)
    model = _build(builder, data, scaling.input_shape(data.frame_shape))
    probabilities = _ends_in_softmax(model)
    autoencoding = _is_autoencoder(model, data)
    warmup = steps // 20
    schedule = k.optimizers.schedules.CosineDecay(
        learning_rate / 20 if warmup else learning_rate,
        max(1, steps - warmup),
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    model.compile(
        optimizer=k.optimizers.Adam(schedule),
        loss=k.losses.MeanSquaredError()
        if autoencoding
        else k.losses.SparseCategoricalCrossentropy(from_logits=not probabilities),
        metrics=[] if autoencoding else ["accuracy"],
        steps_per_execution=_STEPS_PER_CALL,
        jit_compile=False,
    )
    history: dict[str, list[float]] = {"step": [], "loss": [], "accuracy": []}

    def after_call(last_step: int, logs: dict[str, float] | None) -> None:
        done = min(last_step + 1, steps)
        history["step"].append(float(done))
        for key in ("loss", "accuracy"):
            if logs and key in logs:
                history[key].append(float(logs[key]))
        if on_progress is not None:
            on_progress(done, steps)

    model.fit(
        _batches(data, scaling, augment, steps, batch, seed, autoencoding),
        epochs=1,
        shuffle=False,
        verbose=0,
        callbacks=[k.callbacks.LambdaCallback(on_train_batch_end=after_call)],
    )
    seconds = time.monotonic() - started
    if validation is not None and not autoencoding:
        _check_labelled(validation)
        hits = predict(model, validation.x, scaling).argmax(axis=1) == validation.y
        history["validation_accuracy"] = [float(hits.mean())]
    return TrainResult(model, history, seconds, steps, steps * batch / len(data))


def predict(model: Any, raw: NDArray[Any], scaling: InputScaling) -> NDArray[np.float32]:
    """Float outputs ``[N, ...]`` of a Keras model for raw frames ``[N, ...]``.

    This is the model before quantisation; what the device answers comes from the compiled core.
    """
    parts = [
        np.asarray(model(scaling.apply(raw[i : i + 256]), training=False), np.float32)
        for i in range(0, len(raw), 256)
    ]
    return np.concatenate(parts)


def _check_labelled(data: Dataset) -> None:
    if not len(data):
        raise DataError("there are no frames to learn from", "pass at least one labelled frame")
    missing = int((data.y < 0).sum())
    if missing:
        raise DataError(
            f"{missing} of {len(data)} frames are not labelled", "label them, or leave them out"
        )


def _build(builder: Builder, data: Dataset, shape: tuple[int, ...]) -> Any:
    name = getattr(builder, "__name__", "the builder")
    try:
        model = builder(shape, len(data.classes))
    except (ModelError, UsageError):
        raise
    except Exception as error:
        raise ModelError(
            f"{name} failed: {type(error).__name__}: {error}".splitlines()[0],
            f"it was called with {shape}, {len(data.classes)}",
        ) from error
    if not isinstance(model, keras().Model):
        raise ModelError(
            f"{name} returned {type(model).__name__}, not a keras.Model",
            "return the model from build(input_shape, classes)",
        )
    model = _functional(model, shape)
    if tuple(model.input_shape[1:]) != shape:
        raise ModelError(
            f"the model takes {list(model.input_shape[1:])}, a frame is {list(shape)}",
            "use the input_shape that the builder is given",
        )
    if not _is_autoencoder(model, data) and model.output_shape[1:] != (len(data.classes),):
        raise ModelError(
            f"the model outputs {list(model.output_shape[1:])}, there are"
            f" {len(data.classes)} classes",
            "end in one dense layer with one logit per class",
        )
    return model


def _functional(model: Any, shape: tuple[int, ...]) -> Any:
    """A subclassed model, or one without an Input, called once so that its shapes are known."""
    if not getattr(model, "inputs", None):
        inputs = keras().Input(shape)
        try:
            if isinstance(model, keras().Sequential):
                model.build((None, *shape))
            else:
                model = keras().Model(inputs, model(inputs))
        except Exception as error:
            raise ModelError(
                f"{type(model).__name__} does not take frames {list(shape)}:"
                f" {type(error).__name__}: {error}".splitlines()[0],
                "call it on keras.Input(input_shape) to see the whole error",
            ) from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            "one of each is supported; wrap it in keras.Model(input, logits)",
        )
    return model


def _ends_in_softmax(model: Any) -> bool:
    operation = model.outputs[0]._keras_history[0]
    if isinstance(operation, keras().Model):
        # A Sequential model around another one, for example.
        return hasattr(operation, "outputs") and _ends_in_softmax(operation)
    softmax = keras().activations.softmax
    return isinstance(operation, keras().layers.Softmax) or (
        getattr(operation, "activation", None) is softmax
    )


def _is_autoencoder(model: Any, data: Dataset) -> bool:
    return bool(
        model.output_shape[1:] == (int(np.prod(data.frame_shape)),)
        and model.output_shape[1:] != (len(data.classes),)
    )


def _batches(
    data: Dataset,
    scaling: InputScaling,
    augment: Augment | None,
    steps: int,
    batch: int,
    seed: int,
    autoencoding: bool,
) -> Any:
    rng = np.random.default_rng(seed)
    epochs = -(-steps * batch // len(data))
    order = np.concatenate([rng.permutation(len(data)) for _ in range(epochs)])

    class Batches(keras().utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return steps

        def __getitem__(self, step: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
            at = order[step * batch : (step + 1) * batch]
            x = scaling.apply(data.x[at])
            if augment is not None:
                # One generator per step: the result does not depend on who asked before.
                x = augment(x, np.random.default_rng((seed, step)))
            return x, x.reshape(len(x), -1) if autoencoding else data.y[at]

    tensorflow()
    return Batches()
