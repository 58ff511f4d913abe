"""The network of the selection benchmark: about 20,000 parameters, with a stride-2 stem.

It is described once, as data, and built twice: by Keras (conversion, training anywhere) and by
``select_jax`` (training of many copies at once on an accelerator). The weights are the same list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOMENTUM = 0.9
EPSILON = 1e-3


@dataclass(frozen=True)
class Conv:
    """Convolution without bias, batch normalisation, ReLU."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    filters: int


IMAGE = (Conv((3, 3), (2, 2), 16), Conv((3, 3), (2, 2), 32), Conv((3, 3), (1, 1), 48))
WINDOW = (Conv((5, 1), (1, 1), 16), Conv((5, 1), (2, 1), 32), Conv((5, 1), (2, 1), 64))


@dataclass(frozen=True)
class Augmentation:
    """Random shifts of at most ``shift`` along two axes (zeros move in), and mirroring."""

    shift: tuple[int, int] = (0, 0)
    flip: bool = False


def layers_for(frame_shape: tuple[int, ...]) -> tuple[Conv, ...]:
    """The convolutions for frames ``[h, w, c]`` (images) or ``[time, channels]``."""
    return IMAGE if len(frame_shape) == 3 else WINDOW


def select_net(input_shape: tuple[int, ...], classes: int) -> Any:
    """Builder: three convolutions, global average pooling, one dense layer.

    Args:
        input_shape: ``(height, width, channels)`` or ``(time, channels)``.
        classes: Number of logits.
    """
    from drip.models.backend import keras

    k = keras().layers
    image = len(input_shape) == 3
    inputs = x = keras().Input(input_shape)
    for layer in layers_for(input_shape):
        if image:
            x = k.Conv2D(layer.filters, layer.kernel, layer.stride, "same", use_bias=False)(x)
        else:
            x = k.Conv1D(layer.filters, layer.kernel[0], layer.stride[0], "same", use_bias=False)(x)
        x = k.ReLU()(k.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)(x))
    x = (k.GlobalAveragePooling2D if image else k.GlobalAveragePooling1D)()(x)
    return keras().Model(inputs, k.Dense(classes)(x), name="select_net")


def augmenter(augmentation: Augmentation) -> Any:
    """For :func:`drip.train.train`: the augmentation of a scaled batch ``[B, ...]``."""

    def augment(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        dy, dx = augmentation.shift
        out = np.zeros_like(x)
        for n in range(len(x)):
            frame = x[n]
            if augmentation.flip and rng.random() < 0.5:
                frame = frame[:, ::-1]
            a, b = int(rng.integers(-dy, dy + 1)), int(rng.integers(-dx, dx + 1))
            h, w = frame.shape[0], frame.shape[1]
            if x.ndim == 3:
                out[n, max(0, a) : h + min(0, a)] = frame[max(0, -a) : h - max(0, a)]
            else:
                out[n, max(0, a) : h + min(0, a), max(0, b) : w + min(0, b)] = frame[
                    max(0, -a) : h - max(0, a), max(0, -b) : w - max(0, b)
                ]
        return out

    return augment
