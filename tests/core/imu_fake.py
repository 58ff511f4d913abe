"""Register-level models of the motion sensors, and an I2C bus with a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable

from drip.wire import Err

# Acceleration in g and rotation in degrees per second, three axes each, at a time in seconds.
Motion = Callable[[float], tuple[float, ...]]


class Sensor:
    """Registers, and samples at the rate that they ask for.

    Attributes:
        drift: The sensor's clock against the board's.
        stuck: It answers, but delivers no samples.
    """

    addresses: tuple[int, ...]
    name_reg: int

    def __init__(self, name: int, motion: Motion, drift: float = 1.0) -> None:
        self.name, self.motion, self.drift = name, motion, drift
        self.stuck = False
        self.resets = 0
        self.reset()

    def reset(self) -> None:
        self.regs = bytearray(128)
        self.regs[self.name_reg] = self.name
        self.ready = False
        self.next_s = math.inf

    def rate(self) -> float:
        raise NotImplementedError

    def sample(self, values: tuple[float, ...]) -> None:
        raise NotImplementedError

    def run(self, now_s: float) -> None:
        rate = self.rate() * self.drift
        if rate == 0 or self.stuck:
            self.next_s = math.inf
            return
        if self.next_s == math.inf:
            self.next_s = now_s + 1 / rate
        while self.next_s <= now_s:
            self.sample(self.motion(self.next_s))
            self.ready = True
            self.next_s += 1 / rate

    def put(self, at: int, value: float, big: bool) -> None:
        raw = max(-32768, min(32767, round(value)))
        self.regs[at : at + 2] = raw.to_bytes(2, "big" if big else "little", signed=True)

    def written(self, reg: int, value: int) -> None:
        self.regs[reg] = value

    def read(self, reg: int, size: int) -> bytes:
        return bytes(self.regs[reg : reg + size])


class Mpu(Sensor):
    """MPU-6050 (0x68), MPU-6500 (0x70): RM-MPU-6000A, registers 25 to 117."""

    addresses = (0x68,)
    name_reg = 0x75

    def reset(self) -> None:
        super().reset()
        self.regs[0x6B] = 0x40 if self.name == 0x68 else 0x01

    def rate(self) -> float:
        if self.regs[0x6B] & 0x40:
            return 0.0
        low_pass = 1 <= self.regs[0x1A] & 7 <= 6
        return (1000 if low_pass else 8000) / (1 + self.regs[0x19])

    def sample(self, values: tuple[float, ...]) -> None:
        per_g = 16384 >> (self.regs[0x1C] >> 3 & 3)
        per_dps = (131, 65.5, 32.8, 16.4)[self.regs[0x1B] >> 3 & 3]
        for axis in range(3):
            self.put(0x3B + 2 * axis, values[axis] * per_g, True)
            self.put(0x43 + 2 * axis, values[axis + 3] * per_dps, True)

    def written(self, reg: int, value: int) -> None:
        if reg == 0x6B and value & 0x80:
            self.resets += 1
            self.reset()
        else:
            super().written(reg, value)

    def read(self, reg: int, size: int) -> bytes:
        if reg <= 0x3A < reg + size:
            self.regs[0x3A] = self.ready and self.regs[0x38] & 1
            self.ready = False
        return super().read(reg, size)


class Lsm(Sensor):
    """LSM6DSO (0x6C): DS12140, registers 0x0F to 0x2D."""

    addresses = (0x6A,)
    name_reg = 0x0F

    def rate(self) -> float:
        rates = {0: 0.0, 4: 104.0, 5: 208.0, 6: 416.0}
        accel, gyro = rates[self.regs[0x10] >> 4], rates[self.regs[0x11] >> 4]
        return accel if accel == gyro else 0.0

    def sample(self, values: tuple[float, ...]) -> None:
        mg = {0: 0.061, 1: 0.488, 2: 0.122, 3: 0.244}[self.regs[0x10] >> 2 & 3]
        mdps = {0: 8.75, 1: 17.5, 2: 35.0, 3: 70.0}[self.regs[0x11] >> 2 & 3]
        for axis in range(3):
            self.put(0x22 + 2 * axis, values[axis + 3] * 1000 / mdps, False)
            self.put(0x28 + 2 * axis, values[axis] * 1000 / mg, False)

    def written(self, reg: int, value: int) -> None:
        if reg == 0x12 and value & 0x01:
            self.resets += 1
            self.reset()
        else:
            super().written(reg, value)

    def read(self, reg: int, size: int) -> bytes:
        if reg <= 0x1E < reg + size:
            self.regs[0x1E] = 0x07 if self.ready else 0
            if reg + size > 0x22:
                self.ready = False
        return super().read(reg, size)


class Bus:
    """What the driver is lent. Transfers take a fixed time; an address without a sensor fails."""

    def __init__(self, ffi: object, sensor: Sensor | None, transfer_us: int = 400) -> None:
        self.ffi, self.sensor, self.transfer_us = ffi, sensor, transfer_us
        self.now_us = 1000
        self.fail = 0
        self._done_us = 0
        self._result = int(Err.OK)
        self._fetch: tuple[object, int, int] | None = None
        self.struct = ffi.new("drip_imu_bus_t *")
        self._keep = (
            ffi.callback("int(void *, uint8_t, uint8_t, uint8_t *, uint32_t)", self._read),
            ffi.callback("int(void *, uint8_t, uint8_t, uint8_t)", self._write),
            ffi.callback("int(void *)", self._poll),
            ffi.callback("uint64_t(void *)", lambda _: self.now_us),
        )
        self.struct.read, self.struct.write, self.struct.poll, self.struct.time_us = self._keep

    def _start(self, address: int) -> bool:
        assert self._fetch is None
        self._done_us = self.now_us + self.transfer_us
        there = self.sensor is not None and address in self.sensor.addresses and self.fail == 0
        self.fail -= self.fail > 0
        self._result = int(Err.OK if there else Err.IO)
        return there

    def _read(self, _: object, address: int, reg: int, data: object, size: int) -> int:
        assert size <= 16
        if self._start(address):
            self._fetch = (data, reg, size)
        return 0

    def _write(self, _: object, address: int, reg: int, value: int) -> int:
        if self._start(address):
            self.sensor.written(reg, value)
        return 0

    def _poll(self, _: object) -> int:
        if self.now_us < self._done_us:
            return int(Err.BUSY)
        if self._fetch is not None:
            data, reg, size = self._fetch
            self._fetch = None
            if self.sensor is None:
                return int(Err.IO)
            self.sensor.run(self.now_us / 1e6)
            self.ffi.memmove(data, self.sensor.read(reg, size), size)
        return self._result
