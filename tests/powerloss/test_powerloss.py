"""What the host's reader makes of cards after a power loss; for the log see test_cuts.py."""

from __future__ import annotations

import pytest
from cuts import BLOCKS, check_after, cuts, record

TEARS = ("none", "first", "last", "noise")


def test_the_workload_does_what_its_name_says():
    recording = record(3, 300)
    promise = recording.promise
    assert len(promise.durable) > 100
    assert promise.acked[-1][1] > BLOCKS // 8, "the ring has turned"
    assert len(promise.given) > len(promise.durable), "some records were never durable"
    superblocks = sum(block in (0, BLOCKS - 1) for block, _ in recording.writes)
    assert 10 < superblocks < len(recording.writes) // 2


@pytest.mark.parametrize("tear", TEARS)
def test_a_cut_at_every_write(tear):
    recording = record(2, 220)
    for writes, kind, card in cuts(recording.before, recording.writes, [tear]):
        check_after(card, recording.promise, writes, kind)


@pytest.mark.parametrize("segment_blocks", [2, 16])
def test_a_cut_at_every_write_with_other_segments(segment_blocks):
    recording = record(3, 120, segment_blocks)
    for writes, kind, card in cuts(recording.before, recording.writes, ["first"]):
        check_after(card, recording.promise, writes, kind)
