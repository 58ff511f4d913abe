"""Pulling from a card brings what serial sync brings, whichever comes first."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cardsim import BLOCK, Log, SimCard
from device_board import digits_model
from test_volume import image
from volumes import check, find

from drip import wire
from drip.card import inspect_image
from drip.card.pull import pull_card
from drip.device import connect
from drip.device.launch import launch_native, native_binary
from drip.errors import CardError, DripError
from drip.store import AppendReport, Store
from drip.sync import sync_device
from drip.sync.spool import SpooledLog
from drip.wire import Config

FRAMES = [bytes(byte % 17 for byte in random.Random(n).randbytes(64)) for n in range(60)]


def contents(store: Store) -> dict[tuple[str, int], bytes]:
    frames = store.frames()
    assert len(set(frames.keys)) == len(frames.keys) == len(store)
    return {tuple(key): x.tobytes() for key, x in zip(frames.keys, frames.x, strict=True)}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    card, model = tmp_path / "card.img", tmp_path / "model.drip"
    model.write_bytes(digits_model())
    return {"card": card, "model": model}


@pytest.mark.parametrize("fs", ["fat16", "fat32", "exfat"])
@pytest.mark.parametrize("order", ["sync first", "pull first", "two stores"])
def test_card_and_line_give_the_same(tmp_path, files, fs, order):
    try:
        native_binary()
    except DripError as error:
        pytest.skip(f"{error}: {error.hint}")
    files["card"].write_bytes(image(fs, 40 << 20 if fs == "fat32" else 16 << 20, True))
    synced = Store.open(tmp_path / "synced", create=True)
    pulled = Store.open(tmp_path / "pulled", create=True) if order == "two stores" else synced
    with launch_native(**files) as device, connect(device.url) as client:
        assert client.status().card_state == wire.CardState.READY
        client.config_set({Config.POLICY_KIND: wire.PolicyKind.ALL})
        for frame in FRAMES:
            assert client.feed(frame).keep == 1
        client.sync_log()
        before = tmp_path / "before.img"
        before.write_bytes(files["card"].read_bytes())
        if order == "pull first":
            report = pull_card(before, pulled)
            assert (report.records, report.store.new, report.damaged) == (60, 60, ())
        line = sync_device(client, synced)
        assert line.store is not None
        assert line.store.new == (0 if order == "pull first" else 60)
    check(files["card"], fs, 32)
    # Acknowledged by then, but still on the card.
    report = pull_card(files["card"], pulled)
    assert report.records == 60
    assert report.store.new == (60 if order == "two stores" else 0)
    assert report.store.conflicts == 0
    assert pull_card(files["card"], pulled).store.new == 0
    assert contents(pulled) == contents(synced)
    assert sorted(contents(synced).values()) == sorted(FRAMES)
    assert list(pulled.spool.rglob("*.seg")) == [], "what is in the store needs no spool"
    with launch_native(**files) as device, connect(device.url) as client:
        assert sync_device(client, synced).records == 0
    assert inspect_image(files["card"]).damage == ()


def test_a_write_protected_image_is_reported_and_read(tmp_path, files):
    try:
        native_binary()
    except DripError as error:
        pytest.skip(f"{error}: {error.hint}")
    card = files["card"]
    card.write_bytes(image("exfat", 16 << 20))
    card.chmod(0o444)
    before = card.read_bytes()
    store = Store.open(tmp_path / "store", create=True)
    with launch_native(**files) as device, connect(device.url) as client:
        client.config_set({Config.POLICY_KIND: wire.PolicyKind.ALL})
        assert client.feed(FRAMES[0]).keep == 0
        status = client.status()
        assert status.card_state == wire.CardState.PROTECTED
        assert status.frames_dropped_card == 1
        with pytest.raises(CardError, match="write-protected") as caught:
            sync_device(client, store)
        assert "drip card pull" in caught.value.hint
    assert card.read_bytes() == before
    assert pull_card(card, store).records == 0


def recorded(count: int = 400) -> tuple[SimCard, int, int]:
    """A card with several segments, where its log lies, and blocks of a segment."""
    card = SimCard(bytearray(image("fat16", 16 << 20)))
    found = find(card)
    log = Log(card, first_block=found.first_block)
    for n in range(count):
        assert log.append(random.Random(n).randbytes(4096)) > 0
    log.sync()
    return card, found.first_block, log.segment_bytes // BLOCK


def test_damage_costs_the_records_it_touches(tmp_path):
    card, first, segment_blocks = recorded()
    path = tmp_path / "card.img"
    path.write_bytes(card.data)
    report = inspect_image(path)
    assert (report.records, len(report.segments) > 3) == (400, True)
    start = first + report.superblock.data_block
    header, frame = start + segment_blocks, start + 2 * segment_blocks + 30
    for block in (header, frame):
        card.data[block * BLOCK : (block + 1) * BLOCK] = b"\xa5" * BLOCK
    path.write_bytes(card.data)
    store = Store.open(tmp_path / "store", create=True)
    found = pull_card(path, store)
    # The header costs nothing; the block belongs to one frame, or to the ends of two.
    assert 398 <= found.records <= 399
    assert found.store.new == found.records == len(store)
    assert any("header is damaged" in line for line in found.damaged)
    assert any("lost" in line or "damaged" in line for line in found.damaged)
    assert pull_card(path, store).store.new == 0


def test_a_better_copy_in_the_spool_is_not_lost(tmp_path):
    """An interrupted sync left a segment that the card has lost since."""
    card, first, _ = recorded(40)
    path = tmp_path / "card.img"
    path.write_bytes(card.data)
    store = Store.open(tmp_path / "store", create=True)
    report = inspect_image(path)
    block = first + report.superblock.data_block
    log = SpooledLog(store.spool, report.superblock.log_uuid)
    log.put(0, bytes(card.data[block * BLOCK :][: report.segments[0].parsed.end]))
    at = (block + 20) * BLOCK
    card.data[at : at + 8 * BLOCK] = bytes(8 * BLOCK)
    path.write_bytes(card.data)
    found = pull_card(path, store)
    assert found.records < 40
    assert len(store) == 40
    assert found.store == AppendReport(new=40), "those on the card, too, are counted once"
    again = pull_card(path, store)
    assert again.store == AppendReport(duplicates=found.records)


def test_cards_without_a_log(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    with pytest.raises(CardError, match="cannot be read"):
        pull_card(tmp_path / "missing.img", store)
    (tmp_path / "noise.img").write_bytes(bytes(1 << 20))
    with pytest.raises(CardError, match="holds no log"):
        pull_card(tmp_path / "noise.img", store)


def test_progress_counts_segments(tmp_path):
    card, _, _ = recorded(200)
    path = tmp_path / "card.img"
    path.write_bytes(card.data)
    steps: list[tuple[int, int]] = []
    report = pull_card(
        path,
        Store.open(tmp_path / "store", create=True),
        on_progress=lambda *step: steps.append(step),
    )
    assert steps == [(n + 1, report.segments) for n in range(report.segments)]


@pytest.mark.parametrize("batch", [1 << 30, 1 << 17])
def test_a_clock_that_comes_after_its_frames_dates_them_all(tmp_path, monkeypatch, batch):
    """However many segments are ingested at a time; a boot without a clock is an estimate."""
    monkeypatch.setattr("drip.card.pull._BATCH_BYTES", batch)
    utc = 1_700_000_000_000_000
    card, first, _ = recorded(400)
    log = Log(card, first_block=first)  # boot 2
    for n in range(200):
        assert log.append(bytes([n]) * 4096, time_us=n) > 0
    clock = wire.RecordClock(unix_us=utc, time_us=0)
    kind = wire.RecordKind.CLOCK << wire.RECORD_KIND_SHIFT
    assert log.append(clock.pack(), flags=kind) > 0
    log.sync()
    log = Log(card, first_block=first)  # boot 3
    assert log.append(b"later", time_us=7) > 0
    log.sync()
    path = tmp_path / "card.img"
    path.write_bytes(card.data)
    store = Store.open(tmp_path / "store", create=True)
    assert pull_card(path, store).store.new == 601
    rows = store.query(
        "select boot_id, time_us, epoch_us(utc_us) as utc_us, time_source from records"
    ).to_pylist()
    dated = {(row["time_us"], row["utc_us"]) for row in rows if row["boot_id"] == 2}
    assert dated == {(n, utc + n) for n in range(200)}
    sources = {(row["boot_id"], row["time_source"]) for row in rows}
    assert sources == {(1, "unknown"), (2, "host_clock"), (3, "estimate")}
    (late,) = [row["utc_us"] for row in rows if row["boot_id"] == 3]
    assert late == utc + 199 + 7
