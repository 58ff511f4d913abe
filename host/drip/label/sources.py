"""Label sources: who says what a pulled frame shows.

Labels are events in the store (``Store.append_labels``); the last one of a record counts, and
``"reject"`` takes a frame out of training.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drip.data.dataset import load_npz, sample_hashes
from drip.errors import DataError
from drip.store import REJECT, RecordKey, Store

__all__ = ["CsvLabels", "LabelReport", "LabelSource", "TruthLabels", "apply_labels"]


class LabelSource(Protocol):
    """Something that knows labels.

    Attributes:
        name: Written beside each label.
    """

    name: str

    def label(self, keys: Sequence[RecordKey], frames: NDArray[Any]) -> Sequence[str | int | None]:
        """Label frames.

        Args:
            keys: Identities of N records.
            frames: ``[N, ...]`` as captured.

        Returns:
            N labels: a class name, the number of a class, ``"reject"``, or None: not known.
        """
        ...


@dataclass(frozen=True)
class LabelReport:
    """What a label source achieved.

    Attributes:
        written: Label events added; repeating a label adds none.
        labelled: Records that it gave a class.
        rejected: Records that it rejected.
        unknown: Records that it knows nothing about.
    """

    written: int
    labelled: int
    rejected: int
    unknown: int


def apply_labels(store: Store, source: LabelSource, classes: Sequence[str]) -> LabelReport:
    """Ask a source about every record of a store and write down what it says.

    Args:
        store: The store.
        source: Who knows.
        classes: Class names of the project.

    Raises:
        DataError: The source names a class that the project does not have; nothing is written.
        StoreError: The disk is full; nothing is written.
    """
    if REJECT in classes:
        raise DataError(f"a class cannot be called {REJECT!r}", "rename the class")
    known: dict[RecordKey, str] = {}
    unknown = 0
    for frames in store.frame_groups():
        for key, label in zip(frames.keys, source.label(frames.keys, frames.x), strict=True):
            if label is None:
                unknown += 1
            else:
                known[key] = _class_name(key, label, classes)
    rejected = sum(label == REJECT for label in known.values())
    written = store.append_labels(known, source.name)
    return LabelReport(written, len(known) - rejected, rejected, unknown)


def label_source(path: str | os.PathLike[str]) -> LabelSource:
    """Open labels from a file: a CSV of keys, or an ``.npz`` of labelled frames.

    Raises:
        DataError: The file is missing, malformed or of another kind.
    """
    if Path(path).suffix == ".npz":
        known = load_npz(path)
        labelled = np.flatnonzero(known.y >= 0)
        return TruthLabels(known.x[labelled], [known.classes[y] for y in known.y[labelled]])
    return CsvLabels(path)


class TruthLabels:
    """Labels of known frames, recognised by their exact bytes.

    Args:
        x: ``[N, ...]`` frames as captured.
        y: ``[N]`` their classes: numbers, or names.

    Raises:
        DataError: ``x`` and ``y`` differ in length.
    """

    name = "truth"

    def __init__(self, x: NDArray[Any], y: ArrayLike) -> None:
        labels = np.asarray(y)
        if labels.shape != (len(x),):
            raise DataError(f"{len(x)} frames but labels {list(labels.shape)}", "one per frame")
        self._by_frame: dict[bytes, str | int | None] = {}
        for digest, raw in zip(sample_hashes(x), labels.tolist(), strict=True):
            label = raw if isinstance(raw, int) else str(raw)
            # The same frame under two names has no true label.
            same = self._by_frame.get(digest, label) == label
            self._by_frame[digest] = label if same else None

    def label(self, keys: Sequence[RecordKey], frames: NDArray[Any]) -> Sequence[str | int | None]:
        """See :class:`LabelSource`."""
        return [self._by_frame.get(digest) for digest in sample_hashes(frames)]


class CsvLabels:
    """Labels from a CSV file with the columns ``key`` (LOG_UUID:SEQ) and ``label``.

    Args:
        path: The file; other columns are ignored, and a row with an empty label too.

    Raises:
        DataError: The file is missing, has other columns, or a row is malformed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = Path(path)
        self.name = f"csv:{file.name}"
        self._by_key: dict[RecordKey, str] = {}
        try:
            with file.open(newline="", encoding="utf-8-sig") as stream:
                self._read(file, csv.DictReader(stream))
        except FileNotFoundError as error:
            raise DataError(f"no such file: {file}", "check the path") from error
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or "not a CSV file in UTF-8"
            raise DataError(f"cannot read {file}: {reason}", "save it as CSV, UTF-8") from error

    def _read(self, file: Path, rows: csv.DictReader[str]) -> None:
        if not {"key", "label"} <= set(rows.fieldnames or ()):
            raise DataError(
                f"{file} has no columns key and label", "the first line must read: key,label"
            )
        for row in rows:
            try:
                key = RecordKey.parse(row["key"] or "")
            except ValueError as error:
                raise DataError(
                    f"{file}, line {rows.line_num}: {error}", "keys look like LOG_UUID:SEQ"
                ) from error
            if (row["label"] or "").strip():
                self._by_key[key] = row["label"].strip()

    def label(self, keys: Sequence[RecordKey], frames: NDArray[Any]) -> Sequence[str | int | None]:
        """See :class:`LabelSource`."""
        return [self._by_key.get(key) for key in keys]


def _class_name(key: RecordKey, label: str | int, classes: Sequence[str]) -> str:
    if isinstance(label, int):
        if not 0 <= label < len(classes):
            raise DataError(
                f"record {key} got class {label}, but there are {len(classes)} classes",
                "classes count from 0",
            )
        return classes[label]
    if label != REJECT and label not in classes:
        raise DataError(
            f"record {key} got the unknown label {label!r}",
            f"classes: {', '.join(classes)}; or {REJECT}",
        )
    return label
