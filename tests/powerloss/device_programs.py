"""Compiles the C programs of this folder that drive a whole device, once per test run."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from programs import CORE, FLAGS, HERE, PLAIN, ROOT, SANITIZED, number, run

__all__ = ["MODEL", "PLAIN", "SANITIZED", "device_program", "number", "run"]

MODEL = ROOT / "models" / "digits" / "model.drip"


@cache
def device_program(name: str, folder: Path, sanitized: bool = False) -> Path:
    """Compile a program together with the core."""
    compiler = os.environ.get("CC", "cc").split()
    if os.name == "nt" or shutil.which(compiler[0]) is None:
        pytest.skip(f"needs a C compiler for POSIX; {compiler[0]} is missing: install gcc or clang")
    target = folder / (f"{name}-sanitized" if sanitized else name)
    sources = [HERE / f"{name}.c", HERE / "board.c", HERE / "sim.c", HERE / "reader.c"]
    sources += sorted((CORE / "src").rglob("*.c"))
    flags = [*FLAGS, *(SANITIZED if sanitized else PLAIN), "-I", CORE / "include", "-I", HERE]
    command = [*compiler, *flags, *sources, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target
