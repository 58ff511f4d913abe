"""What the core computes, written down slowly and plainly: exact Python integers, one loop each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drip.wire import BlobOp

Int8 = NDArray[np.int8]


def crc32(data: bytes, crc: int = 0) -> int:
    """CRC-32 (IEEE 802.3, reflected), bit by bit."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def half_away(x: int, bits: int) -> int:
    """X / 2^bits rounded to the nearest, half away from zero (gemmlowp RoundingDivideByPOT)."""
    if bits == 0:
        return x
    size = abs(x) + (1 << (bits - 1)) >> bits
    return size if x >= 0 else -size


def scale(x: int, mult: int, shift: int) -> int:
    """TensorFlow Lite's MultiplyByQuantizedMultiplier with double rounding."""
    product = (x << max(shift, 0)) * mult
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    total = product + nudge
    high = abs(total) // (1 << 31) * (1 if total >= 0 else -1)
    return half_away(high, max(-shift, 0))


def clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def _window(op: BlobOp, x: Int8, oy: int, ox: int, ky: int, kx: int) -> NDArray[np.int64] | None:
    """Channels that a tap sees, None outside the image."""
    y = oy * op.stride_h - op.pad_top + ky * op.dilation_h
    column = ox * op.stride_w - op.pad_left + kx * op.dilation_w
    if not (0 <= y < x.shape[0] and 0 <= column < x.shape[1]):
        return None
    return x[y, column].astype(np.int64)


def _finish(op: BlobOp, sums: NDArray[np.int64], quant: NDArray[np.int32]) -> Int8:
    out = np.zeros(sums.shape, np.int8)
    for at in np.ndindex(*sums.shape):
        mult, shift = (int(v) for v in quant[at[-1]])
        value = scale(int(sums[at]), mult, shift) + op.out_zero
        out[at] = clamp(value, op.clamp_min, op.clamp_max)
    return out


def conv(
    op: BlobOp,
    x: Int8,
    weights: Int8,
    bias: NDArray[np.int32],
    quant: NDArray[np.int32],
    shape: tuple[int, int],
) -> Int8:
    """CONV_2D with the bias folded; weights ``[out_c, kh, kw, in_c]``."""
    out_c, kernel_h, kernel_w, in_c = weights.shape
    sums = np.zeros((*shape, out_c), np.int64) + bias
    for oy, ox, ky, kx in np.ndindex(*shape, kernel_h, kernel_w):
        seen = _window(op, x, oy, ox, ky, kx)
        seen = np.full(in_c, op.in0_zero) if seen is None else seen
        sums[oy, ox] += weights[:, ky, kx].astype(np.int64) @ seen
    return _finish(op, sums, quant)


def depthwise(
    op: BlobOp,
    x: Int8,
    weights: Int8,
    bias: NDArray[np.int32],
    quant: NDArray[np.int32],
    shape: tuple[int, int],
) -> Int8:
    """DEPTHWISE_CONV_2D with the bias folded; weights ``[kh, kw, out_c]``."""
    kernel_h, kernel_w, out_c = weights.shape
    sums = np.zeros((*shape, out_c), np.int64) + bias
    for oy, ox, ky, kx in np.ndindex(*shape, kernel_h, kernel_w):
        seen = _window(op, x, oy, ox, ky, kx)
        seen = np.full(x.shape[2], op.in0_zero) if seen is None else seen
        sums[oy, ox] += weights[ky, kx].astype(np.int64) * np.repeat(seen, op.depth_multiplier)
    return _finish(op, sums, quant)


def pool(op: BlobOp, x: Int8, shape: tuple[int, int], average: bool) -> Int8:
    """AVERAGE_POOL_2D over the elements inside the image, or MAX_POOL_2D."""
    out = np.zeros((*shape, x.shape[2]), np.int8)
    for oy, ox in np.ndindex(*shape):
        taps = [
            seen
            for ky, kx in np.ndindex(op.kernel_h, op.kernel_w)
            if (seen := _window(op, x, oy, ox, ky, kx)) is not None
        ]
        for c in range(x.shape[2]):
            values = [int(tap[c]) for tap in taps]
            if average:
                total, count = sum(values), len(values)
                value = (abs(total) + count // 2) // count * (1 if total >= 0 else -1)
            else:
                value = max(values)
            out[oy, ox, c] = clamp(value, op.clamp_min, op.clamp_max)
    return out


def quantise(raw: int, mult: int, shift: int, add: int) -> int:
    """blob_affine."""
    return clamp((raw * mult + add) >> shift, -128, 127)


def percentile(knots: list[int], raw: int) -> int:
    """Where a raw score lies among ascending quantiles, 0..65535."""
    last = len(knots) - 1
    if raw < knots[0]:
        return 0
    if raw >= knots[last]:
        return 65535
    below = max(i for i in range(last) if knots[i] <= raw)
    step = 65536 // last
    return below * step + (raw - knots[below]) * step // (knots[below + 1] - knots[below])


def unpaired(table: NDArray[np.int16]) -> NDArray[np.int16]:
    """From ``[pairs, channels, 2]``, as a HIDDEN head is stored, to ``[units, channels]``."""
    return np.array([pair[:, n] for pair in table for n in (0, 1)], np.int16)


def direct_weights(table: NDArray[np.int16], c: int) -> NDArray[np.int64]:
    """Channel weights of class c."""
    return table[c].astype(np.int64)


def hidden_weights(
    table: NDArray[np.int16], dense: Int8, shift: int, active: NDArray[np.bool_], c: int
) -> NDArray[np.int64]:
    """Channel weights of class c where a mask of hidden ReLU units is active."""
    weights = np.zeros(table.shape[1], np.int64)
    for k in range(table.shape[1]):
        total = sum(int(dense[c, h]) * int(table[h, k]) for h in range(len(table)) if active[h])
        weights[k] = total >> shift
    return weights


def cam_map(weights: NDArray[np.int64], features: Int8, zero: int) -> NDArray[np.int64]:
    """CAM(p) = sum over k of weight_k (A_k(p) - zero point), before ReLU."""
    return (features.astype(np.int64) - zero) @ weights


def cam_sum(values: NDArray[np.int64]) -> int:
    """Sum of the positive part."""
    return int(np.maximum(values, 0).sum())


def top_two(logits: Int8) -> tuple[int, int]:
    """Largest and second largest; ties go to the lower index."""
    order = sorted(range(len(logits)), key=lambda c: (-int(logits[c]), c))
    return order[0], order[min(1, len(order) - 1)]
