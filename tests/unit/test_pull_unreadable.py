"""A block that the card cannot read costs itself, not the rest of the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from drip import wire
from drip.device.client import ReadChunk
from drip.errors import DeviceError
from drip.sync.pull import Pull

BLOCK = wire.BLOCK_BYTES


@dataclass
class Board:
    """A device whose blocks fail as often as said before they can be read."""

    failures: dict[int, int]
    asked: list[int] = field(default_factory=list)

    def read(self, position: int, size: int) -> ReadChunk:
        self.asked.append(position)
        for block in range(position // BLOCK, (position + size) // BLOCK):
            if self.failures.get(block, 0) > 0:
                self.failures[block] -= 1
                raise DeviceError("READ: the card", int(wire.Err.IO))
        data = b"".join(
            bytes([block]) * BLOCK for block in range(position // BLOCK, (position + size) // BLOCK)
        )
        return ReadChunk(position, data, end=False)


def pull_from(board: Board) -> Pull:
    unused: Any = None
    client: Any = board
    return Pull(client, unused, keep=True, on_progress=None)


def test_a_block_that_fails_once_is_read_again():
    board = Board({2: 1})
    pull = pull_from(board)
    assert pull._read(2 * BLOCK, 2 * BLOCK) == b"\2" * BLOCK + b"\3" * BLOCK
    assert pull.damaged == []


@pytest.mark.parametrize("bad", [2, 3])
def test_a_block_that_always_fails_becomes_zeros_and_is_told(bad):
    board = Board({bad: 1000})
    pull = pull_from(board)
    expected = b"".join(bytes([0 if block == bad else block]) * BLOCK for block in (2, 3))
    assert pull._read(2 * BLOCK, 2 * BLOCK) == expected
    assert pull.damaged == [f"position {bad * BLOCK}: the card cannot read this block"]
    assert len(board.asked) < 10, "never endless"
