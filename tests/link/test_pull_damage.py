"""Pulling from a device whose card cannot read some blocks: all the rest arrives, and is freed."""

from __future__ import annotations

import pytest
from test_stream import BoardLine, filled

from drip.device import Client
from drip.store import Store
from drip.sync import sync_device

BLOCK = 512


def frames_of(store: Store) -> dict[int, bytes]:
    frames = store.frames()
    return {key.seq: x.tobytes() for key, x in zip(frames.keys, frames.x, strict=True)}


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("blocks", "most_lost"),
    [
        ([0], 0),  # the first header that the host reads
        ([64], 0),  # a header in the middle
        ([0, 64], 0),
        ([20], 1),  # in the middle of a segment
        ([20, 64, 90], 2),
        ([60], 1),  # near the end of a segment
    ],
)
def test_a_block_that_cannot_be_read_costs_its_records(
    store, tmp_path, monkeypatch, blocks, most_lost, streams
):
    whole = filled(120)
    complete = Store.open(tmp_path / "complete", create=True)
    sync_device(BoardLine(whole).client(), complete)
    wanted = frames_of(complete)
    assert len(wanted) == 120

    device = filled(120)
    first = device.device.log.super.data_block
    end = device.status().log_durable
    assert end > 3 * 64 * BLOCK
    device.card.read_errors = {first + block for block in blocks}
    client = BoardLine(device).client()
    client.hello()
    if not streams:
        monkeypatch.setattr(Client, "can_stream", property(lambda _: False))
    report = sync_device(client, store)
    found = frames_of(store)
    assert set(found) <= set(wanted)
    assert all(found[seq] == wanted[seq] for seq in found)
    assert len(wanted) - len(found) <= most_lost
    assert report.damaged
    status = device.status()
    assert status.log_acked >= end
    again = sync_device(BoardLine(device).client(), store)
    assert (again.records, again.damaged) == (0, ())
