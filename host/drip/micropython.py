"""Putting the MicroPython package on a board: what fits its processor, through mpremote."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drip.errors import LinkError, MissingDependencyError, UsageError

__all__ = ["Board", "InstallReport", "ask", "choose", "install"]

# sys.implementation._mpy >> 10 & 0x3F, as MicroPython numbers them.
_ARCHITECTURES = (
    "",
    "x86",
    "x64",
    "armv6",
    "armv6m",
    "armv7m",
    "armv7em",
    "armv7emsp",
    "armv7emdp",
    "xtensa",
    "xtensawin",
    "rv32imc",
)
# What else a processor can run, the fastest first.
_ALSO = {
    "armv7m": ("armv6m",),
    "armv7em": ("armv7m", "armv6m"),
    "armv7emsp": ("armv7m", "armv6m"),
    "armv7emdp": ("armv7emsp", "armv7m", "armv6m"),
}
_ABI = "6.3"
_LEAST = (1, 24)
_QUESTION = (
    "import sys,json;i=sys.implementation;"
    "print(json.dumps([i.name,list(i.version[:3]),getattr(i,'_mpy',0)]))"
)


@dataclass(frozen=True)
class Board:
    """What a board says about itself.

    Attributes:
        version: Of MicroPython.
        mpy: ``sys.implementation._mpy``; 0: it loads no native modules.
    """

    version: tuple[int, ...]
    mpy: int

    @property
    def architecture(self) -> str:
        """Name of its native architecture; empty when it has none."""
        index = self.mpy >> 10 & 0x3F
        return _ARCHITECTURES[index] if index < len(_ARCHITECTURES) else ""


@dataclass(frozen=True)
class InstallReport:
    """What was installed.

    Attributes:
        board: Where.
        architecture: Of the native module that was chosen.
        files: Names of the files on the board.
        size_bytes: Of all of them.
    """

    board: Board
    architecture: str
    files: tuple[str, ...]
    size_bytes: int


def _mpremote(port: str, *arguments: str) -> str:
    if importlib.util.find_spec("mpremote") is None:
        raise MissingDependencyError(
            "mpremote is not installed", f"{sys.executable} -m pip install mpremote"
        )
    command = [sys.executable, "-m", "mpremote", "connect", port, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired as error:
        raise LinkError(
            f"no MicroPython answers on {port}", "reset the board, try again"
        ) from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        raise LinkError(f"mpremote failed on {port}: {said[-1]}", "is another program using it?")
    return done.stdout


def ask(port: str, remote: Callable[..., str] = _mpremote) -> Board:
    """Ask a board which MicroPython it runs.

    Raises:
        LinkError: It does not answer.
        MissingDependencyError: mpremote is not installed.
    """
    try:
        name, version, mpy = json.loads(remote(port, "exec", _QUESTION).strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise LinkError(f"{port} does not answer like MicroPython", "reset the board") from error
    if name != "micropython":
        raise UsageError(f"{port} runs {name}", "this package is for MicroPython")
    return Board(tuple(version), mpy)


def choose(board: Board, folder: Path) -> Path:
    """Return the native module for a board.

    Args:
        board: What the board says.
        folder: With one folder per architecture, as ``tools/micropython/build.py dist`` makes it.

    Raises:
        UsageError: None fits; the message says why.
    """
    version = ".".join(map(str, board.version))
    if board.version[:2] < _LEAST:
        raise UsageError(
            f"MicroPython {version} is too old", "update the firmware to 1.24 or later"
        )
    if not board.architecture:
        raise UsageError(
            "this firmware loads no native modules",
            "build one with drip in it: docs/MICROPYTHON.md",
        )
    abi = f"{board.mpy & 0xFF}.{board.mpy >> 8 & 3}"
    if abi != _ABI:
        raise UsageError(
            f"MicroPython {version} wants native modules of version {abi}, these are {_ABI}",
            "use a newer drip",
        )
    names = (board.architecture, *_ALSO.get(board.architecture, ()))
    for name in names:
        path = folder / f"{name}_{_ABI}" / f"native_{name}.mpy"
        if path.is_file():
            return path
    raise UsageError(
        f"no native module for {board.architecture} in {folder}",
        "python tools/micropython/build.py dist; for xtensawin see docs/MICROPYTHON.md",
    )


def install(
    port: str,
    folder: str | os.PathLike[str],
    *,
    extra: Sequence[Path] = (),
    remote: Callable[..., str] = _mpremote,
) -> InstallReport:
    """Copy the package and the one native module that fits to ``/lib/drip`` of a board.

    Args:
        port: Serial port of the board's REPL.
        folder: See :func:`choose`.
        extra: Files for the root of the board: a model, a program.
        remote: Runs mpremote; for tests.

    Raises:
        UsageError: There is no package in `folder`, or no module fits.
        LinkError: The board does not answer, or cannot import what it got.
    """
    base = Path(folder)
    files = sorted((base / "drip").glob("*.*py"))
    if not files:
        raise UsageError(f"no package in {base}", "python tools/micropython/build.py dist")
    board = ask(port, remote)
    module = choose(board, base)
    # A folder that is there already is no error.
    remote(
        port,
        "exec",
        "import os\nfor p in ('lib','lib/drip'):\n try: os.mkdir(p)\n except OSError: pass",
    )
    remote(port, "fs", "cp", *map(str, [*files, module]), ":lib/drip/")
    if extra:
        remote(port, "fs", "cp", *map(str, extra), ":")
    remote(port, "exec", "import drip")
    sent = [*files, module]
    return InstallReport(
        board,
        module.parent.name.removesuffix(f"_{_ABI}"),
        tuple(path.name for path in sent),
        sum(path.stat().st_size for path in sent),
    )
