"""Data sets of frames as captured: loading, saving, splitting, hashing and input scaling.

Nothing here needs TensorFlow or the compiled core.
"""

from __future__ import annotations

from drip.data.dataset import (
    FRAME_DTYPES,
    Dataset,
    count_shared_samples,
    digits,
    load_npz,
    sample_hashes,
    save_npz,
)
from drip.data.scaling import DIGITS_SCALING, InputScaling, default_scaling
from drip.data.split import Splits, split

__all__ = [
    "DIGITS_SCALING",
    "FRAME_DTYPES",
    "Dataset",
    "InputScaling",
    "Splits",
    "count_shared_samples",
    "default_scaling",
    "digits",
    "load_npz",
    "sample_hashes",
    "save_npz",
    "split",
]
