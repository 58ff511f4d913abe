"""DS-CNN: depthwise separable convolutions for keyword spotting.

Zhang et al., Hello Edge: Keyword Spotting on Microcontrollers, arXiv:1711.07128; the size used by
MLPerf Tiny (Banbury et al., arXiv:2106.07597).
"""

from __future__ import annotations

from typing import Any

from drip.models.backend import keras
from drip.models.layers import check_rank, conv, separable


def ds_cnn(input_shape: tuple[int, ...], classes: int) -> Any:
    """A 10x4 stride-2 stem and four separable blocks of 64 channels.

    Args:
        input_shape: ``(time, coefficients, 1)``, for example ``(49, 10, 1)``.
        classes: Number of logits; 12 in MLPerf Tiny.
    """
    check_rank("ds-cnn", input_shape, ("time", "coefficients", "1"))
    layers = keras().layers
    inputs = keras().Input(input_shape)
    x = conv(inputs, 64, (10, 4), strides=(2, 2))
    x = layers.Dropout(0.2)(x)
    for _ in range(4):
        x = separable(x, 64)
    x = layers.Dropout(0.4)(x)
    x = layers.AveragePooling2D(tuple(x.shape[1:3]))(x)
    x = layers.Flatten()(x)
    return keras().Model(inputs, layers.Dense(classes)(x), name="ds_cnn")
