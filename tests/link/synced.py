"""What a fake device has recorded, and what of it a store holds."""

from __future__ import annotations

import random

from fake_device import FakeDevice

from drip.store import Store

UUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"


def recorded(count: int = 60, seed: int = 1) -> FakeDevice:
    """A device with some segments of 8x8 frames, commits in between, the last one open."""
    rng = random.Random(seed)
    device = FakeDevice()
    for _ in range(count):
        device.log.append(rng.randbytes(64), percentile=rng.randrange(65536))
        if rng.random() < 0.3:
            device.log.commit()
    device.log.commit()
    return device


def contents(store: Store) -> dict[int, bytes]:
    frames = store.frames()
    assert {key.log_uuid for key in frames.keys} == {UUID_TEXT}
    assert len(set(frames.keys)) == len(frames.keys) == len(store)
    return {key.seq: x.tobytes() for key, x in zip(frames.keys, frames.x, strict=True)}
