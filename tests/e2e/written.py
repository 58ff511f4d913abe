"""Running commands that a document shows, exactly as it shows them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


def run(commands: str, folder: Path) -> str:
    """Run lines of a shell in an empty folder until one fails; return what they print.

    `drip` and `python` are those that run the test. A simulated board takes a moment to start,
    which a person does not notice and a script does.
    """
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "drip").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m drip "$@"\n')
    (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for name in ("drip", "python"):
        (binaries / name).chmod(0o755)
    commands = commands.replace("board &\n", "board &\nwhile [ ! -e board ]; do sleep 0.1; done\n")
    work = folder / "work"
    work.mkdir()
    output = folder / "output"
    with output.open("wb") as file:
        shell = subprocess.Popen(
            ["sh", "-ec", commands],
            cwd=work,
            env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "120"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=500)
        finally:
            # The simulated board goes on until somebody stops it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
    said = output.read_text(errors="replace")
    assert code == 0, said
    return said


def figure(line_start: str, said: str, which: int = -1) -> int:
    """The number in a line of a table that `drip` printed."""
    lines = [line for line in said.splitlines() if line_start in line]
    return int(lines[which].split()[-2])
