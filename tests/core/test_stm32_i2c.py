"""The STM32F4's I2C driver under the motion sensor's: registers, wire and sensor are models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import chip as chips
import numpy as np
import pytest
from chip import Chip
from chip_i2c import AF, ARLO, BERR, I2c, Pins, Wire
from imu_fake import Lsm, Mpu, Sensor
from test_imu import SENSORS, expected, steady, wave

STEP_US = 250.0
# Past the set-up: transfers of data.
SET_UP_S = 0.2


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    with tempfile.TemporaryDirectory() as folder:
        yield chips.load("chip_i2c_bench", "f446re.ld", Path(folder))


class Board:
    """Chip, wire, sensor; the drivers of both, and the windows that came out."""

    def __init__(
        self, module: ModuleType, sensor: Sensor | None, held: int = 0, has_crystal: bool = True
    ) -> None:
        self.ffi, self.lib = module.ffi, module.lib
        self.chip = Chip(module)
        self.core = chips.Core(self.chip, has_crystal)
        self.wire = Wire(sensor)
        self.wire.held = held
        self.pins = Pins(self.chip, self.wire)
        self.i2c = I2c(self.chip, self.core, self.wire, self.pins)
        self.chip.restart()
        self.lib.clock_start()
        self.lib.i2c_start()
        self.imu = self.ffi.new("drip_imu_t *")
        self.samples = self.ffi.new("int16_t[]", 75 * 6)
        config = {"rate_hz": 50, "window": 50, "hop": 25, "stream_id": 3}
        config = self.ffi.new("drip_imu_config_t *", config)
        bus = self.ffi.addressof(self.lib, "chip_imu_bus")
        assert self.lib.drip_imu_init(self.imu, bus, config, self.samples) == 0
        self.frames: list[tuple[int, np.ndarray]] = []

    def run(self, seconds: float) -> None:
        end_us = self.chip.time_us + seconds * 1e6
        buffer = self.ffi.new("uint8_t[]", 600)
        frame = self.ffi.new("drip_frame_t *")
        while self.chip.time_us < end_us:
            self.i2c.advance(STEP_US)
            self.lib.drip_imu_step(self.imu)
            self.chip.check()
            if self.lib.drip_imu_take(self.imu, buffer, len(buffer), frame):
                data = np.frombuffer(bytes(self.ffi.buffer(buffer)), "<i2").reshape(50, 6)
                self.frames.append((frame.time_us, data))

    def check_steady(self) -> None:
        assert self.frames
        for _, frame in self.frames:
            assert np.abs(frame - np.array(expected(steady, 0))).max() <= 1


@pytest.fixture
def boards(module: ModuleType) -> Iterator[list[Board]]:
    made: list[Board] = []
    yield made
    for board in made:
        board.chip.close()


def new_board(module: ModuleType, boards: list[Board], *arguments: object) -> Board:
    boards.append(Board(module, *arguments))
    return boards[-1]


@pytest.mark.parametrize("name", SENSORS)
def test_windows_at_a_fixed_rate_come_over_the_wire(module, boards, name: str) -> None:
    kind, who = SENSORS[name]
    board = new_board(module, boards, kind(who, wave))
    board.run(2.4)
    assert board.wire.sensor.resets == 1
    assert len(board.frames) == 3
    assert set(np.diff([time_us for time_us, _ in board.frames])) == {25 * 20_000}
    for time_us, frame in board.frames:
        for sample in range(50):
            at_s = (time_us - (49 - sample) * 20_000) / 1e6
            wrong = np.abs(frame[sample] - np.array(expected(wave, at_s - 0.004)))
            assert wrong[:3].max() < 110 and wrong[3:].max() < 280
    for (_, before), (_, after) in zip(board.frames, board.frames[1:], strict=False):
        assert np.array_equal(before[25:], after[:25])
    assert (board.imu.gaps, board.imu.missed, board.imu.bus_errors) == (0, 0, 0)


def test_without_a_crystal_the_bus_is_no_faster(module, boards) -> None:
    """The model refuses settings that do not fit 16 MHz."""
    board = new_board(module, boards, Mpu(0x68, steady), 0, False)
    board.run(0.1)
    assert board.wire.bytes > 0


def test_a_sensor_that_comes_later_is_found(module, boards) -> None:
    board = new_board(module, boards, None)
    board.run(1.2)
    assert (board.imu.bus_errors, board.lib.drip_imu_present(board.imu)) == (0, 0)
    assert board.wire.bytes == 2 * 6  # each of six addresses was called in both rounds
    board.wire.sensor = Lsm(0x6C, steady)
    board.run(2.4)
    board.check_steady()


@pytest.mark.parametrize("wrong", [AF, BERR, ARLO], ids=["not acknowledged", "bus", "arbitration"])
def test_an_error_at_any_byte_costs_one_transfer(module, boards, wrong: int) -> None:
    board = new_board(module, boards, Mpu(0x68, steady))
    board.run(SET_UP_S)
    assert board.lib.drip_imu_present(board.imu)
    # 18 bytes are a transfer, and an error ends it: each of them meets one, five transfers apart.
    gaps = [18 * 5 + 1 + n % 18 for n in range(36)]
    board.wire.wrong = {board.wire.bytes + int(at): wrong for at in np.cumsum(gaps)}
    board.run(2.6)
    assert 18 <= board.imu.bus_errors <= 36
    assert (board.imu.gaps, board.imu.restarts) == (0, 1)
    board.check_steady()


@pytest.mark.parametrize("byte", [0, 1, 2, 3, 4, 11, 17])
def test_a_sensor_that_holds_the_data_line_is_clocked_free(module, boards, byte: int) -> None:
    board = new_board(module, boards, Mpu(0x70, steady))
    board.run(SET_UP_S)
    board.wire.hold_at = board.wire.bytes + 18 + byte
    board.run(1.3)
    # At the last byte the stop is missing, and the next transfer finds that out.
    assert (board.wire.held, board.pins.clocks) == (0, 18)
    assert board.lib.drip_imu_present(board.imu)
    board.check_steady()


def test_a_data_line_that_is_held_at_the_start_is_clocked_free(module, boards) -> None:
    board = new_board(module, boards, Lsm(0x6C, steady), 9)
    assert (board.wire.held, board.pins.clocks) == (0, 9)
    board.run(1.4)
    board.check_steady()
    assert board.imu.bus_errors == 0


def test_a_clock_line_that_is_held_ends_in_timeouts_and_then_goes_on(module, boards) -> None:
    board = new_board(module, boards, Mpu(0x68, steady))
    board.run(SET_UP_S)
    board.wire.scl_low = True
    board.run(0.3)
    assert board.imu.bus_errors >= 5 and not board.lib.drip_imu_present(board.imu)
    board.wire.scl_low = False
    board.run(2.4)
    board.check_steady()


@pytest.mark.parametrize("stall_us", [40.0, 1_200_000.0], ids=["a byte", "an erase"])
def test_a_processor_that_stands_still_mixes_no_bytes_up(module, boards, stall_us) -> None:
    """The bus waits for the handler; a byte too many is not taken for the next transfer's first."""
    board = new_board(module, boards, Mpu(0x68, steady))
    board.run(SET_UP_S)
    for byte in range(0, 18, 1 if stall_us < 1e6 else 4):
        board.i2c.stall_at, board.i2c.stall_us = board.wire.bytes + 18 + byte, stall_us
        board.run(stall_us / 1e6 + 0.02)
        assert board.i2c.stall_at is None
    board.run(1.3)
    board.check_steady()
