"""The ``Dataset`` type and its files.

A frame is kept exactly as the sensor captured it (integers, before any scaling), because
retraining must not be tied to the front end of an old model.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drip.data.files import write_atomic
from drip.errors import DataError, MissingDependencyError, install_hint

FRAME_DTYPES = ("uint8", "int8", "int16")
UNLABELLED = -1

# What zipfile, its decompressors and numpy's header parser raise on damaged bytes.
_MALFORMED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)

_NPZ_HINT = (
    "expected arrays x [N, ...] (uint8, int8 or int16), y [N] and classes,"
    " or x_train, y_train, x_test, y_test and classes"
)


@dataclass(frozen=True)
class Dataset:
    """Frames with their labels.

    Attributes:
        x: ``[N, ...]`` as captured: uint8, int8 or int16.
        y: int64 ``[N]``, index into ``classes``, or -1 where not labelled.
        classes: Class names.
        group: int64 ``[N]`` or None; frames of one group (person, device, session) are never
            spread over two parts of a split.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    group: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return tuple(self.x.shape[1:])

    def take(self, indices: ArrayLike) -> Dataset:
        """The frames at ``indices`` (integers or a boolean mask), in that order."""
        at = np.asarray(indices)
        if at.size == 0:
            at = at.astype(np.int64)
        group = None if self.group is None else self.group[at]
        return Dataset(self.x[at], self.y[at], self.classes, group)

    @staticmethod
    def concat(a: Dataset, b: Dataset) -> Dataset:
        """``a`` followed by ``b``; groups survive only where both have them.

        Raises:
            DataError: Frame type, frame shape or classes differ.
        """
        if a.x.dtype != b.x.dtype or a.frame_shape != b.frame_shape:
            raise DataError(
                f"cannot join frames {a.x.dtype}{list(a.frame_shape)}"
                f" and {b.x.dtype}{list(b.frame_shape)}",
                "both must come from the same sensor stream",
            )
        if a.classes != b.classes:
            raise DataError(
                "cannot join data sets with different classes",
                "give both the same class names in the same order",
            )
        group = None
        if a.group is not None and b.group is not None:
            group = np.concatenate([a.group, b.group])
        return Dataset(np.concatenate([a.x, b.x]), np.concatenate([a.y, b.y]), a.classes, group)

    def digest(self) -> str:
        """SHA-256 (hex) over frame type, shape, bytes, labels and class names."""
        little = self.x.astype(self.x.dtype.newbyteorder("<"), copy=False)
        sha = hashlib.sha256()
        sha.update(f"{self.x.dtype.name}{list(self.x.shape)}".encode())
        sha.update(np.ascontiguousarray(little).tobytes())
        sha.update(np.ascontiguousarray(self.y.astype("<i8")).tobytes())
        sha.update("\0".join(self.classes).encode())
        return sha.hexdigest()


def load_npz(path: str | os.PathLike[str], *, part: str = "train") -> Dataset:
    """Read a data set from an ``.npz`` file; nothing in the file is executed.

    Args:
        path: File with ``x``, ``y``, ``classes`` (and ``group``), or with ``x_train``,
            ``y_train``, ``x_test``, ``y_test``, ``classes`` (and ``group_train``, ...);
            ``subject`` is read as ``group``. Without ``y`` the frames are unlabelled.
        part: ``"train"`` or ``"test"``; a file with plain ``x`` holds only ``"train"``.

    Raises:
        DataError: The file is missing, corrupt, or does not hold a usable data set.
    """
    if part not in ("train", "test"):
        raise DataError(f"no such part of a data set: {part}", "use train or test")
    name = str(path)
    arrays = read_arrays(Path(path), _NPZ_HINT)
    suffix = f"_{part}"
    if f"x{suffix}" not in arrays:
        suffix = ""
        if "x" not in arrays or part == "test":
            raise DataError(f"{name} holds no x_{part}", _NPZ_HINT)
    x = arrays[f"x{suffix}"]
    if x.dtype.name not in FRAME_DTYPES:
        raise DataError(
            f"{name}: frames are {x.dtype}, not {', '.join(FRAME_DTYPES)}",
            "store the sensor's integers; scaling to float belongs to the model",
        )
    if x.ndim < 2:
        raise DataError(f"{name}: x has shape {list(x.shape)}, not [N, ...]", _NPZ_HINT)
    y = arrays.get(f"y{suffix}", np.full(len(x), UNLABELLED, np.int64))
    group = arrays.get(f"group{suffix}", arrays.get(f"subject{suffix}"))
    for key, labels in (("y", y), ("group", group)):
        if labels is not None and (labels.dtype.kind not in "iu" or labels.ndim != 1):
            raise DataError(
                f"{name}: {key} must be integers [N], not {labels.dtype}{list(labels.shape)}",
                _NPZ_HINT,
            )
    try:
        return Dataset(
            np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False)),
            y.astype(np.int64),
            _class_names(arrays.get("classes"), y),
            None if group is None else group.astype(np.int64),
        )
    except DataError as error:
        raise DataError(f"{name}: {error.message}", error.hint) from error


def save_npz(path: str | os.PathLike[str], data: Dataset) -> None:
    """Write a data set that :func:`load_npz` reads; the old file survives any failure.

    Raises:
        DataError: The folder is missing or read-only, or the disk is full.
    """
    arrays: dict[str, Any] = {"x": data.x, "y": data.y, "classes": np.array(data.classes, np.str_)}
    if data.group is not None:
        arrays["group"] = data.group
    try:
        write_atomic(path, lambda file: np.savez_compressed(file, **arrays))
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}",
            "check that the folder exists, is writable and has space",
        ) from error


def digits() -> Dataset:
    """The 1,797 handwritten digits that come with scikit-learn, as captured.

    Returns:
        uint8 ``[1797, 8, 8, 1]`` with values 0..16, classes ``"0"`` to ``"9"``. Source: Alpaydin
        and Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (test part).

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            "the digits data set needs scikit-learn", install_hint("train")
        ) from error
    bunch = load_digits()
    x = bunch.images.astype(np.uint8)[..., np.newaxis]
    return Dataset(x, bunch.target.astype(np.int64), tuple(str(c) for c in range(10)))


def sample_hashes(x: NDArray[Any]) -> list[bytes]:
    """One 16-byte BLAKE2b digest per frame, equal exactly when type, shape and bytes are."""
    head = f"{x.dtype.name}{list(x.shape[1:])}".encode()
    return [
        hashlib.blake2b(head + np.ascontiguousarray(frame).tobytes(), digest_size=16).digest()
        for frame in x
    ]


def count_shared_samples(a: NDArray[Any], b: NDArray[Any]) -> int:
    """How many frames of ``a`` are byte for byte also in ``b``.

    A threshold calibrated on frames the model was trained on keeps far too much, so calibration
    refuses a set for which this is not zero.
    """
    known = set(sample_hashes(b))
    return sum(digest in known for digest in sample_hashes(a))


def _check(data: Dataset) -> None:
    if data.x.dtype.name not in FRAME_DTYPES:
        raise DataError(
            f"frames are {data.x.dtype}, not {', '.join(FRAME_DTYPES)}",
            "store the sensor's integers; scaling to float belongs to the model",
        )
    if data.x.ndim < 2 or 0 in data.x.shape[1:]:
        raise DataError(f"frames have shape {list(data.x.shape)}", "x must be [N, ...]")
    if data.y.shape != (len(data.x),) or data.y.dtype != np.int64:
        raise DataError(
            f"{len(data.x)} frames but labels {data.y.dtype}{list(data.y.shape)}",
            "y must hold one integer per frame",
        )
    if data.group is not None and data.group.shape != (len(data.x),):
        raise DataError(
            f"{len(data.x)} frames but groups {list(data.group.shape)}",
            "group must hold one integer per frame",
        )
    if len(set(data.classes)) != len(data.classes):
        raise DataError("two classes have the same name", "make the class names unique")
    if len(data) and (data.y.min() < UNLABELLED or data.y.max() >= len(data.classes)):
        raise DataError(
            f"labels run from {data.y.min()} to {data.y.max()}"
            f" but there are {len(data.classes)} classes",
            "labels count from 0; -1 means not labelled",
        )


def read_arrays(path: Path, expected: str) -> dict[str, NDArray[Any]]:
    """Every array of an ``.npz``; nothing in the file is executed.

    Args:
        path: The file.
        expected: What it should hold, for the hint.

    Raises:
        DataError: It cannot be read, or is no ``.npz``.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is one bare array, not an .npz archive", expected)
        with archive:
            return {key: np.asarray(archive[key]) for key in archive.files}
    except _MALFORMED as error:
        raise DataError(
            f"{path} is not a readable .npz file ({_reason(error)})",
            "it may be truncated or hold Python objects; save it again with numpy.savez",
        ) from error
    except OSError as error:
        raise cannot_read(path, error, "pass an .npz file") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory", "make it smaller") from error


def load_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """One array from an ``.npy`` file; nothing in the file is executed.

    Raises:
        DataError: It cannot be read, or is no ``.npy``.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except _MALFORMED as error:
        raise DataError(f"{path} is not a readable .npy file", "save it with numpy.save") from error
    except OSError as error:
        raise cannot_read(path, error, "pass an .npy file") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an .npz archive, not one array", "name it .npz")
    return array


def cannot_read(path: str | os.PathLike[str], error: OSError, hint: str) -> DataError:
    """What the user reads when a file of data cannot be opened or read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"no such file: {path}", "check the path")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path} is a folder, not a file", hint)
    return DataError(f"cannot read {path}: {error.strerror or 'damaged'}", "check the file")


def _class_names(names: NDArray[Any] | None, y: NDArray[Any]) -> tuple[str, ...]:
    if names is None:
        return tuple(str(c) for c in range(int(y.max(initial=-1)) + 1))
    if names.ndim != 1:
        raise DataError(f"classes has shape {list(names.shape)}", "classes must be a list of names")
    raw: Sequence[Any] = names.tolist()
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in raw)


def _reason(error: BaseException) -> str:
    # numpy takes anything for a pickle that it does not know, and advises to load it as one.
    return "no arrays in it" if "pickle" in str(error) else _one_line(error)


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:100]
