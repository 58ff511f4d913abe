"""An STM32F4 for the port's drivers on the host: every access to a register goes to a model.

The drivers are compiled as they are. The compiler announces each volatile access, as it does for a
race detector, and memory lies where the chip has its registers and its flash.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Protocol

import compiled
import numpy as np
import pytest
from numpy.typing import NDArray

HERE = Path(__file__).parent
PORT = compiled.ROOT / "firmware" / "ports" / "stm32f4"
DRIVERS = compiled.ROOT / "firmware" / "drivers"
BOARD = "BOARD_NUCLEO_F446RE"
FLASH, FLASH_BYTES = 0x08000000, 1 << 20
WINDOWS = {
    FLASH: FLASH_BYTES,
    0x40000000: 0x8000,  # TIM2, I2C1, PWR
    0x40020000: 0x4000,  # GPIO, RCC, flash interface
    0xE000E000: 0x1000,  # SysTick, NVIC, SCB
}
# What a new start sets back, of each driver.
STATE = {"clock": "now", "flash": "work", "i2c": "move", "pins": None, "uart": "line"}
# The bench says for the flash driver whether the line is idle.
RENAMED = {"uart": "#define uart_idle uart_line_idle\n"}
ANNOUNCE = {
    "gcc": ["-fsanitize=thread", "--param=tsan-distinguish-volatile=1"],
    "clang": ["-fsanitize=thread", "-mllvm", "-tsan-distinguish-volatile=1"],
}


# Windows that exist in this process, and the modules that watch them.
_mapped: set[tuple[int, str]] = set()


class PowerLossError(Exception):
    """The supply failed during an access to a register."""


class Device(Protocol):
    """A part of the chip. Addresses are those of the bus."""

    windows: tuple[tuple[int, int], ...]

    def read(self, address: int) -> None:
        """The drivers are about to read a word: put there what they shall see."""

    def written(self, address: int, value: int, before: int) -> None:
        """The drivers have written a word."""

    def power_off(self) -> None:
        """The supply fails now."""

    def reset(self) -> None:
        """Set registers to their values after reset."""


def linker_symbols(script: str) -> dict[str, int]:
    """Ends of the flash areas of a board's linker script."""
    found = {}
    text = (PORT / script).read_text()
    for name, start, size in re.findall(r"(\w+) \(\w+\) : ORIGIN = (\w+), LENGTH = (\d+)K", text):
        found[name + "_start"] = int(start, 16)
        found[name + "_end"] = int(start, 16) + int(size) * 1024
    return found


def pins() -> dict[str, int]:
    """The pins that the board's header names."""
    text = (PORT / f"{BOARD.lower()}.h").read_text()
    found = re.findall(r"#define (BOARD_\w+) +PIN\((\w), (\d+)\)", text)
    return {name: 16 * (ord(port) - ord("A")) + int(bit) for name, port, bit in found}


def _announcing() -> list[str]:
    compiler = os.environ.get("CC", "cc").split()
    said = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True)
    return ANNOUNCE["clang" if "clang" in said.stdout else "gcc"]


def load(name: str, script: str, folder: Path) -> ModuleType:
    """Compile the drivers, with the flash layout of a linker script."""
    if platform.system() != "Linux" or platform.architecture()[0] != "64bit":
        pytest.skip("needs 64-bit Linux: the chip's addresses must be free")
    if compiled.ADDRESS:
        pytest.skip("AddressSanitizer keeps some of the chip's addresses for itself")
    compiler = os.environ.get("CC", "cc").split()
    objects = []
    flags = ["-std=gnu11", "-O1", "-g", "-fPIC", f"-D{BOARD}", "-DBOARD_SENSOR_IMU=1"]
    flags += ["-Wno-pointer-to-int-cast", "-Wno-int-to-pointer-cast", f"-I{PORT}"]
    flags += [f"-I{compiled.CORE}"]
    for driver, state in STATE.items():
        source = folder / f"chip_{driver}.c"
        reset = f"\n#include <string.h>\nvoid restart_{driver}(void);\n"
        reset += f"void restart_{driver}(void) {{ memset(&{state}, 0, sizeof({state})); }}\n"
        text = RENAMED.get(driver, "") + f'#include "{driver}.c"\n'
        source.write_text(text + (reset if state else ""))
        objects.append(source.with_suffix(".o"))
        command = [*compiler, "-c", *flags, *_announcing(), str(source), "-o", str(objects[-1])]
        done = subprocess.run(command, capture_output=True, text=True)
        if "tsan-distinguish-volatile" in done.stderr:
            pytest.skip("this compiler cannot announce volatile accesses: needs GCC 11 or clang 12")
        assert done.returncode == 0, done.stderr
    symbols = folder / "chip_symbols.c"
    lines = [
        f'__asm__(".globl {symbol}\\n.set {symbol}, {value:#x}");'
        for symbol, value in linker_symbols(script).items()
    ]
    symbols.write_text("\n".join(lines) + "\n")
    return compiled.load(
        name,
        [HERE / "chip_bench.c", symbols, DRIVERS / "imu.c"],
        [HERE / "chip_bench.h", DRIVERS / "imu.h"],
        folder,
        objects,
    )


class Chip:
    """Memory of the chip, and the models behind it.

    Attributes:
        accesses: Of the drivers, so far.
        cut_at: Number of the access before which the supply fails; None = never.
        is_off: The supply has failed: nothing changes any more.
        time_us: The chip's time; an access takes a little of it.
        faults: What the drivers did that the reference manual forbids.
    """

    def __init__(self, module: ModuleType) -> None:
        self.ffi, self.lib = module.ffi, module.lib
        self._words: dict[int, NDArray[np.uint32]] = {}
        for start, size in WINDOWS.items():
            if (start, module.__name__) not in _mapped:
                is_mapped = any(start == other for other, _ in _mapped)
                if not self.lib.chip_map(start, size, is_mapped):
                    pytest.skip(f"the address {start:#x} is taken in this process")
                _mapped.add((start, module.__name__))
            at = self.ffi.cast("uint8_t *", start)
            self._words[start] = np.frombuffer(self.ffi.buffer(at, size), "<u4")
        self.devices: list[Device] = []
        self.accesses = 0
        self.cut_at: int | None = None
        self.is_off = False
        self.time_us = 0.0
        self.faults: list[str] = []
        self._pending: tuple[Device, int, int] | None = None
        self._error: BaseException | None = None
        self._callback = self.ffi.callback("void(uint32_t, int)", self._access)
        self.lib.chip_watch(self._callback)
        self.lib.chip_restart()

    def words(self, start: int) -> NDArray[np.uint32]:
        """The words of a mapped window."""
        return self._words[start]

    def get(self, address: int) -> int:
        """What the drivers would see."""
        start = next(s for s, size in WINDOWS.items() if s <= address < s + size)
        return int(self._words[start][(address - start) // 4])

    def put(self, address: int, value: int) -> None:
        """Let the drivers see a value."""
        start = next(s for s, size in WINDOWS.items() if s <= address < s + size)
        self._words[start][(address - start) // 4] = value & 0xFFFFFFFF

    def close(self) -> None:
        """Tell the models of nothing more."""
        self.lib.chip_watch(self.ffi.NULL)

    def restart(self) -> None:
        """The supply is back: registers and drivers start anew."""
        self._pending = None
        self.is_off, self.cut_at = False, None
        for start in WINDOWS:
            if start != FLASH:
                self._words[start][:] = 0
        for device in self.devices:
            device.reset()
        self.lib.chip_restart()

    def check(self) -> None:
        """Raise what a model has found wrong, or that the supply has failed."""
        self.settle()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        assert not self.faults, self.faults[:3]
        if self.is_off:
            self.restart()
            raise PowerLossError

    def settle(self) -> None:
        """Let the last write take effect."""
        if self._pending is None:
            return
        device, address, before = self._pending
        self._pending = None
        if self.is_off:
            self.put(address, before)
        else:
            device.written(address, self.get(address), before)

    def _access(self, address: int, is_write: int) -> None:
        try:
            self.settle()
            if self.is_off:
                if is_write:
                    self._pending = self.devices[0], address & ~3, self.get(address)
                return
            self.accesses += 1
            self.time_us += 0.05
            if self.accesses == self.cut_at:
                self.is_off = True
                for device in self.devices:
                    device.power_off()
            self._dispatch(address & ~3, is_write)
        except BaseException as error:
            self._error = self._error or error

    def _dispatch(self, address: int, is_write: int) -> None:
        for device in reversed(self.devices):  # a later one may take addresses over
            if any(start <= address < end for start, end in device.windows):
                if is_write:
                    self._pending = device, address, self.get(address)
                elif not self.is_off:
                    device.read(address)
                return
        self.faults.append(f"nothing is at {address:#x}")


class Core:
    """What any driver may need: clocks that become ready, SysTick, a timer, NVIC.

    Attributes:
        has_crystal: Otherwise it never becomes ready.
        has_pll: Otherwise it never locks; None: it does with a crystal.
    """

    windows = (
        (0x40000000, 0x40000400),  # TIM2
        (0x40007000, 0x40007400),  # PWR
        (0x40023800, 0x40023C04),  # RCC, wait states of the flash
        (0xE000E000, 0xE000F000),
    )
    RCC, TIM2_COUNT, TICK_CONTROL, TICK_LOAD, TICK = (
        0x40023800, 0x40000024, 0xE000E010, 0xE000E014, 0xE000E018,
    )  # fmt: skip

    def __init__(self, chip: Chip, has_crystal: bool = True, has_pll: bool | None = None) -> None:
        self.chip, self.has_crystal = chip, has_crystal
        self.has_pll = has_crystal if has_pll is None else has_pll
        self._ticked_us = 0.0
        chip.devices.append(self)

    def reset(self) -> None:
        self._ticked_us = self.chip.time_us

    def power_off(self) -> None:
        pass

    def read(self, address: int) -> None:
        if address == self.TIM2_COUNT:
            self.chip.put(address, int(self.chip.time_us))
        elif address == self.TICK:
            self.tick()
            load = self.chip.get(self.TICK_LOAD)
            passed = (self.chip.time_us - self._ticked_us) / 1000 * (load + 1)
            self.chip.put(address, max(0, load - int(passed)))

    def written(self, address: int, value: int, before: int) -> None:
        if address == self.RCC:  # what is switched on is ready
            ready = value & 1 | (value & self.has_crystal << 16) | (value & self.has_pll << 24)
            self.chip.put(address, value & ~0x02020002 | ready << 1)
        elif address == self.RCC + 8:
            self.chip.put(address, value & ~12 | (value & 3) << 2)
        elif address == self.TICK:
            self._ticked_us = self.chip.time_us

    def is_enabled(self, interrupt: int) -> bool:
        """Whether the drivers have enabled an interrupt."""
        return bool(self.chip.get(0xE000E100 + interrupt // 32 * 4) >> interrupt % 32 & 1)

    def tick(self) -> None:
        """Run the handler of every millisecond that has passed."""
        while self.chip.time_us - self._ticked_us >= 1000 and self.chip.get(self.TICK_CONTROL) & 2:
            self._ticked_us += 1000
            self.chip.lib.clock_isr()
