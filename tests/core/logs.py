"""A log on a simulated card, and what is in it."""

from __future__ import annotations

import random

from cardsim import BLOCK, OK, Log, SimCard, format_card

from drip import wire
from drip.records import is_frame, parse_segment

UUID = bytes(range(16))
Err = wire.Err


def make(
    blocks: int = 128, *, settings: object | None = None, **geometry: int
) -> tuple[SimCard, Log]:
    card = SimCard(bytearray(blocks * BLOCK))
    assert format_card(card, **geometry) == OK
    log = Log(card, settings)
    assert log.state == wire.CardState.READY
    return card, log


def records_of(log: Log) -> list[tuple[int, bytes]]:
    found = []
    for data in log.segments().values():
        parsed = parse_segment(data)
        assert not parsed.damage
        found += [
            (record.header.seq, record.payload)
            for record in parsed.records
            if is_frame(record.header)
        ]
    return found


def payload_of(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def later(log: Log) -> None:
    """Time for a superblock."""
    log.card.time_us += 10_000_000
    log.drive()


def ack_of(log: Log, segment: int) -> tuple[int, int, int]:
    parsed = parse_segment(log.segments()[segment])
    return segment, parsed.count, parsed.digest
