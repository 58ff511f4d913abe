"""The front-end's integers once more, from docs/SPEC.md: slow, readable, shared with nothing.

Works on all windows of a clip at once. Only the section FRONTEND is taken from the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from drip.wire import BlobFrontend

_LOG2 = (17732, 1547790691, -758584049, 439665385, -201314356, 46176222)


@dataclass(frozen=True)
class Tables:
    """A section FRONTEND, taken apart."""

    desc: BlobFrontend
    weights: Any
    sine: Any
    edges: Any
    rise: Any

    @classmethod
    def of(cls, section: bytes) -> Tables:
        """Read a section."""
        desc = BlobFrontend.unpack(section)
        halves = (desc.window + 1) // 2
        at, taken = BlobFrontend.SIZE, []
        for kind, count in (("<i2", halves), ("<i2", desc.fft // 4 + 1), ("<u2", desc.mels + 2)):
            taken.append(np.frombuffer(section, kind, count, at).astype(np.int64))
            at += 2 * count
        half, sine, edges = taken
        rise = np.frombuffer(section, "<u2", -1, at).astype(np.int64)
        weights = np.concatenate([half, half[: desc.window // 2][::-1]])
        return cls(desc, weights, sine, edges, rise)

    def turn(self, index: Any) -> tuple[Any, Any]:
        """Cosine and sine of index / fft of a turn, up to half a turn."""
        quarter = self.desc.fft // 4
        first = index <= quarter
        cosine = np.where(
            first,
            self.sine[np.where(first, quarter - index, 0)],
            -self.sine[np.where(first, 0, index - quarter)],
        )
        sine = self.sine[np.where(first, index, 2 * quarter - index)]
        return cosine, sine


def features(section: bytes, clip: Any) -> Any:
    """uint8 ``[windows, mels]`` of one clip of int16 samples."""
    tables = Tables.of(section)
    desc = tables.desc
    count = 1 + (len(clip) - desc.window) // desc.hop
    at = np.arange(count)[:, None] * desc.hop + np.arange(desc.window)
    values = clip[at].astype(np.int64) * tables.weights
    loudest = np.bitwise_or.reduce(np.abs(values), axis=1)
    silent = loudest == 0
    bits = np.array([int(n).bit_length() for n in loudest])
    down = bits - 29
    values = np.where(
        down[:, None] > 0,
        values >> np.maximum(down, 0)[:, None],
        values << np.maximum(-down, 0)[:, None],
    )
    padded = np.zeros((count, desc.fft), np.int64)
    padded[:, : desc.window] = values
    power, halvings = _power(tables, padded)
    exponent = 2 * (halvings + down - 30) + 12 - 15
    out = np.zeros((count, desc.mels), np.uint8)
    for band in range(desc.mels):
        low, middle, high = (int(n) for n in tables.edges[band : band + 3])
        up = tables.rise[low - tables.edges[0] : middle - tables.edges[0]]
        fall = (1 << 15) - tables.rise[middle - tables.edges[0] : high - tables.edges[0]]
        for window in np.flatnonzero(~silent):
            # Python's integers: no sum can overflow here.
            total = sum(int(p) * int(w) for p, w in zip(power[window, low:middle], up, strict=True))
            total += sum(
                int(p) * int(w) for p, w in zip(power[window, middle:high], fall, strict=True)
            )
            out[window, band] = _byte(desc, total, int(exponent[window]))
    return out


def _rotate(re: Any, im: Any, cosine: Any, sine: Any) -> tuple[Any, Any]:
    return (re * cosine + im * sine + 16384) >> 15, (im * cosine - re * sine + 16384) >> 15


def _power(tables: Tables, samples: Any) -> tuple[Any, int]:
    """A recursive transform of half the points, then the spectrum of the real signal."""

    def transform(re: Any, im: Any) -> tuple[Any, Any]:
        points = re.shape[1]
        if points == 1:
            return re, im
        even = transform(re[:, ::2], im[:, ::2])
        odd = transform(re[:, 1::2], im[:, 1::2])
        angles = np.arange(points // 2) * (tables.desc.fft // points)
        turned = _rotate(*odd, *tables.turn(angles))
        return (
            np.concatenate([(even[0] + turned[0]) >> 1, (even[0] - turned[0]) >> 1], axis=1),
            np.concatenate([(even[1] + turned[1]) >> 1, (even[1] - turned[1]) >> 1], axis=1),
        )

    half = tables.desc.fft // 2
    re, im = transform(samples[:, ::2], samples[:, 1::2])
    bins = np.arange(half + 1)
    re, im, other_re, other_im = (
        part[:, index] for index in (bins % half, -bins % half) for part in (re, im)
    )
    sums = (re + other_re) >> 1, (im - other_im) >> 1
    turned = _rotate((re - other_re) >> 1, (im + other_im) >> 1, *tables.turn(bins))
    real, imaginary = sums[0] + turned[1], sums[1] - turned[0]
    return (real * real + imaginary * imaginary) >> 12, half.bit_length() - 1


def _byte(desc: BlobFrontend, total: int, exponent: int) -> int:
    if total == 0:
        return 0
    whole = total.bit_length() - 1
    mantissa = (total << 63 - whole) >> 32  # 32 bits, the highest of them set
    x = (mantissa & 0x7FFFFFFF) >> 1
    y = _LOG2[5]
    for coefficient in _LOG2[4::-1]:
        y = coefficient + (y * x >> 30)
    doublings = (whole + exponent) * 65536 + ((y + (1 << 13)) >> 14)
    step = (doublings * desc.scale >> 16) + desc.offset
    return min(255, max(0, (step + 32768) >> 16))
