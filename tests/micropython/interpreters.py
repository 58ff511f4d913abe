"""MicroPython interpreters for the tests: where they are, and how to get them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "micropython"))

import build  # noqa: E402 - tools/micropython

HOW = "make micropython"


def unix() -> Path:
    """Return the interpreter for this computer, or skip."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the native module that is tested on a computer is for x86-64")
    if not build.UNIX.is_file():
        pytest.skip(f"no MicroPython for this computer: {HOW}")
    return build.UNIX


def unix_own() -> Path:
    """Return the interpreter with the module in it, of the sources as they are now, or skip."""
    unix()
    if not build.OWN.is_file():
        pytest.skip(f"no MicroPython with drip in it: {HOW}")
    with _alone():
        return build.unix_own()


def module(arch: str) -> Path:
    """Return the native module, made from the sources as they are now, or skip."""
    if not build.MPY_CROSS.is_file():
        pytest.skip(f"no MicroPython to build modules for: {HOW}")
    with _alone():
        try:
            return build.module(arch)
        except build.BuildError as error:
            if "missing" in str(error) or "pip install" in str(error):
                pytest.skip(str(error))
            raise


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Tests run in several processes: one of them builds at a time."""
    with (build.BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(folder: Path, arch: str = "x64") -> Path:
    """Put the package into a folder as it would lie on a board."""
    target = folder / "lib" / "drip"
    target.mkdir(parents=True)
    for path in (ROOT / "firmware" / "micropython" / "drip").glob("*.py"):
        shutil.copy(path, target)
    shutil.copy(module(arch), target)
    return target.parent


def execute(
    library: Path, script: str, *arguments: str, heap: str = "1m", interpreter: Path | None = None
) -> Any:
    """Run a script in MicroPython; returns the JSON that it prints last."""
    # An argument of a process may have 255 bytes there.
    header = f"import sys\ndel sys.argv[1:]\nsys.argv.extend({list(arguments)!r})\n"
    path = library.parent / "script.py"
    path.write_text(header + script)
    done = subprocess.run(
        [str(interpreter or unix()), "-X", f"heapsize={heap}", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=library.parent,
        env={"MICROPYPATH": str(library), "HOME": str(library)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class ServedHere:
    """A MicroPython process that serves its terminal. `url` is what a host connects to."""

    def __init__(self, library: Path, **options: str | Path) -> None:
        self._library, self._options = library, options
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self._slave = slave
        self.url = os.ttyname(slave)
        self.start()

    def start(self) -> None:
        """Switch it on."""
        script = Path(__file__).with_name("serve.py")
        pairs = [f"{name}={value}" for name, value in self._options.items()]
        self.process = subprocess.Popen(
            [str(unix()), str(script), *pairs],
            stdin=self._master,
            stdout=self._master,
            cwd=self._library.parent,
            env={"MICROPYPATH": str(self._library), "HOME": str(self._library)},
        )

    def cut_power(self) -> None:
        """Stop it as a power loss does."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Stop it and give the terminal back."""
        self.cut_power()
        os.close(self._master)
        os.close(self._slave)
