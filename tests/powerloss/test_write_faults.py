"""One write of a card goes wrong, each in turn and in every way: the log runs on or is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import PLAIN, SANITIZED, build, number, run

ERRORS = ["nothing", "whole", "torn", "noise", "start", "timeout"]
FAULTS = [*ERRORS, "persist", "absent", "protect", "stuck"]


@pytest.fixture(scope="module")
def write_faults(tmp_path_factory) -> Path:
    return build("write_faults", tmp_path_factory.mktemp("plain"), PLAIN)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory) -> Path:
    return build("write_faults", tmp_path_factory.mktemp("sanitized"), SANITIZED)


def check(text: str, seeds: int, least: int) -> None:
    """The program fails when a promise is broken; here it has to have done something."""
    runs = number(text, r"(\d+) runs") - 3 * seeds  # without a fault, once in each mode
    assert runs > least
    assert number(text, r"(\d+) faults") > runs * 0.9
    assert number(text, r"(\d+) lost,") > runs / 2
    assert number(text, r"(\d+) in doubt yet stored") > 0
    assert number(text, r"(\d+) evicted") > runs / 3
    assert number(text, r"(\d+) wrapped") > runs / 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sample_of_writes_that_fail(write_faults, fault):
    check(run(write_faults, fault, 20, 5, 41), 5, 70)


def test_writes_that_fail_under_the_sanitizers(sanitized):
    for seed, fault in enumerate(FAULTS):
        assert number(run(sanitized, fault, seed, 1, 61), r"(\d+) faults") > 12


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_every_write_that_fails(write_faults, fault):
    """In modes STOP, OVERWRITE_ACKED and EVICT, with the device running on and with power cut."""
    text = run(write_faults, fault, 1, 1)
    check(text, 1, 900)
    assert number(text, r"(\d+) runs") >= 2 * number(text, r"(\d+) writes")
