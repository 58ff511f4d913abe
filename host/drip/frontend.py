"""Log-mel features of sound, as the board computes them.

A clip of 16-bit samples is cut into overlapping windows; each is weighted, transformed, its power
summed in triangular bands on the mel scale, and the logarithm of each band mapped to one byte. The
integers of the C core (``frontend.h``) are the definition; :func:`float_features` is the same in
floating point, to compare with.

Source: S. B. Davis and P. Mermelstein, IEEE Trans. ASSP 28 (1980), 357-366; the mel scale of the
HTK book, ``2595 log10(1 + f / 700)``; Hann window.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.errors import DataError, UsageError

__all__ = ["LogMel"]

_ONE = 1 << 15
_FULL_SCALE = 1 << 15


@dataclass(frozen=True)
class LogMel:
    """Parameters of a front-end; the defaults are those of 49 x 40 keyword spectrograms.

    Attributes:
        sample_rate: Hertz.
        window: Samples of a window (default 40 ms).
        hop: Samples from one window to the next (default 20 ms).
        fft: Points of the transform, a power of two from 64 to 2048.
        mels: Bands, 1 to 64.
        low_hz, high_hz: Outer edges of the bands.
        low_db, high_db: Band powers that become 0 and 255, in dB; 0 dB is the power spectrum 1 of
            samples in -1..1.
    """

    sample_rate: int = 16000
    window: int = 640
    hop: int = 320
    fft: int = 1024
    mels: int = 40
    low_hz: float = 20.0
    high_hz: float = 7600.0
    low_db: float = -60.0
    high_db: float = 45.0

    def __post_init__(self) -> None:
        sizes = 2 <= self.window <= self.fft and self.hop >= 1 and 1 <= self.mels <= 64
        power_of_two = 64 <= self.fft <= 2048 and self.fft & (self.fft - 1) == 0
        bands = 0 <= self.low_hz < self.high_hz <= self.sample_rate / 2
        if not (sizes and power_of_two and bands and self.low_db < self.high_db):
            raise UsageError(
                f"{self} is no front-end that boards can run",
                "fft 64..2048, a power of two; 2 <= window <= fft; 1..64 mels; bands below half"
                " the sample rate",
            )

    @classmethod
    def at_rate(cls, sample_rate: int, mels: int = 40) -> LogMel:
        """Windows of 40 ms every 20 ms at a rate, bands up to 7.6 kHz or half the rate.

        Args:
            sample_rate: Hertz.
            mels: Bands.

        Raises:
            UsageError: Boards cannot run it.
        """
        window = round(sample_rate * 0.04)
        return cls(
            sample_rate=sample_rate,
            window=window,
            hop=round(sample_rate * 0.02),
            fft=max(64, 1 << max(0, window - 1).bit_length()),
            mels=mels,
            high_hz=min(7600.0, sample_rate / 2),
        )

    def windows(self, samples: int) -> int:
        """Windows in a clip of so many samples."""
        return 0 if samples < self.window else 1 + (samples - self.window) // self.hop

    def features(self, clips: NDArray[np.int16]) -> NDArray[np.uint8]:
        """Features with the C core's integers: what a board computes, bit for bit.

        Args:
            clips: int16 ``[N, samples]`` or ``[samples]``.

        Returns:
            uint8 ``[N, windows, mels, 1]``, or without N.

        Raises:
            DataError: The clips are of another type or shorter than a window.
            MissingDependencyError: The compiled core is not installed.
        """
        from drip.core import library

        ffi, lib = library()
        batch = self._batch(clips)
        # cffi's memory is aligned for any type, which the tables need.
        section = ffi.new("uint32_t[]", -(-len(self.section()) // 4))
        ffi.memmove(section, self.section(), len(self.section()))
        frontend = ffi.new("drip_frontend_t *")
        code = lib.drip_frontend_open(frontend, section, len(self.section()))
        if code != 0:
            raise UsageError(f"the core refuses {self} ({code})", "use other bands or sizes")
        work = ffi.new("int32_t[]", self.fft)
        count = self.windows(batch.shape[1])
        out = np.zeros((len(batch), count, self.mels), np.uint8)
        # Little-endian bytes, as a board's memory holds them.
        raw = np.ascontiguousarray(batch.astype("<i2", copy=False)).view(np.uint8)
        for clip, rows in zip(raw, out, strict=True):
            samples = ffi.from_buffer("uint8_t[]", clip)
            for n, row in enumerate(rows):
                target = ffi.from_buffer("uint8_t[]", row, require_writable=True)
                lib.drip_frontend_window(frontend, samples + 2 * n * self.hop, work, target)
        return out[..., None] if clips.ndim == 2 else out[0, ..., None]

    def float_features(self, clips: NDArray[np.int16]) -> NDArray[np.float64]:
        """The same in floating point, before rounding and without the limits 0 and 255.

        Args:
            clips: int16 ``[N, samples]`` or ``[samples]``.

        Returns:
            float64 ``[N, windows, mels]``, or without N.
        """
        batch = self._batch(clips).astype(np.float64) / _FULL_SCALE
        count = self.windows(batch.shape[1])
        at = np.arange(count)[:, None] * self.hop + np.arange(self.window)
        spectrum = np.fft.rfft(batch[:, at] * np.hanning(self.window), self.fft)
        power = (np.abs(spectrum) ** 2) @ self.bands().T
        db = 10 * np.log10(np.maximum(power, 1e-30))
        scaled = (db - self.low_db) * (255 / (self.high_db - self.low_db))
        return np.asarray(scaled if clips.ndim == 2 else scaled[0])

    def bands(self) -> NDArray[np.float64]:
        """Weights of the bins in each band: ``[mels, fft / 2 + 1]``, triangles of height 1."""
        edges = self._edges_hz()
        bins = np.arange(self.fft // 2 + 1) * (self.sample_rate / self.fft)
        up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
        return np.asarray(np.maximum(0.0, np.minimum(up, down)))

    def section(self) -> bytes:
        """The section FRONTEND of a model blob; docs/SPEC.md."""
        half = np.round(np.hanning(self.window)[: (self.window + 1) // 2] * _ONE)
        quarter = np.sin(np.arange(self.fft // 4 + 1) * (2 * math.pi / self.fft))
        edges = self._edges_hz()
        bins = np.arange(self.fft // 2 + 1) * (self.sample_rate / self.fft)
        first = np.searchsorted(bins, edges).astype("<u2")
        inside = np.arange(first[0], first[-1])
        band = np.searchsorted(edges, bins[inside], side="right") - 1
        rise = (bins[inside] - edges[band]) / (edges[band + 1] - edges[band])
        per_db = 255 / (self.high_db - self.low_db)
        fixed = wire.BlobFrontend(
            sample_rate=self.sample_rate,
            window=self.window,
            hop=self.hop,
            fft=self.fft,
            mels=self.mels,
            scale=round(10 * math.log10(2) * per_db * 65536),
            offset=round(-self.low_db * per_db * 65536),
        )
        limit = np.iinfo(np.int16).max
        tables = (
            np.minimum(half, limit).astype("<i2"),
            np.minimum(np.round(quarter * _ONE), limit).astype("<i2"),
            first,
            np.round(rise * _ONE).astype("<u2"),
        )
        return fixed.pack() + b"".join(table.tobytes() for table in tables)

    def to_json(self) -> dict[str, float]:
        """Its parameters, for files that go with features."""
        return dataclasses.asdict(self)

    def _edges_hz(self) -> NDArray[np.float64]:
        low, high = (2595 * math.log10(1 + hz / 700) for hz in (self.low_hz, self.high_hz))
        return np.asarray(700 * (10 ** (np.linspace(low, high, self.mels + 2) / 2595) - 1))

    def _batch(self, clips: NDArray[np.int16]) -> NDArray[np.int16]:
        batch = clips if clips.ndim == 2 else clips[None]
        if clips.dtype != np.int16 or batch.ndim != 2 or batch.shape[1] < self.window:
            raise DataError(
                f"clips {clips.dtype}{list(clips.shape)} are no sound for this front-end",
                f"int16 [N, samples] with at least {self.window} samples",
            )
        return batch
