"""Power fails at every block write: torn or lost writes, a lost erase unit, and repeatedly."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import PLAIN, SANITIZED, build, number, run

MODELS = ["torn", "lost", "unit", "again"]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> Path:
    return build("cuts", tmp_path_factory.mktemp("plain"), PLAIN)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory) -> Path:
    return build("cuts", tmp_path_factory.mktemp("sanitized"), SANITIZED)


@pytest.mark.parametrize("model", MODELS)
def test_a_sample_of_cuts(cuts, model):
    text = run(cuts, model, 300, 3)
    assert number(text, r"(\d+) cuts") > 500
    assert number(text, r"(\d+) records evicted") > 0
    if model == "unit":
        check_told(text)


def check_told(text: str) -> None:
    """The program fails when a loss is not told, but for the ends of frames of zeros: rare."""
    with_loss = number(text, r"of (\d+) cuts with a loss")
    assert with_loss > 20
    assert number(text, r"loss (\d+) say nothing") <= with_loss / 1000


@pytest.mark.parametrize("model", MODELS)
def test_cuts_under_the_sanitizers(sanitized, model):
    assert number(run(sanitized, model, 900, 2), r"(\d+) cuts") > 100


@pytest.mark.slow
def test_a_hundred_thousand_cuts(cuts):
    """Every write of 340 long workloads; the seeds differ from those of the sample."""
    seeds = {"torn": 100, "lost": 100, "unit": 100, "again": 40}
    texts = {name: run(cuts, name, 10_000, count) for name, count in seeds.items()}
    done = {name: number(text, r"(\d+) cuts") for name, text in texts.items()}
    check_told(texts["unit"])
    assert sum(done.values()) >= 100_000, done
    assert min(done.values()) > 10_000, done


def test_a_log_of_32_gib_is_mounted_in_64_block_reads(tmp_path):
    """At many fill levels, with evictions or without; without any superblock, too."""
    text = run(build("mount", tmp_path, PLAIN))
    assert number(text, r"after (\d+) evictions") > 100
    assert 40 < number(text, r"evictions: (\d+)") <= 64
    assert 40 < number(text, r"most block reads: (\d+)") <= 64
    assert number(text, r"one superblock gone: (\d+)") <= 64
    assert 40 < number(text, r"both gone: (\d+)") <= 64
