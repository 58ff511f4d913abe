"""The files of a store: written whole or not at all, never changed, of a known version."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from drip.disk import disk_error
from drip.errors import StoreError
from drip.store.root import Root
from drip.store.rows import LABELS, RECORDS, SCHEMA_VERSION, VERSION_KEY

__all__ = ["StoreFiles", "open_folder"]

_MARKER = "store.json"
# Pages carry a checksum, as flipped bits within one would be read as other values.
_FORMAT = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def open_folder(root: Root, create: bool) -> None:
    """Check that a place is a store.

    Args:
        root: The place.
        create: Make it when there is nothing.

    Raises:
        StoreError: No store there, a file, another program's folder, a newer version, or no space.
    """
    if root.fs is None and (file := _file_in(root.local)) is not None:
        raise StoreError(f"{file} is a file, not a folder", "name another place for the store")
    try:
        text = root.read(_MARKER)
        if text is None:
            if not create:
                raise StoreError(
                    f"{root.name} is not a store", "pull frames into it first with: drip sync"
                )
            _create(root)
            return
        found = json.loads(text)
        version = int(found["version"]) if found["format"] == "drip-store" else -1
    except OSError as error:
        raise StoreError(
            f"cannot read {root.path(_MARKER)}: {_one_line(error)}", "check its permissions"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{root.path(_MARKER)} is damaged",
            'it should read {"format": "drip-store", "version": 1}',
        ) from error
    _refuse_newer(root.name, version)


class StoreFiles:
    """The Parquet files of a store, by folder: ``records``, ``conflicts`` and ``labels``.

    Args:
        root: Where the store lies.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._arrow = root.arrow
        self._checked: set[str] = set()

    def _files(self, folder: str) -> list[str]:
        files = self._root.parquet_files(folder)
        for file in files:
            if file not in self._checked:
                self._check_version(file)
                self._checked.add(file)
        return files

    def dataset(self, folder: str) -> Any:
        """The rows of a folder as a ``pyarrow.dataset.Dataset`` with today's columns.

        Columns that an older drip did not write are null.

        Raises:
            StoreError: A file is damaged, or of a newer version.
        """
        schema = LABELS if folder == "labels" else RECORDS
        files = self._files(folder)
        if not files:
            return pads.dataset(schema.empty_table())
        return pads.dataset(files, schema=schema, format=_FORMAT, filesystem=self._arrow)

    def read(self, folder: str, columns: list[str] | None, where: Any = None) -> Any:
        """Read the rows of a folder as a ``pyarrow.Table``.

        Args:
            folder: Its name.
            columns: Only these; None: all.
            where: Only rows for which this ``pyarrow`` expression holds.

        Raises:
            StoreError: A file is damaged, or of a newer version.
        """
        try:
            return self.dataset(folder).to_table(columns=columns, filter=where)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"a file in {self._root.path(folder)} cannot be read: {_one_line(error)}",
                "restore it from a backup; the other files are not affected",
            ) from error

    def rows(self, folder: str) -> int:
        """Number of rows of a folder."""
        return sum(
            pq.read_metadata(file, filesystem=self._arrow).num_rows for file in self._files(folder)
        )

    def write(self, folder: str, schema: Any, columns: Mapping[str, Any]) -> None:
        """Add rows to a folder as one new file; nothing when there are none.

        Raises:
            StoreError: The disk is full or read-only; nothing was added.
        """
        if not columns or not len(next(iter(columns.values()))):
            return
        table = pa.Table.from_pydict(columns, schema=schema)
        name = f"{time.time_ns() // 1000:017d}-{secrets.token_hex(4)}.parquet"
        self._root.write(
            f"{folder}/{name}",
            lambda file: pq.write_table(table, file, compression="zstd", write_page_checksum=True),
        )

    def _check_version(self, file: str) -> None:
        try:
            metadata = pq.read_schema(file, filesystem=self._arrow).metadata or {}
            version = int(metadata.get(VERSION_KEY, b"0"))
        except PermissionError as error:
            raise StoreError(
                f"cannot read {file}: {_one_line(error)}", "check its permissions"
            ) from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreError(
                f"{file} is damaged: {_one_line(error)}",
                "restore it from a backup, or move it away to go on without it",
            ) from error
        _refuse_newer(file, version)


def _file_in(path: Path) -> Path | None:
    """What on the way to a folder is no folder."""
    for part in (path, *path.parents):
        if part.exists():
            return None if part.is_dir() else part
    return None


def _create(root: Root) -> None:
    try:
        if not root.is_empty():
            raise StoreError(
                f"{root.name} is a folder with something else in it", "name another folder"
            )
        text = json.dumps({"format": "drip-store", "version": SCHEMA_VERSION}) + "\n"
        root.write(_MARKER, lambda file: file.write(text.encode()))
    except OSError as error:
        raise disk_error(root.local, error) from error


def _refuse_newer(path: str, version: int) -> None:
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer drip (store version {version})", "update drip"
        )
    if version < 1:
        raise StoreError(f"{path} is not part of a DRIP store", "name another folder")


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error) or type(error).__name__).splitlines()[0][:100]
