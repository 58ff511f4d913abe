"""The integer Grad-CAM of the core against Grad-CAM by automatic differentiation in floating point.

The definition is that of Selvaraju et al., arXiv:1610.02391: gradients of a logit with respect to
the last spatial tensor, averaged over positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
pytest.importorskip("drip._core", reason="needs the compiled core: make setup")

pytestmark = pytest.mark.slow


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks with ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray(((ends - counts + ends - 1) / 2)[inverse])


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Rank correlation."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def direct_head(input_shape: tuple[int, ...], classes: int) -> Any:
    """Flatten, then one dense layer."""
    import keras

    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def two_hidden_head(input_shape: tuple[int, ...], classes: int) -> Any:
    """Flatten, then two hidden ReLU layers."""
    import keras

    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(x))
    x = keras.layers.Dense(16, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def float_scores(
    model: Any, x: NDArray[np.float32], chosen: NDArray[Any], minus: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Mean positive Grad-CAM of the chosen logits (minus other ones) ``[N]``, by GradientTape."""
    import keras
    import tensorflow as tf

    from drip.convert import features_tensor

    both = keras.Model(model.inputs, [features_tensor(model.outputs[0]), model.outputs[0]])
    features = both(x)[0]
    head = keras.Model(both.outputs[0], both.outputs[1])
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = head(features)
        logit = tf.gather(logits, chosen.astype(np.int64), batch_dims=1)
        if minus is not None:
            logit -= tf.gather(logits, minus.astype(np.int64), batch_dims=1)
    gradient = tape.gradient(logit, features)
    alpha = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    cam = tf.reduce_sum(alpha * features, axis=-1)
    return np.asarray(tf.reduce_mean(tf.nn.relu(cam), axis=(1, 2)), np.float64)


def masks_agree(model: Any, core: Any, test: Any) -> NDArray[np.bool_]:
    """Frames on which the same hidden units are active in floating point and in int8, ``[N]``.

    A sum that is almost zero in floating point may have the other sign in integers.
    """
    import keras

    from drip.compile.blob import unpack_blob
    from drip.data import DIGITS_SCALING
    from drip.wire import BlobCam, BlobCamLayer, BlobTensor, Section

    blob = unpack_blob(core.blob)
    content = blob.find(Section.CAM).content
    cam = BlobCam.unpack(content)
    if not cam.hidden:
        return np.ones(len(test), np.bool_)
    tensors = blob.find(Section.TENSORS).content
    uppers = [
        BlobCamLayer.unpack(content, BlobCam.SIZE + n * BlobCamLayer.SIZE).tensor
        for n in range(cam.uppers)
    ]
    numbers = [cam.hidden_tensor, *reversed(uppers)]
    zeros = [BlobTensor.unpack(tensors, n * BlobTensor.SIZE).zero_point for n in numbers]
    hidden = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][:-1]
    outputs = keras.Model(model.inputs, [layer.output for layer in hidden])
    real = outputs(DIGITS_SCALING.apply(test.x))
    real = np.concatenate([np.asarray(r) > 0 for r in (real if len(hidden) > 1 else [real])], 1)
    ours = []
    for frame in test.x:
        core.run(frame[None])
        masks = zip(numbers, zeros, strict=True)
        ours.append(np.concatenate([core.tensor(n).reshape(-1) > zero for n, zero in masks]))
    return np.asarray((real == np.array(ours)).all(axis=1))


@pytest.mark.parametrize(
    "head", ["cnn", "cnn-hidden", "cnn-flatten", "flatten-direct", "two-hidden"]
)
def test_integer_cam_orders_frames_as_the_gradient_does(head: str) -> None:
    from drip.compile import compile_model
    from drip.convert import convert
    from drip.core import Model
    from drip.data import DIGITS_SCALING, digits
    from drip.models import BUILDERS
    from drip.train import train

    data = digits()
    fit, test = data.take(np.arange(900)), data.take(np.arange(900, 1797))
    own = {"flatten-direct": direct_head, "two-hidden": two_hidden_head}
    builder = own[head] if head in own else BUILDERS[head]
    trained = train(builder, fit, steps=300, seed=1, scaling=DIGITS_SCALING)
    tflite = convert(trained.model, fit.x, scaling=DIGITS_SCALING, classes=data.classes)
    model = Model(compile_model(tflite))
    x = DIGITS_SCALING.apply(test.x)
    agree = masks_agree(trained.model, model, test)
    assert agree.mean() > 0.85
    scores = model.score_all(test.x)
    # The mean gradient of a flattened map is small: few classes have evidence by themselves there.
    minus = scores.class_2 if head == "flatten-direct" else None
    ours = np.empty(len(test))
    for n, frame in enumerate(test.x):
        other = None if minus is None else int(minus[n])
        units, total = model.cam_units(frame, int(scores.class_1[n]), other)
        ours[n] = total * model.cam_scale / units.size
    real = float_scores(trained.model, x, scores.class_1, minus)
    # Without evidence the score is zero in both; zeros have no order.
    some = (ours > 0) & (real > 0)
    assert ((ours > 0) == (real > 0)).mean() > 0.99
    both = some & agree
    assert both.sum() > 300
    assert spearman(ours[both], real[both]) >= 0.999
    assert spearman(ours[some], real[some]) >= 0.995
    assert np.median(np.abs(ours[both] - real[both]) / real[both]) < 0.05
