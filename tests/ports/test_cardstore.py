"""Model slots on the card: the core's slot code over the port's store, cut at every block.

The store mirrors slots in RAM; the card is a dictionary of blocks here, NVS one of entries.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "core"))
import compiled  # noqa: E402 - beside the tests of the core
from flash_model import PowerLossError, ffi, lib  # noqa: E402
from test_slot import BASE, SLOT_BYTES, Board, make_blob, model_id  # noqa: E402

from drip.wire import Err, SlotState  # noqa: E402

PORT = ROOT / "firmware" / "ports" / "esp32"
BLOCK = 512
SLOT = -(-SLOT_BYTES // BLOCK) * BLOCK
MARK = 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled.load(
        "cardstore_under_test",
        [PORT / "cardstore.c"],
        [PORT / "cardstore.h"],
        tmp_path_factory.mktemp("cardstore"),
    )


def table(start: int, kind: int = 0x0C) -> bytes:
    """A block 0 with one partition."""
    entry = bytes([0, 0, 0, 0, kind, 0, 0, 0]) + start.to_bytes(4, "little") + b"\0\0\1\0"
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


class Card:
    """Blocks that are not there are zeros."""

    def __init__(self, first: bytes = table(8192)) -> None:
        self.blocks = {0: first}

    def read(self, block: int) -> bytes:
        return self.blocks.get(block, bytes(BLOCK))


class CardFlash:
    """What the port offers to the core, with what tests/core/flash_model.py lets tests do.

    Attributes:
        card: In the slot, or None.
        entries: What NVS holds.
        operations: Blocks and entries written so far.
        cut_at: Number of the one during which power fails; None = never.
    """

    def __init__(self, built: Any, card: Card | None = None) -> None:
        self.built, self.card = built, Card() if card is None else card
        self.entries: dict[int, bytes] = {}
        self.operations, self.cut_at, self.read_error = 0, None, 0
        self.lost, self.busy, self.result = False, 0, 0
        to = built.ffi.callback
        self.kept = {
            "read": to("int(void *, uint32_t, uint8_t *, uint32_t)", self._read),
            "write": to("int(void *, uint32_t, const uint8_t *, uint32_t)", self._write),
            "get": to("int(void *, uint32_t, uint8_t *)", self._get),
            "set": to("int(void *, uint32_t, const uint8_t *)", self._set),
            "forget": to("int(void *, uint32_t)", self._forget),
        }
        self.io = built.ffi.new("cardstore_io_t *", self.kept)
        size = built.lib.cardstore_bytes(SLOT)
        self.arena = built.ffi.new("uint8_t[]", size + 16)
        address = int(built.ffi.cast("uintptr_t", self.arena))
        self.base = address + -address % 16
        self.memory = built.ffi.cast("uint8_t *", self.base)
        self.store = built.ffi.new("cardstore_t *")
        self.opened = 0
        self.offsets = (0, SLOT, 2 * SLOT, 2 * SLOT + built.lib.CARDSTORE_JOURNAL_BYTES)
        self.callbacks = (
            ffi.callback("const uint8_t *(void *, int)", self._map),
            ffi.callback("int(void *, int)", self._erase_area),
            ffi.callback("int(void *, int, uint32_t, const uint8_t *, uint32_t)", self._write_area),
            ffi.callback("int(void *)", self._poll),
        )

    def attach(self, port: Any) -> None:
        """A restart: RAM is lost, card and NVS are not."""
        self.lost, self.busy, self.cut_at = False, 0, None
        ffi.memmove(ffi.cast("uint8_t *", self.base), b"\xa5" * (2 * SLOT), 2 * SLOT)
        self.opened = self.built.lib.cardstore_open(self.store, self.io, self.memory, SLOT)
        port.flash_map, port.flash_erase, port.flash_write, port.flash_poll = self.callbacks
        port.slot_bytes, port.journal_bytes = SLOT, self.built.lib.CARDSTORE_JOURNAL_BYTES

    def check_power(self) -> None:
        if self.lost:
            raise PowerLossError

    def change(self, card: Card | None) -> None:
        """Another card in the slot; the port starts it."""
        self.card = card
        self.built.lib.cardstore_card_changed(self.store)

    # ---- the card and NVS

    def _step(self) -> bool:
        """Counts; True when power fails in this very operation."""
        self.operations += 1
        cut = self.operations - 1 == self.cut_at
        self.lost = self.lost or cut
        return cut

    def _read(self, _context: Any, block: int, data: Any, count: int) -> int:
        if self.lost or self.card is None or self.read_error:
            return self.read_error or Err.NO_CARD
        for n in range(count):
            self.built.ffi.memmove(data + n * BLOCK, self.card.read(block + n), BLOCK)
        return 0

    def _write(self, _context: Any, block: int, data: Any, count: int) -> int:
        if self.card is None:
            return Err.NO_CARD
        for n in range(count):
            if self.lost:
                return Err.IO
            assert MARK <= block + n < MARK + 1 + 2 * SLOT // BLOCK, "outside of the slots"
            new = self.built.ffi.buffer(data + n * BLOCK, BLOCK)[:]
            if self._step():
                new = new[:200] + self.card.read(block + n)[200:]
            self.card.blocks[block + n] = new
        return 0

    def _get(self, _context: Any, entry: int, data: Any) -> int:
        self.built.ffi.memmove(data, self.entries.get(entry, b"\xff" * 128), 128)
        return 0

    def _set(self, _context: Any, entry: int, data: Any) -> int:
        assert entry not in self.entries, "written without erasing"
        if self.lost:
            return Err.IO
        if not self._step():  # whole, or not at all
            self.entries[entry] = self.built.ffi.buffer(data, 128)[:]
        return 0

    def _forget(self, _context: Any, entry: int) -> int:
        if self.lost:
            return Err.IO
        if not self._step():
            self.entries.pop(entry, None)
        return 0

    # ---- the four areas

    def _map(self, _context: Any, area: int) -> Any:
        return ffi.cast("const uint8_t *", self.base + self.offsets[area])

    def _erase_area(self, _context: Any, area: int) -> int:
        size = SLOT if area < 2 else self.built.lib.CARDSTORE_JOURNAL_BYTES
        return self._done(self.built.lib.cardstore_erase(self.store, self.offsets[area], size))

    def _write_area(self, _context: Any, area: int, offset: int, data: Any, size: int) -> int:
        copy = ffi.buffer(data, size)[:]
        at = self.offsets[area] + offset
        return self._done(self.built.lib.cardstore_write(self.store, at, copy, size))

    def _done(self, result: int) -> int:
        assert self.busy == 0, "one operation at a time"
        self.result, self.busy = result, 1
        return 0

    def _poll(self, _context: Any) -> int:
        if self.busy:
            self.busy -= 1
            return int(Err.BUSY)
        return self.result


def test_models_alternate_and_boot_from_the_card(store: Any) -> None:
    flash = CardFlash(store)
    board = Board(flash)
    assert (flash.opened, board.booted) == (0, Err.NO_MODEL)
    for number in range(1, 12):  # so often that both halves of the journal are erased
        board.install(number)
        assert board.info().state == SlotState.CONFIRMED
        board = Board(flash)
        assert board.boots == model_id(number)
        first = MARK + 1 + board.booted * SLOT // BLOCK
        stored = b"".join(flash.card.read(first + n) for n in range(SLOT // BLOCK))
        assert stored[: len(BASE)] == make_blob(number)
    assert flash.card.read(0) == table(8192)
    assert flash.card.read(MARK)[:8] == b"DRIPSLOT"
    assert max(flash.entries) < 2 * store.lib.CARDSTORE_ENTRIES


def test_power_that_fails_in_any_block_leaves_the_old_or_the_new_model(store: Any) -> None:
    """The second update: slot 0 holds the confirmed model, slot 1 and the journal are in use."""
    cut = 0
    while True:
        flash = CardFlash(store)
        board = Board(flash)
        board.install(1)
        board.install(2)
        flash.cut_at = flash.operations + cut
        try:
            board.install(3)
        except PowerLossError:
            pass
        else:
            break
        board = Board(flash)
        assert board.boots == model_id(2), cut  # the last operation is the one that confirms
        board.install(3)
        assert Board(flash).boots == model_id(3), cut
        cut += 1
    assert cut > 2 * (SLOT // BLOCK)


def test_power_that_fails_while_a_card_is_claimed(store: Any) -> None:
    for cut in range(4):
        flash = CardFlash(store)
        board = Board(flash)
        flash.cut_at = cut
        with pytest.raises(PowerLossError):
            board.install(1)
        board = Board(flash)
        board.install(1)
        assert Board(flash).boots == model_id(1)


NO_ROOM = {
    "no table": Card(bytes(BLOCK)),
    "a volume without a table": Card(b"\xeb\x58\x90" + table(8192)[3:]),
    "a GUID table": Card(table(8192, 0xEE)),
    "no partition": Card(table(8192, 0)),
    "a partition too near": Card(table(MARK + 2 * SLOT // BLOCK)),
    "an impossible entry": Card(table(8192)[:446] + b"\x12" + table(8192)[447:]),
}
FOREIGN = Card()
FOREIGN.blocks[MARK] = b"boot loader".ljust(BLOCK, b"\0")
HALF = Card()
HALF.blocks[MARK] = bytes(511) + b"\1"
NO_ROOM |= {"something else": FOREIGN, "nearly blank": HALF}


@pytest.mark.parametrize("name", list(NO_ROOM))
def test_cards_without_room_are_left_alone(store: Any, name: str) -> None:
    card = Card()
    card.blocks = dict(NO_ROOM[name].blocks)
    flash = CardFlash(store, card)
    board = Board(flash)
    assert (flash.opened, board.booted) == (Err.UNSUPPORTED, Err.NO_MODEL)
    assert board.begin(make_blob(1)) == Err.UNSUPPORTED
    assert card.blocks == NO_ROOM[name].blocks


def test_the_last_block_before_a_partition_is_enough(store: Any) -> None:
    flash = CardFlash(store, Card(table(MARK + 1 + 2 * SLOT // BLOCK)))
    Board(flash).install(1)
    assert Board(flash).boots == model_id(1)
    blank = Card()
    blank.blocks[MARK] = b"\xff" * BLOCK
    flash = CardFlash(store, blank)
    Board(flash).install(2)
    assert Board(flash).boots == model_id(2)


def test_a_model_boots_only_from_its_own_card(store: Any) -> None:
    flash = CardFlash(store)
    Board(flash).install(1)
    first, other = flash.card, Card()
    flash.card = None
    assert (Board(flash).booted, flash.opened) == (Err.NO_MODEL, Err.NO_CARD)
    flash.card = other
    assert Board(flash).booted == Err.NO_MODEL
    # The same slot of that card holds a model of another board.
    there = CardFlash(store, other)
    Board(there).install(9)
    assert Board(flash).booted == Err.NO_MODEL
    flash.card = first
    assert Board(flash).boots == model_id(1)
    flash.read_error = Err.CRC
    assert (Board(flash).booted, flash.opened) == (Err.NO_MODEL, Err.CRC)


def test_a_card_changed_in_an_upload_ends_it(store: Any) -> None:
    flash = CardFlash(store)
    board = Board(flash)
    board.install(1)
    blob = make_blob(2)
    assert board.begin(blob) == 0
    assert board.data(0, blob[:1024]) == 0
    other = Card()
    flash.change(other)
    assert board.data(1024, blob[1024:2048]) == Err.STATE
    assert other.blocks == {0: table(8192)}
    board.install(2)  # on the new card, from the start
    assert Board(flash).boots == model_id(2)


def test_settings_need_no_card(store: Any) -> None:
    flash = CardFlash(store)
    flash.card = None
    board = Board(flash)
    wanted = ffi.new("drip_config_entry_t *")
    wanted.present, wanted.values[3] = 8, 4711
    assert lib.drip_slot_configure(board.slot, wanted) == 0
    assert board.finish() == 0
    board = Board(flash)
    assert (board.slot.config.present, board.slot.config.values[3]) == (8, 4711)


def test_what_lies_outside_is_refused(store: Any) -> None:
    flash = CardFlash(store)
    Board(flash)
    end = store.lib.cardstore_bytes(SLOT)
    for at, count in ((end + 1, 0), (end, 128), (0, end + 1), (2 * SLOT, end)):
        assert store.lib.cardstore_erase(flash.store, at, count) == Err.ARGUMENT
        assert store.lib.cardstore_write(flash.store, at, b"", count) == Err.ARGUMENT
    for at, count in ((2 * SLOT + 16, 128), (2 * SLOT, 112)):
        assert store.lib.cardstore_write(flash.store, at, bytes(128), count) == Err.ARGUMENT
    assert store.lib.cardstore_write(flash.store, 0, bytes(16), 16) == Err.STATE
    assert flash.operations == 0
