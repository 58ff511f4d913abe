"""What a full log in mode EVICT takes and refuses, and that it never refuses for good."""

from __future__ import annotations

import random

import pytest
from cardsim import BLOCK, OK, REFUSED, Log, SimCard
from drip._core import ffi, lib
from test_log_evict import Frame, append, contents, evicted, fill, make

from drip import wire
from drip.records import is_frame, parse_segment

Err = wire.Err
CLOCK = wire.RecordKind.CLOCK << wire.RECORD_KIND_SHIFT


def level(log: Log) -> int:
    return int(lib.drip_log_level(log.log))


def ripe(floor: int = 0, seed: int = 1) -> tuple[SimCard, Log]:
    """A log that has been full for long."""
    card, log = make(floor=floor)
    fill(log, random.Random(seed), 3000, classes=1)
    assert level(log) > 55000
    return card, log


def mean(values: list[int]) -> float:
    return sum(values) / len(values) / 655.36


@pytest.mark.parametrize("kind", ["even", "bursts", "falling"])
def test_after_twenty_times_its_length_a_log_holds_nearly_the_best(kind):
    _, log = make()
    chance = random.Random(21)
    offered = []
    count = 20 * 512 * BLOCK // 1064
    for number in range(count):
        percentile = chance.randrange(65536)
        if kind == "bursts" and number % 400 < 40:
            percentile = 58000 + chance.randrange(7536)
        if kind == "falling":
            percentile = percentile * (count - number // 2) // count
        offered.append(percentile)
        assert append(log, Frame(percentile, number % 4, bytes(1000))) >= 0
    log.sync()
    kept = [header.percentile for header in contents(log).values()]
    best = sorted(offered)[-len(kept) :]
    assert len(kept) > 150
    assert mean(kept) > (90 if kind != "falling" else 80)
    assert mean(kept) > mean(best) - 4


def test_a_frame_that_is_refused_costs_no_write_and_no_number_and_is_counted():
    card, log = ripe()
    writes, last, before = len(card.writes), log.log.next_seq, evicted(log)
    for _ in range(20):
        result, seq, _ = log.start_append(bytes(1000), percentile=100)
        assert (result, seq) == (REFUSED, 0)
        assert not lib.drip_log_busy(log.log)
    assert (len(card.writes), log.log.next_seq) == (writes, last)
    assert log.log.evicted == evicted(log) == before + 20
    assert log.start_append(bytes(1000), percentile=65535)[0] in (OK, Err.BUSY)


def test_the_frames_that_were_refused_are_in_the_gap_record_of_the_next_eviction():
    _card, log = ripe()
    for _ in range(20):
        assert append(log, Frame(100, 0, bytes(1000))) == 0
    waiting = log.log.gap.evicted
    assert waiting >= 20
    tail = log.tail
    while log.tail == tail:
        assert append(log, Frame(65535, 0, bytes(1000))) > 0
    assert log.log.gap.evicted == 0
    assert evicted(log) == log.log.evicted


def test_what_has_no_score_is_always_taken():
    _card, log = ripe()
    for _ in range(30):
        for fields in (
            {"percentile": 0, "flags": int(wire.Reason.NO_MODEL)},
            {"percentile": 0, "flags": int(wire.Reason.SCHEDULE)},  # and no model's id
            {"percentile": 0, "flags": int(CLOCK)},
        ):
            seq = log.append(bytes(500), **fields)
            if seq == Err.BUSY:
                seq = log.append(bytes(500), **fields)
            assert seq > 0
    scored = {"percentile": 0, "flags": int(wire.Reason.SCHEDULE), "model_id": b"12345678"}
    assert log.append(bytes(500), **scored) == 0


def test_a_class_of_which_the_newest_segment_has_less_than_its_floor_is_taken():
    _card, log = ripe(floor=3)
    tail = log.tail
    while log.tail == tail:
        assert append(log, Frame(65535, 0, bytes(1000))) > 0
    taken = [append(log, Frame(10, 7, bytes(200))) > 0 for _ in range(10)]
    assert taken == [True] * 3 + [False] * 7
    assert append(log, Frame(10, 0, bytes(200))) == 0  # of this class it has enough


def test_a_class_that_ranks_low_is_not_crowded_out():
    for floor in (0, 2):
        _card, log = make(1024, 64, floor=floor)
        chance = random.Random(22)
        for number in range(6000):
            rare = number % 200 == 7
            percentile = chance.randrange(300) if rare else chance.randrange(300, 65536)
            assert append(log, Frame(percentile, 9 if rare else 0, bytes(1000))) >= 0
        log.sync()
        kept = sum(header.class_1 == 9 for header in contents(log).values())
        assert kept >= 20 if floor else kept <= 1


@pytest.mark.parametrize("percentile", [1, 3000])
def test_a_log_never_refuses_for_good(percentile):
    """From one moment on all frames rank low: one in 256 is taken at least, and soon the first."""
    _card, log = ripe()
    assert append(log, Frame(percentile, 0, bytes(1000))) == 0
    taken = refused = 0
    for _ in range(40_000):
        if append(log, Frame(percentile, 0, bytes(1000))) > 0:
            taken += 1
        else:
            refused += 1
        assert refused <= 255 * taken + 65536 // 4
    assert taken > 80


def test_low_frames_that_are_let_in_do_not_push_out_all_good_ones():
    _card, log = ripe()
    good = [h.percentile for h in contents(log).values() if h.percentile > 50000]
    for _ in range(20_000):
        assert append(log, Frame(1000, 0, bytes(1000))) >= 0
    still = [h.percentile for h in contents(log).values() if h.percentile > 50000]
    assert len(still) > 0.75 * len(good)


@pytest.mark.parametrize("floor", [0, 3])
def test_the_random_share_is_thinned_by_lot_and_stays_a_fair_sample(floor):
    _card, log = make(2048, 64, floor=floor)
    chance = random.Random(23)
    for number in range(20_000):
        log.card.time_us += 250_000
        percentile = chance.randrange(65536)
        flags = wire.Reason.RANDOM_SHARE if number % 5 == 0 else wire.Reason.THRESHOLD
        for _ in range(2):
            seq = log.append(
                bytes(1000),
                percentile=percentile,
                flags=int(flags),
                time_us=log.card.time_us,
                class_1=percentile >> 14,
            )
            if seq != Err.BUSY:
                break
        assert seq >= 0
    log.sync()
    kept = contents(log).values()
    fair = [h.percentile for h in kept if h.flags & wire.Reason.RANDOM_SHARE]
    ranked = [h.percentile for h in kept if not h.flags & wire.Reason.RANDOM_SHARE]
    assert floor or mean(ranked) > 90
    # As many as their share, where floors take no room; a mean of 50 within three standard errors.
    assert (0.08 if floor else 0.15) < len(fair) / (len(fair) + len(ranked)) < 0.25
    assert abs(mean(fair) - 50) < 3 * 28.9 / len(fair) ** 0.5


def gap_total(card: SimCard, settings: object) -> int:
    return evicted(Log(SimCard(bytearray(card.data)), settings))


def test_the_level_and_the_count_of_refused_frames_outlive_a_restart():
    card, log = ripe()
    for _ in range(50):
        assert append(log, Frame(100, 0, bytes(1000))) == 0
    before = level(log), evicted(log)
    card.time_us += 11_000_000
    assert lib.drip_log_checkpoint_write(log.log) == OK
    log.drive()
    again = Log(card, log.settings)
    assert before[0] - 64 <= level(again) <= before[0]
    assert evicted(again) == before[1]
    assert append(again, Frame(100, 0, bytes(1000))) == 0


def test_frames_that_a_gap_record_has_counted_are_not_counted_again_after_a_power_loss():
    """The superblock that says so is older than the segment with the GAP record."""
    card, log = ripe()
    for _ in range(50):
        assert append(log, Frame(100, 0, bytes(1000))) == 0
    card.time_us += 11_000_000
    assert lib.drip_log_checkpoint_write(log.log) == OK
    log.drive()
    tail = log.tail
    while log.tail == tail:
        assert append(log, Frame(65535, 0, bytes(1000))) > 0
    log.sync()
    assert log.log.super.next_segment < log.log.next_segment
    assert log.log.gap.evicted == 0
    assert gap_total(card, log.settings) == evicted(log)


def test_a_device_that_restarts_all_the_time_is_not_refused_for_good():
    """So often that no refused frame is ever noted on the card."""
    card, log = ripe()
    for _ in range(1100):
        card.time_us = 0
        log = Log(card, log.settings)
        if append(log, Frame(3000, 0, bytes(1000))) > 0:
            break
    else:
        raise AssertionError("nothing is taken any more")


def test_when_there_is_room_again_everything_is_taken():
    _card, log = ripe()
    assert append(log, Frame(100, 0, bytes(1000))) == 0
    before = evicted(log)
    log.sync()
    first = log.tail // log.segment_bytes
    for segment in range(first, first + 4):
        parsed = parse_segment(log.segments()[segment])
        before -= sum(
            wire.RecordGap.unpack(record.payload).evicted
            for record in parsed.records
            if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
        )
        assert log.ack(segment, parsed.count, parsed.digest) == OK
    for _ in range(40):
        assert append(log, Frame(1, 0, bytes(1000))) > 0
    assert level(log) == 0
    log.sync()
    # What was refused before is told at once, for no eviction comes to do it.
    assert log.log.gap.evicted == 0
    gaps = [
        wire.RecordGap.unpack(record.payload).evicted
        for number, data in log.segments().items()
        for record in parse_segment(data).records
        if number >= first + 4
        and record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
    ]
    assert sum(gaps) == before


def test_other_modes_refuse_nothing():
    card, log = ripe()
    card.time_us += 11_000_000
    assert lib.drip_log_checkpoint_write(log.log) == OK
    log.drive()
    log.settings.full_mode = int(wire.FullMode.OVERWRITE_ACKED)
    log = Log(card, log.settings)
    results = {log.append(bytes(1000), percentile=1) for _ in range(40)}
    assert Err.FULL in results and 0 not in results


def test_a_victim_of_which_nothing_is_worth_its_place_is_freed_without_a_copy():
    card, log = make(1024, 64)
    chance = random.Random(24)
    first = 0
    while log.tail == 0:  # good ones in the first half of the log, then bad ones
        low = log.durable > log.segment_bytes * 8
        percentile = chance.randrange(10, 400) if low else chance.randrange(50000, 65536)
        first += append(log, Frame(percentile, 0, bytes(1000))) > 0
    seen = []
    while log.tail < log.segment_bytes * 14:
        tail, writes, taken = log.tail, len(card.writes), log.log.next_seq
        assert append(log, Frame(65535, 0, bytes(1000))) > 0
        if log.tail > tail:
            seen.append((tail // log.segment_bytes, len(card.writes) - writes))
            assert log.log.next_seq - taken == 2  # the frame, and the GAP record
    costs = [cost for segment, cost in seen if segment >= 9]
    assert len(costs) >= 4
    # The end of the old segment, a header, a GAP record, a superblock, the frame.
    assert max(costs) <= 7
    assert max(cost for segment, cost in seen if segment < 7) > 25


@pytest.mark.parametrize("seed", range(6))
def test_mixed_work_writes_two_blocks_at_most_for_each_new_one(seed):
    """Of what is taken: frames of all sizes, ranks, classes and reasons, and clocks."""
    chance = random.Random(seed)
    card, log = make(1024, 64, floor=chance.choice([0, 1, 3]))
    fill(log, random.Random(25), 600)
    writes = len(card.writes)
    new = refused = 0
    for number in range(3000):
        size = chance.choice([40, 300, 700, 1500, 3000])
        fields: dict[str, object] = {
            "percentile": int(65535 * chance.random() ** chance.choice([0.3, 1, 3])),
            "class_1": min(chance.randrange(70), chance.randrange(70)),
            "time_us": number,
            "flags": int(chance.choice([wire.Reason.THRESHOLD, wire.Reason.RANDOM_SHARE])),
        }
        if number % 40 == 0:
            fields["flags"] = int(CLOCK)
            size = wire.RecordClock.SIZE
        for _ in range(3):
            seq = log.append(chance.randbytes(size), **fields)
            if seq != Err.BUSY:
                break
        assert seq >= 0
        refused += seq == 0
        new += wire.RecordHeader.SIZE + size if seq > 0 else 0
    assert refused > 200
    assert log.tail > 10 * log.segment_bytes
    assert len(card.writes) - writes <= 2 * new / BLOCK


def test_a_frame_is_refused_while_a_superblock_is_written_without_spoiling_it():
    card, log = ripe()
    card.time_us += 11_000_000
    card.polls_busy = 3
    assert lib.drip_log_checkpoint_write(log.log) == OK
    header = ffi.new("drip_record_header_t *")
    header.payload_bytes, header.percentile = 100, 100
    payload = ffi.from_buffer("uint8_t[]", bytes(100))
    answers = []
    for _ in range(6):
        answers.append(lib.drip_log_append(log.log, header, payload))
        lib.drip_log_step(log.log)
    assert answers[0] == Err.BUSY and answers[-1] == REFUSED
    card.polls_busy = 0
    again = Log(SimCard(bytearray(card.data)), log.settings)
    assert again.log.damaged == 0 and again.log.supers == 3
    assert is_frame(next(iter(contents(again).values())))
