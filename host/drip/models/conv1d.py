"""A 1-D convolutional net for windows of motion, vibration or other multichannel signals.

After Ronao and Cho, Human activity recognition with smartphone sensors using deep learning neural
networks, Expert Systems with Applications 59, 2016, cut down and with a pooled head.
"""

from __future__ import annotations

from typing import Any

from drip.models.backend import keras
from drip.models.layers import check_rank, norm_relu


def conv1d(input_shape: tuple[int, ...], classes: int) -> Any:
    """Three convolutions along time, global average pooling, one dense layer.

    Args:
        input_shape: ``(time, channels)`` of a frame, at least 16 steps.
        classes: Number of logits.
    """
    check_rank("conv1d", input_shape, ("time", "channels"))
    layers = keras().layers
    inputs = x = keras().Input(input_shape)
    for filters, kernel, strides in ((16, 5, 1), (24, 5, 2), (32, 3, 2)):
        x = layers.Conv1D(filters, kernel, strides, "same", use_bias=False)(x)
        x = norm_relu(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras().Model(inputs, layers.Dense(classes)(x), name="conv1d")
