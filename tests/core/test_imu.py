"""The motion sensor driver against register-level models of the sensors."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import compiled
import numpy as np
import pytest
from imu_fake import Bus, Lsm, Mpu, Sensor

from drip.wire import Dtype, Err

DRIVERS = compiled.ROOT / "firmware" / "drivers"
SENSORS = {"MPU-6050": (Mpu, 0x68), "MPU-6500": (Mpu, 0x70), "LSM6DSO": (Lsm, 0x6C)}
STEP_US = 500
MRAD = math.radians(1000)


@pytest.fixture(scope="module")
def imu_module():
    with tempfile.TemporaryDirectory() as folder:
        yield compiled.load("imu_bench", [DRIVERS / "imu.c"], [DRIVERS / "imu.h"], Path(folder))


def steady(_: float) -> tuple[float, ...]:
    return (0.25, -0.5, 1.0, 10.0, -20.0, 500.0)


def wave(seconds: float) -> tuple[float, ...]:
    """2 Hz: slow enough for every filter and for interpolation."""
    turn = math.sin(2 * math.pi * 2 * seconds)
    return (2 * turn, -turn, 1 + turn, 100 * turn, -300 * turn, 50 * turn)


class Driver:
    """The driver, a bus, and what it delivered."""

    def __init__(self, module, sensor: Sensor | None, rate=50, window=50, hop=25) -> None:
        self.ffi, self.lib = module.ffi, module.lib
        self.bus = Bus(self.ffi, sensor)
        self.imu = self.ffi.new("drip_imu_t *")
        self.samples = self.ffi.new("int16_t[]", (window + hop) * 6)
        self.window = window
        config = {"rate_hz": rate, "window": window, "hop": hop, "stream_id": 3}
        self.code = self.lib.drip_imu_init(
            self.imu, self.bus.struct, self.ffi.new("drip_imu_config_t *", config), self.samples
        )
        self.frames: list[tuple[int, np.ndarray]] = []

    def run(self, seconds: float, take: bool = True, step_us: int = STEP_US) -> None:
        end_us = self.bus.now_us + int(seconds * 1e6)
        while self.bus.now_us < end_us:
            self.bus.now_us += step_us
            self.lib.drip_imu_step(self.imu)
            if take:
                self.take()

    def take(self) -> int:
        buffer = self.ffi.new("uint8_t[]", self.window * 12)
        frame = self.ffi.new("drip_frame_t *")
        found = self.lib.drip_imu_take(self.imu, buffer, len(buffer), frame)
        if found:
            assert (frame.size, frame.stream_id) == (self.window * 12, 3)
            data = np.frombuffer(bytes(self.ffi.buffer(buffer)), "<i2").reshape(self.window, 6)
            self.frames.append((frame.time_us, data))
        return found


def expected(motion, seconds: float) -> list[float]:
    values = motion(seconds)
    return [*(1000 * v for v in values[:3]), *(v * MRAD for v in values[3:])]


@pytest.mark.parametrize("name", SENSORS)
def test_units_are_those_of_the_training_data(imu_module, name: str) -> None:
    kind, who = SENSORS[name]
    driver = Driver(imu_module, kind(who, steady))
    driver.run(2.0)
    assert driver.bus.sensor.resets == 1
    assert driver.lib.drip_imu_present(driver.imu) == 1
    assert len(driver.frames) == 2
    for _, frame in driver.frames:
        assert np.abs(frame - np.array(expected(steady, 0))).max() <= 1


@pytest.mark.parametrize("name", SENSORS)
@pytest.mark.parametrize("drift", [0.95, 1.05])
def test_the_rate_is_that_of_the_board(imu_module, name: str, drift: float) -> None:
    kind, who = SENSORS[name]
    driver = Driver(imu_module, kind(who, wave, drift))
    driver.run(6.0)
    assert len(driver.frames) >= 9
    times = [time_us for time_us, _ in driver.frames]
    assert set(np.diff(times)) == {25 * 20_000}
    for time_us, frame in driver.frames:
        for sample in range(50):
            at_s = (time_us - (49 - sample) * 20_000) / 1e6
            # A sample is seen up to 2.4 ms after it was taken; 2 Hz of 2 g change 25 mg per ms.
            wrong = np.abs(frame[sample] - np.array(expected(wave, at_s - 0.004)))
            assert wrong[:3].max() < 110 and wrong[3:].max() < 280
    assert (driver.imu.gaps, driver.imu.missed, driver.imu.bus_errors) == (0, 0, 0)


def test_windows_overlap(imu_module) -> None:
    driver = Driver(imu_module, Mpu(0x68, wave))
    driver.run(4.0)
    for (_, before), (_, after) in zip(driver.frames, driver.frames[1:], strict=False):
        assert np.array_equal(before[25:], after[:25])
    assert driver.imu.windows == len(driver.frames) >= 5


def test_a_rate_that_does_not_divide_a_second(imu_module) -> None:
    driver = Driver(imu_module, Lsm(0x6C, wave), rate=30, window=30, hop=30)
    driver.run(10.2)
    times = [time_us for time_us, _ in driver.frames]
    assert set(np.diff(times)) == {1_000_000}


def test_a_window_that_nobody_takes_gives_way(imu_module) -> None:
    driver = Driver(imu_module, Mpu(0x68, wave))
    driver.run(5.0, take=False)
    assert driver.imu.missed >= 6
    assert driver.take() == 1 and driver.take() == 0
    # The oldest that is left: it may lie a hop back.
    late_us = driver.bus.now_us - driver.frames[0][0]
    assert 0 <= late_us < 530_000
    missed = driver.imu.missed
    driver.run(3.0)
    assert driver.imu.missed == missed
    assert set(np.diff([time_us for time_us, _ in driver.frames])) == {500_000}


def test_no_sensor_then_one(imu_module) -> None:
    driver = Driver(imu_module, None)
    driver.run(3.0)
    assert driver.lib.drip_imu_present(driver.imu) == 0
    assert driver.imu.bus_errors == 0
    driver.bus.sensor = Lsm(0x6C, steady)
    driver.run(3.0)
    assert driver.frames


def test_a_sensor_that_goes_away_comes_back(imu_module) -> None:
    sensor = Mpu(0x70, steady)
    driver = Driver(imu_module, sensor)
    driver.run(2.0)
    driver.bus.sensor = None
    driver.run(2.0)
    assert driver.imu.bus_errors == driver.lib.DRIP_IMU_ERRORS
    assert (driver.imu.gaps, driver.lib.drip_imu_present(driver.imu)) == (1, 0)
    driver.bus.sensor = sensor
    before = len(driver.frames)
    driver.run(3.0)
    assert len(driver.frames) > before
    assert sensor.resets == driver.imu.restarts == 2


def test_a_sensor_that_stops_is_set_up_again(imu_module) -> None:
    sensor = Lsm(0x6C, steady)
    driver = Driver(imu_module, sensor)
    driver.run(2.0)
    sensor.stuck = True
    driver.run(0.5)
    sensor.stuck = False
    driver.run(3.0)
    assert (driver.imu.gaps, driver.imu.restarts) == (1, 2)
    assert len(driver.frames) >= 4


def test_single_errors_are_counted_and_cost_nothing(imu_module) -> None:
    driver = Driver(imu_module, Mpu(0x68, steady))
    driver.run(1.0)
    for _ in range(10):
        driver.bus.fail = 1
        driver.run(0.1)
    assert (driver.imu.bus_errors, driver.imu.gaps) == (10, 0)
    assert driver.imu.restarts == 1


def test_a_pause_of_the_board_breaks_the_window_off(imu_module) -> None:
    driver = Driver(imu_module, Mpu(0x68, wave))
    driver.run(1.0)
    driver.bus.now_us += 1_500_000
    driver.run(2.5)
    assert driver.imu.gaps == 1
    for _, frame in driver.frames:
        # No window holds a step from before to after the pause.
        assert np.abs(np.diff(frame[:, 1].astype(int))).max() < 300


def test_steps_of_an_inference_cost_no_window(imu_module) -> None:
    driver = Driver(imu_module, Mpu(0x68, steady))
    driver.run(4.0, step_us=5000)
    assert len(driver.frames) >= 5
    assert driver.imu.gaps == 0


def test_a_stranger_at_the_address_is_left_alone(imu_module) -> None:
    stranger = Mpu(0x55, steady)
    driver = Driver(imu_module, stranger)
    driver.run(3.0)
    assert stranger.resets == 0
    assert driver.lib.drip_imu_present(driver.imu) == 0


def test_a_port_gets_windows_and_the_stream(imu_module) -> None:
    driver = Driver(imu_module, Mpu(0x68, steady))
    port = driver.ffi.new("drip_port_t *")
    driver.lib.drip_imu_attach(driver.imu, port)
    driver.run(1.5, take=False)
    buffer = driver.ffi.new("uint8_t[]", 600)
    frame = driver.ffi.new("drip_frame_t *")
    assert port.sensor_poll(port.context, buffer, 599, frame) == 0
    assert port.sensor_poll(port.context, buffer, 600, frame) == 1
    values = np.frombuffer(bytes(driver.ffi.buffer(buffer)), "<i2").reshape(50, 6)
    assert np.abs(values - np.array(expected(steady, 0))).max() <= 1
    stream = driver.ffi.new("drip_stream_t *")
    assert port.sensor_stream(port.context, 0, stream) == 1
    assert (stream.id, stream.shape[0]) == (3, 50)
    assert port.sensor_stream(port.context, 1, stream) == 0


def test_stream_and_arguments(imu_module) -> None:
    driver = Driver(imu_module, None)
    stream = driver.ffi.new("drip_stream_t *")
    driver.lib.drip_imu_stream(driver.imu, stream)
    assert (stream.id, stream.dtype, stream.rank) == (3, Dtype.I16, 2)
    assert (list(stream.shape), stream.rate_mhz) == ([50, 6, 1, 1], 2000)
    assert np.array([stream.scale], "<u4").view("<f4")[0] == 1.0
    for wrong in ({"rate": 0}, {"rate": 101}, {"hop": 0}, {"hop": 51}):
        assert Driver(imu_module, None, **wrong).code == Err.ARGUMENT
