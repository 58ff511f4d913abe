"""MicroPython on emulated boards: QEMU, a serial line, a read-only file system in memory."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tty
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from interpreters import HOW, build, module
from raw_repl import RawRepl

from drip.device.qemu import _read_pty

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Machine:
    """A machine of QEMU and the interpreter that was built for it."""

    emulator: str
    name: str
    board: str
    arch: str  # of the native module
    rom: int  # memory that the interpreter does not use
    semihost: str  # file that knows how the emulator is asked for something
    options: tuple[str, ...] = ()


CORTEX_M4F = Machine(
    "qemu-system-arm", "mps2-an386", "mps2_an386", "armv7emsp", 0x21000000, "semihost_thumb.py"
)
RV32 = Machine(
    *("qemu-system-riscv32", "virt", "virt_rv32", "rv32imc", 0x84000000, "semihost_rv32.py"),
    options=("-bios", "none"),
)

_MOUNT = """
import sys, uctypes, vfs
vfs.mount(vfs.VfsRom(uctypes.bytearray_at({rom}, {size})), "/rom")
sys.path.insert(0, "/rom/lib")
"""


def board_files(folder: Path, arch: str, files: Mapping[str, bytes]) -> bytes:
    """Return an image of a board's files: the package as it is installed, in lib, and others."""
    romfs = pytest.importorskip("mpremote.romfs", reason="needs mpremote: pip install mpremote")
    native = module(arch)
    shutil.rmtree(folder, ignore_errors=True)
    build.python_part(folder / "lib" / "drip")
    shutil.copy(native, folder / "lib" / "drip")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with contextlib.redirect_stdout(io.StringIO()):  # it lists what it packs
        return bytes(romfs.make_romfs(str(folder), mpy_cross=False))


class Emulated:
    """An emulated board. `repl` waits for scripts, `url` is its serial line."""

    def __init__(self, process: subprocess.Popen[bytes], size: int, machine: Machine) -> None:
        self.process = process
        self.url = _read_pty(process)
        assert self.url, "QEMU does not start"
        self._line = os.open(self.url, os.O_RDWR | os.O_NOCTTY)
        self.reopen()
        if size:
            self.repl.run(_MOUNT.format(rom=machine.rom, size=size))

    def reopen(self) -> None:
        """Come to the prompt of raw mode, whatever was done on the line."""
        tty.setraw(self._line)
        self.repl = RawRepl(self._line)

    def close(self) -> None:
        """Cut its power."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._line)


_SERVE = """
import vfs, semihost, serve
vfs.mount(semihost.Folder(), "/host")
serve.serve({arguments})
"""


class ServedEmulated:
    """An emulated board that serves its line. Card and slots are files of this computer."""

    def __init__(self, machine: Machine, folder: Path, **options: str | Path) -> None:
        self._machine, self._folder, self._options = machine, folder, options
        parts = {name: name for name in ("semihost.py", "serve.py")}
        parts["semihost_call.py"] = machine.semihost
        lib = {f"lib/{name}": (HERE / source).read_bytes() for name, source in parts.items()}
        self._image = board_files(folder / "board", machine.arch, lib)
        self.start()

    def start(self) -> None:
        """Switch it on."""
        self._stack = contextlib.ExitStack()
        self._board = self._stack.enter_context(emulate(self._machine, self._image, self._folder))
        self.url = self._board.url
        pairs = [
            f"{name}={(f'/host/{value.name}' if isinstance(value, Path) else value)!r}"
            for name, value in self._options.items()
        ]
        self._board.repl.start(_SERVE.format(arguments=", ".join(pairs)))

    def cut_power(self) -> None:
        """Stop it as a power loss does."""
        self._stack.close()

    close = cut_power


@contextlib.contextmanager
def emulate(
    machine: Machine, image: bytes, folder: Path, options: tuple[str, ...] = ()
) -> Iterator[Emulated]:
    """Run a board while the block runs.

    Args:
        machine: Which.
        image: Its files, see board_files; empty: none.
        folder: Where QEMU runs: what a program in it opens by semihosting lies there.
        options: More of QEMU's.
    """
    interpreter = build.BUILD / machine.board / "firmware.elf"
    if not interpreter.is_file():
        pytest.skip(f"no MicroPython for {machine.name}: {HOW}")
    if shutil.which(machine.emulator) is None:
        pytest.skip(f"{machine.emulator} is missing: apt install qemu-system-arm qemu-system-misc")
    if image:
        (folder / "rom.img").write_bytes(image)
        options += ("-device", f"loader,file=rom.img,addr={machine.rom:#x},force-raw=on")
    command = [machine.emulator, "-machine", machine.name, *machine.options, *options]
    command += ["-display", "none", "-monitor", "none", "-semihosting", "-serial", "pty"]
    command += ["-kernel", str(interpreter)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
    board = None
    try:
        board = Emulated(process, len(image), machine)
        yield board
    finally:
        if board is None:
            process.kill()
            process.wait()
        else:
            board.close()
