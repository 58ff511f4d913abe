"""A device whose log evicts: what STATUS says of it, and the floor of the classes."""

from __future__ import annotations

import random

from cardsim import SimCard, format_card
from device_board import DeviceBoard, new_card
from flash_model import Flash

from drip import wire
from drip.records import is_frame, parse_segment
from drip.wire import FrameType, FullMode

FRAMES = 120
KEEP_ALL = wire.PolicyKind.ALL


def small_card() -> SimCard:
    card = SimCard(bytearray(128 * 512))
    assert format_card(card, segment_blocks=16) == 0
    return card


def read_log(device: DeviceBoard) -> tuple[int, int]:
    """Frames in the log, and the records that were evicted, as its GAP records say."""
    status = device.status()
    size = 16 * 512
    frames = evicted = 0
    for base in range(status.log_tail, status.log_durable, size):
        data = b""
        while len(data) < size and base + len(data) < status.log_durable:
            request = wire.ReadRequest(position=base + len(data), size=1024).pack()
            answer = device.ask(FrameType.READ, request)
            data += answer[wire.ReadResponse.SIZE :]
        for record in parse_segment(data).records:
            frames += is_frame(record.header)
            if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP:
                evicted += wire.RecordGap.unpack(record.payload).evicted
    return frames, evicted


def test_status_counts_what_was_evicted_over_removals_of_the_card_too():
    device = DeviceBoard(card=small_card())
    device.run()
    device.hello()
    assert device.config(policy_kind=KEEP_ALL, full_mode=FullMode.EVICT) == 0
    assert device.status().records_evicted == 0
    for number in range(FRAMES):
        assert device.feed(random.Random(number).randbytes(1000), token=number).keep == 1
    assert device.code(FrameType.SYNC) == 0
    frames, evicted = read_log(device)
    assert device.status().records_evicted == evicted == FRAMES - frames > 10
    device.card.absent = True
    device.wait(1.5)
    assert device.status().records_evicted == evicted
    device.card.absent = False
    device.wait(2.5)
    assert device.status().card_state == wire.CardState.READY
    assert device.status().records_evicted == evicted


def test_status_says_what_the_mount_could_not_use():
    card = new_card()
    DeviceBoard(card=card).run()
    device = DeviceBoard(card=card)
    device.run()
    assert device.status().log_damaged == 0
    card.data[:512] = bytes(512)
    device.boot()
    device.run()
    device.hello()
    assert (device.status().card_state, device.status().log_damaged) == (wire.CardState.READY, 1)


def test_the_floor_of_the_classes_is_a_setting_that_reaches_the_log_and_is_kept():
    flash = Flash(slot_bytes=32768, journal_bytes=512)
    device = DeviceBoard(card=new_card(), flash=flash)
    device.run()
    device.hello()
    assert device.device.log.config.class_floor == 2
    assert device.config(class_floor=7) == 0
    assert device.device.log.config.class_floor == 7
    device.boot()
    device.run()
    assert device.device.log.config.class_floor == 7
