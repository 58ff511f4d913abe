"""Estimated cycles of emulated Cortex-M code: a plugin of ours in QEMU (tools/qemu/cycles.c)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drip.errors import MissingDependencyError

_TESTED_QEMU = ("7.2",)


@dataclass(frozen=True)
class CycleCount:
    """What the counted functions executed.

    Attributes:
        instructions: Exact.
        cycles: Estimated from Arm's timing table, with zero-wait memory.
    """

    instructions: int
    cycles: int


class CyclePlugin:
    """The plugin, built for this computer.

    Args:
        root: Checkout.
        folder: Where to build it.
        emulator: QEMU's command.

    Raises:
        MissingDependencyError: No compiler, or a QEMU that the plugin was not tested with.
    """

    def __init__(self, root: Path, folder: Path, emulator: str) -> None:
        said = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"version (\d+\.\d+)", said.stdout)
        if found is None or found[1] not in _TESTED_QEMU:
            raise MissingDependencyError(
                f"the cycle estimate was not tested with {said.stdout.splitlines()[0]}",
                f"use QEMU {' or '.join(_TESTED_QEMU)} (Debian 12)",
            )
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise MissingDependencyError("no C compiler", "apt install gcc")
        self._library = folder / "cycles.so"
        source = root / "tools" / "qemu" / "cycles.c"
        subprocess.run(
            [compiler, "-std=gnu11", "-O2", "-shared", "-fPIC", str(source), "-o", self._library],
            check=True,
        )

    def arguments(self, functions: Iterable[tuple[int, int]], out: Path) -> list[str]:
        """Arguments for QEMU that count functions, given as (address, size in bytes)."""
        ranges = [f"fn={start & ~1:x}:{(start & ~1) + size:x}" for start, size in functions]
        return ["-plugin", ",".join([str(self._library), f"out={out}", *ranges])]


def read_count(out: Path) -> CycleCount:
    """What the plugin wrote when QEMU ended."""
    _, instructions, _, cycles = out.read_text().split()
    return CycleCount(int(instructions), int(cycles))
