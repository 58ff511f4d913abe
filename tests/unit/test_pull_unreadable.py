"""A block that the card cannot read costs itself, not the rest of the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from drip import wire
from drip.device.client import ReadChunk
from drip.errors import DeviceError
from drip.sync.reader import LogReader

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


def reader_of(board: Board) -> LogReader:
    client: Any = board
    return LogReader(client)


def test_a_block_that_fails_once_is_read_again():
    board = Board({2: 1})
    reader = reader_of(board)
    assert reader.read(2 * BLOCK, 2 * BLOCK) == b"\2" * BLOCK + b"\3" * BLOCK
    assert reader.damaged == []


@pytest.mark.parametrize("bad", [2, 3])
def test_a_block_that_always_fails_becomes_zeros_and_is_told(bad):
    board = Board({bad: 1000})
    reader = reader_of(board)
    expected = b"".join(bytes([0 if block == bad else block]) * BLOCK for block in (2, 3))
    assert reader.read(2 * BLOCK, 2 * BLOCK) == expected
    assert reader.damaged == [f"position {bad * BLOCK}: the card cannot read this block"]
    assert len(board.asked) < 10, "never endless"
