"""How weights are laid out in a blob: ``blob_op.layout_id`` and what a packed kernel needs.

Layout 0 is plain. The packed layouts let the inner loop of a Cortex-M DSP kernel only load, widen
and multiply: ``SXTB16`` turns the even bytes of a word into a pair of 16-bit taps, ``SXTB16`` of
the word rotated by 8 the odd bytes. Portable kernels read every layout.

``PAIRS`` (CONV_2D, FULLY_CONNECTED): output channels in pairs (a, b); a missing last one is zero.
Kernel rows of ``kernel_w * in_c`` taps are padded with zeros to a multiple of 4. Four taps t0..t3
of a pair are the 8 bytes ``a0 b0 a2 b2 a1 b1 a3 b3``.

``PLANES`` (DEPTHWISE_CONV_2D, depth multiplier 1): channel after channel; kernel rows padded with
zeros to a multiple of 4 taps, each four stored as ``t0 t2 t1 t3``. A kernel that is one wide over a
tensor that is one wide is stored as its transpose: one row of ``kernel_h`` taps.

The same rules in C: firmware/core/src/kernels/layouts.h and packed_pairs.c.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int8Array = npt.NDArray[np.int8]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def pack_pairs(weights: Int8Array) -> bytes:
    """Pack the weights of a convolution or, as 1x1, of a fully connected layer.

    Args:
        weights: int8 ``[out_c, kernel_h, kernel_w, in_c]``.

    Returns:
        ``2 * ceil(out_c / 2) * kernel_h * round_up(kernel_w * in_c, 4)`` bytes.
    """
    out_c, kernel_h, kernel_w, in_c = weights.shape
    taps = kernel_w * in_c
    padded = np.zeros((_round_up(out_c, 2), kernel_h, _round_up(taps, 4)), np.int8)
    padded[:out_c, :, :taps] = weights.reshape(out_c, kernel_h, taps)
    # Of four taps, the word is tap % 2 and the byte in it 2 * (tap / 2) + channel % 2.
    split = padded.reshape(-1, 2, kernel_h, padded.shape[2] // 4, 2, 2)
    return bytes(split.transpose(0, 2, 3, 5, 4, 1).tobytes())


def pack_planes(weights: Int8Array, input_w: int) -> bytes:
    """Pack the weights of a depthwise convolution.

    Args:
        weights: int8 ``[kernel_h, kernel_w, out_c]``.
        input_w: Width of the input tensor.

    Returns:
        ``out_c * rows * round_up(taps, 4)`` bytes; rows and taps are ``kernel_h`` and ``kernel_w``,
        or 1 and ``kernel_h`` for a one-wide kernel over a one-wide tensor.
    """
    if weights.shape[1] == 1 and input_w == 1:
        weights = weights.transpose(1, 0, 2)
    rows, taps, out_c = weights.shape
    padded = np.zeros((out_c, rows, _round_up(taps, 4)), np.int8)
    padded[:, :, :taps] = weights.transpose(2, 0, 1)
    return bytes(padded.reshape(out_c, rows, -1, 2, 2).swapaxes(3, 4).tobytes())


def fast_requant(clamp_min: int, clamp_max: int, shifts: npt.NDArray[np.int32]) -> bool:
    """Whether the short requantisation holds: no clamp but int8's, every shift to the right.

    Args:
        clamp_min: Of the fused activation.
        clamp_max: Of the fused activation.
        shifts: Left shift per output channel (``blob_quant.shift``).
    """
    return clamp_min == -128 and clamp_max == 127 and bool((shifts <= -1).all())


def pairs_scratch_bytes(kernel_h: int, kernel_w: int, in_c: int) -> int:
    """Scratch of a CONV_2D in layout PAIRS for four positions at a time.

    Four widened columns, then rows of taps or one tap of padding. With less, at least
    ``2 * kernel_h * round_up(kernel_w * in_c, 4)``, a kernel does two positions at a time.

    Args:
        kernel_h: Height of the kernel.
        kernel_w: Width of the kernel.
        in_c: Channels of the input.
    """
    row = _round_up(kernel_w * in_c, 4)
    return 8 * kernel_h * row + (in_c if in_c % 4 == 0 else 4 * row)


def planes_scratch_bytes(
    output_hw: tuple[int, int], kernel_hw: tuple[int, int], stride_hw: tuple[int, int], input_w: int
) -> int:
    """Scratch of a DEPTHWISE_CONV_2D in layout PLANES: a padded channel and its weights in 16 bits.

    Args:
        output_hw: Height and width of the output.
        kernel_hw: Height and width of the kernel.
        stride_hw: Strides.
        input_w: Width of the input.
    """
    (out_h, out_w), (kernel_h, kernel_w), (stride_h, stride_w) = output_hw, kernel_hw, stride_hw
    longer = out_h * -(-out_w // 4) > out_w * -(-out_h // 4)
    if (kernel_w == 1 and input_w == 1) or (kernel_hw == (3, 3) and longer):
        # Turned by 90 degrees: fewer blocks of four outputs.
        out_h, out_w, kernel_h, kernel_w = out_w, out_h, kernel_w, kernel_h
        stride_h, stride_w = stride_w, stride_h
    rows = (out_h - 1) * stride_h + kernel_h
    weights = kernel_h * _round_up(kernel_w, 4)
    return 2 * (rows * planes_pitch(out_w, kernel_w, stride_w) + weights)


def planes_pitch(out_w: int, kernel_w: int, stride_w: int) -> int:
    """Elements of one row of the padded plane: blocks of four outputs, kernel rows of fours.

    Args:
        out_w: Width of the output.
        kernel_w: Width of the kernel.
        stride_w: Stride.
    """
    return _round_up((_round_up(out_w, 4) - 1) * stride_w + _round_up(kernel_w, 4), 2)


def overlap_lead(
    input_shape: tuple[int, int, int],
    output_shape: tuple[int, int, int],
    stride_hw: tuple[int, int],
    pad_hw: tuple[int, int],
) -> int:
    """How far below its dying input an output must start so that the two may share memory.

    Kernels with a window write positions in order, row by row, after they have read what these
    need. A depthwise convolution goes channel by channel in some kernels: there the distance must
    also be a multiple of the channels (and the depth multiplier 1).

    Args:
        input_shape: Height, width, channels.
        output_shape: Height, width, channels.
        stride_hw: Strides.
        pad_hw: Padding above and to the left.

    Returns:
        The least ``input offset - output offset`` in bytes.
    """
    in_h, in_w, in_c = input_shape
    out_h, out_w, out_c = output_shape
    rows = np.clip(np.arange(out_h + 1) * stride_hw[0] - pad_hw[0], 0, in_h) * in_w
    columns = np.clip(np.arange(out_w) * stride_hw[1] - pad_hw[1], 0, in_w)
    # First input position that this output position or a later one reads.
    first = rows[:-1, None] + columns[None, :]
    first[:-1] = np.minimum(first[:-1], rows[1:-1, None])
    written = np.arange(1, out_h * out_w + 1).reshape(out_h, out_w) * out_c
    return int((written - first * in_c).max())
