"""A dense autoencoder for anomaly detection.

Koizumi et al., Description and Discussion on DCASE2020 Challenge Task 2, arXiv:2006.05822, the
anomaly detection model of MLPerf Tiny. It has no spatial tensor and therefore no Grad-CAM.
"""

from __future__ import annotations

import math
from typing import Any

from drip.models.backend import keras
from drip.models.layers import norm_relu


def autoencoder(input_shape: tuple[int, ...], classes: int) -> Any:
    """Four dense layers of 128, a bottleneck of 8, four of 128, and the input's size again.

    Args:
        input_shape: Shape of a frame, flattened first; ``(640,)`` in MLPerf Tiny.
        classes: Not used; an autoencoder has none.
    """
    del classes
    layers = keras().layers
    inputs = x = keras().Input(input_shape)
    if len(input_shape) > 1:
        x = layers.Flatten()(x)
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = norm_relu(layers.Dense(units, use_bias=False)(x))
    x = layers.Dense(math.prod(input_shape))(x)
    return keras().Model(inputs, x, name="autoencoder")
