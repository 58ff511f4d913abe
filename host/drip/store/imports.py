"""Bringing frames and labels into a store from what other tools wrote.

Where a frame names a record of the store, only its label is taken. Any other frame becomes a record
of its own: in a log whose UUID follows from type and shape, under a number that follows from its
bytes, so that the same frame is never taken twice. :func:`label_from` takes labels only, and knows
frames that name no record by their bytes.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.data.dataset import FRAME_DTYPES, load_npz
from drip.errors import DataError, StoreError
from drip.store import studio
from drip.store.export import FLAT, UNLABELLED_FOLDER
from drip.store.rows import RecordKey, StoreRecord
from drip.store.store import Store

__all__ = [
    "ImportReport", "LabelsTaken", "frame_key", "import_files", "import_into", "label_from",
]  # fmt: skip

_NAMESPACE = uuid.UUID("b8a2a9b5-4d07-5c0e-9d4c-0f6f3a1f5f52")
_NO_CLASS = 0xFFFF
_SEQ_BITS = 63  # numbers stay positive where a tool knows only signed ones
_BATCH = 4096
_PICTURES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # eight bits per channel


@dataclass(frozen=True)
class ImportReport:
    """What an import brought.

    Attributes:
        new: Frames that the store did not have.
        known: Frames that it had.
        labels: Label events written.
    """

    new: int
    known: int
    labels: int


@dataclass(frozen=True)
class LabelsTaken:
    """What labels from a file did.

    Attributes:
        labels: Label events written; a label that a frame has already is not written again.
        labelled: Frames of the store that the source names or shows, with a label.
        unlabelled: The same without one.
        unknown: Frames of the source that the store does not have.
    """

    labels: int
    labelled: int
    unlabelled: int
    unknown: int


@dataclass(frozen=True)
class _Found:
    """A frame or the name of one, and its label.

    Attributes:
        key: Record that it says to be.
        label: What it shows.
        file: Where the frame is, once the key is found not to do.
        x: The frame itself.
    """

    key: RecordKey | None
    label: str | None
    file: Path | Callable[[], Path] | None = None
    x: NDArray[Any] | None = None


def import_files(
    where: str | os.PathLike[str], source: Path, files: Path | None = None
) -> ImportReport:
    """As :func:`import_into`, into a store that is made when the source proves to be one.

    Args:
        where: Of the store.
        source: As there.
        files: As there.

    Raises:
        DataError: As there; a store that was not there is not there now either, where not even the
            first frames could be read.
        StoreError: As there, or something else is in that place.
    """
    try:
        store = Store.open(where)
    except StoreError:
        # Not yet a store: read as much as is written at once before one is made.
        found = iter(_read(source, files))
        first = [
            _Found(item.key, item.label, x=_frame(item, source))
            for item in itertools.islice(found, _BATCH)
        ]
        store = Store.open(where, create=True)
        return _import(store, itertools.chain(first, found), source)
    return import_into(store, source, files)


def import_into(store: Store, source: Path, files: Path | None = None) -> ImportReport:
    """Bring in frames and labels.

    Args:
        store: The store.
        source: A folder of class folders, a folder with ``labels.csv`` or ``tasks.json`` or that
            file, an ``.npz``, or a JSON file of Label Studio.
        files: Folder of the pictures that a JSON file names; None: its own.

    Raises:
        DataError: It is nothing of that, or damaged; nothing was brought in before that was found
            but whole batches of frames, which another run finds again.
        StoreError: The store cannot be written.
    """
    return _import(store, _read(source, files), source)


def label_from(store: Store, source: Path, files: Path | None = None) -> LabelsTaken:
    """Take labels for frames that a store has; frames that it does not have stay out.

    Args:
        store: The store.
        source: As of :func:`import_into`.
        files: As there.

    Raises:
        DataError: It is nothing of that, or damaged; no label was written.
        StoreError: The labels cannot be written.
    """
    known = set(store.keys())
    by_bytes: dict[RecordKey, list[RecordKey]] | None = None
    labels: dict[RecordKey, str] = {}
    unlabelled = unknown = 0
    for found in _read(source, files):
        if found.key in known:
            keys = [found.key]
        elif found.file is None and found.x is None:
            keys = []
        else:
            by_bytes = _by_bytes(store) if by_bytes is None else by_bytes
            keys = by_bytes.get(frame_key(_frame(found, source)), [])
        if not keys:
            unknown += 1
        elif found.label is None:
            unlabelled += len(keys)
        else:
            labels |= dict.fromkeys(keys, found.label)
    written = store.append_labels(labels, f"import:{source.name}")
    return LabelsTaken(written, len(labels), unlabelled, unknown)


def _by_bytes(store: Store) -> dict[RecordKey, list[RecordKey]]:
    """The records of a store by the key that their frames would get here."""
    found: dict[RecordKey, list[RecordKey]] = {}
    for frames in store.frame_groups():
        for key, x in zip(frames.keys, frames.x, strict=True):
            found.setdefault(frame_key(x), []).append(key)
    return found


def _import(store: Store, source_frames: Iterable[_Found], source: Path) -> ImportReport:
    known = set(store.keys())
    new = old = 0
    labels: dict[RecordKey, str] = {}
    batch: list[StoreRecord] = []
    for found in source_frames:
        key = found.key
        if key is None or key not in known:
            record = _record(_frame(found, source), source)
            key = record.key
            if key not in known:
                batch.append(record)
                known.add(key)
                new += 1
            else:
                old += 1
        else:
            old += 1
        if found.label is not None:
            labels[key] = found.label
        if len(batch) >= _BATCH:
            store.append(batch)
            batch = []
    store.append(batch)
    return ImportReport(new, old, store.append_labels(labels, f"import:{source.name}"))


def frame_key(x: NDArray[Any]) -> RecordKey:
    """The key that an imported frame gets: from its type, shape and bytes alone."""
    kind = f"{x.dtype.name}{list(x.shape)}"
    digest = hashlib.sha256(kind.encode() + x.tobytes()).digest()
    seq = int.from_bytes(digest[:8], "little") >> (64 - _SEQ_BITS)
    return RecordKey(str(uuid.uuid5(_NAMESPACE, kind)), seq)


def _read(source: Path, files: Path | None) -> Iterable[_Found]:
    if source.is_dir():
        listing, tasks = source / "labels.csv", source / "tasks.json"
        if tasks.is_file():
            return _tasks(tasks, files or source)
        return _csv(listing) if listing.is_file() else _folders(source)
    if not source.is_file():
        raise DataError(f"no such file or folder: {source}", "check the path")
    if source.suffix == ".npz":
        return _npz(source)
    if source.suffix == ".csv":
        return _csv(source)
    if source.suffix == ".json":
        return _tasks(source, files or source.parent)
    raise DataError(
        f"{source} is of an unknown kind", "folders by class, labels.csv, .npz, or .json"
    )


def _folders(source: Path) -> Iterator[_Found]:
    folders = sorted(folder for folder in source.iterdir() if folder.is_dir())
    if not folders:
        raise DataError(f"{source} has no folders", "expected one folder per class")
    for folder in folders:
        if folder.name.startswith("."):
            continue
        label = None if folder.name == UNLABELLED_FOLDER else folder.name
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                yield _Found(_key_of(file), label, file)


def _csv(source: Path) -> Iterator[_Found]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if "label" not in (rows.fieldnames or ()) or not {"key", "file"} & set(
                rows.fieldnames or ()
            ):
                raise DataError(
                    f"{source} has no columns label and key or file",
                    "the first line must read: key,label,file",
                )
            for row in rows:
                where = f"{source}, line {rows.line_num}"
                key = _parse_key(row.get("key"), where)
                file = _inside(source.parent, row.get("file"), where)
                yield _Found(key, (row["label"] or "").strip() or None, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a CSV file in UTF-8"
        raise DataError(f"cannot read {source}: {reason}", "save it as CSV, UTF-8") from error


def _npz(source: Path) -> Iterator[_Found]:
    data = load_npz(source)
    keys: list[RecordKey | None] = [None] * len(data)
    with np.load(source, allow_pickle=False) as file:
        if "keys" in file.files:
            names = file["keys"]
            if names.shape != (len(data),):
                raise DataError(f"{source}: keys {list(names.shape)}", "one key per frame")
            keys = [_parse_key(str(name), str(source)) for name in names]
    for key, x, y in zip(keys, data.x, data.y, strict=True):
        yield _Found(key, data.classes[y] if y >= 0 else None, x=x)


def _tasks(source: Path, files: Path) -> Iterator[_Found]:
    for task in studio.read_tasks(source, files):
        yield _Found(_parse_key(task.key, task.where), task.label, task.file)


def _parse_key(text: object, where: str) -> RecordKey | None:
    if text is None or text == "":
        return None
    try:
        return RecordKey.parse(str(text))
    except ValueError as error:
        raise DataError(f"{where}: {error}", "keys look like LOG_UUID:SEQ") from error


def _inside(folder: Path, name: object, where: str) -> Path | None:
    """A file that a listing names; it may not lead out of the listing's folder."""
    if not name:
        return None
    file = (folder / str(name)).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise DataError(f"{where}: {name} lies outside of {folder}", "name files beside the list")
    return file


def _key_of(file: Path) -> RecordKey | None:
    """The record that a file written by an export names, None for any other file."""
    log_uuid, mark, seq = file.stem.rpartition("_")
    try:
        return RecordKey.parse(f"{uuid.UUID(log_uuid)}:{seq}") if mark else None
    except ValueError:
        return None


def _frame(found: _Found, source: Path) -> NDArray[Any]:
    if found.x is not None:
        return found.x
    if found.file is None:
        raise DataError(
            f"{source} names record {found.key}, which the store does not have",
            "name a file for it, or pull it first",
        )
    file = found.file if isinstance(found.file, Path) else found.file()
    x = _load(file)
    if x.dtype.name not in FRAME_DTYPES or x.ndim < 1 or x.ndim > 4 or x.size == 0:
        raise DataError(
            f"{file} holds {x.dtype}{list(x.shape)}",
            f"frames are {', '.join(FRAME_DTYPES)} with 1 to 4 dimensions",
        )
    return x


def _load(file: Path) -> NDArray[Any]:
    try:
        if file.suffix == ".npy":
            return np.asarray(np.load(file, allow_pickle=False))
        from PIL import Image

        with warnings.catch_warnings():
            # A picture of absurd size is an error, not a warning.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                if picture.mode not in _PICTURES:
                    raise ValueError(picture.mode)
                grey = picture.mode in ("1", "L")
                pixels = np.asarray(picture.convert("L" if grey else "RGB"))
                flat = picture.info.get(FLAT) is not None
        return pixels[:, :, None] if grey and not flat else pixels
    except Exception as error:  # Pillow's decoders raise anything on damaged bytes
        raise DataError(f"cannot read {file} as a frame", "expected a picture or .npy") from error


def _record(x: NDArray[Any], source: Path) -> StoreRecord:
    key = frame_key(x)
    frame = np.ascontiguousarray(x.astype(x.dtype.newbyteorder("<"), copy=False)).tobytes()
    return StoreRecord(
        log_uuid=key.log_uuid,
        seq=key.seq,
        device_id=f"import:{source.name}",
        boot_id=0,
        time_us=0,
        utc_us=None,
        time_source="unknown",
        stream_id=0,
        raw_score=0,
        percentile=0,
        policy=0,
        score_kind=0,
        flags=0,
        class_1=_NO_CLASS,
        class_2=_NO_CLASS,
        logit_1=0,
        logit_2=0,
        model_id="",
        frame=frame,
        dtype=x.dtype.name,
        shape=tuple(x.shape),
        scale=1.0,
        offset=0.0,
        header_crc=0,
        payload_crc=zlib.crc32(frame),
    )
