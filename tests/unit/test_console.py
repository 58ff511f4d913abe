"""Bars of several transfers."""

from __future__ import annotations

import io
import threading

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from drip.cli import console


def test_each_transfer_has_a_bar_until_it_is_complete() -> None:
    out = io.StringIO()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    screen = Console(file=out, force_terminal=True, width=100)
    with Progress(*columns, console=screen, auto_refresh=False) as bars:
        shown = console.Transfers(bars)
        shown.update("one", 100, 400)
        shown.update("two", 0, 50)
        bars.refresh()
        assert [(task.description, task.completed, task.total) for task in bars.tasks] == [
            ("one", 100, 400),
            ("two", 0, 50),
        ]
        assert "100/400 bytes" in out.getvalue()
        # More was recorded in the meantime.
        shown.update("one", 400, 500)
        shown.update("two", 50, 50)
        assert [(task.description, task.total) for task in bars.tasks] == [("one", 500)]
        shown.update("one", 500, 500)
        assert bars.tasks == []
        # A watch goes on: the next pull gets a bar again.
        shown.update("one", 1, 9)
        assert len(bars.tasks) == 1
        shown.say("a [line] that is no markup")
    assert "a [line] that is no markup" in out.getvalue()


def test_any_thread_may_report() -> None:
    with Progress(console=Console(file=io.StringIO()), disable=True) as bars:
        shown = console.Transfers(bars)

        def work(name: str) -> None:
            for done in range(200):
                shown.update(name, done, 200)
            shown.update(name, 200, 200)

        threads = [threading.Thread(target=work, args=(f"board {n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bars.tasks == []
