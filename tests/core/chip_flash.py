"""The flash interface of an STM32F4 (RM0390, chapter 3): keys, busy, errors, sectors, options."""

from __future__ import annotations

import numpy as np
from chip import FLASH, FLASH_BYTES, Chip

KEYS = (0x45670123, 0xCDEF89AB)
OPTION_KEYS = (0x08192A3B, 0x4C5D6E7F)
ACR, KEYR, OPTKEYR, SR, CR, OPTCR = (0x40023C00 + 4 * n for n in range(6))
ACR_DCEN, ACR_DCRST = 1 << 10, 1 << 12
PG, SER, STRT, LOCK, X32 = 1, 2, 1 << 16, 1 << 31, 2
BSY, ERRORS, WRITE_PROTECTED = 1 << 16, 0xF2, 1 << 4
OPTION_LOCK, OPTION_START = 1, 2
FACTORY_OPTIONS = 0x0FFFAAED
ERASE_US, PROGRAM_US, ERASE_READS = 1_200_000, 16, 75


def sectors() -> list[tuple[int, int]]:
    """Start and end of each sector of 1 MiB."""
    sizes = [16] * 4 + [64] + [128] * 7
    ends = [FLASH + 1024 * sum(sizes[: n + 1]) for n in range(len(sizes))]
    return list(zip([FLASH, *ends], ends, strict=False))


class FlashInterface:
    """Programming clears bits of a word, erasing sets those of a sector; both take time.

    Attributes:
        erased: Sectors, in order.
        programmed: Words.
        fail_at: Number of the operation that ends with an error; None = none does.
        options_written: How often.
        busy_reads: Looks at SR that show it busy, of a word; of an erase, many times as many.
    """

    windows = ((FLASH, FLASH + FLASH_BYTES), (ACR, OPTCR + 4))

    def __init__(self, chip: Chip, seed: int = 0) -> None:
        self.chip = chip
        self.cells = chip.words(FLASH)
        self.cells[:] = 0xFFFFFFFF
        self.noise = np.random.default_rng(seed)
        self.erased: list[int] = []
        self.programmed = 0
        self.fail_at: int | None = None
        self.options = FACTORY_OPTIONS
        self.options_written = 0
        self.busy_reads = 2
        chip.devices.append(self)
        self.reset()

    def reset(self) -> None:
        self._work: tuple[int, int, int] | None = None  # first and last word, value
        self._left = 0
        self._keys: list[int] = []
        self._option_keys: list[int] = []
        self.chip.put(CR, LOCK)
        self.chip.put(SR, 0)
        self.chip.put(OPTCR, self.options)

    @property
    def operations(self) -> int:
        """Erases and programmed words so far."""
        return len(self.erased) + self.programmed

    def power_off(self) -> None:
        """What was under way has happened in part; nobody knows which."""
        if self._work is not None:
            first, last, value = self._work
            self._work = None
            if first == last:
                self.cells[first] &= value | int(self.noise.integers(0, 1 << 32))
            else:
                cells = self.cells[first : last + 1]
                share = self.noise.choice((0.01, 0.5, 0.99))
                cells[self.noise.random(cells.size) < share] = 0xFFFFFFFF
                cells |= self.noise.integers(0, 1 << 32, dtype=np.uint32)
        self.chip.put(SR, 0)

    def read(self, address: int) -> None:
        if address != SR or self._left == 0:
            return
        self._left -= 1
        if self._left > 0:
            return
        self.chip.put(SR, self.chip.get(SR) & ~BSY)
        self.chip.put(CR, self.chip.get(CR) & ~STRT)
        if self._work is None:
            return
        first, last, value = self._work
        self._work = None
        if self.operations == self.fail_at:
            self.chip.put(SR, WRITE_PROTECTED)
        elif first == last:
            self.cells[first] &= value
        else:
            self.cells[first : last + 1] = 0xFFFFFFFF

    def _fault(self, what: str) -> None:
        self.chip.faults.append(what)

    def _start(self, first: int, last: int, value: int, time_us: int) -> None:
        self._work = first, last, value
        self._left = self.busy_reads * (1 if first == last else ERASE_READS)
        self.chip.put(SR, self.chip.get(SR) | BSY)
        self.chip.time_us += time_us

    def written(self, address: int, value: int, before: int) -> None:
        if address < ACR:
            self._cell_written(address, value, before)
        elif address == KEYR:
            self._key_written(self._keys, KEYS, value, CR, LOCK)
        elif address == OPTKEYR:
            self._key_written(self._option_keys, OPTION_KEYS, value, OPTCR, OPTION_LOCK)
        elif address == SR:
            self.chip.put(SR, before & ~(value & ERRORS))
        elif address == CR:
            self._control_written(value, before)
        elif address == OPTCR:
            self._options_written(value, before)
        elif value & ACR_DCRST and value & ACR_DCEN:
            self._fault("the data cache is reset while it is on")

    def _key_written(
        self, seen: list[int], keys: tuple[int, int], value: int, control: int, lock: int
    ) -> None:
        seen.append(value)
        if not self.chip.get(control) & lock or seen != list(keys[: len(seen)]):
            self._fault("a key that does not fit locks the flash until the next reset")
        if len(seen) == len(keys):
            self.chip.put(control, self.chip.get(control) & ~lock)
            seen.clear()

    def _control_written(self, value: int, before: int) -> None:
        if self._left > 0:
            self._fault("CR is written while the flash is busy")
        if before & LOCK:
            self.chip.put(CR, before)
            if value != LOCK:
                self._fault("CR is written while it is locked")
            return
        if value & PG and value & SER:
            self._fault("programs and erases at once")
        if value & STRT:
            number = value >> 3 & 15
            start, end = sectors()[number]
            if not value & SER or value >> 8 & 3 != X32:
                self._fault("starts without an operation")
            self.erased.append(number)
            self._start((start - FLASH) // 4, (end - FLASH) // 4 - 1, 0, ERASE_US)

    def _cell_written(self, address: int, value: int, before: int) -> None:
        control = self.chip.get(CR)
        self.chip.put(address, before)
        if control & LOCK or not control & PG or control >> 8 & 3 != X32 or self._left > 0:
            self._fault(f"{address:#x} is written while CR is {control:#x}")
            return
        if before != 0xFFFFFFFF:
            self._fault(f"{address:#x} is programmed without erasing")
        self.programmed += 1
        at = (address - FLASH) // 4
        self._start(at, at, value, PROGRAM_US)

    def _options_written(self, value: int, before: int) -> None:
        if before & OPTION_LOCK:
            self._fault("the options are written while they are locked")
        if value & OPTION_START and not before & OPTION_START:
            self.options = value & ~OPTION_START | OPTION_LOCK
            self.options_written += 1
            self._left = self.busy_reads
            self.chip.put(SR, self.chip.get(SR) | BSY)
            self.chip.put(OPTCR, value & ~OPTION_START)
