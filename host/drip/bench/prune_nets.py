"""Networks of the pruning benchmark, built by Keras on whatever backend it runs.

The same weights fit two forms of each: with Keras's convolution, and with one written as slices and
one matrix product, which stays fast when many networks are trained side by side.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from drip.bench.select_net import EPSILON, MOMENTUM, layers_for
from drip.errors import UsageError

__all__ = ["NETS", "build", "initial_weights"]


class PatchConv(keras.layers.Layer):  # type: ignore[misc]
    """A convolution without bias under TensorFlow's SAME padding, as one matrix product."""

    def __init__(self, filters: int, kernel: tuple[int, int], strides: tuple[int, int]) -> None:
        super().__init__()
        self.filters, self.size, self.strides = filters, kernel, strides

    def build(self, input_shape: tuple[int, ...]) -> None:
        shape = (*self.size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, name="kernel")

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[Any, ...]:
        rows, columns = (-(-n // s) for n, s in zip(input_shape[1:3], self.strides, strict=True))
        return (input_shape[0], rows, columns, self.filters)

    def call(self, x: Any) -> Any:
        ops = keras.ops
        _, high, wide, channels = x.shape
        (kh, kw), (sy, sx) = self.size, self.strides
        rows, columns = -(-high // sy), -(-wide // sx)
        tall, broad = max(0, (rows - 1) * sy + kh - high), max(0, (columns - 1) * sx + kw - wide)
        x = ops.pad(
            x,
            ((0, 0), (tall // 2, tall - tall // 2), (broad // 2, broad - broad // 2), (0, 0)),
        )
        taps = [
            x[:, dy : dy + sy * (rows - 1) + 1 : sy, dx : dx + sx * (columns - 1) + 1 : sx]
            for dy in range(kh)
            for dx in range(kw)
        ]
        flat = ops.reshape(ops.convert_to_tensor(self.kernel), (kh * kw * channels, self.filters))
        return ops.matmul(ops.concatenate(taps, axis=-1), flat)


class _Parts:
    """Layers of one network; ``patches`` chooses how it convolves."""

    def __init__(self, patches: bool) -> None:
        self._patches = patches

    def conv(self, x: Any, filters: int, kernel: tuple[int, int], strides: tuple[int, int]) -> Any:
        if self._patches:
            return PatchConv(filters, kernel, strides)(x)
        return keras.layers.Conv2D(filters, kernel, strides, "same", use_bias=False)(x)

    def block(
        self,
        x: Any,
        filters: int,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        relu: bool = True,
    ) -> Any:
        x = self.conv(x, filters, kernel, strides)
        x = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)(x)
        return keras.layers.ReLU()(x) if relu else x


def _stem_cnn(shape: tuple[int, ...], parts: _Parts) -> tuple[Any, Any]:
    """About 20,000 parameters behind a stride-2 stem; windows are images one column wide."""
    inputs = x = keras.Input(shape)
    if len(shape) == 2:
        x = keras.layers.Reshape((shape[0], 1, shape[1]))(x)
    for layer in layers_for(shape):
        x = parts.block(x, layer.filters, layer.kernel, layer.stride)
    return inputs, x


def _resnet8(shape: tuple[int, ...], parts: _Parts) -> tuple[Any, Any]:
    """ResNet-8 as in ``drip.models.resnet``, with shortcuts without bias."""
    inputs = keras.Input(shape)
    x = parts.block(inputs, 16, (3, 3), (1, 1))
    for filters, step in ((16, 1), (32, 2), (64, 2)):
        y = parts.block(x, filters, (3, 3), (step, step))
        y = parts.block(y, filters, (3, 3), (1, 1), relu=False)
        if step > 1:
            x = parts.conv(x, filters, (1, 1), (step, step))
        x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    return inputs, x


NETS = {"stem-cnn": _stem_cnn, "resnet8": _resnet8}


def build(net: str, shape: tuple[int, ...], classes: int, *, patches: bool = False) -> Any:
    """A network with two outputs: logits ``[B, classes]`` and pooled features ``[B, F]``.

    Args:
        net: A key of :data:`NETS`.
        shape: Of one frame.
        classes: Number of logits.
        patches: Convolve by matrix products.

    Raises:
        UsageError: There is no such network, or it does not take such frames.
    """
    if net not in NETS or (net == "resnet8" and len(shape) != 3):
        raise UsageError(f"no network {net} for frames {list(shape)}", f"use {', '.join(NETS)}")
    inputs, x = NETS[net](shape, _Parts(patches))
    features = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, [keras.layers.Dense(classes)(features), features], name="bench")


def initial_weights(model: Any, seed: int) -> list[NDArray[np.float32]]:
    """Glorot-uniform kernels (Glorot and Bengio, AISTATS 2010), ones for scales and variances.

    Drawn by numpy, in the order of ``model.weights``: the same on every backend.
    """
    rng = np.random.default_rng((seed, 4711))
    out: list[NDArray[np.float32]] = []
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rsplit("/", 1)[-1]
        if name == "kernel":
            area = int(np.prod(shape[:-2]))
            limit = np.sqrt(6 / (area * (shape[-2] + shape[-1])))
            out.append(rng.uniform(-limit, limit, shape).astype(np.float32))
        else:
            value = 1.0 if name in ("gamma", "moving_variance") else 0.0
            out.append(np.full(shape, value, np.float32))
    return out
