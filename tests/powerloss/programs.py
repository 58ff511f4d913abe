"""Compiles the C programs of this folder together with the core's log, once per test run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORE = ROOT / "firmware" / "core"
FLAGS = ["-std=c11", "-g", "-Wall", "-Wextra", "-Werror"]
PLAIN = ["-O2"]
SANITIZED = [
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]


def build(name: str, folder: Path, flags: list[str]) -> Path:
    """Compile a program; the log is all of the core that it needs."""
    compiler = os.environ.get("CC", "cc").split()
    if os.name == "nt" or shutil.which(compiler[0]) is None:
        pytest.skip(f"needs a C compiler for POSIX; {compiler[0]} is missing: install gcc or clang")
    sources = [HERE / f"{name}.c", HERE / "sim.c", HERE / "reader.c"]
    sources += sorted((CORE / "src").glob("log*.c"))
    sources.append(CORE / "src" / "bytes.c")
    target = folder / name
    command = [*compiler, *FLAGS, *flags, "-I", CORE / "include", "-I", HERE, *sources]
    done = subprocess.run([*command, "-o", target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(program: Path, *arguments: object) -> str:
    """Run a program to its end; what it prints about a failure is enough to repeat it."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def number(text: str, pattern: str) -> int:
    """The number that a pattern finds in what a program printed."""
    found = re.search(pattern, text)
    assert found, text
    return int(found.group(1))
