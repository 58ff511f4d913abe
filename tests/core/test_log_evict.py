"""A full log that drops its least important frames: which survive, what it costs, what it says."""

from __future__ import annotations

import dataclasses
import random
import zlib
from dataclasses import dataclass

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config, format_card

from drip import wire
from drip.records import is_frame, parse_segment

Err = wire.Err


@dataclass
class Frame:
    percentile: int
    class_1: int
    payload: bytes


def make(blocks: int = 512, segment_blocks: int = 32, floor: int = 0) -> tuple[SimCard, Log]:
    card = SimCard(bytearray(blocks * BLOCK))
    assert format_card(card, segment_blocks=segment_blocks) == OK
    settings = config(full_mode=wire.FullMode.EVICT)
    settings.class_floor = floor
    return card, Log(card, settings)


def append(log: Log, frame: Frame) -> int:
    """The sequence number, or 0 when the frame is refused."""
    for _ in range(3):
        seq = log.append(frame.payload, percentile=frame.percentile, class_1=frame.class_1)
        if seq != Err.BUSY:
            return seq
    raise AssertionError("always busy")


def contents(log: Log) -> dict[int, wire.RecordHeader]:
    """Frames by sequence number; none is there twice."""
    found: dict[int, wire.RecordHeader] = {}
    for data in log.segments().values():
        parsed = parse_segment(data)
        assert not parsed.damage
        for record in parsed.records:
            if is_frame(record.header):
                assert record.header.seq not in found, "twice"
                found[record.header.seq] = record.header
    return found


def evicted(log: Log) -> int:
    """What the GAP records on the card say, and what the next one will."""
    return log.log.gap.evicted + sum(
        wire.RecordGap.unpack(record.payload).evicted
        for data in log.segments().values()
        for record in parse_segment(data).records
        if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
    )


def fill(
    log: Log, chance: random.Random, count: int, size: int = 1000, classes: int = 4
) -> dict[int, Frame]:
    """Frames by sequence number; those that were refused have numbers below 0."""
    given = {}
    for number in range(count):
        frame = Frame(
            chance.randrange(65536),
            min(chance.randrange(classes), chance.randrange(classes)),
            random.Random(number).randbytes(size),
        )
        seq = append(log, frame)
        assert seq >= 0
        given[seq or -1 - number] = frame
        log.card.time_us += 1000
    log.sync()
    return given


def test_nothing_is_dropped_before_the_log_is_full():
    _, log = make()
    given = fill(log, random.Random(1), 180)
    assert set(contents(log)) == set(given)
    assert log.tail == 0


@pytest.mark.parametrize("size", [300, 1000, 3000])
def test_the_best_survive_and_every_loss_is_counted(size):
    card, log = make(1024, 64)
    given = fill(log, random.Random(2), 2_000_000 // size, size)
    found = contents(log)
    assert set(found) <= set(given)
    assert len(given) - len(found) == evicted(log) == log.log.evicted
    for seq, header in found.items():
        assert header.percentile == given[seq].percentile
    kept = [given[seq].percentile for seq in found]
    lost = [frame.percentile for seq, frame in given.items() if seq not in found]
    assert sum(kept) / len(kept) > 1.25 * sum(lost) / len(lost)
    best = [seq for seq, frame in given.items() if frame.percentile > 62000]
    assert sum(seq in found for seq in best) > 0.9 * len(best)
    assert log.tail > 0
    assert log.read(0) == Err.GONE
    again = Log(card, log.settings)
    assert set(contents(again)) == set(found)
    assert (again.tail, again.durable) == (log.tail, log.durable)


def test_at_most_two_blocks_are_written_for_each_new_one():
    card, log = make(1024, 64)
    fill(log, random.Random(3), 600)
    before, offered = len(card.writes), 0
    for frame in fill(log, random.Random(4), 2000).values():
        offered += len(frame.payload) + wire.RecordHeader.SIZE
    assert len(card.writes) - before <= 2 * offered / BLOCK


def test_the_floor_of_a_class_is_respected_however_low_its_frames_rank():
    for floor in (0, 2):
        _card, log = make(floor=floor)
        chance = random.Random(5)
        rare = []
        for number in range(1500):
            is_rare = number % 100 == 7
            frame = Frame(
                chance.randrange(2000) if is_rare else chance.randrange(20000, 65536),
                3 if is_rare else 0,
                chance.randbytes(1000),
            )
            seq = append(log, frame)
            assert seq >= 0
            rare += [seq] if is_rare and seq > 0 else []
        log.sync()
        kept = [seq for seq in contents(log) if seq in rare]
        assert len(kept) > 10 if floor else len(kept) <= 3


def test_acknowledged_segments_go_before_anything_is_evicted():
    _card, log = make()
    given = fill(log, random.Random(6), 180)
    for segment in range(6):
        parsed = parse_segment(log.segments()[segment])
        assert log.ack(segment, parsed.count, parsed.digest) == OK
    given |= fill(log, random.Random(7), 60)
    assert log.log.evicted == 0
    assert log.tail > 0


def test_a_survivor_is_the_same_record_in_another_segment():
    _card, log = make()
    payload = b"the most important of all" * 30
    seq = append(log, Frame(65535, 2, payload))
    fill(log, random.Random(8), 3000)
    (found,) = (
        record
        for data in log.segments().values()
        for record in parse_segment(data).records
        if record.header.seq == seq
    )
    assert found.payload == payload
    assert (found.header.percentile, found.header.class_1, found.header.boot_id) == (65535, 2, 1)


def test_a_record_that_needs_most_of_a_segment_still_fits():
    _, log = make(512, 32)
    for number in range(100):
        assert append(log, Frame(number * 600, 0, bytes([number]) * 14000)) > 0
    log.sync()
    assert len(contents(log)) >= 13


@pytest.mark.parametrize("segment_blocks", [4, 32, 64])
def test_what_never_fits_beside_the_gap_record_of_an_eviction_is_refused(
    segment_blocks: int,
) -> None:
    """Such a record would evict one segment after the other, and never be stored."""
    marks = (segment_blocks - 1) // wire.MARK_BLOCKS * wire.LogMark.SIZE
    largest = (segment_blocks - 2) * BLOCK - marks - wire.RecordHeader.SIZE
    _, log = make(blocks=1024, segment_blocks=segment_blocks)
    for _ in range(60):
        assert append(log, Frame(1000, 0, bytes(largest))) > 0
    kept = contents(log)
    assert append(log, Frame(65535, 0, bytes(largest + 1))) == Err.ARGUMENT
    assert contents(log) == kept


def test_a_full_log_that_is_told_to_evict_goes_on():
    card, log = make()
    log.settings.full_mode = int(wire.FullMode.STOP)
    log = Log(card, log.settings)
    chance = random.Random(9)
    given = {}
    while (seq := append(log, Frame(chance.randrange(65536), 0, bytes(1000)))) > 0:
        given[seq] = 1
    assert seq == Err.FULL
    log.sync()
    log.settings.full_mode = int(wire.FullMode.EVICT)
    log = Log(card, log.settings)
    given |= dict.fromkeys(fill(log, chance, 300), 1)
    assert len(given) - len(contents(log)) == evicted(log) == log.log.evicted


def test_damage_in_a_victim_costs_what_it_touches():
    card, log = make()
    given = fill(log, random.Random(10), 190)
    start = (log.log.super.data_block + 5) * BLOCK
    card.data[start + 100] ^= 255
    card.read_errors = {log.log.super.data_block + 11}
    given |= fill(log, random.Random(11), 100)
    card.read_errors = set()
    found = contents(log)
    assert set(found) <= set(given)
    lost = len(given) - len(found)
    assert lost - 4 <= evicted(log) <= lost


def test_the_state_of_a_log_fits_into_two_kilobytes():
    from drip._core import ffi

    assert ffi.sizeof("drip_log_t") <= 2048


def test_a_superblock_that_says_that_the_newest_segment_is_gone_is_not_believed():
    card, log = make()
    seq = append(log, Frame(1, 0, b"frame"))
    log.sync()
    plain = wire.Superblock.unpack(bytes(card.data[:BLOCK]))
    wrong = dataclasses.replace(
        plain, generation=plain.generation + 10, next_segment=1, tail_segment=1
    )
    content = wrong.pack()[:-4]
    card.data[:BLOCK] = content + zlib.crc32(content).to_bytes(4, "little")
    again = Log(card, log.settings)
    assert again.tail == 0
    assert list(contents(again)) == [seq]
