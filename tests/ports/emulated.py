"""Programs over tools/bench_m4/board.h on an emulated Cortex-M4 and on emulated RV32IMC.

QEMU's machine `virt` runs RV32; under ``-icount shift=0`` its register ``minstret`` counts every
instruction once, as a timer of `netduinoplus2` does for the Cortex-M4.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "firmware" / "core"
PORT = ROOT / "firmware" / "ports" / "esp32"
BENCH = ROOT / "tools" / "bench_m4"
RV32 = ROOT / "tools" / "bench_rv32"
INCLUDES = [f"-I{path}" for path in (BENCH, CORE / "include", PORT)]
FLAGS = ["-O2", "-std=c11", "-ffunction-sections", "-fdata-sections", "-fno-jump-tables"]
FLAGS += ["-fno-tree-switch-conversion", "-fno-tree-vectorize", *INCLUDES]


class MissingToolError(Exception):
    """A cross compiler or emulator is not installed."""


@dataclass(frozen=True)
class Target:
    """A machine.

    Attributes:
        prefix: Of the compiler's programs.
        cpu: Flags for it.
        start: What is linked into every program.
        emulator: Command.
        packages: Of Debian, that have them.
    """

    prefix: str
    cpu: tuple[str, ...]
    start: tuple[str, ...]
    emulator: tuple[str, ...]
    packages: str

    def compiler(self) -> list[str]:
        """The command up to the sources."""
        for tool in (self.prefix + "gcc", self.emulator[0]):
            if shutil.which(tool) is None:
                raise MissingToolError(f"needs {tool}: apt install {self.packages}")
        return [self.prefix + "gcc", *self.cpu, *FLAGS]


TARGETS = {
    "m4": Target(
        "arm-none-eabi-",
        ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
        (f"-T{BENCH / 'stm32f405.ld'}", str(BENCH / "board.c")),
        (
            *("qemu-system-arm", "-M", "netduinoplus2"),
            *("-semihosting-config", "enable=on,target=native"),
        ),
        "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
    ),
    "rv32": Target(
        "riscv64-unknown-elf-",
        ("-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs", "-mcmodel=medany"),
        (f"-T{RV32 / 'virt.ld'}", str(RV32 / "board.c")),
        ("qemu-system-riscv32", "-M", "virt", "-bios", "none"),
        "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc",
    ),
}


def emulate(
    target: str,
    folder: Path,
    sources: Sequence[Path | str],
    model: bytes,
    inputs: bytes,
    *defines: str,
) -> list[list[str]]:
    """Link a program with its model and inputs, and run it.

    Args:
        target: Of TARGETS.
        folder: Takes what is built.
        sources: C files or objects.
        model: Between model_start and model_end.
        inputs: Between inputs_start and inputs_end.
        defines: Further flags.

    Returns:
        Lines of words that the program printed.

    Raises:
        MissingToolError: Compiler or emulator are not installed.
    """
    machine = TARGETS[target]
    (folder / "model").write_bytes(model)
    (folder / "inputs").write_bytes(inputs)
    image = folder / "image.elf"
    command = [*machine.compiler(), "-nostartfiles", "-Wl,--gc-sections", *defines]
    command += [f'-DMODEL_FILE="{folder / "model"}"', f'-DINPUTS_FILE="{folder / "inputs"}"']
    command += [*machine.start, *map(str, sources), str(BENCH / "model.S"), "-o", str(image)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    command = [*machine.emulator, "-display", "none", "-icount", "shift=0", "-monitor", "none"]
    command += ["-serial", "stdio", "-kernel", str(image)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-1:] == [["end"]], done.stdout[-300:] + done.stderr[-300:]
    return lines


def text_bytes(target: str, folder: Path, sources: Sequence[Path]) -> int:
    """Code and constants of some files."""
    machine, total = TARGETS[target], 0
    for source in sources:
        made = folder / f"{source.stem}.o"
        subprocess.run([*machine.compiler(), "-c", str(source), "-o", str(made)], check=True)
        size = subprocess.run(
            [machine.prefix + "size", str(made)], capture_output=True, text=True, check=True
        )
        total += int(size.stdout.splitlines()[1].split()[0])
    return total
