"""One read of a card goes wrong, each in turn, in recording, pulling, evicting and mounting."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config, format_card
from drip._core import ffi

from drip.errors import CardError
from drip.records import is_frame, parse_segment
from drip.wire import Err, FullMode


@dataclass
class FaultyCard(SimCard):
    """A card of which one read goes wrong.

    Attributes:
        fault_at: Which, as they are counted here.
        fault: "bit", "short" (the end is missing, and nothing says so) or "error".
        done: Reads so far.
    """

    fault_at: int = -1
    fault: str = "bit"
    done: int = field(default=0)

    def _poll(self, context: object) -> int:
        transfer = self._transfer
        result = super()._poll(context)
        if result != OK or transfer is None or transfer[0] != "read":
            return result
        self.done += 1
        if self.done - 1 != self.fault_at:
            return OK
        if self.fault == "error":
            return int(Err.IO)
        view = ffi.buffer(ffi.cast("uint8_t *", transfer[2]), transfer[3] * BLOCK)
        where = random.Random(self.fault_at).randrange(len(view))
        if self.fault == "bit":
            view[where : where + 1] = bytes([view[where][0] ^ 4])
        else:
            view[where:] = b"\xff" * (len(view) - where)
        return OK


def payload_of(number: int) -> bytes:
    chance = random.Random(number)
    return chance.randbytes(chance.choice([60, 700, 1500]))


def held(log: Log) -> dict[int, bytes]:
    """Frames by sequence number; a read that fails is repeated."""
    found: dict[int, bytes] = {}
    position, data = log.tail, b""
    while position < log.durable:
        chunk = log.read(position, 8 * BLOCK)
        assert chunk == Err.IO or isinstance(chunk, bytes)
        if isinstance(chunk, bytes):
            position, data = position + len(chunk), data + chunk
        if position % log.segment_bytes == 0 or position >= log.durable:
            try:
                records = parse_segment(data).records
            except CardError:
                records = ()
            for record in records:
                if is_frame(record.header):
                    assert record.header.seq not in found, "twice"
                    found[record.header.seq] = record.payload
            data = b""
    return found


def append(log: Log, number: int) -> int:
    """A device's part: asks again, and mounts again when the card has failed."""
    for _ in range(10):
        seq = log.append(payload_of(number), percentile=number * 40503 & 0xFFFF)
        if seq >= 0 or seq == Err.FULL:
            return seq
        if seq != Err.BUSY:
            log.card.time_us += 1_000_000
            log.mount()
    raise AssertionError("the log never goes on")


def work(mode: FullMode, at: int, fault: str) -> tuple[int, dict[int, int], Log]:
    """Reads, numbers of the frames that became durable by sequence number, and the log."""
    card = FaultyCard(bytearray(72 * BLOCK), fault_at=at, fault=fault)
    assert format_card(card, segment_blocks=8) == OK
    card.done = 0
    log = Log(card, config(full_mode=mode))
    durable: dict[int, int] = {}
    for number in range(40):
        seq = append(log, number)
        if seq == Err.FULL:
            break
        if seq > 0 and log.sync() == OK and log.pending == 0:
            durable[seq] = number
        if number % 9 == 5:
            held(log)
        if number == 20:
            log.mount()
    held(log)
    return card.done, durable, log


def lost(durable: dict[int, int], log: Log, where: object = None) -> int:
    """Frames that were durable, are gone and were not evicted; those there are as given."""
    found = held(Log(SimCard(bytearray(log.card.data)), log.settings))
    for seq, payload in found.items():
        assert seq not in durable or payload == payload_of(durable[seq]), (where, seq)
    return len(set(durable) - set(found)) - log.log.evicted


@pytest.mark.parametrize("fault", ["bit", "short", "error"])
@pytest.mark.parametrize("mode", [FullMode.STOP, FullMode.EVICT])
def test_one_read_that_goes_wrong_costs_what_it_touches(mode, fault):
    reads, durable, log = work(mode, -1, fault)
    assert reads > 100 and len(durable) > 15
    assert (log.log.evicted > 5) == (mode == FullMode.EVICT)
    # Frames that are refused count as evicted and were never durable.
    least = lost(durable, log)
    for at in range(reads):
        _, durable, log = work(mode, at, fault)
        # Evicting, a block that is read wrong is of two records at most.
        assert lost(durable, log, at) <= least + (2 if mode == FullMode.EVICT else 0), at
