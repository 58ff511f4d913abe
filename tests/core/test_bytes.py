"""Checksum and pseudo-random numbers."""

from __future__ import annotations

import zlib

import oracle
from drip._core import ffi, lib
from hypothesis import given
from hypothesis import strategies as st


@given(st.binary(max_size=300), st.integers(0, 300))
def test_crc32_is_that_of_zlib_in_any_pieces(data: bytes, cut: int) -> None:
    assert lib.drip_crc32(0, data, len(data)) == zlib.crc32(data) == oracle.crc32(data)
    head, tail = data[:cut], data[cut:]
    assert lib.drip_crc32(lib.drip_crc32(0, head, len(head)), tail, len(tail)) == zlib.crc32(data)


VECTORS = (
    [844830715, 1143974537, 2661586166],
    [3090573325, 3553206358, 530670935],
    [4020896444, 1346862338, 1124809937],
)


def draw(seed: int, count: int) -> list[int]:
    rng = ffi.new("drip_rng_t *")
    lib.drip_rng_seed(rng, seed)
    return [lib.drip_rng_next(rng) for _ in range(count)]


def test_the_sequences_never_change() -> None:
    assert draw(0, 3) == VECTORS[0]
    assert draw(1, 3) == VECTORS[1]
    assert draw(0xFFFFFFFF, 3) == VECTORS[2]


def test_seeds_are_mixed_as_documented() -> None:
    for seed in (0, 1, 2, 1000, 0x61C88647, 0xFFFFFFFF):
        x = (seed + 0x9E3779B9) & 0xFFFFFFFF
        x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        x = (x ^ x >> 16) or 0x6D2B79F5
        expected = []
        for _ in range(5):
            x ^= x << 13 & 0xFFFFFFFF
            x ^= x >> 17
            x ^= x << 5 & 0xFFFFFFFF
            expected.append(x)
        assert draw(seed, 5) == expected


def test_the_one_seed_that_mixes_to_zero_still_draws() -> None:
    assert 0 not in draw(0x61C88647, 4)


def test_fill_takes_four_bytes_per_draw_lowest_first() -> None:
    words = draw(7, 3)
    content = b"".join(word.to_bytes(4, "little") for word in words)
    for size in range(12):
        out = ffi.new("uint8_t[]", 13)
        rng = ffi.new("drip_rng_t *")
        lib.drip_rng_seed(rng, 7)
        lib.drip_rng_fill(rng, out, size)
        assert bytes(ffi.buffer(out)) == content[:size] + bytes(13 - size)
