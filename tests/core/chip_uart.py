"""A USART of an STM32F4 (RM0390, chapter 25), and what is at the other end of its line."""

from __future__ import annotations

from chip import Chip, Core

SR, DR, BRR, CR1 = (0x40004400 + 4 * n for n in range(4))
ORE, RXNE, TC, TXE = 1 << 3, 1 << 5, 1 << 6, 1 << 7
RE, TE, RXNEIE, TXEIE, UE = 1 << 2, 1 << 3, 1 << 5, 1 << 7, 1 << 13
PENDING, IRQ = 0xE000E200, 38
# A handler that never takes its cause away would run for ever.
MOST_CALLS = 20


class Ports:
    """The GPIO ports: memory."""

    windows = ((0x40020000, 0x40022000),)

    def __init__(self, chip: Chip) -> None:
        chip.devices.append(self)

    def read(self, address: int) -> None:
        pass

    def written(self, address: int, value: int, before: int) -> None:
        pass

    def power_off(self) -> None:
        pass

    def reset(self) -> None:
        pass


class Usart:
    """One byte is held for the driver, and one more beside the one that is being sent.

    Attributes:
        sent: Bytes that have left.
        lost: Bytes that came while one was still waiting.
        between: Bytes that come between reads of SR and of DR, one each time.
    """

    windows = ((SR, CR1 + 4), (PENDING, PENDING + 0x20))

    def __init__(self, chip: Chip, core: Core) -> None:
        self.chip, self.core = chip, core
        chip.devices.append(self)
        self.reset()

    def reset(self) -> None:
        self.sent = bytearray()
        self.lost = 0
        self.between = bytearray()
        self._status = TXE | TC
        self._seen = 0
        self._received = 0
        self._next: int | None = None
        self._shift: int | None = None

    def power_off(self) -> None:
        pass

    def receive(self, byte: int) -> None:
        """A byte has come; handlers do not run yet."""
        if self._status & RXNE:
            self._status |= ORE
            self.lost += 1
        else:
            self._received = byte
            self._status |= RXNE

    def read(self, address: int) -> None:
        if address == SR:
            self._seen = self._status
            self.chip.put(SR, self._status)
        elif address == DR:
            if self.between and self._seen & RXNE:
                self.receive(self.between.pop(0))
            self.chip.put(DR, self._received)
            self._status &= ~RXNE
            if self._seen & ORE:
                self._status &= ~ORE
            self._seen = 0

    def written(self, address: int, value: int, before: int) -> None:
        if address == DR:
            if not self._status & TXE:
                self.chip.faults.append("a byte is written over the one that waits")
            self._next = value & 0xFF
            self._status &= ~(TXE | TC)
            self._load()

    def _load(self) -> None:
        if self._shift is None and self._next is not None:
            self._shift, self._next = self._next, None
            self._status |= TXE

    def shift(self) -> None:
        """The time of a byte passes."""
        if self._shift is not None:
            self.sent.append(self._shift)
            self._shift = None
            self._load()
            if self._shift is None:
                self._status |= TC

    def _is_wanted(self) -> bool:
        control = self.chip.get(CR1)
        pending = PENDING + IRQ // 32 * 4
        asked = self.chip.get(pending) >> IRQ % 32 & 1
        self.chip.put(pending, 0)
        received = control & RXNEIE and self._status & (RXNE | ORE)
        empty = control & TXEIE and self._status & TXE
        return self.core.is_enabled(IRQ) and bool(asked or received or empty)

    def run(self) -> None:
        """Run the handler as long as something asks for it."""
        self.chip.settle()
        calls = 0
        while self._is_wanted():
            calls += 1
            assert calls < MOST_CALLS, "the handler leaves its cause"
            self.chip.lib.uart_isr()
            self.chip.check()
