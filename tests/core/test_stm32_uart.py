"""The STM32F4's UART driver and its clocks against models of their registers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import chip as chips
import pytest
from chip import Chip
from chip_uart import BRR, CR1, RE, TE, UE, Ports, Usart

RX_BYTES, TX_BYTES = 2048, 1024
# 921,600 baud in the 5 ms between two looks of the owner.
BETWEEN_LOOKS = 461
HSI, HSI_PLL, HSE_PLL = range(3)
RATES = [1200, 9600, 115200, 230400, 460800, 921600]


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    with tempfile.TemporaryDirectory() as folder:
        yield chips.load("chip_uart_bench", "f446re.ld", Path(folder))


class Line:
    """The driver, and both directions of the line."""

    def __init__(self, module: ModuleType, *core: bool) -> None:
        self.ffi, self.lib = module.ffi, module.lib
        self.chip = Chip(module)
        self.core = chips.Core(self.chip, *core)
        Ports(self.chip)
        self.usart = Usart(self.chip, self.core)
        self.chip.restart()
        self.source = self.lib.clock_start()
        self.lib.uart_start(115200)
        self.usart.run()

    def receive(self, data: bytes) -> None:
        for byte in data:
            self.usart.receive(byte)
            self.usart.run()

    def read(self, size: int = 4096) -> bytes:
        data = self.ffi.new("uint8_t[]", size)
        return bytes(self.ffi.buffer(data, self.lib.uart_read(self.ffi.NULL, data, size)))

    def write(self, data: bytes) -> int:
        count = self.lib.uart_write(self.ffi.NULL, data, len(data))
        self.usart.run()
        return count

    def baud(self, rate: int) -> int:
        return self.lib.uart_baud(self.ffi.NULL, rate)

    def apb1_hz(self) -> int:
        return 42_000_000 if self.source != HSI else 16_000_000


@pytest.fixture
def lines(module: ModuleType) -> Iterator[list[Line]]:
    made: list[Line] = []
    yield made
    for line in made:
        line.chip.close()


def new_line(module: ModuleType, lines: list[Line], *core: bool) -> Line:
    lines.append(Line(module, *core))
    return lines[-1]


def test_no_byte_is_lost_between_two_looks_of_the_owner(module, lines) -> None:
    line = new_line(module, lines)
    data = random.Random(1).randbytes(8 * BETWEEN_LOOKS)
    got = b""
    for start in range(0, len(data), BETWEEN_LOOKS):
        line.receive(data[start : start + BETWEEN_LOOKS])
        got += line.read()
    assert got == data
    assert line.usart.lost == 0


@pytest.mark.parametrize("stands_still", [False, True], ids=["between SR and DR", "while it waits"])
def test_a_byte_too_many_costs_bytes_and_never_the_processor(
    module, lines, stands_still: bool
) -> None:
    """An overrun asks for the handler until it is cleared, even when no byte waits any more."""
    line = new_line(module, lines)
    line.receive(b"before")
    if stands_still:  # as erasing flash makes it
        line.usart.receive(ord("x"))
        line.usart.receive(ord("y"))
        line.usart.run()
    else:
        line.usart.between += b"y"
        line.receive(b"x")
    assert line.usart.lost == 1
    line.receive(b"after")
    got = line.read()
    assert got.startswith(b"beforex") and got.endswith(b"after")


def test_a_full_ring_loses_what_comes_last(module, lines) -> None:
    line = new_line(module, lines)
    data = random.Random(2).randbytes(RX_BYTES + 100)
    line.receive(data)
    assert line.read(100) == data[:100]
    line.receive(b"again")
    assert line.read() == data[100:RX_BYTES] + b"again"


def test_what_is_written_leaves_in_order(module, lines) -> None:
    line = new_line(module, lines)
    data = random.Random(3).randbytes(3 * TX_BYTES)
    assert line.lib.uart_line_idle() == 1
    taken = line.write(data)
    assert TX_BYTES <= taken <= TX_BYTES + 2
    while taken < len(data) or not line.lib.uart_line_idle():
        assert line.baud(9600) == module.lib.DRIP_ERR_BUSY
        line.usart.shift()
        line.usart.run()
        taken += line.write(data[taken : taken + 7])
    assert bytes(line.usart.sent) == data
    assert line.baud(9600) == 0


@pytest.mark.parametrize(
    ("core", "source", "most"),
    [((True,), HSE_PLL, 921600), ((False, True), HSI_PLL, 115200), ((False,), HSI, 115200)],
    ids=["crystal", "PLL without a crystal", "neither"],
)
def test_rates_are_near_and_capped_without_a_crystal(module, lines, core, source, most) -> None:
    line = new_line(module, lines, *core)
    assert line.source == line.lib.clock_source() == source
    assert line.chip.get(CR1) & (UE | TE | RE) == UE | TE | RE
    assert abs(line.apb1_hz() / line.chip.get(BRR) / 115200 - 1) < 0.02
    for rate in RATES:
        before = line.chip.get(BRR)
        result = line.baud(rate)
        if rate > most:
            assert result == module.lib.DRIP_ERR_UNSUPPORTED
            assert line.chip.get(BRR) == before
        else:
            assert result == 0
            assert abs(line.apb1_hz() / line.chip.get(BRR) / rate - 1) < 0.02, rate
    for rate in (0, 1199, 921601, 0xFFFFFFFF):
        assert line.baud(rate) == module.lib.DRIP_ERR_UNSUPPORTED
