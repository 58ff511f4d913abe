"""A card that is absent, wrong, fragmented or write-protected: reported, and recovered from."""

from __future__ import annotations

import random

import pytest
from cardsim import BLOCK, SimCard
from device_board import DeviceBoard, digits_model, feed_body, new_card
from test_volume import fat_volume, image, put

from drip import wire
from drip.wire import CardState, Err, FrameType

FRAMES = [bytes(byte % 17 for byte in random.Random(n).randbytes(64)) for n in range(8)]
KEEP = {"policy_kind": wire.PolicyKind.ALL, "commit_ms": 0}


def board(card: SimCard) -> DeviceBoard:
    device = DeviceBoard(card=card, model=digits_model())
    device.hello()
    assert device.config(**KEEP) == 0
    return device


@pytest.fixture(scope="module")
def fragmented(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("card") / "card.img"
    fat_volume(path, "fat16", 16 << 20)
    put(path, "DRIP00.LOG", bytes(1 << 20))
    put(path, "between", bytes(5000))
    put(path, "DRIP01.LOG", bytes(1 << 20))
    return path.read_bytes()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("card") / "card.img"
    fat_volume(path, "fat16", 16 << 20)
    return path.read_bytes()


@pytest.mark.parametrize("state", ["ABSENT", "FOREIGN", "FRAGMENTED", "PROTECTED", "ERROR"])
def test_scores_go_on_and_a_good_card_is_taken_when_it_appears(state, fragmented, empty):
    good = image("fat16", 16 << 20)
    data = {"FOREIGN": empty, "FRAGMENTED": fragmented}.get(state, good)
    card = SimCard(bytearray(data))
    card.absent, card.protected = state == "ABSENT", state == "PROTECTED"
    if state == "ERROR":
        card.read_errors = set(range(1, card.blocks))
    device = board(card)
    for round_ in range(3):
        for frame in FRAMES[:2]:
            result = device.feed(frame)
            # Chosen, but not stored.
            assert (result.keep, result.reason) == (0, wire.Reason.SCHEDULE)
            assert device.feed(frame, kind=FrameType.SCORE).percentile == result.percentile
        device.wait(1.1)
        status = device.status()
        assert status.card_state == CardState[state]
        assert status.frames_seen == status.frames_dropped_card == 2 * (round_ + 1)
        assert status.frames_kept == 0
        assert device.code(FrameType.SYNC) < 0
    assert card.writes == []
    assert bytes(card.data) == data
    card.data[:] = good
    card.absent = card.protected = False
    card.read_errors = set()
    device.wait(1.5)
    assert device.status().card_state == CardState.READY
    for frame in FRAMES:
        assert device.feed(frame).keep == 1
    status = device.status()
    assert (status.frames_kept, status.frames_dropped_card) == (8, 6)


def test_a_card_that_is_swapped_for_another_is_looked_at_anew():
    card = SimCard(bytearray(image("fat16", 16 << 20)))
    device = board(card)
    device.feed(FRAMES[0])
    first = device.hello().log_uuid
    card.absent = True
    assert device.feed(FRAMES[1]).keep in (0, 1)
    device.wait(1.5)
    assert device.status().card_state == CardState.ABSENT
    other = image("exfat", 16 << 20)
    card.data[:] = other
    card.absent = False
    card.writes.clear()
    device.wait(1.5)
    assert device.status().card_state == CardState.READY
    assert device.hello().log_uuid != first
    place = device.device.volume
    inside = set(range(place.first_block, place.first_block + place.blocks))
    assert {block for block, _ in card.writes} <= inside


def test_a_card_that_takes_long_to_read_does_not_hold_up_answers():
    """A frame waits one second for a card; then it is scored, answered and counted."""
    card = SimCard(bytearray(image("fat32", 40 << 20)))
    # Ten milliseconds per block: the chain takes several seconds.
    card.polls_busy = 40
    device = DeviceBoard(card=card, model=digits_model())
    hello = wire.HelloRequest(size=16, version=1, protocol=1, schema_hash=wire.SCHEMA_HASH)
    device.post(FrameType.HELLO, hello.pack())
    item = wire.ConfigItem(key=wire.Config.POLICY_KIND, length=4, value=wire.PolicyKind.ALL)
    device.post(FrameType.CONFIG_SET, item.pack())
    device.post(FrameType.FEED, feed_body(FRAMES[0]))
    device.wait(1.2)
    fed = [item for item in device.answers() if item.type == FrameType.FEED | wire.RESPONSE]
    assert [wire.Result.unpack(item.body, 4).keep for item in fed] == [0]
    device.post(FrameType.STATUS)
    device.wait(0.1)
    status = wire.Status.unpack(device.answers()[-1].body, 4)
    assert (status.card_state, status.frames_dropped_card) == (CardState.MOUNTING, 1)
    device.wait(20)
    device.post(FrameType.FEED, feed_body(FRAMES[1], token=2))
    device.wait(1)
    assert wire.Result.unpack(device.answers()[-1].body, 4).keep == 1


def test_reports_name_the_state_in_an_event():
    card = SimCard(bytearray(image("fat16", 16 << 20)), protected=True)
    device = DeviceBoard(card=card, model=digits_model())
    device.hello()
    body = wire.ConfigItem(key=wire.Config.EVENTS, length=4, value=1).pack()
    assert device.code(FrameType.CONFIG_SET, body) == 0
    card.protected = False
    device.wait(1.5)
    events = [frame for frame in device.answers() if frame.type == FrameType.EVENT]
    states = [
        found.state
        for found in (wire.EventState.unpack(frame.body) for frame in events)
        if found.kind == wire.Event.CARD
    ]
    assert states[-1] == CardState.READY


def test_an_image_without_a_volume_still_works():
    card = new_card()
    device = board(card)
    assert device.feed(FRAMES[0]).keep == 1
    assert device.status().card_state == CardState.READY
    assert len(card.data) == card.blocks * BLOCK
    assert device.code(FrameType.SYNC) == Err.OK


def test_a_card_that_becomes_protected_while_it_records():
    """What could not be written is counted, scores go on, and recording when the switch is back."""
    card = new_card()
    device = board(card)
    kept = [device.feed(frame) for frame in FRAMES[:2]]
    assert device.code(FrameType.SYNC) == Err.OK
    card.protected = True
    for frame in FRAMES[2:6]:
        fed = device.feed(frame)
        scored = device.feed(frame, kind=FrameType.SCORE)
        assert (scored.raw_score, scored.class_1) == (fed.raw_score, fed.class_1)
        assert fed.reason == wire.Reason.SCHEDULE
    device.wait(1.5)
    status = device.status()
    assert status.card_state == CardState.PROTECTED
    assert (status.frames_seen, status.frames_kept, status.frames_dropped_card) == (6, 2, 4)
    card.protected = False
    device.wait(1.5)
    assert device.status().card_state == CardState.READY
    later = device.feed(FRAMES[6])
    assert later.keep == 1 and later.seq > max(result.seq for result in kept)
    assert device.code(FrameType.SYNC) == Err.OK
    status = device.status()
    assert (status.frames_seen, status.frames_kept, status.frames_dropped_card) == (7, 3, 4)
