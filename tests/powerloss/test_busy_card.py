"""Frames of 1 KiB, 20 per second, on a busy card: the queue keeps them, or counts them.

Time is simulated. One write in 20 leaves the card busy for 100 ms, one in 2000 for 500 ms.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from device_programs import device_program, number, run

DEFAULT = 0
BUSY = (100, 20, 500, 2000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queue")


def test_the_default_queue_loses_no_frame_to_a_busy_card(folder):
    text = run(device_program("device_queue", folder), DEFAULT, *BUSY, 300)
    assert number(text, r"(\d+) dropped") == 0
    assert number(text, r"(\d+) stored") == number(text, r"(\d+) frames") >= 6000
    # The rare long wait came, or this shows nothing.
    assert 10 <= number(text, r"high-water (\d+)") <= number(text, r"of (\d+) places")


@pytest.mark.parametrize("places", [1, 2, 4])
def test_every_frame_that_finds_no_place_is_counted(folder, places):
    """The program compares its own count with STATUS, and the rest with the card."""
    text = run(device_program("device_queue", folder, sanitized=True), places, *BUSY, 120)
    dropped = number(text, r"(\d+) dropped")
    assert dropped > 0
    frames = number(text, r"(\d+) frames")
    assert frames >= 2400
    assert number(text, r"(\d+) stored") == frames - dropped
    assert number(text, r"high-water (\d+)") == places


@pytest.mark.parametrize("size", [4, 999, 6912])
def test_places_of_any_size(folder, size):
    program = device_program("device_queue", folder, sanitized=True)
    text = run(program, 5, 100, 20, 0, 0, 60, size, 5)
    assert number(text, r"(\d+) dropped") == 0
    assert number(text, r"(\d+) stored") >= 300


@pytest.mark.slow
def test_an_hour_on_a_busy_card(folder):
    text = run(device_program("device_queue", folder), DEFAULT, *BUSY, 3600)
    assert number(text, r"(\d+) dropped") == 0
    assert number(text, r"(\d+) stored") >= 72_000
