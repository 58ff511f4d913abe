"""Scores of a board beside those of the core on this computer: they must be equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.device.client import Client
from drip.errors import DataError, UsageError, VerifyError

if TYPE_CHECKING:
    from drip.core import Model

__all__ = ["Difference", "compare", "load_frames", "score_frames"]

_FIELDS = {
    "raw_score": "raw",
    "percentile": "percentile",
    "class_1": "class_1",
    "class_2": "class_2",
    "logit_1": "logit_1",
    "logit_2": "logit_2",
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """Something that a board and the core here do not agree on.

    Attributes:
        frame: Number of the frame, from 0.
        field: What of the result.
        board, host: The two values.
    """

    frame: int
    field: str
    board: int
    host: int


def load_frames(path: Path, limit: int | None = None) -> list[bytes | NDArray[Any]]:
    """Read frames as captured.

    Args:
        path: ``.npz`` of a data set, ``.npy`` with one frame, or a file of the bytes of one frame.
        limit: Only the first frames.

    Raises:
        DataError: The file cannot be read.
    """
    if path.suffix == ".npz":
        from drip.data import load_npz

        return list(load_npz(path).x[:limit])
    try:
        if path.suffix == ".npy":
            return [np.load(path, allow_pickle=False)]
        return [path.read_bytes()]
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it is no NumPy array"
        raise DataError(
            f"cannot read {path}: {reason}",
            "pass an .npz data set, an .npy or the bytes of a frame",
        ) from error


def score_frames(
    client: Client,
    frames: Sequence[bytes | NDArray[Any]],
    on_progress: Callable[[int, int], None] | None = None,
) -> list[wire.Result]:
    """Let a board score frames; it keeps none of them.

    Args:
        client: The board.
        frames: As captured.
        on_progress: Called with frames done and in all.
    """
    results = []
    for done, frame in enumerate(frames, 1):
        results.append(client.score(frame))
        if on_progress is not None:
            on_progress(done, len(frames))
    return results


def compare(
    client: Client,
    frames: Sequence[bytes | NDArray[Any]],
    results: Sequence[wire.Result],
    blob: bytes,
) -> list[Difference]:
    """Score the same frames with the core here and list what differs.

    Args:
        client: The board.
        frames: As captured.
        results: What the board said of them.
        blob: The model that it should run.

    Raises:
        VerifyError: It runs another model.
        UsageError: Its score is drawn at random.
        DataError: A frame does not fit the model.
        MissingDependencyError: The compiled core is not installed.
    """
    from drip.core import Model

    model = Model(blob)
    device = client.hello()
    if device.model_id != model.model_id:
        raise VerifyError(
            f"{client.name} runs model {device.model_id.hex()}, not {model.model_id.hex()}",
            "push it with drip deploy, or name the model that the board runs",
        )
    kind = wire.ScoreKind(device.score_kind)
    if kind == wire.ScoreKind.RANDOM:
        raise UsageError(
            f"the score of {client.name} is drawn at random", "set another: drip config score_kind="
        )
    found = []
    for number, (frame, result) in enumerate(zip(frames, results, strict=True)):
        here = model.score(_as_array(frame, model), kind)
        for theirs, ours in _FIELDS.items():
            board, host = int(getattr(result, theirs)), int(getattr(here, ours))
            if board != host:
                found.append(Difference(number, theirs, board, host))
    return found


def _as_array(frame: bytes | NDArray[Any], model: Model) -> NDArray[Any]:
    if not isinstance(frame, bytes):
        return frame
    dtype = model.frame_dtype.newbyteorder("<")
    size = int(np.prod(model.frame_shape)) * dtype.itemsize
    if len(frame) != size:
        raise DataError(
            f"the frame has {len(frame)} bytes, the model takes {size}", "pass a frame as captured"
        )
    return np.frombuffer(frame, dtype).reshape(model.frame_shape).astype(model.frame_dtype)
