"""Mounting without superblocks: the newest segment and its last mark are found by halving."""

from __future__ import annotations

import random

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config, format_card

from drip import wire
from drip.records import is_frame, parse_segment

SEGMENT_BLOCKS = 256
MARKS = SEGMENT_BLOCKS // wire.MARK_BLOCKS


def recorded(bytes_in_last: int) -> tuple[SimCard, dict[int, bytes]]:
    """A log of six segments, the last one filled so far, without its superblocks."""
    chance = random.Random(bytes_in_last)
    card = SimCard(bytearray(8 * SEGMENT_BLOCKS * BLOCK))
    assert format_card(card, segment_blocks=SEGMENT_BLOCKS) == OK
    log = Log(card, config())
    given: dict[int, bytes] = {}
    while log.durable < 5 * log.segment_bytes + bytes_in_last:
        payload = chance.randbytes(chance.choice([100, 900, 3000]))
        given[log.append(payload)] = payload
        if chance.random() < 0.3:
            log.sync()
    log.sync()
    card.data[:BLOCK] = card.data[-BLOCK:] = bytes(BLOCK)
    return card, given


def contents(log: Log) -> dict[int, bytes]:
    return {
        record.header.seq: record.payload
        for data in log.segments().values()
        for record in parse_segment(data).records
        if is_frame(record.header)
    }


@pytest.mark.parametrize("filled", [2, 31, 33, 63, 64, 100, 127, 160, 200, 250])
def test_all_is_found_again_and_recording_goes_on(filled):
    card, given = recorded(filled * BLOCK)
    log = Log(card, config())
    assert log.state == wire.CardState.READY
    assert contents(log) == given
    seq = log.append(b"more")
    assert seq > max(given) and log.sync() == OK
    assert contents(Log(SimCard(bytearray(card.data)), config())) == given | {seq: b"more"}


@pytest.mark.parametrize("mark", range(1, MARKS))
def test_a_damaged_mark_has_nothing_written_over(mark):
    """Halving ends in front of it, where records reach its place: the segment is closed."""
    card, given = recorded(230 * BLOCK)
    log = Log(SimCard(bytearray(card.data)), config())
    first = log.log.super.data_block + 5 * SEGMENT_BLOCKS
    at = (first + mark * wire.MARK_BLOCKS) * BLOCK
    card.data[at : at + wire.LogMark.SIZE] = bytes(wire.LogMark.SIZE)
    log = Log(card, config())
    assert contents(log) == given
    seq = log.append(b"more")
    assert seq > max(given) and log.sync() == OK
    assert contents(log) == given | {seq: b"more"}
