"""From a sensor frame to the int8 input of a model."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import oracle
import pytest
from drip._core import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from nets import exact

from drip.wire import BlobAffine, Dtype, Err

FORMATS = {Dtype.U8: ("B", 0, 255), Dtype.I8: ("b", -128, 127), Dtype.I16: ("h", -32768, 32767)}


def quantise(
    dtype: Dtype, raw: list[int], maps: list[BlobAffine], pieces: list[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """Codes of every call, and the values written (99 where nothing was)."""
    content = b"".join(m.pack() for m in maps)
    affine = exact(len(content))
    ffi.memmove(affine, content, len(content))
    data = b"!" + struct.pack(f"<{len(raw)}{FORMATS[dtype][0]}", *raw)
    keep = ffi.new("uint8_t[]", data)
    view: Any = ffi.new("drip_frame_input_t *")
    view.desc.dtype = dtype
    view.desc.channels = len(maps)
    view.desc.frame_bytes = len(data) - 1
    view.affine = ffi.cast("drip_blob_affine_t *", affine)
    view.elements = len(raw)
    frame: Any = ffi.new("drip_frame_t *")
    frame.data = keep + 1  # at an odd address
    frame.size = len(data) - 1
    out = ffi.new("int8_t[]", [99] * len(raw))
    codes = [lib.drip_frame_quantise(view, frame, first, count, out) for first, count in pieces]
    return codes, list(out)


@given(st.data(), st.sampled_from(list(FORMATS)))
def test_every_element_takes_the_map_of_its_channel(data: st.DataObject, dtype: Dtype) -> None:
    _, low, high = FORMATS[dtype]
    raw = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=30))
    map_of = st.builds(
        BlobAffine,
        st.integers(-(1 << 31), (1 << 31) - 1),
        st.integers(0, 31),
        st.one_of(st.integers(-(1 << 62), (1 << 62) - 1), st.integers(-(1 << 38), 1 << 38)),
    )
    maps = data.draw(st.lists(map_of, min_size=1, max_size=4))
    cut = data.draw(st.integers(0, len(raw)))
    codes, out = quantise(dtype, raw, maps, [(0, cut), (cut, len(raw) - cut)])
    assert codes == [0, 0]
    expected = []
    for i, value in enumerate(raw):
        m = maps[i % len(maps)]
        expected.append(oracle.quantise(value, m.mult, m.shift, m.add))
    assert out == expected


def test_a_scale_of_1_16_rounds_to_the_nearest() -> None:
    # real = raw / 16, zero point -128, input scale 1/256: q = 16 raw - 128.
    maps = [BlobAffine(16 << 10, 10, (-128 << 10) + (1 << 9))]
    _, out = quantise(Dtype.U8, [0, 1, 8, 15, 16, 255], maps, [(0, 6)])
    assert out == [-128, -112, 0, 112, 127, 127]


@pytest.mark.parametrize(("first", "count"), [(0, 5), (5, 1), (4, 1), (1, 4), (2, 0xFFFFFFFF)])
def test_a_piece_beyond_the_frame_is_refused(first: int, count: int) -> None:
    codes, out = quantise(Dtype.U8, [1, 2, 3, 4], [BlobAffine(1, 0, 0)], [(first, count)])
    assert codes == [Err.RANGE]
    assert out == [99] * 4


def test_a_frame_of_another_length_is_refused() -> None:
    view: Any = ffi.new("drip_frame_input_t *")
    view.desc.frame_bytes = 4
    view.elements = 4
    frame: Any = ffi.new("drip_frame_t *")
    frame.size = 3
    assert lib.drip_frame_quantise(view, frame, 0, 1, ffi.NULL) == Err.RANGE


def test_splitting_gives_the_same_bytes_for_16_bit_samples() -> None:
    raw = np.random.default_rng(0).integers(-32768, 32768, 90).tolist()
    maps = [BlobAffine(700, 15, 1 << 14), BlobAffine(-90, 9, 0), BlobAffine(1 << 20, 28, -5)]
    whole = quantise(Dtype.I16, raw, maps, [(0, 90)])[1]
    assert whole == quantise(Dtype.I16, raw, maps, [(i, 1) for i in range(90)])[1]
