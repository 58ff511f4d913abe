"""Sync: in the end the store holds every record once."""

from __future__ import annotations

from fake_device import FakeLog
from synced import UUID_TEXT, contents, recorded

from drip import wire
from drip.store import RecordKey, Store
from drip.sync import sync_device


def test_everything_arrives_once_and_is_freed(store: Store) -> None:
    device = recorded()
    steps: list[tuple[int, int]] = []
    client = device.client()
    report = sync_device(client, store, on_progress=lambda *step: steps.append(step))
    segments = len(device.log.segments)
    assert segments > 2
    assert contents(store) == device.log.frames
    assert (report.records, report.segments, report.acked) == (60, segments, segments)
    assert report.store is not None
    assert (report.store.new, report.store.duplicates, report.store.conflicts) == (60, 0, 0)
    assert (report.damaged, report.gone_bytes, report.open_segment) == ((), 0, False)
    assert device.log.acked == segments
    assert report.bytes_wire == client.bytes_wire
    assert steps[-1][0] == steps[-1][1] == report.pending_bytes
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert list((store.spool / UUID_TEXT).glob("*.seg")) == [], "what is safe needs no spool"


def test_columns(store: Store) -> None:
    device = recorded(3)
    sync_device(device.client(), store)
    rows = store.frames().columns.to_pylist()
    assert [row["seq"] for row in rows] == [0, 1, 2]
    assert {row["device_id"] for row in rows} == {(b"D" * 16).hex()}
    assert {row["model_id"] for row in rows} == {b"old mode".hex()}
    assert {(row["dtype"], tuple(row["shape"])) for row in rows} == {("uint8", (8, 8))}
    assert {(row["scale"], row["offset"]) for row in rows} == {(0.5, -1.0)}
    assert {row["time_source"] for row in rows} == {"host_clock"}
    first, second = rows[0]["utc_us"], rows[1]["utc_us"]
    assert (second - first).total_seconds() == 0.001


def test_time_of_other_boots_is_unknown(store: Store) -> None:
    device = recorded(3)
    device.boot_id = 8
    sync_device(device.client(), store)
    rows = store.frames().columns.to_pylist()
    assert {(row["utc_us"], row["time_source"]) for row in rows} == {(None, "unknown")}


def test_repeated_sync_is_a_no_op(store: Store) -> None:
    device = recorded()
    sync_device(device.client(), store)
    files = sorted(store.path.rglob("*.parquet"))
    report = sync_device(device.client(), store)
    assert (report.records, report.segments, report.acked, report.bytes_log) == (0, 0, 0, 0)
    assert sorted(store.path.rglob("*.parquet")) == files
    assert contents(store) == device.log.frames


def test_sync_goes_on_where_it_ended(store: Store) -> None:
    device = recorded(20)
    sync_device(device.client(), store)
    for _ in range(30):
        device.log.append(bytes(64))
    sync_device(device.client(), store)
    assert contents(store) == device.log.frames
    assert len(store) == 50


def test_dry_run_changes_nothing(store: Store) -> None:
    device = recorded()
    before = sorted(store.path.rglob("*"))
    report = sync_device(device.client(), store, dry_run=True)
    assert report.pending_bytes == device.log.durable
    assert report.store is None
    assert sorted(store.path.rglob("*")) == before
    assert set(device.seen) == {wire.FrameType.HELLO, wire.FrameType.STATUS}


def test_keep_frees_nothing_and_reads_little_again(store: Store) -> None:
    device = recorded()
    first = sync_device(device.client(), store, keep=True)
    assert (first.acked, device.log.acked) == (0, 0)
    assert contents(store) == device.log.frames
    again = sync_device(device.client(), store, keep=True)
    assert again.bytes_log <= 1024 * len(device.log.segments)
    assert again.bytes_log < first.bytes_log / 2
    assert again.store is not None
    assert (again.store.new, again.store.duplicates) == (0, 60)
    final = sync_device(device.client(), store)
    assert final.acked == len(device.log.segments) == device.log.acked
    assert contents(store) == device.log.frames


def test_two_devices_share_a_store(store: Store) -> None:
    one, other = recorded(seed=1), recorded(seed=2)
    other.log = FakeLog(uuid=bytes(16)[:-1] + b"\x01")
    other.log.append(b"z" * 64)
    sync_device(one.client(), store)
    sync_device(other.client(), store)
    assert len(store) == 61
    keys = store.keys()
    assert RecordKey("00000000-0000-0000-0000-000000000001", 0) in keys
