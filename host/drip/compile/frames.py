"""What raw frames mean to a ``.tflite`` that another tool made, which does not say so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.compile.graph import read_graph
from drip.compile.lower import lower
from drip.data.scaling import InputScaling
from drip.errors import ModelError

# Scale and offset that eight-bit frames are usually trained with: to 0..1, to -1..1, and not at
# all (the model scales by itself).
_USUAL = {
    "uint8": ((1 / 255, 0.0), (2 / 255, -1.0), (1.0, 0.0)),
    "int8": ((1 / 128, 0.0), (1 / 255, 128 / 255), (1.0, 0.0)),
}
# Ends of the range may be off by this share of it: representative frames never show all of it.
_CLOSE = 0.2
# Honest frames fill more of the range that the model was quantised with, and leave it less.
_LEAST_USED = 0.1
_MOST_OUTSIDE = 0.2


def guess_scaling(tflite: bytes, frames: NDArray[Any], usual: InputScaling) -> InputScaling:
    """The scaling under which frames fill the range that a model was quantised with.

    Eight-bit frames: the first of the usual scalings under which the frames reach from one end of
    the range to the other; if there is none, the smallest possible value becomes one end and the
    largest the other. Others keep the scaling given.

    Args:
        tflite: Content of a full-int8 ``.tflite``.
        frames: Raw frames ``[N, ...]`` of the kind that it was trained on.
        usual: Scaling for frames of other types.

    Raises:
        ModelError: The frames cannot be what the model was trained on under this scaling, or the
            model is not supported.
    """
    program = lower(read_graph(tflite))
    value = program.values[program.input]
    step = float(value.scale)
    lowest, highest = ((end - value.zero_point) * step for end in (-128, 127))
    scaling = usual
    if np.iinfo(frames.dtype).bits == 8:
        scaling = _matching(frames, lowest, highest)
    real = scaling.apply(frames)
    outside = np.mean((real < lowest - step) | (real > highest + step))
    used = (float(real.max()) - float(real.min())) / (highest - lowest)
    if outside > _MOST_OUTSIDE or used < _LEAST_USED:
        share = f"fill {used:.1%} of"
        if outside > _MOST_OUTSIDE:
            share = f"lie outside of ({outside:.0%})"
        raise ModelError(
            f"values of the frames {share} the range {lowest:g} to {highest:g}"
            " that the model was quantised with",
            "say how frames were scaled in training: scale and offset under [preprocessing] in"
            " drip.toml",
        )
    return scaling


def _matching(frames: NDArray[Any], lowest: float, highest: float) -> InputScaling:
    dtype, kind, span = frames.dtype.name, np.iinfo(frames.dtype), highest - lowest
    least, most = int(frames.min()), int(frames.max())
    for scale, offset in _USUAL[dtype]:
        off = abs(least * scale + offset - lowest), abs(most * scale + offset - highest)
        if max(off) < _CLOSE * span:
            return InputScaling(dtype, scale, offset)
    return InputScaling(dtype, span / 255, lowest - kind.min * span / 255)
