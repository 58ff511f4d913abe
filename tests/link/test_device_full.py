"""A device whose log is full and evicts: what it answers for a frame that the log does not take."""

from __future__ import annotations

import random

from cardsim import SimCard, format_card
from device_board import DeviceBoard, digits_model

from drip import wire
from drip.wire import FrameType, FullMode


def test_a_frame_that_ranks_too_low_for_a_full_log_is_answered_as_unimportant():
    card = SimCard(bytearray(64 * 512))
    assert format_card(card, segment_blocks=8) == 0
    device = DeviceBoard(card=card, model=digits_model())
    device.hello()
    settings = {"policy_kind": wire.PolicyKind.ALL, "score_kind": wire.ScoreKind.RANDOM}
    assert device.config(**settings, full_mode=FullMode.EVICT, class_floor=0) == 0
    chance = random.Random(1)
    refused = []
    for number in range(600):
        result = device.feed(bytes(chance.choices(range(17), k=64)), token=number)
        if not result.keep:
            refused.append(result)
    assert len(refused) > 30
    for result in refused:
        assert (result.drop, result.reason) == (wire.Drop.SCORE, 0)
        assert result.percentile < result.threshold
    status = device.status()
    assert status.frames_seen == 600
    assert status.frames_dropped_policy == len(refused)
    assert status.frames_kept == 600 - len(refused)
    assert status.frames_dropped_card == 0
    assert status.records_evicted > len(refused)
    assert device.code(FrameType.SYNC) == 0
