"""Fixed-point parameters as TensorFlow Lite Micro computes them, in double precision.

Source of the arithmetic: TensorFlow Lite's ``quantization_util`` and ``kernel_util``.
"""

from __future__ import annotations

import math

import numpy as np

from drip.errors import ModelError

INT8_MIN, INT8_MAX = -128, 127
_SOFTMAX_INTEGER_BITS = 5
_LOGISTIC_INTEGER_BITS = 4


def quantise_multiplier(real: float) -> tuple[int, int]:
    """Q31 mantissa in [2^30, 2^31) and left shift of a non-negative real factor."""
    if real == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(real)
    fixed = round_away(mantissa * (1 << 31))
    if fixed == 1 << 31:
        fixed //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise ModelError(
            f"a requantisation factor of {real:g} is out of range",
            "the model's scales contradict each other: quantise it again",
        )
    return fixed, shift


def round_away(value: float) -> int:
    """Nearest integer, halves away from zero, as C's ``round``."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def mean_multiplier(in_scale: float, out_scale: float, count: int) -> tuple[int, int]:
    """Multiplier of MEAN over ``count`` elements, with the division folded in."""
    mult, shift = quantise_multiplier(in_scale / out_scale)
    fold = min(count.bit_length() - 1, 32, 31 + shift)
    return (mult << fold) // count, shift - fold


def softmax_parameters(beta: float, in_scale: float) -> tuple[int, int, int]:
    """Multiplier, left shift and smallest difference that counts."""
    real = min(beta * in_scale * (1 << (31 - _SOFTMAX_INTEGER_BITS)), (1 << 31) - 1.0)
    if real <= 1.0:
        raise ModelError(
            f"SOFTMAX has an input scale of {in_scale:g}, which is too small",
            "its inputs hardly differ: train the model first, and quantise it with real frames",
        )
    mult, shift = quantise_multiplier_large(real)
    return mult, shift, -input_radius(_SOFTMAX_INTEGER_BITS, shift)


def quantise_multiplier_large(real: float) -> tuple[int, int]:
    """:func:`quantise_multiplier` for factors up to 2^31, which only SOFTMAX and LOGISTIC use."""
    mantissa, shift = math.frexp(real)
    fixed = round_away(mantissa * (1 << 31))
    if fixed == 1 << 31:
        fixed //= 2
        shift += 1
    return fixed, shift


def logistic_parameters(in_scale: float) -> tuple[int, int, int]:
    """Multiplier, left shift and the input beyond which the result saturates."""
    mantissa, shift = math.frexp(in_scale * (1 << (31 - _LOGISTIC_INTEGER_BITS)))
    mult = round_away(mantissa * (1 << 31))
    return mult, shift, input_radius(_LOGISTIC_INTEGER_BITS, shift)


def input_radius(integer_bits: int, left_shift: int) -> int:
    """Largest input that a fixed-point number of so many integer bits can hold after scaling."""
    if left_shift < 0:
        raise ModelError("an activation's input scale is too small", "quantise it again")
    return math.floor(((1 << integer_bits) - 1) * (1 << (31 - integer_bits)) / (1 << left_shift))


def activation_range(name: str, scale: np.float32, zero_point: int) -> tuple[int, int]:
    """Smallest and largest int8 value after a fused activation."""

    def quantise(value: float) -> int:
        return zero_point + round_away(float(np.float32(value) / scale))

    low, high = INT8_MIN, INT8_MAX
    if name in ("RELU", "RELU6"):
        low = max(low, quantise(0.0))
    if name == "RELU6":
        high = min(high, quantise(6.0))
    if name == "RELU_N1_TO_1":
        low, high = max(low, quantise(-1.0)), min(high, quantise(1.0))
    if low > high:
        raise ModelError(
            f"an activation {name} leaves no value of its tensor", "quantise the model again"
        )
    return low, high


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Output size and cells before the first element; the odd cell goes to the end."""
    out = -(-size // stride)
    total = max(0, (out - 1) * stride + dilation * (kernel - 1) + 1 - size)
    return out, total // 2


def valid_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Output size without padding, and 0."""
    return -(-(size - dilation * (kernel - 1)) // stride), 0
