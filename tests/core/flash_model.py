"""NOR flash as the port sees it: programming clears bits, erasing sets them, power may fail."""

from __future__ import annotations

import pytest

core = pytest.importorskip("drip._core", reason="needs the compiled core: run make setup")
ffi, lib = core.ffi, core.lib


class PowerLossError(Exception):
    """The supply failed during a flash operation."""


class Flash:
    """Four areas: two slots, two halves of the journal.

    Attributes:
        operations: Erases and writes so far.
        cut_at: Number of the operation during which power fails; None = never.
        torn: Share of the cut operation that took effect, 0..1.
        busy_polls: Polls that answer BUSY before an operation is done.
    """

    def __init__(self, slot_bytes: int = 4096, journal_bytes: int = 512, fill: int = 0xFF) -> None:
        sizes = (slot_bytes, slot_bytes, journal_bytes, journal_bytes)
        self._arenas = [ffi.new("uint8_t[]", size + 16) for size in sizes]
        self.areas = [self._aligned(arena) for arena in self._arenas]
        self.sizes = sizes
        for area, size in zip(self.areas, sizes, strict=True):
            ffi.memmove(area, bytes([fill]) * size, size)
        self.operations = 0
        self.cut_at: int | None = None
        self.torn = 0.5
        self.busy_polls = 1
        self.error_at: int | None = None
        self._left = 0
        self._failed = False
        self._lost = False
        self._callbacks = (
            ffi.callback("const uint8_t *(void *, int)", lambda _c, area: self.areas[area]),
            ffi.callback("int(void *, int)", self._erase),
            ffi.callback("int(void *, int, uint32_t, const uint8_t *, uint32_t)", self._write),
            ffi.callback("int(void *)", self._poll),
        )

    @staticmethod
    def _aligned(arena: object) -> object:
        address = int(ffi.cast("uintptr_t", arena))
        return ffi.cast("uint8_t *", address + (-address) % 16)

    def attach(self, port: object) -> None:
        """Give a port this flash."""
        port.flash_map, port.flash_erase, port.flash_write, port.flash_poll = self._callbacks
        port.slot_bytes = self.sizes[0]
        port.journal_bytes = self.sizes[2]

    def read(self, area: int) -> bytes:
        """Return what an area holds."""
        return ffi.buffer(self.areas[area], self.sizes[area])[:]

    def check_power(self) -> None:
        """Raise if power failed; what ran on the device is gone then."""
        if self._lost:
            self._lost = False
            self._left = 0
            self.cut_at = None
            raise PowerLossError

    def power_off(self) -> None:
        """What was under way is over."""
        self._left = 0
        self._lost = False

    def _operation(self, area: int, offset: int, wanted: bytes) -> int:
        # After the cut nothing reaches the flash, whatever the dying device still asks for.
        if self._lost:
            return lib.DRIP_ERR_IO
        assert self._left == 0, "one operation at a time"
        number = self.operations
        self.operations += 1
        self._left = self.busy_polls
        self._failed = number == self.error_at
        if number == self.cut_at:
            self._lost = True
            done = int(len(wanted) * self.torn)
            if done < len(wanted):
                old = self.read(area)[offset + done]
                wanted = wanted[:done] + bytes([wanted[done] | (old & 0x5A)])
        ffi.memmove(self.areas[area] + offset, wanted, len(wanted))
        return 0

    def _erase(self, _context: object, area: int) -> int:
        return self._operation(area, 0, b"\xff" * self.sizes[area])

    def _write(self, _context: object, area: int, offset: int, data: object, size: int) -> int:
        assert offset % 16 == 0 and size % 16 == 0 and offset + size <= self.sizes[area]
        old = self.read(area)[offset : offset + size]
        new = ffi.buffer(data, size)[:]
        assert old == b"\xff" * size, "programmed without erasing"
        return self._operation(area, offset, new)

    def _poll(self, _context: object) -> int:
        if self._left > 0:
            self._left -= 1
            return lib.DRIP_ERR_BUSY
        return lib.DRIP_ERR_IO if self._failed else 0
