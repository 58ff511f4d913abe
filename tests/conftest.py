"""Random tests draw anew in every run, also in CI, and the run says how to draw the same again."""

from __future__ import annotations

import os
import secrets

import pytest
from hypothesis import settings

settings.register_profile("drip", derandomize=False, print_blob=True)
settings.load_profile("drip")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # The workers of pytest-xdist inherit the environment of the process that starts them.
    if config.option.hypothesis_seed is None:
        drawn = os.environ.setdefault("DRIP_TEST_SEED", str(secrets.randbits(32)))
        config.option.hypothesis_seed = drawn


def pytest_report_header(config: pytest.Config) -> str:
    return f"random tests: repeat with --hypothesis-seed={config.option.hypothesis_seed}"
