"""Sync: whatever is interrupted, in the end the store holds every record once."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_device import SEGMENT_BYTES, FakeDevice, FakeLog

from drip import wire
from drip.errors import CardError, DeviceError, LinkError, StoreError
from drip.store import RecordKey, Store
from drip.sync import ingest_spool, sync_device
from drip.sync.spool import SpooledLog

UUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"


class Killed(BaseException):
    """The program is gone: no handler may run on it."""


def recorded(count: int = 60, seed: int = 1) -> FakeDevice:
    """A device with some segments of 8x8 frames, commits in between, the last one open."""
    rng = random.Random(seed)
    device = FakeDevice()
    for _ in range(count):
        device.log.append(rng.randbytes(64), percentile=rng.randrange(65536))
        if rng.random() < 0.3:
            device.log.commit()
    device.log.commit()
    return device


def contents(store: Store) -> dict[int, bytes]:
    frames = store.frames()
    assert {key.log_uuid for key in frames.keys} == {UUID_TEXT}
    assert len(set(frames.keys)) == len(frames.keys) == len(store)
    return {key.seq: x.tobytes() for key, x in zip(frames.keys, frames.x, strict=True)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


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


# ---------------------------------------------------------------- interruptions


def requests_of(make: Callable[[], FakeDevice], folder: Path) -> int:
    device = make()
    sync_device(device.client(), Store.open(folder, create=True))
    return len(device.seen)


def interrupted(
    device: FakeDevice, folder: Path, at: int, error: BaseException, *, handled: bool
) -> None:
    """Run a sync that ends at request ``at``, before or after the device has handled it."""

    def before(index: int, frame: object) -> None:
        if index == at and not handled:
            raise error

    def after(index: int, data: bytes) -> bytes:
        if index == at and handled:
            raise error
        return data

    device.on_request, device.on_answer = before, after
    with pytest.raises(type(error)):
        sync_device(device.client(), Store.open(folder, create=True))
    device.on_request, device.on_answer = lambda *_: None, lambda _, data: data
    device.seen.clear()
    assert list(folder.rglob("*.tmp")) == []


@pytest.mark.parametrize("handled", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "error",
    [LinkError("cable pulled"), KeyboardInterrupt(), Killed()],
    ids=lambda e: type(e).__name__,
)
def test_interrupted_at_every_request(tmp_path: Path, error: BaseException, handled: bool) -> None:
    count = requests_of(lambda: recorded(40), tmp_path / "whole")
    assert count > 15
    for at in range(count):
        device = recorded(40)
        folder = tmp_path / f"at{at}"
        interrupted(device, folder, at, error, handled=handled)
        # Recording goes on in between.
        device.log.append(b"new frame".ljust(64))
        device.log.commit()
        store = Store.open(folder)
        report = sync_device(device.client(), store)
        assert contents(store) == device.log.frames
        assert store.conflicts == 0
        assert device.log.acked == len(device.log.segments)
        assert report.open_segment is False


def test_pulled_cable_loses_no_time(tmp_path: Path) -> None:
    device = recorded(40)
    interrupted(device, tmp_path, 10, LinkError("pulled"), handled=False)
    spooled = SpooledLog(tmp_path / "spool", device.log.uuid).get(0)
    assert len(spooled) == 2560
    report = sync_device(device.client(), Store.open(tmp_path))
    assert report.bytes_log < device.log.durable - len(spooled) + 1024


class Breaking:
    """Stops a program at the n-th call of a function that writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
        self.calls = 0
        self.fail_at = -1
        # Path.replace does not go through os.replace in Python 3.10.
        owner = Path if name == "replace" else os
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.fail_at:
                raise error
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    def arm(self, at: int) -> None:
        self.calls, self.fail_at = 0, at


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), Killed()], ids=["full", "killed"]
)
def test_stopped_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    """Between spool and ACK, between ACK and store: every fsync and rename is a place to stop."""
    breaking = Breaking(monkeypatch, name, error)
    Store.open(tmp_path / "count", create=True)
    breaking.arm(-1)
    sync_device(recorded(40).client(), Store.open(tmp_path / "count"))
    count = breaking.calls
    assert count >= 4
    for at in range(1, count + 1):
        device = recorded(40)
        folder = tmp_path / f"at{at}"
        store = Store.open(folder, create=True)
        breaking.arm(at)
        expected = StoreError if isinstance(error, OSError) else Killed
        with pytest.raises(expected) as caught:
            sync_device(device.client(), store)
        breaking.arm(-1)
        if isinstance(caught.value, StoreError):
            assert "No space left on device" in caught.value.message
            assert caught.value.hint
        assert device.log.acked <= _safe_segments(store, device), "freed, but not on the disk"
        assert list(folder.rglob("*.tmp")) == []
        sync_device(device.client(), Store.open(folder))
        assert contents(Store.open(folder)) == device.log.frames
        assert device.log.acked == len(device.log.segments)


def _safe_segments(store: Store, device: FakeDevice) -> int:
    """How many segments from the first on are wholly in the spool or the store."""
    log = SpooledLog(store.spool, device.log.uuid)
    known = set(store.keys())
    for segment in log.segments():
        parsed = log.parsed(segment)
        assert parsed is not None
        known |= {RecordKey(UUID_TEXT, record.header.seq) for record in parsed.records}
    first = 0
    for segment, crcs in enumerate(device.log.crcs):
        if not all(RecordKey(UUID_TEXT, seq) in known for seq in range(first, first + len(crcs))):
            return segment
        first += len(crcs)
    return len(device.log.crcs)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name open files")
def test_folders_and_files_are_on_the_disk_before_the_device_may_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(file: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        real(file)

    monkeypatch.setattr(os, "fsync", note)
    device = recorded()
    at_ack: list[list[str]] = []

    def watch(index: int, frame: Any) -> None:
        if frame.type == wire.FrameType.ACK:
            at_ack.append(list(synced))

    device.on_request = watch
    top = tmp_path / "new" / "store"
    store = Store.open(top, create=True)
    sync_device(device.client(), store)
    folders = [tmp_path, top.parent, top, top / "spool", top / "spool" / UUID_TEXT]
    for count, before in enumerate(at_ack, 1):
        assert {str(folder) for folder in folders} <= set(before)
        segments = [name for name in before if ".seg." in name]
        assert len(segments) == count
        last = max(at for at, name in enumerate(before) if ".seg." in name)
        assert str(folders[-1]) in before[last:], "the folder after the file"
    assert str(top / "records") in synced


def test_full_disk_before_the_spool_frees_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = recorded()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left") as caught:
        sync_device(device.client(), store)
    assert caught.value.exit_code == 11
    assert wire.FrameType.ACK not in device.seen
    assert list(store.path.rglob("*.seg")) == list(store.path.rglob("*.parquet")) == []


def test_records_acknowledged_but_not_in_the_store_are_ingested_without_a_device(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = recorded()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            sync_device(device.client(), store)
    assert device.log.acked == len(device.log.segments)
    assert len(store) == 0
    assert ingest_spool(store).new == 60
    assert contents(store) == device.log.frames
    assert ingest_spool(store).duplicates == 60


# ---------------------------------------------------------------- a bad line, a bad card


@pytest.mark.parametrize("seed", range(8))
def test_line_that_loses_garbles_and_repeats(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    device = recorded(60, seed)

    def fault(index: int, data: bytes) -> bytes:
        roll = rng.random()
        if roll < 0.1:
            return b""
        if roll < 0.2:
            at = rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        if roll < 0.3:
            return data[: rng.randrange(len(data))]
        if roll < 0.4:
            return data + data
        return b"console noise\r\n" + data if roll < 0.5 else data

    device.on_answer = fault
    report = sync_device(device.client(timeout_s=60.0), store)
    assert contents(store) == device.log.frames
    assert report.repetitions > 0
    assert device.log.acked == len(device.log.segments)


@pytest.mark.parametrize("at", range(4, 20, 3))
def test_device_restarts_in_mid_read(store: Store, at: int) -> None:
    device = recorded()

    def restart(index: int, data: bytes) -> bytes:
        if index != at:
            return data
        device.restart()
        return data[: len(data) // 2] + b"\r\nboot: hello\r\n"

    device.on_answer = restart
    sync_device(device.client(), store)
    assert contents(store) == device.log.frames


def test_recording_goes_on_during_the_sync(store: Store) -> None:
    device = recorded(50)

    def record(index: int, frame: object) -> None:
        if len(device.log.frames) < 80:
            device.log.append(b"meanwhile".ljust(64))

    device.on_request = record
    sync_device(device.client(), store)
    sync_device(device.client(), store)
    assert contents(store) == device.log.frames
    assert store.conflicts == 0


def test_segment_that_never_rests_is_left_to_the_next_sync(store: Store) -> None:
    device = recorded(1)
    device.log.segment_bytes = SEGMENT_BYTES

    def record(index: int, frame: Any) -> None:
        if frame.type == wire.FrameType.ACK:
            device.log.append(bytes(64))

    device.on_request = record
    report = sync_device(device.client(), store)
    assert report.open_segment is True
    assert (report.acked, device.log.acked) == (0, 0)
    device.on_request = lambda *_: None
    sync_device(device.client(), store)
    assert contents(store) == device.log.frames
    assert device.log.acked == 1


@pytest.mark.parametrize("size", [52, wire.Hello.SIZE + 8])
def test_other_schema_can_always_be_pulled(store: Store, size: int) -> None:
    device = recorded()
    device.schema_hash ^= 0xFF
    device.hello_bytes = max(size, 64)
    sync_device(device.client(), store)
    assert contents(store) == device.log.frames


def test_wrong_digest_is_refused_and_nothing_is_lost(store: Store) -> None:
    device = recorded()
    device.log.crcs[1][0] ^= 1
    with pytest.raises(DeviceError, match="refused ACK of segment 1: digest") as caught:
        sync_device(device.client(), store)
    assert caught.value.code == wire.Err.DIGEST
    assert device.log.acked == 1
    assert "in the store" in caught.value.hint
    # What lies behind it is not stranded.
    assert contents(store) == device.log.frames
    device.log.crcs[1][0] ^= 1
    added = sync_device(device.client(), store).store
    assert added is not None and (added.new, added.conflicts) == (0, 0)
    assert device.log.acked == len(device.log.crcs)


def test_card_that_answers_wrongly_once(store: Store) -> None:
    device = recorded()
    read = device.log.read
    wrong = [True]

    def misread(position: int, size: int) -> bytes:
        data = read(position, size)
        if wrong and position == 1536:
            wrong.clear()
            data = data[:100] + bytes([data[100] ^ 8]) + data[101:]
        return data

    device.log.read = misread  # type: ignore[method-assign]
    report = sync_device(device.client(), store)
    assert contents(store) == device.log.frames
    assert report.damaged == ()


def test_damaged_record_costs_only_itself(store: Store) -> None:
    device = recorded()
    segment = device.log.segments[0]
    at = 512 + wire.RecordHeader.SIZE + 5
    segment[at] ^= 1
    report = sync_device(device.client(), store)
    assert contents(store) == {seq: x for seq, x in device.log.frames.items() if seq != 0}
    assert report.damaged == (
        "segment 0, 512: frame of record 0 is damaged",
        f"segment 0: 1 of {len(device.log.crcs[0])} records are lost",
    )
    assert device.log.acked == len(device.log.segments), "the log must not be stuck"
    (kept,) = (store.spool / UUID_TEXT).glob("*.damaged")
    assert kept.read_bytes()[: device.log.used[0]] == bytes(segment[: device.log.used[0]])


def test_damaged_header_costs_only_its_record(store: Store) -> None:
    device = recorded()
    device.log.segments[0][512 + 9] ^= 1
    report = sync_device(device.client(), store)
    assert contents(store) == {seq: x for seq, x in device.log.frames.items() if seq != 0}
    assert report.damaged[0] == "segment 0, 512: no record header"
    assert device.log.acked == len(device.log.segments)


def test_damage_at_the_end_of_a_segment_is_noticed(store: Store) -> None:
    device = recorded()
    last = len(device.log.crcs[0]) - 1
    position = device.log.segments[0].rindex(device.log.frames[last])
    device.log.segments[0][position] ^= 1
    report = sync_device(device.client(), store)
    assert contents(store) == {seq: x for seq, x in device.log.frames.items() if seq != last}
    assert report.damaged == (f"segment 0: 1 of {last + 1} records are lost",)
    assert device.log.acked == len(device.log.segments)
    assert len(list((store.spool / UUID_TEXT).glob("*.damaged"))) == 1


def test_spool_file_that_the_disk_spoilt(store: Store) -> None:
    device = recorded()
    sync_device(device.client(), store, keep=True)
    file = sorted((store.spool / UUID_TEXT).glob("*.seg"))[1]
    raw = file.read_bytes()
    for spoilt in (b"", raw[:700] + bytes([raw[700] ^ 1]) + raw[701:], b"x" * len(raw)):
        file.write_bytes(spoilt)
        sync_device(device.client(), store, keep=True)
    file.write_bytes(b"")
    sync_device(device.client(), store)
    assert contents(store) == device.log.frames
    assert device.log.acked == len(device.log.segments)


def test_evicted_segments_are_counted(store: Store) -> None:
    device = recorded()
    device.log.tail = 2
    lost = len(device.log.crcs[0]) + len(device.log.crcs[1])

    def evict(index: int, frame: Any) -> None:
        if frame.type == wire.FrameType.READ and device.log.tail == 0:
            device.log.tail = 2

    device.log.tail = 0
    device.on_request = evict
    report = sync_device(device.client(), store)
    assert report.gone_bytes == 2 * SEGMENT_BYTES
    assert sorted(contents(store)) == list(range(lost, 60))


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (wire.CardState.ABSENT, "has no card"),
        (wire.CardState.FOREIGN, "without a DRIP log"),
        (wire.CardState.ERROR, "cannot read its card"),
    ],
)
def test_unusable_card(store: Store, state: int, text: str) -> None:
    device = recorded()
    device.card_state = state
    with pytest.raises(CardError, match=text) as caught:
        sync_device(device.client(), store)
    assert caught.value.hint
    assert wire.FrameType.READ not in device.seen


def test_card_of_another_log(store: Store) -> None:
    device = recorded()
    other = FakeLog(uuid=b"another log here")
    other.append(b"x" * 64)
    other.commit()
    device.log.read = other.read  # type: ignore[method-assign]
    with pytest.raises(CardError, match="another log"):
        sync_device(device.client(), store)
    assert len(store) == 0


def test_rubbish_instead_of_a_log(store: Store) -> None:
    device = recorded()
    device.log.read = lambda position, size: b"\xa5" * 512  # type: ignore[method-assign]
    with pytest.raises(CardError, match="do not start a log segment"):
        sync_device(device.client(), store)
    assert wire.FrameType.ACK not in device.seen


def test_frames_of_an_undescribed_stream_are_plain_bytes(store: Store) -> None:
    device = FakeDevice(FakeLog(streams=(replace(FakeLog().streams[0], id=9),)))
    device.log.append(b"seven b", stream_id=3)
    sync_device(device.client(), store)
    frames = store.frames()
    assert frames.x.shape == (1, 7)
    assert frames.x.tobytes() == b"seven b"
