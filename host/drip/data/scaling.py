"""From what the sensor delivers to what the model was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from drip.data.dataset import FRAME_DTYPES, Dataset
from drip.errors import DataError, ModelError, UsageError
from drip.frontend import LogMel

Factor = float | tuple[float, ...]


@dataclass(frozen=True)
class InputScaling:
    """The affine map from a raw frame to the model's float input: ``raw * scale + offset``.

    With a front-end it is the map from its features, which are 0 to 255; the raw frame is int16
    sound.

    Attributes:
        dtype: Type of a raw value: ``"uint8"``, ``"int8"`` or ``"int16"``.
        scale: Model units per raw unit; a tuple holds one factor per channel (last axis).
        offset: Model units at raw zero; a tuple holds one offset per channel.
        frontend: Makes log-mel features of each frame first; None = the frame as it is.
    """

    dtype: str
    scale: Factor
    offset: Factor = 0.0
    frontend: LogMel | None = None

    def __post_init__(self) -> None:
        if self.frontend is not None and self.dtype != "int16":
            raise DataError(
                f"a front-end takes int16 sound, not {self.dtype} frames",
                "import the sounds with `drip data import --raw`",
            )
        if self.dtype not in FRAME_DTYPES:
            raise DataError(
                f"frames of type {self.dtype} are not supported",
                f"use one of {', '.join(FRAME_DTYPES)}",
            )
        values = [*np.atleast_1d(self.scale), *np.atleast_1d(self.offset)]
        if not all(math.isfinite(v) for v in values) or any(
            v == 0 for v in np.atleast_1d(self.scale)
        ):
            raise DataError(
                f"input scaling {self.scale} / {self.offset} is not usable",
                "scale must be finite and not zero, offset must be finite",
            )

    def apply(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Scale raw frames to model units.

        Args:
            raw: Frames ``[N, ...]`` or one frame, of type ``dtype``.

        Returns:
            float32 of the same shape; with a front-end ``[N, windows, mels, 1]``.

        Raises:
            DataError: ``raw`` has another type, or another number of channels than the factors.
        """
        if raw.dtype != np.dtype(self.dtype):
            raise DataError(
                f"frames are {raw.dtype}, the model expects {self.dtype}",
                "pass the frames as the sensor captured them",
            )
        if self.frontend is not None:
            raw = self._features(raw, self.frontend)
        for factor in (self.scale, self.offset):
            if isinstance(factor, tuple) and len(factor) != raw.shape[-1]:
                raise DataError(
                    f"frames have {raw.shape[-1]} channels, the input scaling has {len(factor)}",
                    "give one factor per channel (last axis) or a single one",
                )
        scale = np.asarray(self.scale, np.float32)
        return raw.astype(np.float32) * scale + np.asarray(self.offset, np.float32)

    def input_shape(self, frame_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the model's input for frames of a shape.

        Raises:
            DataError: The front-end cannot take such frames.
        """
        if self.frontend is None:
            return frame_shape
        windows = self.frontend.windows(math.prod(frame_shape))
        if not frame_shape or frame_shape[0] != math.prod(frame_shape) or windows == 0:
            raise DataError(
                f"frames {list(frame_shape)} are no sound for this front-end",
                f"[samples] or [samples, 1] with at least {self.frontend.window} samples",
            )
        return windows, self.frontend.mels, 1

    def _features(self, raw: NDArray[Any], frontend: LogMel) -> NDArray[np.uint8]:
        one = raw.ndim == 1 or (raw.ndim == 2 and raw.shape[1] == 1)
        frames = raw[None] if one else raw
        self.input_shape(frames.shape[1:])
        features = frontend.features(frames.reshape(len(frames), -1))
        return features[0] if one else features

    def to_json(self) -> dict[str, Any]:
        """``frame_dtype``, ``scale``, ``offset``, ``frontend`` if any, of a model's metadata."""

        def plain(factor: Factor) -> float | list[float]:
            return list(factor) if isinstance(factor, tuple) else factor

        fields: dict[str, Any] = {
            "frame_dtype": self.dtype,
            "scale": plain(self.scale),
            "offset": plain(self.offset),
        }
        if self.frontend is not None:
            fields["frontend"] = self.frontend.to_json()
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> InputScaling:
        """Rebuild from a model's metadata.

        Raises:
            ModelError: A field is missing or of the wrong type.
        """

        def factor(value: object) -> Factor:
            if isinstance(value, list):
                return tuple(float(v) for v in value)
            return float(cast(float, value))

        try:
            dtype = str(fields["frame_dtype"])
            made = fields.get("frontend")
            frontend = LogMel(**made) if made is not None else None
            return cls(dtype, factor(fields["scale"]), factor(fields["offset"]), frontend)
        except (KeyError, TypeError, ValueError, DataError, UsageError) as error:
            raise ModelError(
                f"the model's metadata has no usable input scaling ({error})",
                "convert the model again with `drip convert`",
            ) from error


def default_scaling(data: Dataset, frontend: LogMel | None = None) -> InputScaling:
    """A scaling for frames about which nothing else is known.

    Eight-bit frames map their full range to 0..1 (uint8) or -1..1 (int8); int16 frames, whose
    used range depends on the sensor, are standardised with one mean and deviation for all
    channels.
    """
    dtype = str(data.x.dtype)
    if frontend is not None:
        return InputScaling(dtype, 1 / 255, frontend=frontend)
    if dtype == "uint8":
        return InputScaling(dtype, 1 / 255)
    if dtype == "int8":
        return InputScaling(dtype, 1 / 128)
    mean = float(np.mean(data.x, dtype=np.float64))
    deviation = float(np.std(data.x, dtype=np.float64)) or 1.0
    return InputScaling(dtype, 1 / deviation, -mean / deviation)


DIGITS_SCALING = InputScaling("uint8", 1 / 16)
"""scikit-learn's digits count 4x4 binary pixels: 0..16."""
