"""Writing the frames of a store in forms that other tools read.

Every form carries the key of each record (``LOG_UUID:SEQ``), so that what comes back
(:mod:`drip.store.imports`) is the same record with perhaps another label.

    classes  FOLDER/CLASS/LOG_UUID_SEQ.png (.npy where a frame is no picture)
    csv      FOLDER/labels.csv with key,label,file and FOLDER/frames/*
    npz      one file: x, y (-1: no label), classes, keys
    studio   FOLDER/tasks.json for Label Studio and FOLDER/frames/*
"""

from __future__ import annotations

import csv
import io
import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from drip.data.files import write_atomic
from drip.disk import disk_error, make_folder
from drip.errors import DataError
from drip.store.rows import RecordKey
from drip.store.store import REJECT, Store

__all__ = ["FORMS", "UNLABELLED_FOLDER", "Form", "export_store", "file_stem"]

Form = Literal["classes", "csv", "npz", "studio"]
"""How frames are written; see the top of this module."""

FORMS: tuple[Form, ...] = get_args(Form)

UNLABELLED_FOLDER = "_unlabelled"
"""Folder of frames without a label, beside those of the classes."""


FLAT = "drip-two-axes"
"""Text in a ``.png`` of a frame ``[h, w]``; without it grey is ``[h, w, 1]``."""


@dataclass(frozen=True)
class _Item:
    key: RecordKey
    x: NDArray[Any]
    label: str | None
    row: dict[str, Any]


def export_store(
    store: Store, target: Path, form: Form, classes: Sequence[str] = (), labelled: bool = False
) -> int:
    """Write the frames of a store.

    Args:
        store: The store; rejected frames stay out.
        target: Folder to make, or the file for ``npz``; must not be there yet.
        form: How.
        classes: Names of predicted classes, for Label Studio's first guess; and the order of
            classes in an ``.npz``.
        labelled: Only frames with a label.

    Returns:
        Frames written.

    Raises:
        DataError: ``target`` exists, or an ``.npz`` is asked for frames of several shapes.
        StoreError: The disk is full, or a file of the store is damaged.
    """
    if target.exists():
        raise DataError(f"{target} is there already", "name another place, or remove it")
    items = [item for item in _items(store) if item.label is not None or not labelled]
    # Made beside the target and renamed: what is cut off leaves nothing under its name.
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_folder(target.parent)
        if form == "npz":
            _write_npz(draft, items, classes)
        else:
            _write_folder(draft, items, form, classes)
        draft.rename(target)
    except OSError as error:
        raise disk_error(target, error) from error
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
    return len(items)


def file_stem(key: RecordKey) -> str:
    """Name of a record's file, without its ending."""
    return f"{key.log_uuid}_{key.seq}"


def _items(store: Store) -> Iterator[_Item]:
    labels = store.labels()
    for frames in store.frame_groups():
        rows = frames.columns.select(["class_1", "percentile", "model_id"]).to_pylist()
        for key, x, row in zip(frames.keys, frames.x, rows, strict=True):
            if labels.get(key) != REJECT:
                yield _Item(key, x, labels.get(key), row)


def _write_folder(folder: Path, items: Sequence[_Item], form: Form, classes: Sequence[str]) -> None:
    make_folder(folder)
    if form == "classes":
        for item in items:
            _write_frame(folder / _folder_name(item.label), item)
        return
    names = [_write_frame(folder / "frames", item) for item in items]
    text = _csv(items, names) if form == "csv" else _tasks(items, names, classes)
    name = "labels.csv" if form == "csv" else "tasks.json"
    write_atomic(folder / name, lambda file: file.write(text.encode()))


def _folder_name(label: str | None) -> str:
    if label is None:
        return UNLABELLED_FOLDER
    if label.startswith((".", "_")) or set(label) & set('/\\:*?"<>|\0'):
        raise DataError(f"the class {label!r} cannot name a folder", "export as csv or npz")
    return label


def _write_frame(folder: Path, item: _Item) -> str:
    make_folder(folder)
    x = item.x
    content = io.BytesIO()
    picture = x.dtype == np.uint8 and x.ndim in (2, 3) and (x.ndim == 2 or x.shape[2] in (1, 3))
    if picture:
        from PIL import Image, PngImagePlugin

        about = PngImagePlugin.PngInfo()
        if x.ndim == 2:
            about.add_text(FLAT, "1")
        image = Image.fromarray(x[:, :, 0] if x.ndim == 3 and x.shape[2] == 1 else x)
        image.save(content, "PNG", pnginfo=about)
    else:
        np.save(content, x, allow_pickle=False)
    name = file_stem(item.key) + (".png" if picture else ".npy")
    write_atomic(folder / name, lambda file: file.write(content.getvalue()))
    return name


def _csv(items: Sequence[_Item], names: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["key", "label", "file"])
    for item, name in zip(items, names, strict=True):
        rows.writerow([str(item.key), item.label or "", f"frames/{name}"])
    return text.getvalue()


def _tasks(items: Sequence[_Item], names: Sequence[str], classes: Sequence[str]) -> str:
    """Tasks of Label Studio: an image (or file), what is known, and the model's guess."""
    tasks = []
    for item, name in zip(items, names, strict=True):
        task: dict[str, Any] = {"data": {"image": f"frames/{name}", "key": str(item.key)}}
        if item.label is not None:
            task["annotations"] = [{"result": [_choice(item.label)]}]
        if item.row["class_1"] < len(classes):
            guess = _choice(classes[item.row["class_1"]])
            task["predictions"] = [{"model_version": item.row["model_id"], "result": [guess]}]
        tasks.append(task)
    return json.dumps(tasks, indent=1) + "\n"


def _choice(label: str) -> dict[str, Any]:
    return {
        "from_name": "class",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [label]},
    }


def _write_npz(target: Path, items: Sequence[_Item], classes: Sequence[str]) -> None:
    kinds = {(str(item.x.dtype), item.x.shape) for item in items}
    if len(kinds) > 1:
        raise DataError(
            "the store holds frames of several kinds; one .npz takes one", "export as csv"
        )
    names = list(classes) + sorted({item.label for item in items if item.label} - set(classes))
    number = {name: n for n, name in enumerate(names)}
    x = np.stack([item.x for item in items]) if items else np.zeros((0,), np.uint8)
    y = np.array([number[item.label] if item.label else -1 for item in items], np.int64)
    keys = np.array([str(item.key) for item in items], np.str_)
    names_array = np.array(names, np.str_)
    write_atomic(
        target, lambda file: np.savez_compressed(file, x=x, y=y, classes=names_array, keys=keys)
    )
