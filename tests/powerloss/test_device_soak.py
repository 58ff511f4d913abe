"""A day of a whole device: every record that it reported as stored is pulled, and no other is."""

from __future__ import annotations

from pathlib import Path

import pytest
from device_programs import MODEL, device_program, number, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soak")


def test_hours_of_a_device_with_faults_pulls_and_restarts(folder):
    """The program compares the two sets, and every frame with what was captured."""
    text = run(device_program("device_soak", folder, sanitized=True), MODEL, 1, 2)
    assert number(text, r"(\d+) stored") > 2000
    assert number(text, r"(\d+) lost") == 0
    assert number(text, r"(\d+) faults") > 50
    assert number(text, r"(\d+) requests repeated") > 50
    for event in ("cuts", "resets", "removals", "pulls"):
        assert number(text, rf"(\d+) {event}") > 0


@pytest.mark.slow
def test_a_day_of_a_device_with_faults_pulls_and_restarts(folder):
    for seed in range(10, 13):
        text = run(device_program("device_soak", folder), MODEL, seed, 24)
        assert number(text, r"(\d+) stored") > 25_000
        assert number(text, r"(\d+) lost") == 0
        assert number(text, r"(\d+) cuts") > 50
        assert number(text, r"(\d+) pulls") > 20
