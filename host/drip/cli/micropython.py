"""Commands for boards that run MicroPython. Registered by drip.cli; they need mpremote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drip.cli import console

app = typer.Typer(help="Boards that run MicroPython.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Boards that run MicroPython."""


@app.command("install")
def install(
    port: Annotated[str, typer.Argument(help="Serial port of the board's REPL.")],
    extra: Annotated[
        list[Path] | None, typer.Argument(help="Files for the board's root: a model, main.py.")
    ] = None,
    source: Annotated[
        Path, typer.Option("--from", help="Folder that tools/micropython/build.py dist made.")
    ] = Path("build/micropython/dist"),
) -> None:
    """Copy the package, with the native module that fits the processor, to a board."""
    from drip import micropython

    report = micropython.install(port, source, extra=extra or ())
    rows = {
        "board": f"MicroPython {'.'.join(map(str, report.board.version))} on {port}",
        "module": report.architecture,
        "files": f"{len(report.files)}, {report.size_bytes} bytes in /lib/drip",
    }
    console.tables(None).print(console.facts(rows))
