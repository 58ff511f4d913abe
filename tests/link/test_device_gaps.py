"""What is missing in a log is on the card before power is switched off, without another frame."""

from __future__ import annotations

import random

import pytest
from cardsim import Log, SimCard
from device_board import DeviceBoard, digits_model, new_card
from drip._core import ffi, lib

from drip import wire
from drip.records import parse_segment
from drip.wire import CardState, FrameType

FRAMES = [bytes(byte % 17 for byte in random.Random(n).randbytes(64)) for n in range(3)]


def told(card: SimCard) -> list[int]:
    """What the GAP records on a card count as not taken by it."""
    log = Log(SimCard(bytearray(card.data)))
    return [
        wire.RecordGap.unpack(record.payload).card
        for data in log.segments().values()
        for record in parse_segment(data).records
        if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
    ]


def restart(device: DeviceBoard) -> None:
    device.post(FrameType.RESET)
    device.wait(0.2)
    assert device.resets == 1


def sleep(device: DeviceBoard) -> None:
    out = ffi.new("uint8_t[]", wire.DeviceState.SIZE)
    for _ in range(100):
        if lib.drip_device_save(device.device, out) == wire.DeviceState.SIZE:
            return
        device.run()
    raise AssertionError("never saved")


def ask(device: DeviceBoard) -> None:
    assert device.code(FrameType.SYNC) == 0
    device.run()


def wait(device: DeviceBoard) -> None:
    """A checkpoint is written ten seconds after the superblock of the mount."""
    device.wait(10.5)


@pytest.mark.parametrize("end", [restart, sleep, ask, wait])
def test_frames_that_a_card_has_lost_are_told(end):
    card = new_card()
    device = DeviceBoard(card=card, model=digits_model())
    device.hello()
    assert device.config(policy_kind=wire.PolicyKind.ALL, commit_ms=500) == 0
    for frame in FRAMES:
        assert device.feed(frame).keep == 1
    card.absent = True
    device.wait(1)
    assert device.status().card_state == CardState.ABSENT
    card.absent = False
    device.wait(1.2)
    assert device.status().card_state == CardState.READY
    assert told(card) == []
    end(device)
    assert told(card) == [len(FRAMES)]
