"""What every command shares: one error boundary, progress bars, JSON output, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from drip.errors import DripError, StoreError

INTERNAL_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
INTERRUPT_EXIT_CODE = 130  # 128 + SIGINT, as a shell reports it

ProgressCallback = Callable[[int, int], None]
"""Called with (units done, units in all)."""


def exit_codes() -> dict[int, str]:
    """Every exit code of ``drip`` with the one line that explains it, from the tree of errors."""
    codes = {0: "Done."}
    pending: list[type[DripError]] = [DripError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        summary = (kind.__doc__ or "").splitlines()[0].replace("`", "")
        codes.setdefault(kind.exit_code, "Anything else." if kind is DripError else summary)
    codes[INTERNAL_EXIT_CODE] = "A defect of DRIP itself."
    codes[INTERRUPT_EXIT_CODE] = "Interrupted."
    return dict(sorted(codes.items()))


def run(command: Callable[[], Any], *, debug: bool) -> int:
    """Run a command and turn whatever it raises into one line, a hint and an exit code.

    Args:
        command: What to run; a returned int is the exit code.
        debug: Show the traceback as well.
    """
    try:
        result = command()
        if result == INTERRUPT_EXIT_CODE:
            # Typer turns Ctrl-C into a silent exit code.
            explain("interrupted", "", debug)
        return result if isinstance(result, int) else 0
    except DripError as error:
        explain(error.message, error.hint, debug)
        return error.exit_code
    except typer.TyperException as error:
        describe = getattr(error, "format_message", error.__str__)
        explain(describe(), _usage_hint(error), debug)
        return int(getattr(error, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        explain("interrupted", "", debug)
        return INTERRUPT_EXIT_CODE
    except BrokenPipeError:
        # The reader of a pipe has gone, which is its right; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        path = f"{error.filename}: " if error.filename is not None else ""
        explain(f"{path}{error.strerror or error}", _os_hint(error), debug)
        return StoreError.exit_code
    except Exception as error:
        reason = (str(error) or "no message").splitlines()[0]
        explain(
            f"unexpected {type(error).__name__}: {reason}",
            "this is a defect; run again with drip --debug COMMAND and report what it prints",
            debug,
        )
        return INTERNAL_EXIT_CODE


def _usage_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else "see drip --help"


def _os_hint(error: OSError) -> str:
    hints = {
        errno.ENOSPC: "free some space and run it again; what was complete is kept",
        errno.EDQUOT: "free some of your quota and run it again; what was complete is kept",
        errno.EACCES: "check the permissions of the file and its folder",
        errno.EROFS: "the file system is mounted read-only; choose another folder",
        errno.ENOENT: "check the path",
    }
    return hints.get(error.errno or 0, "")


def explain(message: str, hint: str, debug: bool = False) -> None:
    """Print an error and what to do about it, one line each, on standard error."""
    if debug:
        traceback.print_exc()
    console = Console(stderr=True, highlight=False)
    for label, style, text in (("error", "bold red", message), ("hint", "cyan", hint)):
        if text:
            line = " ".join(text.split())
            console.print(Text.assemble((f"{label}: ", style), line), soft_wrap=True)


def tables(json_target: str | None) -> Console:
    """The console for people: standard error when standard output carries JSON."""
    return Console(stderr=json_target == "-")


def note(line: str) -> None:
    """Print a line for people on standard error."""
    Console(stderr=True, highlight=False).print(Text(line), soft_wrap=True)


def facts(figures: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of names and values."""
    table = Table(show_header=False, title=title)
    for key, value in figures.items():
        table.add_row(key.replace("_", " "), Text(str(value)))
    return table


def write_json(target: str | None, value: Any) -> None:
    """Write figures for scripts.

    Args:
        target: A file (replaced atomically), ``-`` for standard output, None for nowhere.
        value: What ``json`` can write.
    """
    if target is None:
        return
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    from drip.data.files import write_atomic

    write_atomic(Path(target), lambda stream: stream.write(text.encode()))


def check_writable(path: Path) -> None:
    """Make sure that a file can be written, before the work whose figures go there.

    Raises:
        StoreError: Its folder is missing or read-only, or it is no file.
    """
    if path.is_dir():
        raise StoreError(f"cannot write {path}: it is a folder", "name a file, or - for stdout")
    if not path.parent.is_dir():
        raise StoreError(f"cannot write {path}: no folder {path.parent}", "make the folder first")
    if not os.access(path.parent, os.W_OK):
        raise StoreError(f"cannot write {path}: no permission", "choose another folder")


@contextlib.contextmanager
def progress(description: str) -> Iterator[ProgressCallback]:
    """Show a bar on standard error while something runs that calls back with (done, total)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    # A log file would only collect the empty lines of a bar that moves.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Transfers:
    """Bars of several transfers, each with its rate and the time that is left; for any thread.

    Args:
        bars: Where they are drawn.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def update(self, name: str, done: int, total: int) -> None:
        """Show how far a transfer is, in bytes; one that is complete loses its bar."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total)
            self._bars.update(self._tasks[name], completed=done, total=total)
            if done >= total:
                self._bars.remove_task(self._tasks.pop(name))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(Text(line), soft_wrap=True)


@contextlib.contextmanager
def transfers() -> Iterator[Transfers]:
    """Show bars of transfers on standard error."""
    console = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        yield Transfers(bars)


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show on standard error that something of unknown length runs."""
    with Console(stderr=True).status(description):
        yield
