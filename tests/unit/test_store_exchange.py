"""Frames and labels out of a store and back."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_store import LOG_A, LOG_B, record

from drip import cli
from drip.data import load_npz
from drip.errors import DataError, DripError
from drip.store import REJECT, RecordKey, Store
from drip.store.export import FORMS, UNLABELLED_FOLDER, Form, export_store, file_stem
from drip.store.imports import ImportReport, frame_key, import_files, import_into, label_from

CLASSES = ("cat", "dog")
CHOICE = {"type": "choices", "value": {"choices": ["dog"]}}


def fill(store: Store) -> None:
    """Two logs of 2x3 pictures; 0 and 1 labelled, 2 rejected, the rest unknown."""
    store.append([record(n, class_1=n % 2) for n in range(4)] + [record(7, LOG_B)])
    labels = {RecordKey(LOG_A, 0): "cat", RecordKey(LOG_A, 1): "dog", RecordKey(LOG_A, 2): REJECT}
    store.append_labels(labels, "test")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store", create=True)
    fill(store)
    return store


@pytest.mark.parametrize("form", FORMS)
def test_what_was_exported_comes_back_as_the_same_records(
    store: Store, form: Form, tmp_path: Path
) -> None:
    target = tmp_path / ("out.npz" if form == "npz" else "out")
    assert export_store(store, target, form, CLASSES) == 4, "rejected frames stay"
    source = target / "tasks.json" if form == "studio" else target
    before = store.labels()
    assert import_into(store, source) == ImportReport(new=0, known=4, labels=0)
    assert store.labels() == before
    assert not list(tmp_path.glob(".*tmp"))


@pytest.mark.parametrize("form", FORMS)
def test_what_was_exported_fills_another_store(store: Store, form: Form, tmp_path: Path) -> None:
    target = tmp_path / ("out.npz" if form == "npz" else "out")
    assert export_store(store, target, form, CLASSES) == 4
    other = Store.open(tmp_path / "other", create=True)
    assert import_into(other, target) == ImportReport(new=4, known=0, labels=2)
    assert import_into(other, target) == ImportReport(new=0, known=4, labels=0), "idempotent"

    def shown(of: Store) -> list[tuple[bytes, tuple[int, ...], str | None]]:
        frames, labels = of.frames(), of.labels()
        rows = zip(frames.keys, frames.x, strict=True)
        return sorted(
            ((x.tobytes(), x.shape, labels.get(key)) for key, x in rows), key=lambda row: row[0]
        )

    assert shown(other) == [row for row in shown(store) if row[2] != REJECT]
    keys = zip(other.frames().keys, other.frames().x, strict=True)
    assert all(frame_key(x) == key for key, x in keys)


def test_folders_by_class(store: Store, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out", "classes")
    names = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")}
    assert names == {
        f"cat/{LOG_A}_0.png",
        f"dog/{LOG_A}_1.png",
        f"{UNLABELLED_FOLDER}/{LOG_A}_3.png",
        f"{UNLABELLED_FOLDER}/{LOG_B}_7.png",
    }
    picture = np.asarray(Image.open(tmp_path / "out/cat" / f"{LOG_A}_0.png"))
    assert picture.tolist() == [[0, 1, 2], [3, 4, 5]]
    # Somebody sorts the pictures in a file manager.
    (tmp_path / "out/cat" / f"{LOG_A}_0.png").rename(tmp_path / "out/dog" / f"{LOG_A}_0.png")
    assert import_into(store, tmp_path / "out").labels == 1
    assert store.labels()[RecordKey(LOG_A, 0)] == "dog"


def test_frames_that_are_no_pictures(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    window = np.arange(-6, 6, dtype=np.int16).reshape(6, 2)
    store.append([record(1, frame=window.tobytes(), dtype="int16", shape=(6, 2))])
    export_store(store, tmp_path / "out", "csv")
    rows = list(csv.DictReader((tmp_path / "out/labels.csv").open()))
    assert rows == [{"key": f"{LOG_A}:1", "label": "", "file": f"frames/{LOG_A}_1.npy"}]
    assert np.load(tmp_path / "out" / rows[0]["file"]).tolist() == window.tolist()


def test_npz_is_a_data_set(store: Store, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out.npz", "npz", ("eel", *CLASSES))
    data = load_npz(tmp_path / "out.npz")
    assert data.classes == ("eel", "cat", "dog")
    assert data.y.tolist() == [1, 2, -1, -1]
    assert data.x.dtype == np.uint8


def test_tasks_of_label_studio(store: Store, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out", "studio", CLASSES)
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert [task["predictions"][0]["result"][0]["value"] for task in tasks] == [
        {"choices": ["cat"]},
        {"choices": ["dog"]},
        {"choices": ["dog"]},
        {"choices": ["dog"]},
    ]
    assert (tmp_path / "out" / tasks[0]["data"]["image"]).is_file()
    # What comes back: one changed its mind, one was skipped.
    choice = {"type": "choices", "value": {"choices": ["dog"]}}
    tasks[0]["annotations"] = [{"result": [choice]}]
    tasks[1]["annotations"] = [{"result": [], "was_cancelled": True}]
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    assert import_into(store, tmp_path / "back.json").labels == 1
    assert store.labels()[RecordKey(LOG_A, 0)] == "dog"
    assert store.labels()[RecordKey(LOG_A, 1)] == "dog"


@pytest.mark.parametrize(
    "image",
    [
        "cats/a b.png",
        "/data/upload/3/1f2e3d4c-a b.png",
        "/data/local-files/?d=some/root/cats/a%20b.png",
        "http://localhost:8080/data/upload/3/1f2e3d4c-a%20b.png",
        "s3://bucket/project/cats/a b.png",
        "C:\\pictures\\cats\\a b.png",
        "{folder}/cats/a b.png",
    ],
)
def test_pictures_as_label_studio_names_them(image: str, tmp_path: Path) -> None:
    """A project that DRIP has never seen fills a store that is not there yet."""
    pictures, tasks = tmp_path / "pictures", tmp_path / "downloads/project.json"
    (pictures / "cats").mkdir(parents=True)
    tasks.parent.mkdir()
    for place in (pictures / "cats/a b.png", pictures / "a b.png"):
        Image.new("L", (4, 3), 10).save(place)
    done = {"id": 7, "annotations": [{"result": [CHOICE], "was_cancelled": False}]}
    named = image.replace("{folder}", str(pictures))
    tasks.write_text(json.dumps([done | {"data": {"image": named}}]))
    with pytest.raises(DataError, match="is not in") as caught:
        import_files(tmp_path / "store", tasks)
    assert "--files" in caught.value.hint
    assert not (tmp_path / "store").exists(), "no empty store is left behind"
    report = import_files(tmp_path / "store", tasks, pictures)
    assert report == ImportReport(new=1, known=0, labels=1)
    data = Store.open(tmp_path / "store").dataset(CLASSES)
    assert (data.x.tolist(), data.y.tolist()) == ([[[[10]] * 4] * 3], [1])


@pytest.mark.parametrize(
    "image",
    [
        "../secret.png", "/../secret.png", "x/../../secret.png",
        "http://[", "a\0b.png", "x" * 5000, "/data/local-files/?d=%00",
    ],
    ids=lambda image: repr(image)[:24],
)  # fmt: skip
def test_tasks_name_pictures_in_their_folder_only(image: str, store: Store, tmp_path: Path) -> None:
    Image.new("L", (4, 3), 10).save(tmp_path / "secret.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/tasks.json").write_text(json.dumps([{"data": {"image": image}}]))
    with pytest.raises(DataError, match="is not in"):
        import_into(store, tmp_path / "in")


@pytest.mark.parametrize("form", FORMS)
def test_labels_for_frames_that_are_there(store: Store, form: Form, tmp_path: Path) -> None:
    """A truth array, or pictures of another project: known by their bytes, never added."""
    truth = Store.open(tmp_path / "truth", create=True)
    extra = record(9, frame=bytes(6), header_crc=1)
    truth.append([record(n, log_uuid="cd" * 16) for n in (0, 3)] + [extra])
    keys = truth.frames().keys
    truth.append_labels(dict.fromkeys(keys[:2], "dog") | {keys[2]: "dog"}, "test")
    target = tmp_path / ("out.npz" if form == "npz" else "out")
    export_store(truth, target, form, CLASSES)
    before = store.labels()
    report = label_from(store, target)
    changed = {key: label for key, label in store.labels().items() if before.get(key) != label}
    assert len(store) == 5, "no frame is added"
    assert (report.labels, report.unknown) == (len(changed), 1)
    assert changed and set(changed.values()) == {"dog"}
    by_key = dict(zip(store.frames().keys, (x.tobytes() for x in store.frames().x), strict=True))
    shown = {x.tobytes() for x in truth.frames().x}
    assert {key for key in by_key if by_key[key] in shown} == set(changed)
    assert label_from(store, target).labels == 0, "idempotent"


def test_pictures_of_anybody(tmp_path: Path) -> None:
    for label, grey in (("cat", 10), ("dog", 20)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        Image.new("L", (4, 3), grey).save(tmp_path / "pictures" / label / "a.png")
    store = Store.open(tmp_path / "store", create=True)
    assert import_into(store, tmp_path / "pictures") == ImportReport(2, 0, 2)
    data = store.dataset(CLASSES)
    assert data.x.shape == (2, 3, 4, 1)
    assert {int(x[0, 0, 0]): CLASSES[y] for x, y in zip(data.x, data.y, strict=True)} == {
        10: "cat",
        20: "dog",
    }


def bad_json(folder: Path) -> Path:
    (folder / "bad.json").write_text("{")
    return folder / "bad.json"


def no_tasks(folder: Path) -> Path:
    (folder / "bad.json").write_text('{"a": 1}')
    return folder / "bad.json"


def way_out(folder: Path) -> Path:
    (folder / "in").mkdir()
    (folder / "secret.png").write_bytes(b"")
    (folder / "in/labels.csv").write_text("key,label,file\n,cat,../secret.png\n")
    return folder / "in"


def broken_picture(folder: Path) -> Path:
    (folder / "pics/cat").mkdir(parents=True)
    (folder / "pics/cat/a.png").write_bytes(b"\x89PNG\r\n\x1a\nxxxx")
    return folder / "pics"


def pickled(folder: Path) -> Path:
    (folder / "pics/cat").mkdir(parents=True)
    np.save(folder / "pics/cat/a.npy", np.array([{}], dtype=object), allow_pickle=True)
    return folder / "pics"


def deep_picture(folder: Path) -> Path:
    (folder / "pics/cat").mkdir(parents=True)
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(folder / "pics/cat/a.png")
    return folder / "pics"


def unknown_record(folder: Path) -> Path:
    (folder / "labels.csv").write_text(f"key,label\n{LOG_B}:99,cat\n")
    return folder / "labels.csv"


def no_columns(folder: Path) -> Path:
    (folder / "labels.csv").write_text("a,b\n1,2\n")
    return folder / "labels.csv"


def nothing_there(folder: Path) -> Path:
    return folder / "nothing"


def empty_folder(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    "make",
    [
        bad_json,
        no_tasks,
        way_out,
        broken_picture,
        pickled,
        deep_picture,
        unknown_record,
        no_columns,
        nothing_there,
        empty_folder,
    ],
)
def test_bad_sources(make: Callable[[Path], Path], tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        import_into(store, make(folder))
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert len(store) == 5


def test_a_bad_source_leaves_no_empty_store(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    command = ["store", "import", "--store", str(tmp_path / "store"), str(tmp_path / "text.txt")]
    assert cli.main(command) == DataError.exit_code
    assert not (tmp_path / "store").exists()


def test_a_target_that_is_there_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="is there already"):
        export_store(store, tmp_path / "out", "csv")
    store.append_labels({RecordKey(LOG_A, 3): "../x"}, "evil")
    with pytest.raises(DataError, match="cannot name a folder"):
        export_store(store, tmp_path / "classes", "classes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "key", "image", "annotations", "result", "value", "choices"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(tasks=st.lists(JSON, max_size=3))
def test_any_json(tasks: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    store = Store.open(folder / "store", create=True)
    (folder / "tasks.json").write_text(json.dumps(tasks))
    try:
        report = import_into(store, folder / "tasks.json")
    except DripError:
        assert len(store) == 0
    else:
        assert report == ImportReport(0, 0, 0)
        assert tasks == []


def test_names_of_files(store: Store) -> None:
    assert file_stem(RecordKey(LOG_A, 5)) == f"{LOG_A}_5"
