"""A day of recording on a card that fails, and what the steady state costs."""

from __future__ import annotations

import pytest
from programs import PLAIN, SANITIZED, build, number, run


@pytest.mark.parametrize("mode", ["errors", "lies"])
def test_hours_of_faults_pulls_and_cuts(tmp_path, mode):
    text = run(build("soak", tmp_path, SANITIZED), mode, 1, 2)
    assert number(text, r"(\d+) durable") > 2000
    assert number(text, r"(\d+) faults") > 50
    assert number(text, r"(\d+) lost") == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["errors", "lies"])
def test_a_day_of_faults_pulls_and_cuts(tmp_path, mode):
    """Pulled is what the log called durable, and what was pending at a failure yet stored."""
    program = build("soak", tmp_path, PLAIN)
    for seed in range(10, 13):
        text = run(program, mode, seed, 24)
        assert number(text, r"(\d+) durable") > 30_000
        assert number(text, r"(\d+) cuts") > 50
        assert number(text, r"(\d+) lost") == 0


@pytest.mark.parametrize(
    ("size", "rate", "seconds"),
    [
        (1024, 1, 900),
        (1024, 2, 600),
        (1024, 20, 300),
        (1024, 100, 100),
        (1500, 1, 600),
        (3072, 10, 100),
        (6912, 1, 600),
        (6912, 4, 200),
        (65536, 1, 60),
        (65536, 10, 12),
    ],
)
def test_the_steady_state_writes_at_most_five_percent_more_blocks_than_it_must(
    tmp_path, size, rate, seconds
):
    """The fewest: whole blocks for each group of records that is committed together."""
    text = run(build("budget", tmp_path, PLAIN), size, rate, seconds)
    assert 1000 <= number(text, r"(\d+) permille;") <= 1050
    supers = number(text, r"(\d+) superblocks")
    assert supers <= min(number(text, r"(\d+) segments"), seconds // 10 + 1)
    assert number(text, r"(\d+) bytes of state") <= 2048
