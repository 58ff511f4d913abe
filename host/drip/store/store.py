"""The store: pulled records and their labels as append-only Parquet files in a folder.

    STORE/store.json      what this folder is, and its version
    STORE/records/        one row per record; (log_uuid, seq) names it, no name twice
    STORE/conflicts/      records whose name was taken by one with another checksum
    STORE/labels/         label events; the last one of a record counts
    STORE/spool/          raw segments on their way in (drip.sync)

STORE may be a URL that fsspec understands; spool and lock then lie in a folder of this computer.
Files are written whole or not at all and never changed, so readers need no lock, and what two
devices or two runs bring in is merged by name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from drip.data.dataset import FRAME_DTYPES, UNLABELLED, Dataset
from drip.disk import file_lock
from drip.errors import DataError, StoreError
from drip.store.files import StoreFiles, open_folder
from drip.store.root import find_root
from drip.store.rows import LABELS, RECORDS, SCHEMA_VERSION, RecordKey, StoreRecord

__all__ = [
    "REJECT",
    "SCHEMA_VERSION",
    "AppendReport",
    "Frames",
    "RecordKey",
    "Store",
    "StoreRecord",
]

REJECT = "reject"
"""Label of a frame that must not be used for training."""


@dataclass(frozen=True)
class AppendReport:
    """What became of records.

    Attributes:
        new: Now in the store.
        duplicates: Were there already, byte for byte.
        conflicts: Had the name of another record; kept in ``conflicts/``.
    """

    new: int = 0
    duplicates: int = 0
    conflicts: int = 0

    def __add__(self, other: AppendReport) -> AppendReport:
        return AppendReport(
            self.new + other.new,
            self.duplicates + other.duplicates,
            self.conflicts + other.conflicts,
        )


@dataclass(frozen=True)
class Frames:
    """Frames of one type and shape, ordered by log and sequence number.

    Attributes:
        keys: Their identities.
        x: ``[N, ...]`` as captured.
        columns: All other columns of the records, as a ``pyarrow.Table`` in the same order.
    """

    keys: tuple[RecordKey, ...]
    x: NDArray[Any]
    columns: Any

    def __len__(self) -> int:
        return len(self.keys)


class Store:
    """A folder of records and labels. Make one with :meth:`open`.

    Attributes:
        name: As the user wrote it.
        path: Its folder on this computer; for a store elsewhere that of its spool and lock.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        root = find_root(path)
        self.name = root.name
        self.path = root.local
        self._shared = root.fs is not None
        self._files = StoreFiles(root)

    @classmethod
    def open(cls, path: str | os.PathLike[str], create: bool = False) -> Store:
        """Open a store.

        Args:
            path: Its folder, or a URL of a place that fsspec reaches (``s3://bucket/frames``).
            create: Make it when there is nothing.

        Raises:
            StoreError: No store there, another program's folder, a newer version, or no space.
        """
        open_folder(find_root(path), create)
        return cls(path)

    @property
    def spool(self) -> Path:
        """Folder of raw segments on their way in; always on this computer."""
        return self.path / "spool"

    def append(self, records: Sequence[StoreRecord]) -> AppendReport:
        """Add records; those that are there already are left alone.

        Args:
            records: In any order, from any number of logs.

        Raises:
            StoreError: The disk is full or read-only (nothing was added), or a file is damaged.
        """
        if not records:
            return AppendReport()
        with file_lock(self.path / ".lock"):
            known = self._known_checksums("records", records)
            fresh: list[StoreRecord] = []
            clashing: list[StoreRecord] = []
            for record in records:
                earlier = known.get(record.key)
                if earlier is None:
                    known[record.key] = {_checksums(record)}
                    fresh.append(record)
                elif _checksums(record) not in earlier:
                    clashing.append(record)
            self._files.write("records", RECORDS, _columns(fresh))
            self._files.write("conflicts", RECORDS, _columns(self._unseen_conflicts(clashing)))
        duplicates = len(records) - len(fresh) - len(clashing)
        return AppendReport(len(fresh), duplicates, len(clashing))

    def __len__(self) -> int:
        """Number of records."""
        return len(self.keys()) if self._shared else self._files.rows("records")

    def _records(self, columns: list[str] | None) -> Any:
        """The rows of all records.

        The lock of a store keeps two writers on one computer apart; where several computers
        write, two may have added the same record, and the first one counts.
        """
        table = self._files.read("records", columns)
        return _first_of_each(table) if self._shared else table

    @property
    def conflicts(self) -> int:
        """Number of records whose name belongs to another record."""
        return self._files.rows("conflicts")

    def keys(self) -> list[RecordKey]:
        """Identities of all records, ordered."""
        table = self._records(["log_uuid", "seq"])
        return sorted(_keys(table))

    def frame_groups(self) -> Iterator[Frames]:
        """Yield all records, those with frames of the same type and shape together."""
        table = self._records(None)
        if table.num_rows == 0:
            return
        kinds = _kinds(table)
        for kind in dict.fromkeys(kinds):
            yield _frames(table.filter(pa.array([item == kind for item in kinds])), *kind)

    def frames(self, stream_id: int | None = None) -> Frames:
        """Return all frames, or those of one stream, as one array.

        Args:
            stream_id: Only this stream.

        Raises:
            StoreError: The store is empty, or a file is damaged.
            DataError: The frames differ in type or shape.
        """
        table = self._records(None)
        if stream_id is not None:
            table = table.filter(pc.equal(table["stream_id"], stream_id))
        if table.num_rows == 0:
            raise StoreError(
                f"{self.name} holds no frames", "pull some from a device with: drip sync"
            )
        kinds = set(_kinds(table))
        if len(kinds) > 1:
            names = ", ".join(sorted(f"{dtype}{list(shape)}" for dtype, shape in kinds))
            raise DataError(f"{self.name} holds frames of several kinds: {names}", "name a stream")
        return _frames(table, *kinds.pop())

    def dataset(self, classes: Sequence[str], stream_id: int | None = None) -> Dataset:
        """Return the frames and their labels; rejected frames are left out.

        Args:
            classes: Class names; label ``n`` is the n-th.
            stream_id: Only this stream.

        Returns:
            Frames in the order of :meth:`frames`, -1 where nobody has labelled one yet.

        Raises:
            StoreError: As :meth:`frames`.
            DataError: As :meth:`frames`, or a label is not among ``classes``.
        """
        frames = self.frames(stream_id)
        labels = self.labels()
        number = {name: index for index, name in enumerate(classes)}
        y = np.full(len(frames), UNLABELLED, np.int64)
        wanted = np.ones(len(frames), np.bool_)
        for row, key in enumerate(frames.keys):
            label = labels.get(key)
            if label == REJECT:
                wanted[row] = False
            elif label is not None:
                if label not in number:
                    raise DataError(
                        f"record {key} is labelled {label!r}, which is no class of this project",
                        f"classes: {', '.join(classes)}",
                    )
                y[row] = number[label]
        return Dataset(frames.x[wanted], y[wanted], tuple(classes))

    def query(self, sql: str) -> Any:
        """Answer a query in DuckDB's SQL.

        Args:
            sql: Tables are ``records``, ``frames`` (records without their bytes, with their
                labels), ``labels`` (the one that counts per record), ``label_events`` and
                ``conflicts``.

        Returns:
            A ``pyarrow.Table``.

        Raises:
            StoreError: The query is wrong, or a file is damaged.
        """
        from drip.store.query import run_sql

        tables = {
            "records": self._records(None) if self._shared else self._files.dataset("records"),
            "conflicts": self._files.dataset("conflicts"),
            "label_events": self._files.dataset("labels"),
        }
        return run_sql(tables, sql)

    def append_labels(
        self,
        labels: Mapping[RecordKey, str],
        source: str,
        confidence: Mapping[RecordKey, float] | None = None,
    ) -> int:
        """Add label events; the last event of a record counts.

        Args:
            labels: Class name, or :data:`REJECT`, per record.
            source: Who or what says so.
            confidence: Chance that a label is right, where the source can tell.

        Returns:
            Events written; a label that a record has already is not written again.

        Raises:
            StoreError: The disk is full or read-only; nothing was added.
        """
        with file_lock(self.path / ".lock"):
            current = self.labels()
            changed = {key: label for key, label in labels.items() if current.get(key) != label}
            now_us = max(time.time_ns() // 1000, self._last_label_us() + 1)
            columns = {
                "log_uuid": [key.log_uuid for key in changed],
                "seq": [key.seq for key in changed],
                "label": list(changed.values()),
                "source": [source] * len(changed),
                "confidence": [(confidence or {}).get(key) for key in changed],
                "labelled_at": [now_us] * len(changed),
            }
            self._files.write("labels", LABELS, columns)
        return len(changed)

    def labels(self) -> dict[RecordKey, str]:
        """Return the current label of every labelled record, :data:`REJECT` included."""
        table = self._files.read("labels", None).sort_by("labelled_at")
        return dict(zip(_keys(table), table["label"].to_pylist(), strict=True))

    def _last_label_us(self) -> int:
        table = self._files.read("labels", ["labelled_at"])
        last = pc.max(table["labelled_at"]).cast(pa.int64()).as_py()
        return int(last or 0)

    def _known_checksums(
        self, folder: str, records: Sequence[StoreRecord]
    ) -> dict[RecordKey, set[tuple[int, int]]]:
        """Checksums of what ``folder`` holds under the names of ``records`` (and near them)."""
        if not records:
            return {}
        numbers = [record.seq for record in records]
        where = (
            pc.field("log_uuid").isin(sorted({record.log_uuid for record in records}))
            & (pc.field("seq") >= pa.scalar(min(numbers), pa.uint64()))
            & (pc.field("seq") <= pa.scalar(max(numbers), pa.uint64()))
        )
        table = self._files.read(folder, ["log_uuid", "seq", "header_crc", "payload_crc"], where)
        known: dict[RecordKey, set[tuple[int, int]]] = {}
        sums = zip(table["header_crc"].to_pylist(), table["payload_crc"].to_pylist(), strict=True)
        for key, pair in zip(_keys(table), sums, strict=True):
            known.setdefault(key, set()).add(pair)
        return known

    def _unseen_conflicts(self, clashing: Sequence[StoreRecord]) -> list[StoreRecord]:
        known = self._known_checksums("conflicts", clashing)
        unseen = []
        for record in clashing:
            seen = known.setdefault(record.key, set())
            if _checksums(record) not in seen:
                seen.add(_checksums(record))
                unseen.append(record)
        return unseen


def _first_of_each(table: Any) -> Any:
    rows = table.append_column("row", pa.array(np.arange(table.num_rows)))
    first = rows.group_by(["log_uuid", "seq"], use_threads=False).aggregate([("row", "min")])
    if first.num_rows == table.num_rows:
        return table
    return table.take(first["row_min"].combine_chunks().sort())


def _checksums(record: StoreRecord) -> tuple[int, int]:
    return record.header_crc, record.payload_crc


def _columns(records: Sequence[StoreRecord]) -> dict[str, list[Any]]:
    columns = {
        item.name: [getattr(record, item.name) for record in records]
        for item in fields(StoreRecord)
    }
    columns["ingested_at"] = [time.time_ns() // 1000] * len(records)
    return columns


def _keys(table: Any) -> list[RecordKey]:
    return [
        RecordKey(log_uuid, seq)
        for log_uuid, seq in zip(
            table["log_uuid"].to_pylist(), table["seq"].to_pylist(), strict=True
        )
    ]


def _kinds(table: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Type and shape of the frame of each row."""
    shapes = map(tuple, table["shape"].to_pylist())
    return list(zip(table["dtype"].to_pylist(), shapes, strict=True))


def _frames(table: Any, dtype: str, shape: tuple[int, ...]) -> Frames:
    table = table.sort_by([("log_uuid", "ascending"), ("seq", "ascending")])
    if dtype not in FRAME_DTYPES:
        raise DataError(
            f"the store holds frames of type {dtype}, unknown to this drip", "update drip"
        )
    little = np.dtype(dtype).newbyteorder("<")
    raw = b"".join(table["frame"].to_pylist())
    if len(raw) != table.num_rows * int(np.prod(shape)) * little.itemsize:
        raise DataError(
            f"frames of stream {table['stream_id'][0].as_py()} are not {dtype}{list(shape)}",
            "the device describes its stream wrongly; fix the stream in its port",
        )
    x = np.frombuffer(raw, little).reshape(table.num_rows, *shape)
    return Frames(tuple(_keys(table)), x.astype(dtype), table.drop_columns(["frame"]))
