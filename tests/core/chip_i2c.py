"""The I2C interface of an STM32F4 as a master (RM0390, chapter 24), its two pins, and the wire."""

from __future__ import annotations

import math

from chip import Chip, Core, pins
from imu_fake import Sensor

GPIO, PORTS = 0x40020000, 8
MODER, OTYPER, IDR, ODR, BSRR, AFR = 0x00, 0x04, 0x10, 0x14, 0x18, 0x20
OUTPUT, ALTERNATE, I2C1_FUNCTION = 1, 2, 4
CR1, CR2, OAR1, OAR2, DR, SR1, SR2, CCR, TRISE = (0x40005400 + 4 * n for n in range(9))
APB1ENR, I2C1_CLOCK = 0x40023840, 1 << 21
PE, START, STOP, ACK, SWRST = 1, 1 << 8, 1 << 9, 1 << 10, 1 << 15
ITERREN, ITEVTEN, ITBUFEN = 1 << 8, 1 << 9, 1 << 10
SB, ADDR, BTF, RXNE, TXE = 1, 2, 4, 1 << 6, 1 << 7
BERR, ARLO, AF = 1 << 8, 1 << 9, 1 << 10
ERRORS = 0xDF00
MSL, BUSY = 1, 2
EVENT_IRQ, ERROR_IRQ = 31, 32
MOST_HZ = 400_000
# A handler that never takes its cause away would run for ever.
MOST_CALLS = 200


class Wire:
    """Both lines, and the sensor at the end.

    Attributes:
        sensor: None: nobody answers.
        held: Clocks that it takes until the sensor lets go of the data line.
        scl_low: Somebody holds the clock.
        bytes: That went over the wire, so far.
        wrong: Flags of SR1 by number of byte, that the interface is to report then.
        hold_at: Number of the byte at which the sensor begins to hold the data line.
    """

    def __init__(self, sensor: Sensor | None) -> None:
        self.sensor = sensor
        self.held = 0
        self.scl_low = False
        self.bytes = 0
        self.wrong: dict[int, int] = {}
        self.hold_at: int | None = None
        self._pointer = 0
        self._fresh = False

    def count(self) -> int:
        """One more byte. Returns the flags of what goes wrong with it."""
        self.bytes += 1
        if self.bytes == self.hold_at:
            self.held = 9
        return self.wrong.get(self.bytes, 0)

    def address(self, byte: int, now_us: float) -> bool:
        """Whether somebody acknowledges."""
        self._fresh = not byte & 1
        if self.sensor is None or byte >> 1 not in self.sensor.addresses or self.held:
            return False
        self.sensor.run(now_us / 1e6)
        return True

    def take(self, byte: int) -> bool:
        """A byte for the sensor: a number of a register, then values."""
        if self.sensor is None:
            return False
        if self._fresh:
            self._pointer, self._fresh = byte, False
        else:
            self.sensor.written(self._pointer, byte)
            self._pointer += 1
        return True

    def give(self) -> int:
        """A byte of the sensor."""
        if self.held:
            return 0x00
        if self.sensor is None:
            return 0xFF
        self._pointer += 1
        return self.sensor.read(self._pointer - 1, 1)[0]


class Pins:
    """The GPIO ports: who drives the two lines, and how."""

    windows = ((GPIO, GPIO + 0x400 * PORTS),)

    def __init__(self, chip: Chip, wire: Wire) -> None:
        self.chip, self.wire = chip, wire
        named = pins()
        self.scl, self.sda = named["BOARD_I2C_SCL"], named["BOARD_I2C_SDA"]
        self.clocks = 0
        chip.devices.append(self)

    def reset(self) -> None:
        pass

    def power_off(self) -> None:
        pass

    def _field(self, pin: int, register: int, bits: int) -> int:
        at = pin % 16 * bits
        word = self.chip.get(GPIO + pin // 16 * 0x400 + register + at // 32 * 4)
        return word >> at % 32 & (1 << bits) - 1

    def is_connected(self) -> bool:
        """Whether both pins belong to the I2C interface, open drain."""
        return all(
            self._field(pin, MODER, 2) == ALTERNATE
            and self._field(pin, AFR, 4) == I2C1_FUNCTION
            and self._field(pin, OTYPER, 1) == 1
            for pin in (self.scl, self.sda)
        )

    def read(self, address: int) -> None:
        if address % 0x400 == IDR:
            self.chip.put(address, 0xFFFF if not self.wire.held else 0xFFFF & ~(1 << self.sda % 16))

    def written(self, address: int, value: int, before: int) -> None:
        if address % 0x400 != BSRR:
            return
        base = address - BSRR
        level = self.chip.get(base + ODR)
        new = (level | value & 0xFFFF) & ~(value >> 16 & ~value)
        self.chip.put(base + ODR, new)
        self.chip.put(address, 0)
        bit = 1 << self.scl % 16
        if base == GPIO + self.scl // 16 * 0x400 and self._field(self.scl, MODER, 2) == OUTPUT:
            if not self._field(self.scl, OTYPER, 1):
                self.chip.faults.append("the clock line is driven high against the sensor")
            if new & bit and not level & bit:
                self.clocks += 1
                self.wire.held -= self.wire.held > 0


class I2c:
    """Bytes take nine clocks; flags, acknowledgement and stretching as the manual has them.

    Attributes:
        latency_us: From a flag to the handler.
        stall_at: Before the handler that follows this byte of the wire, the processor stands still
            for `stall_us`.
    """

    windows = ((CR1, TRISE + 4),)

    def __init__(self, chip: Chip, core: Core, wire: Wire, gpio: Pins) -> None:
        self.chip, self.core, self.wire, self.gpio = chip, core, wire, gpio
        self.latency_us = 2.0
        self.stall_at: int | None = None
        self.stall_us = 0.0
        self._calls = 0
        chip.devices.append(self)
        self.reset()

    def reset(self) -> None:
        self._registers: dict[int, int] = dict.fromkeys(range(CR1, TRISE + 4, 4), 0)
        self._clear()

    def _clear(self) -> None:
        """What a software reset does."""
        for register in self._registers:
            self._registers[register] = 0
            self.chip.put(register, 0)
        self._phase: str | None = None
        self._done_us = math.inf
        self._irq_us = math.inf
        self._mode: str | None = None  # tx, rx: after ADDR was cleared
        self._next: int | None = None  # byte in DR that waits for the shift register
        self._shift = 0
        self._behind: int | None = None  # received while DR was full
        self._more = False
        self._seen = 0  # SR1 as last read

    def power_off(self) -> None:
        pass

    # ------------------------------------------------------------------ registers

    def read(self, address: int) -> None:
        self._kick()
        while self._done_us <= self.chip.time_us and not self.wire.scl_low:
            self._complete()
            self._kick()
        value = self._registers[address]
        if address == DR:
            value = self._read_data()
        elif address == SR1:
            self._seen = value
        elif address == SR2:
            if self.wire.held and self._registers[CR1] & PE:
                value |= BUSY
            if self._seen & ADDR and self._registers[SR1] & ADDR:
                self._addressed()
        self.chip.put(address, value)

    def _read_data(self) -> int:
        value = self._registers[DR]
        if self._behind is not None:
            self._registers[DR], self._behind = self._behind, None
        else:
            self._registers[SR1] &= ~RXNE
        self._registers[SR1] &= ~BTF
        return value

    def _addressed(self) -> None:
        self._registers[SR1] &= ~ADDR
        if self._shift & 1:
            self._mode, self._more = "rx", True
        else:
            self._mode = "tx"
            self._registers[SR1] |= TXE

    def written(self, address: int, value: int, before: int) -> None:
        if address == CR1:
            self._control_written(value)
        elif address == DR:
            self._data_written(value & 0xFF)
        elif address == SR1:
            self._registers[SR1] &= value | ~ERRORS
        elif address != SR2:
            self._registers[address] = value

    def _control_written(self, value: int) -> None:
        present = self._registers[CR1]
        if value & SWRST or not value & PE:
            self._clear()
            self._registers[CR1] = value
            return
        if present & (START | STOP):
            self.chip.faults.append("CR1 is written while START or STOP is on its way")
        self._registers[CR1] = value
        if value & START and not present & START:
            if self._registers[SR1] & RXNE:
                self.chip.faults.append("a byte of the transfer before is still in DR")
            self._check_settings()

    def _check_settings(self) -> None:
        mhz, ccr = self._registers[CR2] & 0x3F, self._registers[CCR]
        apb1_mhz = 42 if self.chip.get(0x40023808) & 3 == 2 else 16
        rate = apb1_mhz * 1e6 / (3 * (ccr & 0xFFF)) if ccr & 0xFFF else 0
        rise = self._registers[TRISE] == mhz * 300 // 1000 + 1
        if mhz != apb1_mhz or not ccr >> 15 or not 0 < rate <= MOST_HZ or not rise:
            self.chip.faults.append(f"{rate:.0f} Hz at {mhz} MHz, rise time in order: {rise}")
        if not self.gpio.is_connected() or not self.chip.get(APB1ENR) & I2C1_CLOCK:
            self.chip.faults.append("the pins are not those of the interface")

    def _data_written(self, value: int) -> None:
        if self._registers[SR1] & SB and self._seen & SB:
            self._registers[SR1] &= ~SB
            self._shift, self._mode = value, None
            self._begin("address", 9)
        elif self._mode == "tx":
            self._next = value
            self._registers[SR1] &= ~(TXE | BTF)
        else:
            self.chip.faults.append("DR is written, and nothing is to be sent")

    # ------------------------------------------------------------------ the wire

    def _begin(self, phase: str, clocks: int) -> None:
        self._phase = phase
        self._done_us = self.chip.time_us + clocks * 1e6 / MOST_HZ

    def _kick(self) -> None:
        """Start what can be started."""
        control, free = self._registers[CR1], not self.wire.held and not self.wire.scl_low
        if self._phase is not None or not control & PE or self.wire.scl_low:
            return
        if control & STOP and free and self._registers[SR2] & MSL:
            self._begin("stop", 1)
        elif control & START and free:
            self._begin("start", 1)
        elif control & (START | STOP):
            return
        elif self._mode == "tx" and self._next is not None:
            self._shift, self._next = self._next, None
            self._registers[SR1] |= TXE
            self._begin("tx", 9)
        elif self._mode == "rx" and self._more and self._behind is None:
            self._begin("rx", 9)

    def _complete(self) -> None:
        phase, self._phase, self._done_us = self._phase, None, math.inf
        status = self._registers
        if phase == "start":
            status[SR1] = status[SR1] & ~(TXE | BTF) | SB
            status[SR2] |= MSL | BUSY
            status[CR1] &= ~START
            self._mode = None
        elif phase == "stop":
            status[SR2] = 0
            status[SR1] &= ~(TXE | BTF | ADDR | SB)
            status[CR1] &= ~STOP
            self._mode, self._next = None, None
        else:
            self._byte(str(phase), self.wire.count())
        self.chip.put(CR1, status[CR1])

    def _byte(self, phase: str, wrong: int) -> None:
        status = self._registers
        if wrong & ARLO:  # somebody else has the bus: a slave from now on
            status[SR1] |= wrong
            status[SR2] = 0
            status[CR1] &= ~STOP
            self._mode = None
            return
        status[SR1] |= wrong
        if phase == "address":
            there = self.wire.address(self._shift, self.chip.time_us) and not wrong & AF
            status[SR1] |= ADDR if there else AF
        elif phase == "tx":
            if wrong & AF or not self.wire.take(self._shift):
                status[SR1] |= AF
            elif self._next is None:
                status[SR1] |= BTF
        else:
            byte = self.wire.give()
            self._more = bool(status[CR1] & ACK)
            if status[SR1] & RXNE:
                self._behind = byte
                status[SR1] |= BTF
            else:
                status[DR] = byte
                status[SR1] |= RXNE

    # ------------------------------------------------------------------ time

    def _handler(self) -> str | None:
        flags, control = self._registers[SR1], self._registers[CR2]
        events = SB | ADDR | BTF | (TXE | RXNE if control & ITBUFEN else 0)
        if control & ITEVTEN and flags & events and self.core.is_enabled(EVENT_IRQ):
            return "event"
        if control & ITERREN and flags & ERRORS and self.core.is_enabled(ERROR_IRQ):
            return "error"
        return None

    def advance(self, step_us: float) -> None:
        """Let time pass; handlers run when their flags are up."""
        end_us = self.chip.time_us + step_us
        self.chip.settle()
        while True:
            self._kick()
            wanted = self._handler()
            if wanted is None:
                self._irq_us, self._calls = math.inf, 0
            elif self._irq_us == math.inf:
                self._irq_us = self.chip.time_us + self.latency_us
                if self.stall_at is not None and self.wire.bytes >= self.stall_at:
                    self._irq_us += self.stall_us
                    self.stall_at = None
            done_us = math.inf if self.wire.scl_low else self._done_us
            at_us = min(done_us, self._irq_us)
            if at_us > end_us:
                break
            self.chip.time_us = max(self.chip.time_us, at_us)
            if self._irq_us <= done_us and wanted is not None:
                self._irq_us = math.inf
                self._calls += 1
                assert self._calls < MOST_CALLS, f"the {wanted} handler leaves its cause"
                lib = self.chip.lib
                (lib.i2c_event_isr if wanted == "event" else lib.i2c_error_isr)()
                self.chip.settle()
            else:
                self._complete()
        self.chip.time_us = max(self.chip.time_us, end_us)
        self.core.tick()
