"""Models as users bring them: written without DRIP in mind, converted with or without it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def _layers() -> Any:
    import keras

    return keras.layers


def _model(inputs: Any, outputs: Any) -> Any:
    import keras

    return keras.Model(inputs, outputs)


def mobilenet(**options: Any) -> Any:
    """MobileNetV1-0.25 as keras.applications defines it."""
    import keras

    chosen = {"input_shape": (96, 96, 3), "classes": 4, "classifier_activation": None}
    return keras.applications.MobileNet(alpha=0.25, weights=None, **{**chosen, **options})


def mobilenet_without_top() -> Any:
    """The body of keras.applications, and a head of one's own."""
    layers = _layers()
    body = mobilenet(include_top=False, pooling=None)
    x = layers.GlobalAveragePooling2D()(body.output)
    return _model(body.input, layers.Dense(4)(layers.Dropout(0.2)(x)))


def nested_body() -> Any:
    """A body that is one layer of the outer model."""
    layers = _layers()
    inputs = layers.Input((96, 96, 3))
    x = mobilenet(include_top=False)(inputs)
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def nested_head() -> Any:
    """A head that is inside the nested model."""
    import keras

    layers = keras.layers
    return keras.Sequential([layers.Input((8, 8, 1)), layers.Rescaling(2.0), sequential()])


def sequential() -> Any:
    """Sequential, ending in probabilities."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax"),
        ]
    )


def explicit_padding() -> Any:
    """ZeroPadding2D before valid convolutions, as MobileNets have it."""
    layers = _layers()
    inputs = layers.Input((9, 9, 3))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(inputs)
    x = layers.ReLU(6.0)(layers.Conv2D(8, 3, 2, padding="valid")(x))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="valid")(x))
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def dilated() -> Any:
    """Dilation in a full and in a depthwise convolution."""
    layers = _layers()
    inputs = layers.Input((12, 12, 2))
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, activation="relu")(x)
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def dilated_in_time() -> Any:
    """A temporal convolutional net: causal and dilated."""
    layers = _layers()
    inputs = layers.Input((40, 3))
    x = layers.Conv1D(8, 3, padding="causal", activation="relu")(inputs)
    x = layers.Conv1D(8, 3, padding="causal", dilation_rate=4, activation="relu")(x)
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def separable_in_time() -> Any:
    """SeparableConv1D and pooling, flattened."""
    layers = _layers()
    inputs = layers.Input((40, 3))
    x = layers.MaxPooling1D(2)(layers.Conv1D(8, 3, activation="relu")(inputs))
    x = layers.AveragePooling1D(2)(layers.SeparableConv1D(8, 3, activation="relu")(x))
    return _model(inputs, layers.Dense(4)(layers.Flatten()(x)))


def residual() -> Any:
    """Two branches added."""
    layers = _layers()
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, y]))
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def joined() -> Any:
    """Two branches put side by side."""
    layers = _layers()
    inputs = layers.Input((8, 8, 3))
    a = layers.Conv2D(8, 1, activation="relu")(inputs)
    b = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.Concatenate()([a, b])
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def with_head(*head: Any, shape: tuple[int, ...] = (8, 8, 1)) -> Any:
    """A small body that ends in a 6x6 map, and a head whose last layer makes the logits.

    Args:
        head: Layers, as of :func:`heads`.
        shape: 8x8 or about 28x28, and channels.
    """
    layers = _layers()
    inputs = layers.Input(shape)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    if shape[0] > 8:
        x = layers.Conv2D(24, 5, 3, activation="relu")(x)
    x = layers.Conv2D(24, 3, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for layer in head:
        x = layer(x)
    return _model(inputs, x)


def heads(classes: int) -> dict[str, tuple[Any, ...]]:
    """Heads of every kind that Grad-CAM has a closed form for."""
    layers = _layers()
    dense, flat = layers.Dense(classes), layers.Flatten()
    hidden = layers.Dense(24, activation="relu")
    return {
        "mean": (layers.GlobalAveragePooling2D(), dense),
        "mean of a hidden layer": (layers.GlobalAveragePooling2D(), hidden, dense),
        "largest": (layers.GlobalMaxPooling2D(), dense),
        "average pooling": (layers.AveragePooling2D(6), flat, dense),
        "average pooling to a map": (layers.AveragePooling2D(3), flat, dense),
        "max pooling": (layers.MaxPooling2D(6), flat, dense),
        "flat": (flat, dense),
        "flat with a hidden layer": (flat, hidden, layers.Dropout(0.1), dense),
        "flat with two hidden layers": (
            flat,
            hidden,
            layers.Dense(16, activation="relu"),
            dense,
        ),
        "two linear layers": (flat, layers.Dense(20), dense),
        "1x1 convolution after pooling": (
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Dropout(0.1),
            layers.Conv2D(classes, 1),
            layers.Reshape((classes,)),
        ),
        "convolution of the whole map": (layers.Conv2D(classes, 6), flat),
        "a map per class": (layers.Conv2D(classes, 1), layers.GlobalAveragePooling2D()),
    }


def layer_normalised() -> Any:
    layers = _layers()
    inputs = layers.Input((8, 8, 3))
    x = layers.LayerNormalization()(layers.Conv2D(8, 3)(inputs))
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def recurrent() -> Any:
    layers = _layers()
    inputs = layers.Input((20, 3))
    return _model(inputs, layers.Dense(4)(layers.LSTM(8)(inputs)))


def activated(name: str) -> Any:
    """A convolution with an activation of another kind."""
    layers = _layers()
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation=name)(inputs)
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def normalised_input() -> Any:
    layers = _layers()
    inputs = layers.Input((8, 8, 3))
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(inputs)
    x = layers.Conv2D(8, 3)(x)
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def two_hidden() -> Any:
    layers = _layers()
    return with_head(
        layers.Flatten(),
        layers.Dense(16, activation="relu"),
        layers.Dense(12, activation="relu"),
        layers.Dense(4),
    )


def dense_only() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(9, "relu"), layers.Dense(4)]
    )


def enlarged() -> Any:
    layers = _layers()
    inputs = layers.Input((8, 8, 3))
    x = layers.UpSampling2D()(layers.Conv2D(8, 3)(inputs))
    return _model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def shake(model: Any) -> Any:
    """Give all weights, biases included, values that training could have given them."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("bias", "beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.dtype == "float32":
            fan = int(np.prod(variable.shape[:-1])) or 1
            if "depthwise" in variable.path:
                fan = int(np.prod(variable.shape[:2]))
            variable.assign(rng.normal(0, (2 / fan) ** 0.5, variable.shape))
    return model


def directly(
    model: Any,
    frames: NDArray[np.float32],
    *,
    border: str = "int8",
    quantisation: str = "full",
    batch: int | None = 1,
) -> bytes:
    """Convert with TensorFlow's converter alone, as tutorials on the web do.

    Args:
        model: Keras model.
        frames: Real inputs ``[N, ...]``.
        border: Type of input and output: ``"int8"``, ``"uint8"`` or ``"float32"``.
        quantisation: ``"full"``, ``"dynamic"`` range or ``"none"``.
        batch: Batch size, None = not fixed.
    """
    import keras
    import tensorflow as tf

    from drip.models.backend import quiet_stderr

    if batch is not None:
        inputs = keras.Input(batch_shape=(batch, *model.input_shape[1:]))
        model = keras.Model(inputs, model(inputs))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantisation != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantisation == "full":
        converter.representative_dataset = lambda: ([x[None]] for x in frames)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, border)
    with quiet_stderr():
        return bytes(converter.convert())
