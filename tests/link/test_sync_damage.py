"""Sync over a bad line and from a bad card: what can be read arrives, the rest is told."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from fake_device import SEGMENT_BYTES, FakeDevice, FakeLog
from synced import UUID_TEXT, contents, recorded

from drip import wire
from drip.errors import CardError, DeviceError
from drip.store import Store
from drip.sync import sync_device


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
