"""Layer groups shared by the builders. Batch normalisation folds into the convolution."""

from __future__ import annotations

from typing import Any

from drip.models.backend import keras

# Short trainings (a few hundred steps) never settle with Keras's default of 0.99.
_MOMENTUM = 0.9


def norm_relu(x: Any, *, relu: bool = True, ceiling: float | None = None) -> Any:
    """Batch normalisation, then ReLU (clipped at ``ceiling`` if given)."""
    layers = keras().layers
    x = layers.BatchNormalization(momentum=_MOMENTUM)(x)
    return layers.ReLU(ceiling)(x) if relu else x


def conv(
    x: Any,
    filters: int,
    kernel: int | tuple[int, int] = 3,
    *,
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
    relu: bool = True,
    ceiling: float | None = None,
) -> Any:
    """Convolution, batch normalisation, ReLU."""
    x = keras().layers.Conv2D(filters, kernel, strides, padding, use_bias=False)(x)
    return norm_relu(x, relu=relu, ceiling=ceiling)


def separable(
    x: Any,
    filters: int,
    kernel: int | tuple[int, int] = 3,
    *,
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
    ceiling: float | None = None,
    inner_relu: bool = True,
) -> Any:
    """Depthwise convolution, then a pointwise one, each normalised and rectified."""
    x = keras().layers.DepthwiseConv2D(kernel, strides, padding, use_bias=False)(x)
    x = norm_relu(x, relu=inner_relu, ceiling=ceiling)
    return conv(x, filters, 1, ceiling=ceiling)


def check_rank(name: str, input_shape: tuple[int, ...], wanted: tuple[str, ...]) -> None:
    """Refuse a frame shape a builder cannot take.

    Raises:
        ModelError: ``input_shape`` has another number of axes than ``wanted``.
    """
    from drip.errors import ModelError

    if len(input_shape) != len(wanted):
        raise ModelError(
            f"{name} takes frames [{', '.join(wanted)}], not {list(input_shape)}",
            "choose another builder, or reshape the frames",
        )
