"""Instructions per frame under MicroPython, held against the C firmware's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))

from micropython_cost import ALLOWED, measure  # noqa: E402 - beside the benchmarks


@pytest.mark.slow
def test_a_frame_costs_what_it_costs_in_c():
    cost = measure(ROOT / "models" / "digits" / "model.drip")
    assert ALLOWED == 1.05
    assert 1 / ALLOWED <= cost.ratio <= ALLOWED
    assert cost.c_first < cost.python_first < 10_000_000
    assert cost.import_bytes < 80_000
    # The model, its arena, the state of the core; the objects around them are small.
    assert cost.model_bytes < cost.scorer_bytes < cost.model_bytes + 4_000
    assert cost.device_bytes < 32_000
