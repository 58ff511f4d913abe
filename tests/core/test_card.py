"""Card images made and read without the core agree with the core."""

from __future__ import annotations

import random

import pytest
from cardsim import BLOCK, OK, Log, SimCard, format_card

from drip import wire
from drip.card import format_image, inspect_image, read_segments
from drip.errors import CardError, UsageError

UUID = bytes(range(16))


@pytest.mark.parametrize(
    ("size", "unit", "segment"),
    [
        (1 << 20, 16 << 10, 128 << 10),
        (8 << 20, 16 << 10, 256 << 10),
        (1 << 20, 512, 1024),
        (3 * 512 * 1001, 4096, 32 << 10),
        (200 << 10, 2048, 4096),
        ((200 << 10) + 512, 2048, 4096),
    ],
)
def test_python_and_the_core_format_the_same_bytes(tmp_path, size, unit, segment):
    image = tmp_path / "card.img"
    format_image(image, size, log_uuid=UUID, unit_bytes=unit, segment_bytes=segment)
    card = SimCard(bytearray(size))
    assert (
        format_card(card, uuid=UUID, unit_blocks=unit // BLOCK, segment_blocks=segment // BLOCK)
        == OK
    )
    assert image.read_bytes() == bytes(card.data)


@pytest.mark.parametrize(
    ("size", "unit", "segment"),
    [
        (0, 512, 1024),
        (100_000, 512, 1024),
        (1 << 20, 3000, 1024),
        (1 << 20, 512, 3000),
        (1 << 20, 512, 512),
        (1 << 20, 512, 512 << 10),
        (1 << 20, 1 << 20, 1024),
        (1 << 50, 512, 1024),
    ],
)
def test_sizes_that_make_no_sense_are_refused(tmp_path, size, unit, segment):
    with pytest.raises(UsageError):
        format_image(tmp_path / "x.img", size, unit_bytes=unit, segment_bytes=segment)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [512 << 10, 8 << 20, 64 << 20, 1 << 30])
def test_default_geometry_holds_the_largest_frame(tmp_path, size):
    image = tmp_path / "card.img"
    made = format_image(image, size)
    assert image.stat().st_size == size
    assert made.segment_blocks * BLOCK >= wire.MAX_FRAME_BYTES + 1024
    assert made.segment_count >= 2
    report = inspect_image(image)
    assert report.superblocks == ("ok", "ok") and not report.damage
    assert (report.records, report.bytes_used, report.oldest) == (0, 0, None)
    other = format_image(image, size)
    assert other.log_uuid != made.log_uuid


def recorded(tmp_path, turns: int, segment_blocks: int = 8):
    """An image after some recording, and the log that made it."""
    card = SimCard(bytearray(128 * BLOCK))
    assert format_card(card, segment_blocks=segment_blocks) == OK
    log = Log(card)
    number = 0
    while log.durable < (turns * 15 + 4) * log.segment_bytes:
        log.append(random.Random(number).randbytes(1000), class_1=number)
        log.sync()
        number += 1
        if log.durable - log.acked > 5 * log.segment_bytes:
            segment = log.acked // log.segment_bytes
            parsed = next(
                item.parsed
                for item in read_segments(save(tmp_path, card))
                if item.number == segment
            )
            assert log.ack(segment, parsed.count, parsed.digest) == OK
    card.time_us += 10_000_000  # a superblock notes what was acknowledged
    log.drive()
    return card, log


def save(tmp_path, card):
    image = tmp_path / "card.img"
    image.write_bytes(bytes(card.data))
    return image


@pytest.mark.parametrize("turns", [0, 2])
def test_inspection_finds_what_the_device_finds(tmp_path, turns):
    card, log = recorded(tmp_path, turns)
    report = inspect_image(save(tmp_path, card))
    assert not report.damage
    segments = log.segments()
    assert [item.number for item in report.segments] == sorted(segments)
    for item in report.segments:
        assert item.acked == (item.number < log.acked // log.segment_bytes)
    held = [record for item in report.segments for record in item.parsed.records]
    assert report.records == len(held) > 8
    assert report.oldest == held[0].header and report.newest == held[-1].header
    assert held[-1].header.seq == log.log.next_seq - 1
    assert report.bytes_total == 15 * log.segment_bytes
    assert 0 < report.bytes_used <= report.bytes_total


def test_damage_is_named(tmp_path):
    card, log = recorded(tmp_path, 0)
    start = log.log.super.data_block
    card.data[0] ^= 1
    card.data[(start + 8) * BLOCK + 100] ^= 1
    card.data[(start + 17) * BLOCK + 200] ^= 1
    card.data[(start + 24 + 7) * BLOCK + 64] ^= 1
    report = inspect_image(save(tmp_path, card))
    assert report.superblocks == ("missing", "ok")
    assert "superblock A: missing" in report.damage
    assert "segment 1: header is damaged" in report.damage
    assert any(
        "segment 2, position" in line and "frame of record" in line for line in report.damage
    )
    assert "segment 2: 1 of 2 records are lost" in report.damage
    assert report.segments[1].parsed.count == 2


def test_without_superblocks_the_segments_are_enough(tmp_path):
    card, log = recorded(tmp_path, 2)
    expected = [item.parsed for item in inspect_image(save(tmp_path, card)).segments]
    card.data[:BLOCK] = card.data[-BLOCK:] = bytes(BLOCK)
    report = inspect_image(save(tmp_path, card))
    assert report.superblocks == ("missing", "missing")
    assert [item.parsed for item in report.segments] == expected
    assert report.superblock.log_uuid == UUID
    assert log.tail // log.segment_bytes == report.segments[0].number


def test_files_that_are_no_card_end_in_one_line(tmp_path):
    with pytest.raises(CardError, match="No such file"):
        inspect_image(tmp_path / "missing.img")
    with pytest.raises(CardError, match="cannot be read"):
        inspect_image(tmp_path)
    for content in (b"", b"x", bytes(100_000), random.Random(1).randbytes(100_000)):
        image = tmp_path / "noise.img"
        image.write_bytes(content)
        with pytest.raises(CardError, match="holds no log"):
            inspect_image(image)
    with pytest.raises(CardError, match="cannot be written"):
        format_image(tmp_path / "no" / "folder.img", 1 << 20)


def test_a_cut_off_image_is_named(tmp_path):
    card, _ = recorded(tmp_path, 0)
    image = tmp_path / "card.img"
    image.write_bytes(bytes(card.data[: 100 * BLOCK]))
    with pytest.raises(CardError, match="of a card of 128 blocks, this has 100"):
        inspect_image(image)


def test_noise_on_a_card_costs_records_and_invents_none(tmp_path):
    chance = random.Random(5)
    card, _ = recorded(tmp_path, 1)
    good = bytes(card.data)
    truth = held_records(read_segments(save(tmp_path, card)))
    some = 0
    for _ in range(60):
        card.data[:] = good
        for _ in range(chance.choice([1, 20, 500])):
            card.data[chance.randrange(len(card.data))] = chance.randrange(256)
        try:
            found = held_records(read_segments(save(tmp_path, card)))
        except CardError:
            continue
        assert found.items() <= truth.items()
        some += len(found)
    assert some > 100


def held_records(segments):
    return {
        record.header.seq: record.payload for item in segments for record in item.parsed.records
    }
