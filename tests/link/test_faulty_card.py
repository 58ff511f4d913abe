"""One write of a device's card goes wrong, each in turn: the device says so and goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from cardsim import BLOCK, OK, Log, SimCard, format_card
from device_board import DeviceBoard, digits_model
from drip._core import ffi

from drip import wire
from drip.records import is_frame, parse_segment
from drip.wire import CardState, Err, FrameType

FRAMES = [bytes(byte % 17 for byte in random.Random(n).randbytes(64)) for n in range(60)]
STATES = {"absent": CardState.ABSENT, "protected": CardState.PROTECTED}
CODES = {"absent": Err.NO_CARD, "protected": Err.PROTECTED, "timeout": Err.TIMEOUT}


@dataclass
class FaultyCard(SimCard):
    """A card of which one write goes wrong.

    Attributes:
        fault_at: Which, as they are counted here.
        fault: "nothing" or "whole" of it is done and an error follows; or why it fails.
        done: Writes so far.
    """

    fault_at: int = -1
    fault: str = "nothing"
    done: int = 0

    def _poll(self, context: object) -> int:
        transfer = self._transfer
        if transfer is None or transfer[0] != "write" or self._busy or self.absent:
            return super()._poll(context)
        self.done += 1
        if self.done - 1 != self.fault_at:
            return super()._poll(context)
        if self.fault == "whole":
            super()._poll(context)
        if self.fault == "torn":
            _, block, data, count = transfer
            view = bytes(ffi.buffer(ffi.cast("uint8_t *", data), count * BLOCK))
            self.data[block * BLOCK : block * BLOCK + 200] = view[:200]
        self._transfer = None
        self.absent = self.fault == "absent"
        self.protected = self.fault == "protected"
        return int(CODES.get(self.fault, Err.IO))


def held(card: SimCard) -> set[bytes]:
    log = Log(SimCard(bytearray(card.data)))
    records = [
        record
        for data in log.segments().values()
        for record in parse_segment(data).records
        if is_frame(record.header)
    ]
    numbers = [record.header.seq for record in records]
    assert numbers == sorted(set(numbers)), "in order, nothing twice"
    assert {record.payload for record in records} <= set(FRAMES), "invented"
    return {record.payload for record in records}


def work(at: int, fault: str) -> FaultyCard:
    """Record, sync, and look; what a sync was OK for is on the card in the end."""
    card = FaultyCard(bytearray(256 * BLOCK), fault=fault)
    assert format_card(card, segment_blocks=8) == OK
    card.done, card.fault_at = 0, at
    device = DeviceBoard(card=card, model=digits_model())
    device.wait(0.01)
    device.hello()
    assert device.config(policy_kind=wire.PolicyKind.ALL, commit_ms=1_000_000) == 0
    stored: set[bytes] = set()
    waiting: list[bytes] = []
    failed = 0
    boot = device.status().boot_id
    for number, frame in enumerate(FRAMES):
        if device.feed(frame).keep:
            waiting.append(frame)
        synced = number % 3 == 2 and device.code(FrameType.SYNC) == 0
        status = device.status()
        if status.boot_id != boot:
            waiting.clear()  # mounted again, it counts what was pending as lost
            boot = status.boot_id
        if synced:
            stored.update(waiting)
        if number % 3 == 2:
            waiting.clear()
        if status.card_state != CardState.READY:
            failed += 1
            waiting.clear()
            assert status.card_state == STATES.get(fault, CardState.ERROR)
            # None while it is looked at again.
            assert status.last_error in (0, CODES.get(fault, Err.IO))
            card.absent = card.protected = False
            device.wait(1.2)
            assert device.status().card_state == CardState.READY, "it comes back by itself"
        device.wait(0.5)  # a superblock now and then
    card.absent = card.protected = False
    device.wait(1.5)
    assert device.code(FrameType.SYNC) == 0
    status = device.status()
    found = held(card)
    assert stored <= found
    assert failed <= 1
    assert status.frames_seen == len(FRAMES) == status.frames_kept + status.frames_dropped_card
    # In doubt is what failed: it counts as lost, and may be there.
    assert len(found) - 3 <= status.frames_kept <= len(found)
    if at < 0:
        assert found == stored == set(FRAMES)
    else:
        assert len(found) >= len(FRAMES) - 3 and len(stored) >= len(FRAMES) - 6
        assert status.card_errors >= 1
    return card


@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.slow), 7], ids=["every", "sample"]
)
@pytest.mark.parametrize("fault", ["nothing", "whole", "torn", "absent", "protected", "timeout"])
def test_a_write_that_fails_is_reported_and_recovered_from(fault, stride):
    writes = work(-1, fault).done
    assert writes > 20
    for at in range(len(fault) % stride, writes, stride):
        assert work(at, fault).done > at
