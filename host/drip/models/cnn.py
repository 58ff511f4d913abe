"""Small plain convolutional nets for images and spectrograms of up to about 48x48.

After LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998, with
the global average pooling head of Lin et al., Network in Network, arXiv:1312.4400.
"""

from __future__ import annotations

from typing import Any

from drip.models.backend import keras
from drip.models.layers import check_rank, conv

_WIDTHS = (16, 24, 24)
# A coarser last map would leave Grad-CAM nothing to point at.
_SMALLEST_MAP = 4


def cnn(input_shape: tuple[int, ...], classes: int) -> Any:
    """Three 3x3 convolutions, global average pooling, one dense layer: 9.3k parameters.

    Args:
        input_shape: ``(height, width, channels)`` of a frame.
        classes: Number of logits.
    """
    inputs, x = _body("cnn", input_shape)
    x = keras().layers.GlobalAveragePooling2D()(x)
    return _model(inputs, keras().layers.Dense(classes)(x), "cnn")


def hidden_cnn(input_shape: tuple[int, ...], classes: int) -> Any:
    """As :func:`cnn`, with a hidden ReLU layer of 32 between pooling and logits."""
    inputs, x = _body("cnn-hidden", input_shape)
    x = keras().layers.GlobalAveragePooling2D()(x)
    x = keras().layers.Dense(32, activation="relu")(x)
    return _model(inputs, keras().layers.Dense(classes)(x), "cnn_hidden")


def flatten_cnn(input_shape: tuple[int, ...], classes: int) -> Any:
    """As :func:`cnn`, with a flattened map and a hidden ReLU layer of 24 instead of pooling."""
    inputs, x = _body("cnn-flatten", input_shape)
    x = keras().layers.Flatten()(x)
    x = keras().layers.Dense(24, activation="relu")(x)
    return _model(inputs, keras().layers.Dense(classes)(x), "cnn_flatten")


def _body(name: str, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
    check_rank(name, input_shape, ("height", "width", "channels"))
    inputs = x = keras().Input(input_shape)
    for i, width in enumerate(_WIDTHS):
        if i and min(x.shape[1:3]) >= 2 * _SMALLEST_MAP:
            x = keras().layers.MaxPooling2D(2)(x)
        x = conv(x, width)
    return inputs, x


def _model(inputs: Any, outputs: Any, name: str) -> Any:
    return keras().Model(inputs, outputs, name=name)
