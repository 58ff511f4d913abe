"""Random tests draw anew in every run, and the run says how to draw the same again.

In CI, which says so in the environment, they draw the same in every run of the same tests: a gate
says what a change broke, not what luck found. And nothing is skipped that CI can install: it fails.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import signal
from collections.abc import Generator

import pluggy
import pytest
from hypothesis import settings

_IN_CI = os.environ.get("CI", "") not in ("", "0", "false")
settings.register_profile("drip", derandomize=False, print_blob=True)
settings.load_profile("drip")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts this in the background has switched Ctrl-C off, also for what tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The workers of pytest-xdist inherit the environment of the process that starts them.
    if config.option.hypothesis_seed is None:
        draw = "0" if _IN_CI else str(secrets.randbits(32))
        drawn = os.environ.setdefault("DRIP_TEST_SEED", draw)
        config.option.hypothesis_seed = drawn


# What a Debian or Ubuntu has no package of, or another version, or not for this processor; real
# data that is not ours to give; what a sanitizer leaves no room for.
_MAY_BE_MISSING = re.compile(
    r"renode is missing|plugin was not tried with QEMU|set DRIP_DATA|AddressSanitizer keeps"
    + ("" if platform.machine() == "x86_64" else "|x86-64")
)


def _no_skip(report: pytest.CollectReport | pytest.TestReport) -> None:
    """Turn a skip into a failure when CI could have avoided it."""
    if not _IN_CI or report.outcome != "skipped":
        return
    if hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    path, line, reason = report.longrepr
    if not _MAY_BE_MISSING.search(reason):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: {reason} (CI skips no such thing)"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    outcome = yield
    _no_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Generator[None, pluggy.Result[pytest.CollectReport], None]:
    outcome = yield
    _no_skip(outcome.get_result())


def pytest_report_header(config: pytest.Config) -> str:
    return f"random tests: repeat with --hypothesis-seed={config.option.hypothesis_seed}"
