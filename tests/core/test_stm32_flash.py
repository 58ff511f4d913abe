"""The STM32F4's flash driver under the slots core: power fails at every access to a register."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import chip as chips
import numpy as np
import pytest
from chip import FLASH, Chip, PowerLossError
from chip_flash import FACTORY_OPTIONS, OPTCR, FlashInterface, sectors
from drip._core import ffi, lib
from nets import head_net
from test_slot import Board, blob_named

from drip import wire

SCRIPTS = {"f446re": "f446re.ld", "f407vg": "f407vg.ld"}
_, NET = head_net(np.random.default_rng(0))


def make_blob(number: int) -> bytes:
    return blob_named(NET, number)


def model_id(number: int) -> bytes:
    return bytes([number]) * 16


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, script in SCRIPTS.items():
            (Path(folder) / name).mkdir()
            found[name] = chips.load(f"chip_{name}", script, Path(folder) / name)
        yield found


class Flash:
    """What `test_slot.Board` boots from: the driver, on the chip."""

    def __init__(self, module: ModuleType, seed: int = 0) -> None:
        self.module = module
        self.chip = Chip(module)
        self.core = chips.Core(self.chip)
        self.interface = FlashInterface(self.chip, seed)
        self.chip.restart()
        self.lib = module.lib
        self.lib.chip_uart_idle = 1

    def attach(self, port: object) -> None:
        """Give a port of the core the driver's functions."""
        self.lib.clock_start()
        filled = self.module.ffi.new("drip_port_t *")
        self.lib.flash_attach(filled)
        ffi.memmove(port, self.module.ffi.buffer(filled), ffi.sizeof("drip_port_t"))

    def check_power(self) -> None:
        self.chip.check()

    def snapshot(self) -> np.ndarray:
        return self.interface.cells.copy()

    def restore(self, cells: np.ndarray) -> None:
        self.interface.cells[:] = cells
        self.chip.restart()


@pytest.fixture(params=SCRIPTS)
def flash(request: pytest.FixtureRequest, modules: dict[str, ModuleType]) -> Iterator[Flash]:
    flash = Flash(modules[request.param])
    yield flash
    flash.chip.close()


def install(board: Board, number: int) -> None:
    assert board.upload(make_blob(number)) == 0
    assert board.trial() == 0
    assert board.request(wire.ModelOp.CONFIRM) == 0


def test_models_are_installed_and_only_their_sectors_are_touched(flash: Flash) -> None:
    board = Board(flash)
    assert board.booted == lib.DRIP_ERR_NO_MODEL
    symbols = chips.linker_symbols(SCRIPTS[flash.module.__name__[5:]])
    for number in range(1, 12):
        install(board, number)
        if number % 4 == 0:
            flash.chip.restart()
            board = Board(flash)
            assert board.boots == model_id(number)
    spans = [(symbols[f"{name}_start"], symbols[f"{name}_end"]) for name in ("slots", "journal")]
    allowed = [
        number
        for number, (start, end) in enumerate(sectors())
        if any(first <= start and end <= last for first, last in spans)
    ]
    assert set(flash.interface.erased) <= set(allowed)
    # The blob covers one sector of each slot: what is erased already is left alone.
    assert len(set(flash.interface.erased)) == 2
    outside = np.ones(len(flash.interface.cells), bool)
    for first, last in spans:
        outside[(first - FLASH) // 4 : (last - FLASH) // 4] = False
    assert (flash.interface.cells[outside] == 0xFFFFFFFF).all()
    flash.check_power()


def cut_everywhere(flash: Flash, cuts: range) -> int:
    """Replace model 1 by model 2, cut at each of these accesses. Returns how many there are."""
    board = Board(flash)
    for number in (3, 1):  # the slot of the upload is not empty
        install(board, number)
    old, new = model_id(1), model_id(2)
    before = flash.snapshot()
    flash.restore(before)
    board = Board(flash)
    start = flash.chip.accesses
    install(board, 2)
    accesses = flash.chip.accesses - start
    done = 0
    for cut in cuts:
        if cut >= accesses:
            break
        flash.restore(before)
        board = Board(flash)
        flash.chip.cut_at = flash.chip.accesses + 1 + cut
        with pytest.raises(PowerLossError):
            install(board, 2)
        board = Board(flash)
        assert board.boots in (old, new), f"access {cut} of {accesses}"
        install(board, 2)
        assert Board(flash).boots == new, f"access {cut} of {accesses}"
        done += 1
    assert done > 0
    return accesses


def test_power_cuts_between_accesses_leave_a_confirmed_model(flash: Flash) -> None:
    """Every 37th, and the beginning: the first words of an operation are the delicate ones."""
    assert cut_everywhere(flash, range(0, 100_000, 37)) > 1000
    cut_everywhere(flash, range(60))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_power_cut_at_every_access_leaves_a_confirmed_model(flash: Flash) -> None:
    cut_everywhere(flash, range(100_000))


def test_power_fails_again_and_again(flash: Flash) -> None:
    noise = random.Random(7)
    install(Board(flash), 1)
    current, number, losses = model_id(1), 2, 0
    while losses < 60:
        wanted = model_id(number)
        flash.chip.cut_at = flash.chip.accesses + noise.randrange(1, 2500)
        try:
            board = Board(flash)
            assert board.boots == current
            install(board, number)
            current = wanted
        except PowerLossError:
            losses += 1
            found = Board(flash).boots
            assert found in (current, wanted)
            current = found
        if current == wanted:
            number = number % 250 + 1


def test_an_error_of_the_flash_is_reported_and_cleared(flash: Flash) -> None:
    install(Board(flash), 1)
    before = flash.snapshot()
    start = flash.interface.operations
    install(Board(flash), 2)
    count = flash.interface.operations - start
    for failing in [*range(1, 20), *range(20, count, 41), count]:
        flash.restore(before)
        board = Board(flash)
        flash.interface.fail_at = flash.interface.operations + failing
        code = board.upload(make_blob(2))
        code = code or board.trial() or board.request(wire.ModelOp.CONFIRM)
        assert code == lib.DRIP_ERR_IO, failing
        flash.interface.fail_at = None
        # The next attempt works, at once as well as after a restart.
        if board.slot.active == board.slot.target != -1:
            board.request(wire.ModelOp.ABORT)
        install(board, 3)
        flash.chip.restart()
        board = Board(flash)
        assert board.boots == model_id(3)
        install(board, 4)
        assert Board(flash).boots == model_id(4)


def test_an_erase_waits_for_the_line_and_keeps_watchdog_and_clock(flash: Flash) -> None:
    board = Board(flash)
    for number in (1, 2):
        install(board, number)
    flash.lib.chip_uart_idle = 0
    request = ffi.new("drip_model_request_t *")
    blob = make_blob(3)
    request.op, request.total_bytes, request.arena_bytes = wire.ModelOp.BEGIN, len(blob), 1024
    request.op_bitmap, request.model_id = 2, blob[64:80]
    assert lib.drip_slot_request(board.slot, request, ffi.NULL, 0, 1 << 20) == 0
    erased = len(flash.interface.erased)
    for _ in range(50):
        assert lib.drip_slot_poll(board.slot) == lib.DRIP_ERR_BUSY
    assert len(flash.interface.erased) == erased
    flash.lib.chip_uart_idle = 1
    kicks, before_ms = flash.lib.chip_watchdog_kicks, flash.lib.clock_millis()
    assert board.finish() == 0
    # One of the sectors of the slot has something in it.
    assert len(flash.interface.erased) == erased + 1
    assert flash.lib.chip_watchdog_kicks == kicks + 1
    assert 1198 <= flash.lib.clock_millis() - before_ms <= 1200


def test_a_flash_that_stays_busy_ends_in_a_timeout(flash: Flash) -> None:
    port = ffi.new("drip_port_t *")
    flash.attach(port)
    words = ffi.new("uint8_t[16]", bytes(range(16)))
    flash.interface.busy_reads = 1 << 40
    flash.lib.chip_watch(flash.chip.ffi.NULL)  # nobody clears it; the driver looks 1e8 times
    flash.chip.put(0x40023C0C, 1 << 16)
    assert port.flash_write(ffi.NULL, 0, 0, words, 16) == 0
    assert port.flash_poll(ffi.NULL) == lib.DRIP_ERR_TIMEOUT


def test_requests_outside_an_area_are_refused(flash: Flash) -> None:
    port = ffi.new("drip_port_t *")
    flash.attach(port)
    words = ffi.new("uint8_t[32]")
    for area, offset, size in ((4, 0, 16), (-1, 0, 16), (2, 16 * 1024, 16), (2, 8, 16), (0, 0, 8)):
        assert port.flash_write(ffi.NULL, area, offset, words, size) == lib.DRIP_ERR_ARGUMENT
    assert port.flash_write(ffi.NULL, 3, 16 * 1024 - 16, words, 32) == lib.DRIP_ERR_ARGUMENT
    assert port.flash_erase(ffi.NULL, 4) == lib.DRIP_ERR_ARGUMENT
    assert flash.interface.operations == 0
    assert port.flash_map(ffi.NULL, 4) == ffi.NULL
    flash.check_power()


def test_the_brown_out_level_is_written_once_in_a_life(flash: Flash) -> None:
    """The rest of the options is left as it is, whenever power fails."""
    accesses = None
    for cut in range(40):
        flash.interface.options = FACTORY_OPTIONS
        flash.chip.restart()
        flash.chip.cut_at = flash.chip.accesses + 1 + cut
        try:
            flash.lib.flash_protect_supply()
            flash.check_power()
            accesses = cut
        except PowerLossError:
            assert flash.interface.options & ~0xC == FACTORY_OPTIONS & ~0xC
            flash.lib.flash_protect_supply()
            flash.check_power()
        assert flash.interface.options == FACTORY_OPTIONS & ~0xC
        assert flash.chip.get(OPTCR) & 1
        written = flash.interface.options_written
        flash.chip.restart()
        flash.lib.flash_protect_supply()
        flash.check_power()
        assert flash.interface.options_written == written
        if accesses is not None:
            return
    raise AssertionError("it never came to an end")
