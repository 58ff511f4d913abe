"""MobileNetV1 with a quarter of the channels.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
arXiv:1704.04861; 0.25 at 96x96x3 is the visual wake words model of MLPerf Tiny.
"""

from __future__ import annotations

from typing import Any

from drip.models.backend import keras
from drip.models.layers import check_rank, conv, separable

# (channels, stride) of each separable block at full width; a quarter of the channels is used.
_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


def mobilenet(input_shape: tuple[int, ...], classes: int) -> Any:
    """MobileNetV1-0.25.

    Args:
        input_shape: ``(height, width, channels)``, for example ``(96, 96, 3)``; multiples of 32.
        classes: Number of logits; 2 for person detection.
    """
    check_rank("mobilenet", input_shape, ("height", "width", "channels"))
    inputs = keras().Input(input_shape)
    x = conv(inputs, 8, strides=2)
    for channels, stride in _BLOCKS:
        x = separable(x, channels // 4, strides=stride)
    x = keras().layers.AveragePooling2D(tuple(x.shape[1:3]))(x)
    x = keras().layers.Flatten()(x)
    return keras().Model(inputs, keras().layers.Dense(classes)(x), name="mobilenet")
