"""A wake-word net whose convolutions run along time only, so that it can also run as a stream.

The shape of the streaming wake-word model of MLPerf Tiny 1.3 (mlcommons/tiny); the idea is
Rybakov et al., Streaming keyword spotting on mobile devices, arXiv:2005.06720.
"""

from __future__ import annotations

from typing import Any

from drip.models.backend import keras
from drip.models.layers import check_rank, separable

# (length of the depthwise kernel, channels after it); the last one spans what is left of 30 steps.
_BLOCKS = ((3, 128), (5, 128), (10, 128), (15, 32))


def wakeword(input_shape: tuple[int, ...], classes: int) -> Any:
    """Four kx1 depthwise + pointwise blocks without padding, then one dense layer.

    Args:
        input_shape: ``(time, 1, bands)`` with at least 30 steps, for example ``(30, 1, 40)``.
        classes: Number of logits; 3 in MLPerf Tiny.
    """
    check_rank("wakeword", input_shape, ("time", "1", "bands"))
    inputs = x = keras().Input(input_shape)
    for kernel, channels in _BLOCKS:
        x = separable(x, channels, (kernel, 1), padding="valid", inner_relu=False)
    x = keras().layers.Flatten()(x)
    return keras().Model(inputs, keras().layers.Dense(classes)(x), name="wakeword")
