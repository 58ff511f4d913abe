"""What a log frees and when: acknowledgements, superblocks, and what it says when it is full."""

from __future__ import annotations

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config
from logs import ack_of, later, make, payload_of, records_of

from drip import wire
from drip.records import parse_segment

Err = wire.Err


def supers_since(card: SimCard, before: int) -> int:
    return sum(block in (0, card.blocks - 1) for block, _ in card.writes[before:])


def test_superblocks_are_ten_seconds_apart_and_never_more_than_segments():
    card, log = make(512)
    before = len(card.writes)
    for number in range(20):
        log.append(bytes(3000))
        assert log.log.next_segment == number + 1
    assert supers_since(card, before) == 0, "no time has passed"
    for number in range(20):
        card.time_us += 9_999_999
        log.append(bytes(3000))
        assert supers_since(card, before) == (number + 1) // 2
    before = len(card.writes)
    card.time_us += 3_600_000_000
    log.drive()
    log.sync()
    assert supers_since(card, before) == 1, "the last segments are noted"
    card.time_us += 3_600_000_000
    log.drive()
    assert supers_since(card, before) == 1, "nothing new to note"


def test_numbers_that_are_used_up_are_reserved_in_time():
    card, log = make(512)
    before = len(card.writes)
    while log.append(bytes(3000)) > 0:
        assert log.log.next_seq < wire.Superblock.unpack(newest_super(card)).next_seq
    assert supers_since(card, before) <= log.log.next_segment // 32 + 1


def newest_super(card: SimCard) -> bytes:
    found = [bytes(card.data[:BLOCK]), bytes(card.data[-BLOCK:])]
    return max(found, key=lambda data: wire.Superblock.unpack(data).generation)


def test_acknowledgements_wait_for_a_superblock_and_so_does_their_space():
    card, log = make(segment_blocks=8)
    while log.append(bytes(3000)) > 0:
        pass
    log.sync()
    for segment in range(3):
        before = len(card.writes)
        assert log.ack(*ack_of(log, segment)) == OK
        assert len(card.writes) == before
    assert log.acked == 3 * log.segment_bytes
    assert Log(SimCard(bytearray(card.data))).acked == 0, "forgotten: the host is asked again"
    assert log.append(bytes(3000)) > 0
    blocks = [block for block, _ in card.writes[before:]]
    assert blocks[0] in (0, card.blocks - 1), "first the superblock that frees the space"
    assert supers_since(card, before) == 1
    for _ in range(2):
        assert log.append(bytes(3000)) > 0
    assert supers_since(card, before) == 1, "it has freed all three"
    assert Log(SimCard(bytearray(card.data))).acked == 3 * log.segment_bytes
    assert log.ack(*ack_of(log, 3)) == OK
    before = len(card.writes)
    card.time_us += 10_000_000
    log.drive()
    assert supers_since(card, before) == 1
    assert Log(card).acked == 4 * log.segment_bytes


def test_overwrite_acked_reuses_acknowledged_segments_only():
    card, log = make(segment_blocks=8)
    count = log.log.super.segment_count
    assert count == 15
    seqs = []
    while (seq := log.append(payload_of(len(seqs), 1000))) > 0:
        seqs.append(seq)
    assert seq == Err.FULL and log.state == wire.CardState.FULL
    log.sync()
    assert [number for number, _ in records_of(log)] == seqs
    assert log.ack(*ack_of(log, 0)) == OK
    assert (log.acked, log.tail) == (log.segment_bytes, 0)
    added = log.append(b"new")
    log.sync()
    assert added == seqs[-1] + 1
    assert log.state == wire.CardState.READY
    assert (log.tail, log.durable) == (log.segment_bytes, count * log.segment_bytes + 2 * BLOCK)
    assert log.read(0) == Err.GONE
    per_segment = 3
    assert [number for number, _ in records_of(log)] == [*seqs[per_segment:], added]
    again = Log(card)
    assert (again.tail, again.durable, again.acked) == (log.tail, log.durable, log.acked)
    assert records_of(again) == records_of(log)


def gaps_of(log: Log) -> list[wire.RecordGap]:
    return [
        wire.RecordGap.unpack(record.payload)
        for data in log.segments().values()
        for record in parse_segment(data).records
        if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
    ]


def test_the_log_says_what_is_not_in_it():
    card, log = make(segment_blocks=8)
    while log.append(bytes(1000)) > 0:
        pass
    card.time_us = 5_000
    assert log.append(bytes(1000)) == Err.FULL
    assert log.append(bytes(1000)) == Err.FULL
    log.sync()
    assert log.ack(*ack_of(log, 0)) == OK
    card.time_us = 9_000
    assert log.append(b"after the gap") > 0
    log.sync()
    (gap,) = gaps_of(log)
    assert (gap.full, gap.card, gap.damaged) == (3, 0, 0)
    assert (gap.first_us, gap.last_us) == (5_000, 9_000)
    card.absent = True
    log.append(b"lost")
    log.append(b"lost, too")
    log.sync()
    card.absent = False
    assert log.mount() == wire.CardState.READY
    assert log.append(b"again") > 0
    log.sync()
    assert [(gap.full, gap.card) for gap in gaps_of(log)] == [(3, 0), (0, 2)]


def full_log(size: int) -> tuple[SimCard, Log]:
    """A log in mode STOP with records of a size, and two more refused at 5 ms."""
    card, log = make(segment_blocks=8, settings=config(full_mode=wire.FullMode.STOP))
    while log.append(bytes([7]) * size) > 0:
        pass
    card.time_us = 5_000
    assert log.append(bytes(size)) == Err.FULL
    return card, log


def test_a_sync_tells_what_a_full_log_has_refused():
    """Else a power loss would take it: the counts wait in memory for the next record."""
    card, log = full_log(900)
    log.sync()
    there = records_of(log)
    assert log.state == wire.CardState.FULL
    (gap,) = gaps_of(Log(SimCard(bytearray(card.data)), log.settings))
    assert gap.full == 2
    writes = len(card.writes)
    log.sync()
    assert len(card.writes) == writes, "it was told"
    assert log.append(bytes(900)) == Err.FULL
    assert records_of(log) == there


@pytest.mark.parametrize("flushing", [True, False])
def test_what_a_full_log_has_refused_is_written_over_nothing(flushing):
    """There is room for it in the block that is being written, and none behind that."""
    card, log = make(segment_blocks=8)
    seqs = []
    while True:
        result, seq, keep = log.start_append(payload_of(len(seqs), 1000))
        if result != OK:
            break
        log.drive()
        seqs.append(seq)
    assert result == Err.FULL and log.pending > 0
    if not flushing:
        log.drive()
    assert log.sync() == OK
    del keep
    assert (log.state, log.pending, log.log.gap.full) == (wire.CardState.FULL, 0, 1)
    again = Log(SimCard(bytearray(card.data)), log.settings)
    assert [number for number, _ in records_of(again)] == seqs


def test_a_record_of_what_is_missing_names_its_boot():
    card, log = make(segment_blocks=8)
    log.append(b"lost")
    card.absent = True
    log.sync()
    card.absent = False
    assert log.mount() == wire.CardState.READY
    log.sync()
    (record,) = [
        record for data in log.segments().values() for record in parse_segment(data).records
    ]
    assert wire.RecordGap.unpack(record.payload).card == 1
    assert record.header.boot_id == log.log.boot_id == 2


def test_stop_mode_keeps_even_what_is_acknowledged():
    _, log = make(settings=config(full_mode=wire.FullMode.STOP))
    while log.append(bytes(1000)) > 0:
        pass
    log.sync()
    for segment in range(3):
        assert log.ack(*ack_of(log, segment)) == OK
    assert log.append(bytes(1000)) == Err.FULL
    assert log.tail == 0


def test_acknowledgements_come_in_order_with_the_right_digest():
    card, log = make()
    for number in range(10):
        log.append(payload_of(number, 1000))
    log.sync()
    first = ack_of(log, 0)
    assert log.ack(*ack_of(log, 1)) == Err.STATE
    assert log.ack(first[0], first[1] + 1, first[2]) == Err.DIGEST
    assert log.ack(first[0], first[1], first[2] ^ 1) == Err.DIGEST
    assert log.acked == 0
    assert log.ack(*first) == OK
    assert log.acked == log.segment_bytes
    assert log.ack(0, 99, 99) == OK, "repeating is harmless"
    assert log.ack(99, 0, 0) == Err.STATE
    later(log)
    assert Log(card).acked == log.segment_bytes


def test_acknowledging_the_open_segment_closes_it():
    card, log = make()
    log.append(b"first")
    log.sync()
    stale = ack_of(log, 0)
    log.append(b"second")
    assert log.ack(*stale) == Err.DIGEST, "there is more in it by now"
    assert log.pending == 0
    assert log.ack(*ack_of(log, 0)) == OK
    assert log.acked == log.durable == log.segment_bytes
    assert log.read(log.durable) == Err.RANGE
    later(log)
    assert Log(card).durable == log.durable
    assert log.append(b"third") == 3
    log.sync()
    assert parse_segment(log.segments()[1]).records[0].payload == b"third"
