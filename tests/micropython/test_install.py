"""drip micropython install: the right files for a board, and a clear message when none fit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from drip import micropython
from drip.errors import LinkError, UsageError
from drip.micropython import Board

ARM = 7  # armv7emsp
ABI = 6 | 3 << 8


def mpy(architecture: int, abi: int = ABI) -> int:
    return architecture << 10 | abi


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A package with modules of two architectures."""
    (tmp_path / "drip").mkdir()
    for name in ("__init__.py", "device.mpy", "scorer.mpy"):
        (tmp_path / "drip" / name).write_bytes(b"12345")
    for arch in ("armv6m", "armv7m"):
        folder = tmp_path / f"{arch}_6.3"
        folder.mkdir()
        (folder / f"native_{arch}.mpy").write_bytes(b"M" * 100)
    return tmp_path


class Remote:
    """Stands for mpremote; remembers what it was asked to do."""

    def __init__(self, answer: str) -> None:
        self.answer, self.calls = answer, []

    def __call__(self, port: str, *arguments: str) -> str:
        self.calls.append(arguments)
        return self.answer if "json" in arguments[-1] else ""


@pytest.mark.parametrize(
    ("architecture", "chosen"),
    [(4, "armv6m"), (5, "armv7m"), (6, "armv7m"), (7, "armv7m"), (8, "armv7m")],
)
def test_the_fastest_module_that_is_there(dist, architecture, chosen):
    path = micropython.choose(Board((1, 25, 0), mpy(architecture)), dist)
    assert path.name == f"native_{chosen}.mpy"


@pytest.mark.parametrize(
    ("board", "message"),
    [
        (Board((1, 23, 0), mpy(ARM)), "MicroPython 1.23.0 is too old"),
        (Board((1, 25, 0), 0), "loads no native modules"),
        (Board((1, 25, 0), mpy(ARM, 6 | 2 << 8)), "wants native modules of version 6.2"),
        (Board((1, 25, 0), mpy(10)), "no native module for xtensawin"),
        (Board((1, 25, 0), mpy(11)), "no native module for rv32imc"),
    ],
)
def test_why_none_fits(dist, board, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        micropython.choose(board, dist)


def test_only_what_fits_is_copied(dist):
    remote = Remote("noise\n" + json.dumps(["micropython", [1, 25, 0], mpy(ARM)]) + "\n")
    report = micropython.install("PORT", dist, extra=[dist / "m.drip"], remote=remote)
    assert report.architecture == "armv7m"
    assert report.files == ("__init__.py", "device.mpy", "scorer.mpy", "native_armv7m.mpy")
    assert report.size_bytes == 115
    copies = [call for call in remote.calls if call[:2] == ("fs", "cp")]
    assert [Path(name).name for name in copies[0][2:-1]] == list(report.files)
    assert copies[0][-1] == ":lib/drip/"
    assert copies[1] == ("fs", "cp", str(dist / "m.drip"), ":")
    assert remote.calls[-1] == ("exec", "import drip")


def test_what_is_no_micropython_is_refused(dist):
    with pytest.raises(LinkError):
        micropython.install("PORT", dist, remote=Remote("garbage"))
    with pytest.raises(UsageError):
        micropython.ask("PORT", Remote(json.dumps(["circuitpython", [9, 0, 0], 0])))
    with pytest.raises(UsageError, match="no package in"):
        micropython.install("PORT", dist / "drip")
