"""Data sets that are larger than memory: ``.npz`` files written and read piece by piece.

The files are those of :func:`drip.data.save_npz`; only how they are made and read differs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from drip.data.dataset import FRAME_DTYPES, Dataset, cannot_read
from drip.data.files import write_atomic
from drip.errors import DataError

_COPY_BYTES = 1 << 20


class NpzWriter:
    """Writes a data set frame by frame; the file appears, whole, when the writer is closed.

    Frames are spooled to a temporary file beside the target, because the header of an array comes
    before it and says how many there are. Use as a context manager: an exception leaves no file.

    Args:
        path: Target; its folder must exist.

    Raises:
        DataError: Frames of a part differ in type or shape, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._classes: list[str] = []
        self._group_names: list[str] = []
        self._parts: dict[str, _Part] = {}

    def add(
        self, frame: NDArray[Any], label: str | int | None, group: str | None = None, part: str = ""
    ) -> None:
        """Append one frame.

        Args:
            frame: uint8, int8 or int16, as captured.
            label: Class name (new ones are added), index of a class, or None: not labelled.
            group: Name of the person, leaf, device ... that it comes from.
            part: ``""``, ``"train"`` or ``"test"``.
        """
        if part not in self._parts:
            self._parts[part] = _Part(self._path, frame)
        own = self._parts[part]
        if isinstance(label, str):
            label = _index(self._classes, label)
        own.y.append(-1 if label is None else label)
        own.group.append(-1 if group is None else _index(self._group_names, group))
        own.add(frame)

    def name_classes(self, names: list[str]) -> None:
        """Fix class names and their order beforehand."""
        self._classes = list(names)

    @property
    def frames(self) -> int:
        """Frames so far."""
        return sum(len(p.y) for p in self._parts.values())

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names so far."""
        return tuple(self._classes)

    @property
    def groups(self) -> int:
        """Group keys so far."""
        return len(self._group_names)

    def __enter__(self) -> NpzWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for part in self._parts.values():
                part.spool.close()

    def _finish(self) -> None:
        if not self.frames:
            raise DataError("there are no frames to write", "check the source")
        try:
            write_atomic(self._path, self._write)
        except OSError as error:
            raise DataError(
                f"cannot write {self._path}: {error.strerror or error}",
                "check that the folder exists, is writable and has space",
            ) from error

    def _write(self, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            _write_array(archive, "classes", np.array(self._classes, np.str_))
            if self._group_names:
                _write_array(archive, "group_names", np.array(self._group_names, np.str_))
            for name, part in self._parts.items():
                suffix = f"_{name}" if name else ""
                _write_array(archive, f"y{suffix}", np.array(part.y, np.int64))
                if self._group_names:
                    _write_array(archive, f"group{suffix}", np.array(part.group, np.int64))
                with archive.open(f"x{suffix}.npy", "w", force_zip64=True) as member:
                    part.copy_to(member)


class _Part:
    def __init__(self, path: Path, frame: NDArray[Any]) -> None:
        if frame.dtype.name not in FRAME_DTYPES or not frame.ndim:
            raise DataError(
                f"frames are {frame.dtype}, not {', '.join(FRAME_DTYPES)}",
                "store the sensor's integers; scaling to float belongs to the model",
            )
        self.dtype = frame.dtype.newbyteorder("<")
        self.shape = frame.shape
        self.y: list[int] = []
        self.group: list[int] = []
        try:
            self.spool = _spool(path)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}", "check the folder") from error

    def add(self, frame: NDArray[Any]) -> None:
        if frame.shape != self.shape or frame.dtype.name != self.dtype.name:
            raise DataError(
                f"a frame is {frame.dtype}{list(frame.shape)},"
                f" those before are {self.dtype}{list(self.shape)}",
                "all frames of a data set must be alike",
            )
        try:
            self.spool.write(np.ascontiguousarray(frame, self.dtype).tobytes())
        except OSError as error:
            raise DataError(f"cannot spool frames: {error.strerror}", "free some space") from error

    def copy_to(self, member: IO[bytes]) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (len(self.y), *self.shape),
        }
        np.lib.format.write_array_header_2_0(member, header)
        self.spool.seek(0)
        shutil.copyfileobj(self.spool, member, _COPY_BYTES)


def _spool(path: Path) -> IO[bytes]:
    # Lives as long as the writer, which closes it.
    return tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name}.")


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _index(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


@dataclass(frozen=True)
class NpzStream:
    """A data set on disk whose frames are read in batches; labels and groups are in memory.

    Attributes:
        path: The file.
        part: ``"train"``, ``"test"`` or ``""``.
        y: int64 ``[N]``.
        classes: Class names.
        group: int64 ``[N]`` or None.
        dtype: Of a frame.
        frame_shape: Of a frame.
    """

    path: Path
    part: str
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    group: NDArray[np.int64] | None
    dtype: np.dtype[Any]
    frame_shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int = 256) -> Iterator[Dataset]:
        """All frames in order, ``size`` at a time; no more than that is in memory.

        Raises:
            DataError: The file is damaged.
        """
        frame_bytes = self.dtype.itemsize * int(np.prod(self.frame_shape))
        with _member(self.path, self.part) as member:
            _header(member, self.path)
            for start in range(0, len(self), size):
                count = min(size, len(self) - start)
                raw = _read(member, count * frame_bytes, self.path)
                x = np.frombuffer(raw, self.dtype).reshape(count, *self.frame_shape)
                at = slice(start, start + count)
                yield Dataset(
                    x.astype(self.dtype.newbyteorder("=")),
                    self.y[at],
                    self.classes,
                    None if self.group is None else self.group[at],
                )


def stream_npz(path: str | os.PathLike[str], *, part: str = "train") -> NpzStream:
    """Open a data set without reading its frames.

    Args:
        path: As for :func:`drip.data.load_npz`.
        part: See there.

    Raises:
        DataError: The file is missing, damaged or no data set.
    """
    target = Path(path)
    try:
        with np.load(target, allow_pickle=False) as archive:
            suffix = part if f"x_{part}" in archive.files else ""
            if not suffix and ("x" not in archive.files or part == "test"):
                raise DataError(f"{target.name} holds no x_{part}", "see drip data import")
            tail = f"_{suffix}" if suffix else ""
            y = archive[f"y{tail}"].astype(np.int64)
            classes = tuple(str(c) for c in archive["classes"])
            group = (
                archive[f"group{tail}"].astype(np.int64)
                if f"group{tail}" in archive.files
                else None
            )
    except OSError as error:
        raise cannot_read(target, error, "pass an .npz file") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{target} is no readable data set", "make it again") from error
    with _member(target, suffix) as member:
        shape, dtype = _header(member, target)
    if shape[0] != len(y) or dtype.name not in FRAME_DTYPES:
        raise DataError(
            f"{target.name}: x is {dtype}{list(shape)}, y has {len(y)}", "make it again"
        )
    return NpzStream(target, suffix, y, classes, group, dtype, tuple(shape[1:]))


def _member(path: Path, part: str) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    # The member keeps the archive's file open for as long as it lives.
    return archive.open(f"x_{part}.npy" if part else "x.npy")


def _header(member: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(member)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(member)
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path.name}: x is no array that can be streamed", "save it again"
        ) from error
    if fortran or len(shape) < 2:
        raise DataError(f"{path.name}: x is not [N, ...] in C order", "save it again")
    return shape, dtype


def _read(member: IO[bytes], count: int, path: Path) -> bytes:
    try:
        raw = member.read(count)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{path} is damaged", "make it again") from error
    if len(raw) != count:
        raise DataError(f"{path.name} is truncated", "make it again")
    return raw
