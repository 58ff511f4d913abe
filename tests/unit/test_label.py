"""Label sources, and what the store remembers of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_store import LOG_A, LOG_B, record

from drip.data import Dataset, save_npz
from drip.errors import DataError
from drip.label import (
    CsvLabels,
    LabelReport,
    LabelSource,
    TruthLabels,
    apply_labels,
    label_source,
)
from drip.store import REJECT, RecordKey, Store

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store", create=True)
    store.append([record(n) for n in range(5)])
    return store


def test_truth_recognises_frames_by_their_bytes(store: Store) -> None:
    frames = store.frames()
    order = [3, 0, 4, 1]
    truth = TruthLabels(frames.x[order], np.array([2, 1, 0, 1]))
    source: LabelSource = truth
    assert list(source.label(frames.keys, frames.x)) == [1, 1, None, 2, 0]
    assert apply_labels(store, truth, CLASSES) == LabelReport(4, 4, 0, 1)
    assert store.dataset(CLASSES).y.tolist() == [1, 1, -1, 2, 0]
    assert apply_labels(store, truth, CLASSES) == LabelReport(0, 4, 0, 1), "repeating adds nothing"


def test_truth_needs_type_and_shape_to_agree(store: Store) -> None:
    frames = store.frames()
    flat = TruthLabels(frames.x.reshape(5, 6), np.zeros(5, np.int64))
    assert list(flat.label(frames.keys, frames.x)) == [None] * 5


def test_truth_with_names_and_contradictions(store: Store) -> None:
    frames = store.frames()
    twice = np.concatenate([frames.x, frames.x[:2]])
    truth = TruthLabels(twice, ["cat", "dog", "eel", "cat", REJECT, "cat", "eel"])
    assert list(truth.label(frames.keys, frames.x)) == ["cat", None, "eel", "cat", REJECT]
    assert apply_labels(store, truth, CLASSES) == LabelReport(4, 3, 1, 1)
    assert store.dataset(CLASSES).y.tolist() == [0, -1, 2, 0]


def test_truth_of_another_length(store: Store) -> None:
    with pytest.raises(DataError, match="5 frames but labels"):
        TruthLabels(store.frames().x, [1, 2])


def test_label_out_of_range_writes_nothing(store: Store) -> None:
    frames = store.frames()
    with pytest.raises(DataError, match="got class 3, but there are 3"):
        apply_labels(store, TruthLabels(frames.x, [0, 1, 2, 3, 0]), CLASSES)
    assert store.labels() == {}


def test_csv(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    rows = ["label,who,key", f"cat,me,{LOG_A}:0", f" dog ,me,{LOG_A.upper()}:3", f",,{LOG_A}:1"]
    rows += [f"reject,me,{LOG_A}:4", f"cat,me,{LOG_B}:9"]
    file.write_text("\ufeff" + "\r\n".join(rows) + "\r\n", encoding="utf-8")
    assert apply_labels(store, CsvLabels(file), CLASSES) == LabelReport(3, 2, 1, 2)
    assert store.labels() == {
        RecordKey(LOG_A, 0): "cat",
        RecordKey(LOG_A, 3): "dog",
        RecordKey(LOG_A, 4): REJECT,
    }


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no columns key and label"),
        (b"name,label\na,b\n", "no columns key and label"),
        (b"key,label\nnonsense,cat\n", "line 2: 'nonsense' is not LOG_UUID:SEQ"),
        (b"key,label\n,cat\n", "line 2: '' is not"),
        (b"key,label\n\xff\xfe,cat\n", "not a CSV file in UTF-8"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.csv") as caught:
        CsvLabels(file)
    assert text in caught.value.message
    assert caught.value.hint


def test_missing_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        CsvLabels(tmp_path / "none.csv")


def test_csv_with_an_unknown_class(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"key,label\n{LOG_A}:0,cat\n{LOG_A}:1,cow\n")
    with pytest.raises(DataError, match="unknown label 'cow'"):
        apply_labels(store, CsvLabels(file), CLASSES)
    assert store.labels() == {}


def test_no_class_may_be_called_reject(store: Store) -> None:
    with pytest.raises(DataError, match="cannot be called"):
        apply_labels(store, TruthLabels(store.frames().x, [0] * 5), ("cat", REJECT))


def test_a_label_file_is_read_by_its_kind(tmp_path):
    x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    truth = tmp_path / "truth.npz"
    save_npz(truth, Dataset(x, np.array([1, -1, 0]), ("cat", "dog"), None))
    source = label_source(truth)
    assert list(source.label([], x)) == ["dog", None, "cat"]
    sheet = tmp_path / "labels.csv"
    sheet.write_text("key,label\n")
    assert isinstance(label_source(sheet), CsvLabels)
