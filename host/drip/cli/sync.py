"""The command sync: pull frames from one board, or from all that are plugged in.

Registered by drip.cli. It needs neither TensorFlow nor the compiled core.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drip import config, units
from drip.cli import console
from drip.cli.options import Json, Port, Settings, Where, board_settings, port_of
from drip.errors import LinkError, UsageError

if TYPE_CHECKING:
    from drip.sync import SyncReport
    from drip.sync.fleet import BoardResult

app = typer.Typer()


@app.command()
def sync(
    port: Port = None,
    store: Where = None,
    every_board: Annotated[
        bool, typer.Option("--all", help="All boards on ports with known USB ids, at once.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C; boards may come and go.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Do not free them on the board.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much waits.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Restart the board first.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --all: try ports with unknown USB ids too.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, max=86400, help="With --watch: seconds between two looks.")
    ] = 10.0,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Pull the frames that a board kept into a store; interrupted runs continue."""
    from drip.store import Store
    from drip.sync import fleet

    chosen = config.load(settings)
    port, store = _meant(port, store, every_board)
    if watch and dry_run:
        raise UsageError("--watch and --dry-run exclude each other", "leave one of them out")
    if probe and not every_board:
        raise UsageError("--probe goes with --all", "a port that is named is tried anyway")
    find = _finder(None if every_board else port_of(board_settings(port, chosen)), probe)
    ports = [] if watch else find()
    if not (ports or watch):
        raise LinkError(
            "no port here has the USB ids of a known board",
            "name a port, or try all of them with --probe",
        )
    into = Store.open(chosen.store.path if store is None else store, create=True)
    line = fleet.Line(
        chosen.board.baud,
        chosen.board.timeout_s,
        reset,
        pulse=not every_board,
        max_baud=chosen.board.max_baud,
    )
    options = fleet.Options(keep=keep, dry_run=dry_run)
    with _terminable() if watch else contextlib.nullcontext():
        with console.transfers() as bars:
            if watch:
                bars.say("watching; Ctrl-C ends it")
                results = fleet.watch_boards(
                    find,
                    into,
                    line=line,
                    options=options,
                    every_s=every,
                    on_news=lambda news: bars.say(_news(news)),
                    on_progress=bars.update,
                )
            else:
                results = fleet.sync_boards(
                    ports, into, line=line, options=options, on_progress=bars.update
                )
        if every_board and not watch:
            results = _boards_among(results)
        _show(results, json_target, one=not every_board)


def _meant(port: str | None, store: str | None, every: bool) -> tuple[str | None, str | None]:
    """With --all the only argument is the store."""
    if not every or port is None:
        return port, store
    if store is not None:
        raise UsageError("a port and --all exclude each other", "leave one of them out")
    return None, port


def _finder(port: str | None, probe: bool) -> Callable[[], list[str]]:
    from drip.sync.ports import find_ports

    if port is not None:
        return lambda: [port]
    return lambda: [found.port for found in find_ports() if found.known or probe]


class _terminable:  # noqa: N801 (a context manager, read as a verb)
    """SIGTERM ends a watch as Ctrl-C does.

    `timeout -s INT` sends its signal twice: another one within a second does not cut the end short.
    """

    def __enter__(self) -> None:
        self._asked = -math.inf
        kinds = (signal.SIGINT, signal.SIGTERM)
        self._before = {kind: signal.signal(kind, self._interrupt) for kind in kinds}

    def _interrupt(self, _kind: int, _frame: object) -> None:
        before, self._asked = self._asked, time.monotonic()
        if self._asked - before > 1.0:
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        ended = self._asked > -math.inf
        for kind, handler in self._before.items():
            # The program ends now, and the second signal may still come while Python shuts down.
            signal.signal(kind, signal.SIG_IGN if ended else handler)


def _boards_among(results: list[BoardResult]) -> list[BoardResult]:
    """Leave out ports where no board is: the adapters of known boards serve other things too.

    Raises:
        LinkError: None of them is a board.
    """
    boards = [item for item in results if item.device_id is not None or item.error is None]
    if not boards:
        first = results[0].error
        raise LinkError(
            f"no board answers on {len(results)} ports, first: {first.message if first else ''}",
            "check power and firmware of the boards",
        )
    for item in results:
        if item not in boards and item.error is not None:
            console.note(f"left out: {item.error.message}")
    return boards


def _show(results: list[BoardResult], json_target: str | None, *, one: bool) -> None:
    from drip.sync import SyncReport

    out = console.tables(json_target)
    for item in results:
        if item.report is not None:
            title = None if one else f"{item.port} ({(item.device_id or '')[:8]})"
            out.print(console.facts(_readable(item.report), title=title))
    if one:
        reports = [item.report for item in results if item.report is not None]
        if reports or not results:
            # A watch to which nothing new came has done nothing, and says so.
            console.write_json(json_target, _figures(reports[0] if reports else SyncReport()))
    else:
        boards = [
            {
                "port": item.port,
                "device_id": item.device_id,
                "error": item.error.message if item.error else None,
                **(_figures(item.report) if item.report is not None else {}),
            }
            for item in results
        ]
        console.write_json(json_target, {"boards": boards})
    failed = [item.error for item in results if item.error is not None]
    for error in failed[:-1]:
        console.explain(error.message, error.hint)
    if failed:
        raise failed[-1]


def _figures(report: SyncReport) -> dict[str, Any]:
    figures = dataclasses.asdict(report)
    added = figures.pop("store") or {}
    return figures | {f"store_{key}": value for key, value in added.items()}


def _readable(report: SyncReport) -> dict[str, object]:
    """What a person wants to know; what is as it should be is left out."""
    if report.store is None:
        return {"waits on the board": units.size(report.pending_bytes)}
    rate = report.bytes_wire / report.seconds if report.seconds else 0.0
    shown: dict[str, object] = {
        "new frames": report.store.new,
        "were there already": report.store.duplicates,
        "segments freed": f"{report.acked} of {report.segments}",
        "read": units.size(report.bytes_log),
        "on the line": f"{units.size(report.bytes_wire)} in {units.duration(report.seconds)}"
        f" ({units.size(rate)}/s)",
    }
    if report.open_segment:
        shown["still being written"] = "the newest segment; the next sync takes it"
    if report.repetitions:
        shown["requests repeated"] = report.repetitions
    if report.store.conflicts:
        shown["conflicts"] = f"{report.store.conflicts}, kept in conflicts/"
    if report.gone_bytes:
        shown["given up by the board"] = units.size(report.gone_bytes)
    if str(report.gaps):
        shown["missing, as the board says"] = str(report.gaps)
    if report.damaged:
        shown["damaged"] = "\n".join(report.damaged)
    return shown


def _news(news: BoardResult) -> str:
    said = time.strftime("%H:%M:%S ") + news.port
    if news.error is not None:
        # A message names its port already.
        hint = f" ({news.error.hint})" if news.error.hint else ""
        return time.strftime("%H:%M:%S ") + news.error.message + hint
    if news.report is None:
        return f"{said}: board {(news.device_id or '')[:8]} answers"
    report = news.report
    added = report.store.new if report.store is not None else 0
    parts = [f"{added} new frames", units.size(report.bytes_log), units.duration(report.seconds)]
    if report.store is not None and report.store.conflicts:
        parts.append(f"{report.store.conflicts} conflicts")
    if report.gone_bytes:
        parts.append(f"{units.size(report.gone_bytes)} given up by the board")
    parts += [str(report.gaps)] if str(report.gaps) else []
    parts += report.damaged
    return f"{said}: {', '.join(parts)}"
