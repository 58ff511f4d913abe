"""The log on cards that are not as they should be: foreign, gone, failing, damaged, hostile."""

from __future__ import annotations

import random
import zlib

import pytest
from cardsim import BLOCK, OK, Log, SimCard, format_card
from logs import UUID, ack_of, later, make, payload_of, records_of

from drip import wire
from drip.records import iter_records, parse_records, parse_segment

Err = wire.Err


def test_geometry_that_makes_no_sense_is_refused():
    card = SimCard(bytearray(128 * BLOCK))
    for wrong in (
        {"unit_blocks": 3},
        {"unit_blocks": 0},
        {"segment_blocks": 6},
        {"segment_blocks": 1},
        {"segment_blocks": 64},
        {"unit_blocks": 64},
        {"blocks": 129},
        {"blocks": 3},
        {"first_block": 127, "blocks": 1},
        {"first_block": 0xFFFFFFF0, "blocks": 0x20},
    ):
        assert format_card(card, **wrong) == Err.ARGUMENT, wrong
    assert not card.writes


def test_segments_are_aligned_on_the_card_wherever_the_region_starts():
    card = SimCard(bytearray(256 * BLOCK))
    assert format_card(card, first_block=13, blocks=200, unit_blocks=16) == OK
    log = Log(card, first_block=13)
    assert log.state == wire.CardState.READY
    assert (13 + log.log.super.data_block) % 16 == 0
    payloads = [payload_of(number, 1000) for number in range(30)]
    for payload in payloads:
        assert log.append(payload) > 0
    log.sync()
    assert [payload for _, payload in records_of(Log(card, first_block=13))] == payloads
    assert not any(card.data[: 13 * BLOCK]) and not any(card.data[213 * BLOCK :])


def test_a_card_without_a_log_is_foreign_and_one_that_is_gone_is_absent():
    card = SimCard(bytearray(64 * BLOCK))
    log = Log(card)
    assert log.state == wire.CardState.FOREIGN
    assert not card.writes, "somebody else's card is left alone"
    assert log.append(b"x") == Err.NO_CARD
    assert log.sync() == Err.NO_CARD
    assert log.read(0) == Err.NO_CARD
    assert log.ack(0, 0, 0) == Err.NO_CARD
    card.absent = True
    assert log.mount() == wire.CardState.ABSENT


def test_a_card_pulled_and_put_back_goes_on():
    card, log = make()
    log.append(b"kept")
    log.sync()
    card.absent = True
    log.append(b"lost")
    log.sync()
    assert log.state == wire.CardState.ABSENT
    assert log.append(b"refused") == Err.NO_CARD
    card.absent = False
    assert log.mount() == wire.CardState.READY
    assert log.append(b"after") > 2
    log.sync()
    assert [payload for _, payload in records_of(log)] == [b"kept", b"after"]


def test_a_write_error_stops_the_log_and_a_remount_keeps_what_was_durable():
    card, log = make()
    log.append(b"kept")
    log.sync()
    card.write_errors = set(range(card.blocks))
    log.append(b"lost")
    log.sync()
    assert log.state == wire.CardState.ERROR
    assert log.log.errors > 0 and log.log.last_error == Err.IO
    assert (log.pending, log.log.lost) == (1, 0)
    card.write_errors = set()
    assert log.mount() == wire.CardState.READY
    assert (log.pending, log.log.lost) == (0, 1), "never silently"
    assert [payload for _, payload in records_of(log)] == [b"kept"]


def test_a_block_that_cannot_be_read_harms_only_its_read():
    card, log = make()
    for number in range(10):
        log.append(payload_of(number, 1000))
    log.sync()
    bad = log.log.super.data_block + 3
    card.read_errors = {bad}
    assert log.read(3 * BLOCK, BLOCK) == Err.IO
    assert log.state == wire.CardState.READY
    assert isinstance(log.read(4 * BLOCK, BLOCK), bytes)
    assert log.append(b"on it goes") > 0


def test_an_unreadable_block_in_the_newest_segment_is_never_written_over():
    card, log = make()
    for _ in range(3):
        log.append(bytes(200))
        log.sync()
    last = log.log.super.data_block + 3
    before = bytes(card.data[last * BLOCK : (last + 1) * BLOCK])
    card.read_errors = {last}
    again = Log(card)
    assert again.state == wire.CardState.READY and again.log.damaged > 0
    assert again.append(b"goes elsewhere") > 3
    again.sync()
    card.read_errors = set()
    assert bytes(card.data[last * BLOCK : (last + 1) * BLOCK]) == before
    payloads = [payload for _, payload in records_of(again)]
    assert payloads == [bytes(200)] * 3 + [b"goes elsewhere"]
    assert again.ack(0, 123, 456) == Err.DIGEST
    card.read_errors = {last}
    assert again.ack(0, 123, 456) == OK, "what the log could not read it cannot dispute"


def test_one_damaged_superblock_costs_no_record():
    for broken in (0, 127):
        card, log = make()
        for number in range(10):
            log.append(payload_of(number, 1000))
        log.sync()
        log.ack(*ack_of(log, 0))
        later(log)
        expected, acked = records_of(log), log.acked
        newest = log.log.super.generation % 2 == (broken == 127)
        card.data[broken * BLOCK + 100] ^= 1
        again = Log(card)
        assert again.state == wire.CardState.READY
        assert records_of(again) == expected
        # What was acknowledged last is forgotten with the newest copy: the host is asked again.
        assert again.acked == (0 if newest else acked)
        assert again.append(b"x") > 10


def test_both_superblocks_gone_are_rebuilt_from_the_segments():
    for turns in (0, 2):
        card, log = make()
        written = 0
        while log.durable < (turns * 15 + 4) * log.segment_bytes:
            written = log.append(payload_of(written, 1000))
            log.sync()
            if log.durable - log.acked > 3 * log.segment_bytes:
                assert log.ack(*ack_of(log, log.acked // log.segment_bytes)) == OK
        expected, boot = records_of(log), log.log.boot_id
        card.data[:BLOCK] = bytes(BLOCK)
        card.data[-BLOCK:] = bytes(BLOCK)
        again = Log(card)
        assert again.state == wire.CardState.READY
        assert records_of(again) == expected
        assert again.log.boot_id > boot
        assert log.acked - again.acked <= log.segment_bytes
        assert again.append(b"x") > written
        assert Log(card).state == wire.CardState.READY


def test_a_damaged_segment_header_hides_nothing():
    card, log = make()
    for number in range(10):
        log.append(payload_of(number, 1000))
    log.sync()
    expected = {number: parse_segment(data).records for number, data in log.segments().items()}
    newest = max(expected)
    at = (log.log.super.data_block + newest * 8) * BLOCK
    header = parse_segment(bytes(card.data[at : at + 8 * BLOCK])).header
    card.data[at + 40] ^= 255
    again = Log(card)
    assert again.log.damaged == 1
    assert again.durable == (newest + 1) * log.segment_bytes, "nothing is added to it"
    assert tuple(iter_records(again.segments()[newest], header)) == expected[newest]
    assert again.append(b"x") > 10
    again.sync()
    assert parse_segment(again.segments()[newest + 1]).records[0].payload == b"x"


def test_damage_inside_the_newest_segment_costs_the_records_it_touches():
    card, log = make(segment_blocks=16)
    for number in range(5):
        log.append(payload_of(number, 1000))
        log.sync()
    at = (log.log.super.data_block + 1) * BLOCK
    card.data[at + 3 * BLOCK + 70] ^= 1
    again = Log(card)
    parsed = parse_segment(again.segments()[0])
    assert [record.header.seq for record in parsed.records] == [1, 3, 4, 5]
    assert [damage.reason for damage in parsed.damage] == ["frame of record 2 is damaged"]
    assert again.ack(0, parsed.count, parsed.digest) == OK


def test_an_earlier_log_on_the_card_is_never_read_as_the_new_one():
    card, log = make()
    for number in range(40):
        log.append(payload_of(number, 1000))
        log.sync()
    assert format_card(card, uuid=bytes(16)) == OK
    log = Log(card)
    assert (log.tail, log.durable) == (0, 0)
    seq = log.append(b"the only one")
    log.sync()
    assert records_of(log) == [(seq, b"the only one")]
    assert records_of(Log(card)) == [(seq, b"the only one")]


def test_frames_that_look_like_records_are_not_taken_for_records():
    card, log = make(segment_blocks=16)
    log.append(b"original")
    log.sync()
    inner = log.segments()[0][BLOCK : 2 * BLOCK]
    log.append(bytes(448) + inner)
    log.sync()
    # The record that holds the copy loses its header.
    at = (log.log.super.data_block + 2) * BLOCK
    card.data[at + 5] ^= 1
    again = Log(card)
    assert [payload for _, payload in records_of_any(again)] == [b"original"]


def records_of_any(log: Log) -> list[tuple[int, bytes]]:
    return [
        (record.header.seq, record.payload)
        for number, data in log.segments().items()
        for record in parse_records(
            data,
            wire.SegmentHeader(
                log_uuid=UUID,
                segment=number,
                header_bytes=BLOCK,
                segment_bytes=log.segment_bytes,
            ),
        ).records
    ]


@pytest.mark.parametrize("seed", range(8))
def test_device_and_host_agree_on_what_a_damaged_segment_holds(seed):
    chance = random.Random(seed)
    card, log = make(256, segment_blocks=64)
    while log.durable < log.segment_bytes * 3 // 4:
        log.append(chance.randbytes(chance.choice([1, 100, 448, 800, 2000])))
        if chance.random() < 0.5:
            log.sync()
    log.sync()
    good, start = bytes(card.data), (log.log.super.data_block + 1) * BLOCK
    counts = set()
    for _ in range(40):
        card.data[:] = good
        for _ in range(chance.randrange(1, 6)):
            at, other = (start + chance.randrange(63) * BLOCK for _ in range(2))
            kind = chance.choice(["flip", "copy", "zero", "shift"])
            if kind == "flip":
                card.data[at + chance.randrange(BLOCK)] ^= 1 << chance.randrange(8)
            elif kind == "copy":
                card.data[at : at + BLOCK] = card.data[other : other + BLOCK]
            elif kind == "zero":
                card.data[at : at + BLOCK] = bytes(BLOCK)
            else:
                size = 8 * chance.randrange(1, 60)
                card.data[at + size : at + 2 * BLOCK] = card.data[at : at + 2 * BLOCK - size]
        again = Log(card)
        parsed = parse_segment(again.segments()[0])
        assert again.ack(0, parsed.count + 1, parsed.digest) == Err.DIGEST
        assert again.ack(0, parsed.count, parsed.digest) == OK
        counts.add(parsed.count)
    assert len(counts) > 3


def test_hostile_superblocks_are_refused():
    card, log = make()
    log.append(b"x")
    log.sync()
    chance = random.Random(1)
    good = wire.Superblock.unpack(bytes(card.data[:BLOCK]))
    fields = [name for name in wire.Superblock.OFFSETS if name not in ("crc", "magic")]
    for _ in range(400):
        name = chance.choice([n for n in fields if isinstance(getattr(good, n), int)])
        limit = 1 << (16 if name in ("version", "header_bytes") else 32)
        values = dict(good.__dict__)
        values[name] = chance.choice([0, 1, 3, limit - 1, limit // 2, chance.randrange(limit)])
        raw = wire.Superblock(**values).pack()
        raw = raw[:-4] + zlib.crc32(raw[:-4]).to_bytes(4, "little")
        hostile = SimCard(bytearray(card.data))
        hostile.data[:BLOCK] = raw
        hostile.data[-BLOCK:] = raw
        again = Log(hostile)
        assert again.state in (
            wire.CardState.READY,
            wire.CardState.FOREIGN,
            wire.CardState.ERROR,
        )
        if again.state == wire.CardState.READY:
            again.append(b"y")
            again.sync()


def test_any_noise_on_the_card_ends_in_a_state_and_never_outside_of_it():
    chance = random.Random(7)
    card, log = make()
    for number in range(30):
        log.append(payload_of(number, chance.randrange(1, 2000)))
    log.sync()
    for _ in range(150):
        noisy = SimCard(bytearray(card.data))
        for _ in range(chance.choice([1, 10, 100, 2000])):
            noisy.data[chance.randrange(len(noisy.data))] = chance.randrange(256)
        again = Log(noisy)
        if again.state == wire.CardState.READY:
            seq = again.append(b"new")
            again.sync()
            if again.state == wire.CardState.READY:
                assert seq == Err.FULL or (seq, b"new") in records_of_any(again)


@pytest.mark.parametrize("unreadable", [0, 63])
def test_no_number_or_boot_comes_twice_while_a_superblock_stays_unreadable(unreadable) -> None:
    """The records of each boot are destroyed with it: only superblocks know what was used."""
    card = SimCard(bytearray(64 * BLOCK))
    assert format_card(card, segment_blocks=8) == OK
    log = Log(card)
    used = [(log.log.boot_id, log.append(bytes(400)))]
    log.sync()
    card.read_errors = {unreadable}
    for _ in range(4):
        before = bytes(card.data)
        log = Log(card, log.settings)
        used.append((log.log.boot_id, log.append(bytes(200))))
        log.sync()
        block = card.writes[-1][0]
        card.data[block * BLOCK : (block + 1) * BLOCK] = before[block * BLOCK : (block + 1) * BLOCK]
    boots, numbers = zip(*used, strict=True)
    assert list(boots) == sorted(set(boots))
    assert list(numbers) == sorted(set(numbers))
