"""What tests of several boards share."""

from __future__ import annotations

import time
from collections.abc import Callable

from drip.device import connect
from drip.sync.fleet import Line

LINE = Line(timeout_s=2.0)


def feed(port: str, count: int, mark: int) -> None:
    with connect(port) as client:
        for at in range(count):
            client.feed(bytes([mark, at]) * 32)


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)
