"""What is missing in a log is on the card before power is switched off, without another frame."""

from __future__ import annotations

import random

import pytest
from cardsim import Log, SimCard, format_card
from device_board import DeviceBoard, digits_model, new_card
from drip._core import ffi, lib

from drip import wire
from drip.records import parse_segment
from drip.wire import CardState, FrameType, FullMode

FRAMES = [bytes(byte % 17 for byte in random.Random(n).randbytes(64)) for n in range(3)]


def told(card: SimCard, count: str = "card") -> list[int]:
    """A count of the GAP records on a card: of frames that it did not take, or others."""
    log = Log(SimCard(bytearray(card.data)))
    return [
        getattr(wire.RecordGap.unpack(record.payload), count)
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


def start(card: SimCard, mode: FullMode) -> DeviceBoard:
    device = DeviceBoard(card=card, model=digits_model())
    device.hello()
    settings = {"policy_kind": wire.PolicyKind.ALL, "redundancy": 0, "commit_ms": 500}
    assert device.config(**settings, full_mode=mode) == 0
    device.wait(1.2)
    return device


@pytest.mark.parametrize("mode", [FullMode.STOP, FullMode.OVERWRITE_ACKED])
def test_frames_that_a_full_log_refused_minutes_before_a_power_loss_are_told(mode):
    """The log is full to its last block, and the only room for the number is a superblock."""
    card = SimCard(bytearray(64 * 512))
    assert format_card(card, segment_blocks=8) == 0
    device = start(card, mode)
    while device.feed(FRAMES[0]).keep == 1 and device.status().card_state != CardState.FULL:
        device.wait(0.6)  # one in a block
    device.wait(61)  # full: a checkpoint
    before = device.status().frames_dropped_card
    for number in range(23):
        device.feed(FRAMES[number % 3])
    refused = device.status().frames_dropped_card
    assert refused == before + 23
    supers = sum(block in (0, 63) for block, _ in card.writes)
    device.wait(125)
    written = [block for block, _ in card.writes]
    assert 2 <= sum(block in (0, 63) for block in written) - supers <= 12, "10 to 60 s apart"
    assert told(card, "full") == []
    for _ in range(2):  # power fails twice
        card = SimCard(bytearray(card.data))
        device = start(card, FullMode.OVERWRITE_ACKED)
    assert device.status().card_state in (CardState.READY, CardState.FULL)
    log = Log(SimCard(bytearray(card.data)))
    parsed = parse_segment(log.segments()[0])
    ack = wire.Ack(segment=0, records=parsed.count, digest=parsed.digest)
    assert device.code(FrameType.ACK, ack.pack()) == 0
    assert device.feed(FRAMES[1]).keep == 1
    assert device.code(FrameType.SYNC) == 0
    assert told(card, "full") == [refused]
