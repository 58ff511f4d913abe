"""A sync that is stopped at any request or write, and the one after it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_device import FakeDevice
from synced import UUID_TEXT, contents, recorded

from drip import wire
from drip.errors import LinkError, StoreError
from drip.store import RecordKey, Store
from drip.sync import ingest_spool, sync_device
from drip.sync.spool import SpooledLog


class Killed(BaseException):
    """The program is gone: no handler may run on it."""


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
