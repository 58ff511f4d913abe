"""Reading of what Label Studio exports as JSON."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drip.errors import DataError

__all__ = ["Task", "read_tasks"]

_HINT = "export from Label Studio as JSON (not as JSON-MIN)"
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # put by Label Studio before the name of a file


@dataclass(frozen=True)
class Task:
    """One picture and what somebody said of it.

    Attributes:
        where: File and number, for messages.
        key: Record that it says to be, as text.
        label: None where nobody has chosen.
        file: Looks for the picture; DataError where it is not there.
    """

    where: str
    key: object
    label: str | None
    file: Callable[[], Path]


def read_tasks(source: Path, files: Path) -> Iterator[Task]:
    """The tasks of a JSON export.

    Args:
        source: The file.
        files: Folder of the pictures.

    Raises:
        DataError: It is no such export.
    """
    try:
        tasks = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise DataError(f"cannot read {source}: {reason}", _HINT) from error
    if not isinstance(tasks, list):
        raise DataError(f"{source} is no list of tasks", _HINT)
    for n, task in enumerate(tasks):
        where = f"{source}, task {n}"
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            raise DataError(f"{where} has no data", _HINT)
        file = functools.partial(_picture, files, data.get("image"), where)
        yield Task(where, data.get("key"), _chosen(task.get("annotations"), where), file)


def _chosen(annotations: Any, where: str) -> str | None:
    """The class of the last annotation that was not skipped; "skipped" rejects nothing."""
    label = None
    try:
        for annotation in annotations or ():
            if annotation.get("was_cancelled"):
                continue
            for result in annotation["result"]:
                choices = result.get("value", {}).get("choices")
                if choices:
                    label = str(choices[0])
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{where}: annotations are not those of Label Studio", _HINT) from error
    return label


def _picture(folder: Path, name: object, where: str) -> Path:
    """The file that a task of Label Studio shows.

    Label Studio writes what its browser loads: a path, ``/data/upload/PROJECT/HASH-NAME``,
    ``/data/local-files/?d=PATH`` or a URL. Of these some tail, with or without the hash, names a
    file in the folder.
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} names no image", "its data must hold key, or image")
    # What cannot be a URL or the name of a file is none that is there.
    with contextlib.suppress(ValueError, OSError):
        if (file := _find(folder.resolve(), name)) is not None:
            return file
    raise DataError(
        f"{where}: {name[:200]!r} is not in {folder}",
        "put the pictures beside the JSON file, or name their folder with --files",
    )


def _find(base: Path, name: str) -> Path | None:
    url = urllib.parse.urlsplit(name)
    named = urllib.parse.parse_qs(url.query).get("d", [""])[0] or urllib.parse.unquote(url.path)
    parts = [part for part in named.replace("\\", "/").split("/") if part not in ("", ".")]
    for last in dict.fromkeys(parts[-1:] + [_UPLOADED.sub("", part) for part in parts[-1:]]):
        for at in range(len(parts)):
            file = base.joinpath(*parts[at:-1], last).resolve()
            if file.is_relative_to(base) and file.is_file():
                return file
    return None
