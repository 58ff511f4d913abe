"""ResNet-8: three residual stacks for 32x32 images.

He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385, in the size used by
MLPerf Tiny (Banbury et al., arXiv:2106.07597).
"""

from __future__ import annotations

from typing import Any

from drip.models.backend import keras
from drip.models.layers import check_rank, conv


def resnet8(input_shape: tuple[int, ...], classes: int) -> Any:
    """A stem and three residual stacks of 16, 32 and 64 channels.

    Args:
        input_shape: ``(height, width, channels)``, for example ``(32, 32, 3)``.
        classes: Number of logits; 10 for CIFAR-10.
    """
    check_rank("resnet8", input_shape, ("height", "width", "channels"))
    layers = keras().layers
    inputs = keras().Input(input_shape)
    x = conv(inputs, 16)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = conv(x, filters, strides=strides)
        y = conv(y, filters, relu=False)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides, "same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.AveragePooling2D(tuple(x.shape[1:3]))(x)
    x = layers.Flatten()(x)
    return keras().Model(inputs, layers.Dense(classes)(x), name="resnet8")
