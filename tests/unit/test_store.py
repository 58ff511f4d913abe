"""The store: append-only, every record once, whole files or none."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drip.data import Dataset
from drip.errors import DataError, StoreError
from drip.store import REJECT, AppendReport, RecordKey, Store, StoreRecord
from drip.store.rows import SCHEMA_VERSION

VERSION = "drip.schema_version"
LOG_A = "00000000-0000-0000-0000-00000000000a"
LOG_B = "00000000-0000-0000-0000-00000000000b"


def record(seq: int, log_uuid: str = LOG_A, **changes: Any) -> StoreRecord:
    frame = bytes((seq + i) % 256 for i in range(6))
    base = StoreRecord(
        log_uuid=log_uuid,
        seq=seq,
        device_id="d0",
        boot_id=1,
        time_us=seq * 1000,
        utc_us=None,
        time_source="unknown",
        stream_id=0,
        raw_score=-5,
        percentile=65535,
        policy=1,
        score_kind=2,
        flags=3,
        class_1=1,
        class_2=0,
        logit_1=-128,
        logit_2=127,
        model_id="ab",
        frame=frame,
        dtype="uint8",
        shape=(2, 3),
        scale=1.0,
        offset=0.0,
        header_crc=seq + 10,
        payload_crc=seq + 20,
    )
    return replace(base, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def test_round_trip_of_every_column(store: Store) -> None:
    extreme = record(
        2**64 - 1,
        utc_us=1_700_000_000_000_001,
        time_us=2**64 - 1,
        raw_score=-(2**31),
        boot_id=2**32 - 1,
        header_crc=2**32 - 1,
        payload_crc=0,
        device_id=None,
    )
    assert store.append([extreme]) == AppendReport(new=1)
    frames = Store.open(store.path).frames()
    assert frames.keys == (extreme.key,)
    assert frames.x.tobytes() == extreme.frame
    row = frames.columns.to_pylist()[0]
    assert row.pop("utc_us").timestamp() == 1_700_000_000.000001
    assert row.pop("ingested_at").year >= 2024
    expected = {
        key: value for key, value in vars(extreme).items() if key not in ("frame", "utc_us")
    }
    assert row == {**expected, "shape": [2, 3]}


def test_order_is_by_log_and_sequence(store: Store) -> None:
    store.append([record(2, LOG_B), record(1, LOG_B)])
    store.append([record(9), record(3)])
    wanted = [(LOG_A, 3), (LOG_A, 9), (LOG_B, 1), (LOG_B, 2)]
    assert list(store.frames().keys) == store.keys() == wanted
    assert [int(x.ravel()[0]) for x in store.frames().x] == [3, 9, 1, 2]


def test_duplicates_add_nothing(store: Store) -> None:
    store.append([record(1), record(2)])
    files = sorted(store.path.rglob("*.parquet"))
    assert store.append([record(2), record(1)]) == AppendReport(duplicates=2)
    assert sorted(store.path.rglob("*.parquet")) == files
    assert store.append([record(2), record(3), record(3)]) == AppendReport(new=1, duplicates=2)
    assert len(store) == 3


def test_same_number_in_another_log_is_another_record(store: Store) -> None:
    assert store.append([record(1), record(1, LOG_B)]) == AppendReport(new=2)


def test_same_name_with_other_bytes_is_kept_apart(store: Store) -> None:
    store.append([record(1)])
    other = record(1, payload_crc=99, frame=b"other!")
    assert store.append([other, record(2)]) == AppendReport(new=1, conflicts=1)
    assert store.append([other]) == AppendReport(conflicts=1)
    assert store.conflicts == 1, "the same conflict is kept once"
    assert store.append([record(1, payload_crc=98)]) == AppendReport(conflicts=1)
    assert store.conflicts == 2
    assert len(store) == 2
    assert store.frames().x[0].tobytes() == record(1).frame
    (kept, _) = sorted((store.path / "conflicts").glob("*.parquet"))
    assert pq.read_table(kept)["frame"].to_pylist() == [b"other!"]


def test_conflict_within_one_append(store: Store) -> None:
    report = store.append([record(1), record(1, header_crc=0)])
    assert report == AppendReport(new=1, conflicts=1)


def test_dtypes_and_shapes(store: Store) -> None:
    values = np.array([[-300, 2], [3, 32767]], np.int16)
    wide = record(1, dtype="int16", shape=(2, 2), frame=values.astype("<i2").tobytes())
    store.append([wide])
    assert np.array_equal(store.frames().x[0], values)
    assert store.frames().x.dtype == np.int16


def test_mixed_kinds_need_a_stream(store: Store) -> None:
    store.append([record(1), record(2, stream_id=4, shape=(6,))])
    with pytest.raises(DataError, match="several kinds"):
        store.frames()
    assert store.frames(stream_id=4).x.shape == (1, 6)
    assert store.frames(stream_id=0).x.shape == (1, 2, 3)
    assert sorted(group.x.shape for group in store.frame_groups()) == [(1, 2, 3), (1, 6)]


def test_frame_that_is_not_as_described(store: Store) -> None:
    store.append([record(1, frame=b"short")])
    with pytest.raises(DataError, match=r"not uint8\[2, 3\]"):
        store.frames()


def test_empty_store(store: Store) -> None:
    assert (len(store), store.conflicts, store.keys(), store.labels()) == (0, 0, [], {})
    assert list(store.frame_groups()) == []
    assert store.append([]) == AppendReport()
    with pytest.raises(StoreError, match="holds no frames"):
        store.frames()


# ---------------------------------------------------------------- labels


def test_last_label_counts(store: Store) -> None:
    store.append([record(n) for n in range(4)])
    keys = store.keys()
    assert store.append_labels({keys[0]: "cat", keys[1]: "dog"}, "me") == 2
    assert store.append_labels({keys[0]: "dog", keys[1]: "dog"}, "me") == 1
    assert store.append_labels({keys[2]: REJECT}, "you") == 1
    assert store.labels() == {keys[0]: "dog", keys[1]: "dog", keys[2]: REJECT}
    data = store.dataset(["cat", "dog"])
    assert isinstance(data, Dataset)
    assert data.y.tolist() == [1, 1, -1], "rejected frames are left out, others may have no label"
    assert [int(x.ravel()[0]) for x in data.x] == [0, 1, 3]


def test_labels_keep_their_order_when_the_clock_goes_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([record(1)])
    (key,) = store.keys()
    monkeypatch.setattr("drip.store.store.time.time_ns", lambda: 2_000_000_000_000_000_000)
    store.append_labels({key: "old"}, "me")
    monkeypatch.setattr("drip.store.store.time.time_ns", lambda: 1_000_000_000_000_000_000)
    store.append_labels({key: "new"}, "me")
    assert store.labels() == {key: "new"}


def test_label_of_no_class(store: Store) -> None:
    store.append([record(1)])
    store.append_labels({store.keys()[0]: "cow"}, "me")
    with pytest.raises(DataError, match="'cow', which is no class"):
        store.dataset(["cat", "dog"])


def test_key_as_text() -> None:
    key = RecordKey(LOG_A, 2**64 - 1)
    assert RecordKey.parse(str(key)) == key
    for text in ("", "x", ":1", f"{LOG_A}:", f"{LOG_A}:-1", f"{LOG_A}:1x"):
        with pytest.raises(ValueError, match="is not LOG_UUID:SEQ"):
            RecordKey.parse(text)


# ---------------------------------------------------------------- bad disks, bad files


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a store") as caught:
        Store.open(tmp_path / "nothing")
    assert "drip sync" in caught.value.hint
    assert not (tmp_path / "nothing").exists()


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(StoreError, match="something else"):
        Store.open(tmp_path, create=True)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": "zip", "version": 1}', '{"format": 1}']
)
def test_damaged_marker(store: Store, text: str) -> None:
    (store.path / "store.json").write_text(text)
    with pytest.raises(StoreError, match=r"damaged|not part of a DRIP store"):
        Store.open(store.path)


def test_newer_store(store: Store) -> None:
    marker = {"format": "drip-store", "version": SCHEMA_VERSION + 1}
    (store.path / "store.json").write_text(json.dumps(marker))
    with pytest.raises(StoreError, match="newer drip"):
        Store.open(store.path)


def test_newer_file(store: Store) -> None:
    store.append([record(1)])
    (file,) = (store.path / "records").glob("*.parquet")
    table = pq.read_table(file).replace_schema_metadata({"drip.schema_version": "7"})
    pq.write_table(table, file)
    with pytest.raises(StoreError, match="store version 7"):
        Store.open(store.path).frames()


def test_a_store_of_version_1_is_read_and_added_to(store: Store) -> None:
    (store.path / "store.json").write_text('{"format": "drip-store", "version": 1}')
    store.append([record(1)])
    for folder in ("records", "labels"):
        (store.path / folder).mkdir(exist_ok=True)
    (file,) = (store.path / "records").glob("*.parquet")
    pq.write_table(pq.read_table(file).replace_schema_metadata({VERSION: "1"}), file)
    old_label = pa.table(
        {
            "log_uuid": [LOG_A],
            "seq": pa.array([1], pa.uint64()),
            "label": ["cat"],
            "source": ["somebody"],
            "labelled_at": pa.array([5], pa.timestamp("us", tz="UTC")),
        }
    ).replace_schema_metadata({VERSION: "1"})
    pq.write_table(old_label, store.path / "labels" / "00000000000000001-a.parquet")
    again = Store.open(store.path)
    assert again.labels() == {RecordKey(LOG_A, 1): "cat"}
    assert again.append([record(1), record(2)]) == AppendReport(new=1, duplicates=1)
    assert again.append_labels({RecordKey(LOG_A, 2): "dog"}, "x", {RecordKey(LOG_A, 2): 0.75}) == 1
    assert again.labels() == {RecordKey(LOG_A, 1): "cat", RecordKey(LOG_A, 2): "dog"}
    events = again.query("SELECT seq, confidence FROM label_events ORDER BY seq")
    assert events.to_pylist() == [{"seq": 1, "confidence": None}, {"seq": 2, "confidence": 0.75}]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an object store, kept in memory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "state"))
    fs = fsspec.filesystem("memory")
    yield "memory://bucket/frames"
    fs.rm("/bucket", recursive=True)


def test_a_store_at_a_url(elsewhere: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a store"):
        Store.open(elsewhere)
    store = Store.open(elsewhere, create=True)
    assert store.append([record(1), record(2)]) == AppendReport(new=2)
    assert Store.open(elsewhere).append([record(2), record(3)]) == AppendReport(1, 1)
    assert store.append([record(2, payload_crc=9)]) == AppendReport(conflicts=1)
    store.append_labels({RecordKey(LOG_A, 3): "cat"}, "x")
    again = Store.open(elsewhere)
    assert len(again) == 3
    assert again.conflicts == 1
    assert again.dataset(["cat"]).y.tolist() == [-1, -1, 0]
    assert again.spool.is_relative_to(tmp_path / "state"), "segments on their way stay here"
    assert not list((tmp_path / "state").rglob("*.parquet"))


def test_two_computers_that_add_the_same_record(
    elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(elsewhere, create=True)
    # Neither saw the other's file: what the lock of one computer cannot prevent.
    monkeypatch.setattr(Store, "_known_checksums", lambda *_: {})
    Store.open(elsewhere).append([record(1), record(2)])
    Store.open(elsewhere).append([record(2), record(3)])
    both = Store.open(elsewhere)
    assert len(both) == 3
    assert [key.seq for key in both.frames().keys] == [1, 2, 3]
    assert both.query("SELECT count(*) AS n FROM records").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("name", ["file", "file/store"])
@pytest.mark.parametrize("create", [False, True])
def test_a_file_is_no_store(tmp_path: Path, name: str, create: bool) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file is a file, not a folder"):
        Store.open(tmp_path / name, create)


def test_a_url_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open nonsense://x"):
        Store.open("nonsense://x")
    with pytest.raises(StoreError, match="is not a store"):
        Store.open(f"file://{tmp_path}/none")


@pytest.mark.parametrize("keep", [0, 4, 100, -5])
def test_truncated_file(store: Store, keep: int) -> None:
    store.append([record(1)])
    (file,) = (store.path / "records").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(StoreError, match="damaged") as caught:
        Store.open(store.path).frames()
    assert file.name in caught.value.message


def test_a_flipped_bit_is_never_read_as_another_value(store: Store) -> None:
    store.append([record(n) for n in range(50)])
    right = store.frames()
    (file,) = (store.path / "records").glob("*.parquet")
    content = file.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    refused = 0
    for at in range(4, len(content) - footer, 7):
        flipped = bytearray(content)
        flipped[at] ^= 1
        file.write_bytes(flipped)
        try:
            frames = Store.open(store.path).frames()
        except StoreError:
            refused += 1
        else:
            # Statistics, which nothing here looks at.
            assert frames.keys == right.keys and (frames.x == right.x).all()
            assert frames.columns.equals(right.columns)
    assert refused > 200


def test_file_that_is_no_record_file(store: Store) -> None:
    (store.path / "records").mkdir()
    pq.write_table(pa.table({"a": [1]}), store.path / "records" / "x.parquet")
    with pytest.raises(StoreError, match="not part of a DRIP store"):
        store.frames()


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_full_disk_leaves_the_store_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store.append([record(1)])
    before = sorted(store.path.rglob("*"))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path if name == "replace" else os, name, full)
        with pytest.raises(StoreError, match="No space left on device") as caught:
            store.append([record(2)])
        assert caught.value.exit_code == 11
        with pytest.raises(StoreError, match="No space left on device"):
            store.append_labels({store.keys()[0]: "cat"}, "me")
    after = sorted(item for item in store.path.rglob("*") if item != store.path / "labels")
    assert after == before
    assert store.append([record(2)]) == AppendReport(new=1)


def test_read_only_folder_cannot_become_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        Store.open(tmp_path / "new", create=True)


def test_parallel_appends_add_every_record_once(store: Store) -> None:
    reports: list[AppendReport] = []

    def work() -> None:
        mine = Store.open(store.path)
        reports.extend(mine.append([record(n)]) for n in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == sum(report.new for report in reports) == 10
    assert sum(report.duplicates for report in reports) == 30


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import drip.device, drip.sync, drip.store, drip.label, drip.deploy, sys;"
        "print([name for name in sys.modules if name.split('.')[0] in"
        " ('tensorflow', 'keras', 'sklearn', 'matplotlib') or name == 'drip._core'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_queries(store: Store) -> None:
    store.append([record(n, class_1=n % 2, frame=bytes(6)) for n in range(4)])
    store.append([record(0, payload_crc=1)])
    store.append_labels({RecordKey(LOG_A, 0): "cat", RecordKey(LOG_A, 1): "dog"}, "a")
    store.append_labels({RecordKey(LOG_A, 1): REJECT}, "b")
    by_class = store.query(
        "SELECT class_1, count(*) AS n, sum(bytes) AS b FROM frames GROUP BY ALL"
    )
    assert sorted(map(tuple, (row.values() for row in by_class.to_pylist()))) == [
        (0, 2, 12),
        (1, 2, 12),
    ]
    labelled = store.query("SELECT seq, label, label_source FROM frames ORDER BY seq").to_pylist()
    assert [row["label"] for row in labelled] == ["cat", REJECT, None, None]
    assert labelled[1]["label_source"] == "b"
    counts = store.query(
        "SELECT (SELECT count(*) FROM conflicts) AS c, (SELECT count(*) FROM label_events) AS l"
    )
    assert counts.to_pylist() == [{"c": 1, "l": 3}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT * FROM nothing",
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO 'here.csv'",
        "",
    ],
)
def test_queries_that_are_refused(
    store: Store, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError):
        store.query(sql)
    assert not (tmp_path / "here.csv").exists()


def test_a_query_over_a_damaged_file_does_not_blame_the_query(store: Store) -> None:
    store.append([record(n, frame=bytes(range(6)) * 50, shape=(20, 15)) for n in range(50)])
    file = next((store.path / "records").glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as caught:
        store.query("SELECT * FROM records")
    assert "backup" in caught.value.hint
