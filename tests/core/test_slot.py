"""Model slots on a flash model whose power fails during every operation in turn."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest
from flash_model import Flash, PowerLossError, ffi, lib

from drip import wire
from drip.compile import compile_model

ARENA_BYTES = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
BASE = compile_model((ROOT / "models" / "digits" / "model.tflite").read_bytes())
SLOT_BYTES = -(-len(BASE) // 16) * 16 + 64


def blob_named(base: bytes, number: int) -> bytes:
    """Return a model that differs from others by its id (and CRC)."""
    blob = bytearray(base)
    blob[64:80] = bytes([number]) * 16
    blob[12:16] = struct.pack("<I", zlib.crc32(bytes(blob[16:])))
    return bytes(blob)


def make_blob(number: int) -> bytes:
    return blob_named(BASE, number)


def model_id(number: int) -> bytes:
    return bytes([number]) * 16


class Board:
    """A board that boots from a flash; a new one is the same board after a reset."""

    def __init__(self, flash: Flash) -> None:
        self.flash = flash
        self.port = ffi.new("drip_port_t *")
        flash.attach(self.port)
        self.slot = ffi.new("drip_slot_t *")
        self.nn = ffi.new("drip_nn_t *")
        self.booted = lib.drip_slot_open(self.slot, self.port, ARENA_BYTES, self.nn)
        flash.check_power()

    @property
    def boots(self) -> bytes | None:
        """Id of the model that this boot runs."""
        return bytes(self.nn.header.model_id) if self.booted >= 0 else None

    def finish(self) -> int:
        for _ in range(100_000):
            code = lib.drip_slot_poll(self.slot)
            self.flash.check_power()
            if code != lib.DRIP_ERR_BUSY:
                return code
        raise AssertionError("never done")

    def request(self, op: int, chunk: bytes = b"", **fields: object) -> int:
        request = ffi.new("drip_model_request_t *")
        request.op = op
        for name, value in fields.items():
            setattr(request, name, value)
        data = ffi.new("uint8_t[]", chunk or b"\0")
        code = lib.drip_slot_request(self.slot, request, data, len(chunk), ARENA_BYTES)
        self.flash.check_power()
        return self.finish() if code == 0 else code

    def begin(self, blob: bytes) -> int:
        return self.request(
            wire.ModelOp.BEGIN,
            total_bytes=len(blob),
            arena_bytes=1024,
            op_bitmap=2,
            blob_crc=zlib.crc32(blob),
            model_id=blob[64:80],
        )

    def data(self, offset: int, chunk: bytes) -> int:
        return self.request(wire.ModelOp.DATA, chunk, offset=offset)

    def trial(self, outcome: int = 0) -> int:
        code = self.request(wire.ModelOp.TRIAL)
        if code != 0:
            return code
        assert lib.drip_slot_trial(self.slot, outcome) == 0
        return self.finish()

    def info(self):
        response = ffi.new("drip_model_response_t *")
        lib.drip_slot_info(self.slot, response)
        return response

    def upload(self, blob: bytes, chunk: int = 1024) -> int:
        code = self.begin(blob)
        at = self.info().offset
        if code == 0 and self.info().crc != zlib.crc32(blob[:at]):
            # Power failed in the middle of a write: as the host does.
            assert self.request(wire.ModelOp.ABORT) == 0
            code = self.begin(blob)
            at = self.info().offset
        while code == 0 and at < len(blob):
            code = self.data(at, blob[at : at + chunk])
            at += chunk
        return code

    def install(self, number: int) -> None:
        assert self.upload(make_blob(number)) == 0
        assert self.trial() == 0
        assert self.request(wire.ModelOp.CONFIRM) == 0


def new_flash(**options: int) -> Flash:
    return Flash(slot_bytes=SLOT_BYTES, **options)


@pytest.mark.parametrize("fill", [0xFF, 0x00, 0x35])
def test_flash_of_any_content_starts_without_a_model_and_takes_one(fill):
    flash = new_flash(fill=fill)
    board = Board(flash)
    assert board.booted == lib.DRIP_ERR_NO_MODEL
    board.install(1)
    assert Board(flash).boots == model_id(1)


def test_slots_alternate_and_the_confirmed_model_boots():
    flash = new_flash()
    board = Board(flash)
    for number in range(1, 30):  # often enough to fill and erase both journal areas
        board.install(number)
        info = board.info()
        assert (info.slot, info.state) == ((number - 1) % 2, wire.SlotState.CONFIRMED)
        assert bytes(info.confirmed_id) == model_id(number)
        if number % 3 == 0:
            board = Board(flash)
            assert board.boots == model_id(number)
            assert flash.read(board.booted)[: len(BASE)] == make_blob(number)


def test_a_reset_on_trial_boots_the_old_model_and_the_trial_can_be_repeated():
    flash = new_flash()
    Board(flash).install(1)
    board = Board(flash)
    assert board.upload(make_blob(2)) == 0
    for attempt in range(1, 4):
        assert board.trial() == 0
        assert board.info().state == wire.SlotState.TRIAL
        assert board.info().attempts == attempt
        board = Board(flash)
        assert board.boots == model_id(1)
        assert board.begin(make_blob(2)) == 0
        if attempt < 3:
            assert board.info().state == wire.SlotState.READY
            assert board.info().offset == len(BASE)
    # Attempts are used up: BEGIN has started a new upload.
    assert board.info().offset == 0
    assert board.info().state == wire.SlotState.WRITING


def test_a_failed_trial_is_rejected():
    flash = new_flash()
    board = Board(flash)
    board.install(1)
    assert board.upload(make_blob(2)) == 0
    assert board.trial(lib.DRIP_ERR_SELFTEST) == 0
    assert board.slot.entry[1].state == wire.SlotState.REJECTED
    assert board.trial() == lib.DRIP_ERR_STATE
    assert Board(flash).boots == model_id(1)


def test_a_wrong_checksum_is_rejected_before_the_trial():
    flash = new_flash()
    board = Board(flash)
    board.install(1)
    blob = make_blob(2)
    assert board.begin(blob) == 0
    broken = blob[:500] + bytes([blob[500] ^ 1]) + blob[501:]
    for at in range(0, len(blob), 1024):
        assert board.data(at, broken[at : at + 1024]) == 0
    assert board.trial() == lib.DRIP_ERR_CRC
    assert board.slot.entry[1].state == wire.SlotState.REJECTED
    assert Board(flash).boots == model_id(1)


def test_abort_returns_to_the_confirmed_model():
    flash = new_flash()
    board = Board(flash)
    board.install(1)
    assert board.request(wire.ModelOp.ABORT) == 0
    assert board.upload(make_blob(2)) == 0
    assert board.request(wire.ModelOp.ABORT) == 0
    assert board.upload(make_blob(3)) == 0
    assert board.trial() == 0
    assert board.slot.active == 1
    assert board.begin(make_blob(4)) == lib.DRIP_ERR_STATE
    assert board.request(wire.ModelOp.ABORT) == 0
    assert board.slot.active == 0
    assert board.request(wire.ModelOp.CONFIRM) == 0  # of what is confirmed already
    assert Board(flash).boots == model_id(1)


def test_what_cannot_run_is_refused_before_any_erase():
    flash = new_flash()
    board = Board(flash)
    board.install(1)
    before = flash.operations
    good = {"total_bytes": len(BASE), "arena_bytes": 64, "op_bitmap": 2}
    begin = wire.ModelOp.BEGIN
    assert board.request(begin, **{**good, "total_bytes": SLOT_BYTES + 1}) == lib.DRIP_ERR_FULL
    assert board.request(begin, **{**good, "total_bytes": 100}) == lib.DRIP_ERR_SHORT
    assert board.request(begin, **{**good, "arena_bytes": ARENA_BYTES + 1}) == lib.DRIP_ERR_MEMORY
    assert board.request(begin, **{**good, "op_bitmap": 1 << 40}) == lib.DRIP_ERR_UNSUPPORTED
    assert board.request(99) == lib.DRIP_ERR_ARGUMENT
    assert board.request(wire.ModelOp.TRIAL) == lib.DRIP_ERR_STATE
    assert board.data(0, bytes(16)) == lib.DRIP_ERR_STATE
    assert flash.operations == before


def test_chunks_are_taken_in_order_and_repeated_ones_are_harmless():
    flash = new_flash()
    board = Board(flash)
    blob = make_blob(7)
    assert board.begin(blob) == 0
    assert board.data(16, blob[16:32]) == lib.DRIP_ERR_RANGE
    assert board.data(0, blob[:20]) == lib.DRIP_ERR_ARGUMENT
    assert board.data(0, b"") == lib.DRIP_ERR_ARGUMENT
    assert board.data(0, blob[:1040]) == lib.DRIP_ERR_ARGUMENT
    assert board.data(0, blob[:48]) == 0
    assert board.data(16, blob[16:48]) == 0
    assert board.info().offset == 48
    assert board.begin(blob) == 0
    assert board.info().offset == 48
    assert board.data(32, blob[32:64]) == lib.DRIP_ERR_RANGE
    assert board.data(len(blob), bytes(16)) == lib.DRIP_ERR_RANGE
    assert board.request(wire.ModelOp.TRIAL) == lib.DRIP_ERR_STATE
    for at in range(48, len(blob), 48):
        assert board.data(at, blob[at : at + 48]) == 0
    assert board.info().offset == len(blob)
    assert board.trial() == 0
    assert flash.read(0)[: len(blob)] == blob


@pytest.mark.parametrize("sent", [1, 2, 3])
@pytest.mark.parametrize("chunk", [48, 1024])
def test_an_upload_goes_on_after_a_reset_where_it_was(sent, chunk):
    flash = new_flash()
    Board(flash).install(1)
    blob = make_blob(2)
    board = Board(flash)
    assert board.begin(blob) == 0
    for at in range(0, sent * chunk, chunk):
        assert board.data(at, blob[at : at + chunk]) == 0
    there = min(sent * chunk, len(blob))
    board = Board(flash)
    assert board.boots == model_id(1)
    assert (board.info().state, board.info().offset) == (wire.SlotState.WRITING, there)
    # What is there must be compared first.
    assert board.data(there, blob[there : there + 16] or bytes(16)) == lib.DRIP_ERR_STATE
    assert board.request(wire.ModelOp.TRIAL) == lib.DRIP_ERR_STATE
    operations = flash.operations
    assert board.begin(blob) == 0
    assert (board.info().offset, board.info().crc) == (there, zlib.crc32(blob[:there]))
    assert flash.operations == operations
    replace(board, 2)
    assert Board(flash).boots == model_id(2)


def test_an_upload_of_another_model_starts_anew_after_a_reset():
    flash = new_flash()
    Board(flash).install(1)
    board = Board(flash)
    assert board.begin(make_blob(2)) == 0
    assert board.data(0, make_blob(2)[:48]) == 0
    board = Board(flash)
    assert board.begin(make_blob(3)) == 0
    assert (board.info().offset, board.info().crc) == (0, 0)
    replace(board, 3)
    assert Board(flash).boots == model_id(3)


def test_a_reset_before_the_erase_is_done_starts_anew():
    """The slot may look like anything then, so the journal must not call it an upload."""
    flash = new_flash()
    Board(flash).install(1)
    Board(flash).install(2)
    Board(flash).install(3)  # slot 0 again: 1 is gone, 2 boots last
    board = Board(flash)
    flash.cut_at = flash.operations + 1  # the entry is written, then the erase is cut
    with pytest.raises(PowerLossError):
        board.begin(make_blob(4))
    board = Board(flash)
    assert board.boots == model_id(3)
    assert (board.slot.target, board.info().offset) == (lib.DRIP_SLOT_NONE, 0)
    replace(board, 4)
    assert Board(flash).boots == model_id(4)


def test_a_port_without_flash_has_no_slots():
    port = ffi.new("drip_port_t *")
    slot = ffi.new("drip_slot_t *")
    nn = ffi.new("drip_nn_t *")
    assert lib.drip_slot_open(slot, port, ARENA_BYTES, nn) == lib.DRIP_ERR_NO_MODEL
    request = ffi.new("drip_model_request_t *", {"op": wire.ModelOp.BEGIN, "total_bytes": 500})
    code = lib.drip_slot_request(slot, request, ffi.NULL, 0, ARENA_BYTES)
    assert code == lib.DRIP_ERR_UNSUPPORTED


def test_an_unreadable_confirmed_model_falls_back_to_the_older_one():
    flash = new_flash()
    board = Board(flash)
    board.install(1)
    board.install(2)
    flash.areas[1][200] ^= 0x10
    board = Board(flash)
    assert board.boots == model_id(1)
    board.install(3)
    assert Board(flash).boots == model_id(3)


def test_flash_errors_are_reported_and_a_new_attempt_works():
    for error_at in range(200):
        flash = new_flash()
        board = Board(flash)
        board.install(1)
        flash.error_at = flash.operations + error_at
        code = board.upload(make_blob(2))
        code = code or board.trial() or board.request(wire.ModelOp.CONFIRM)
        if flash.operations <= flash.error_at:
            assert code == 0
            return
        assert code == lib.DRIP_ERR_IO
        assert Board(flash).boots in (model_id(1), model_id(2))
        if board.slot.active == board.slot.target != -1:
            board.request(wire.ModelOp.ABORT)
        board.install(3)
        assert Board(flash).boots == model_id(3)
    raise AssertionError("the upload never ended")


def replace(board: Board, number: int) -> None:
    blob = make_blob(number)
    for step in (lambda: board.upload(blob), board.trial):
        assert step() == 0
    assert board.request(wire.ModelOp.CONFIRM) == 0


@pytest.mark.parametrize("torn", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("earlier", [1, 2, 3, 5])
def test_power_loss_at_every_operation_leaves_a_confirmed_model(torn, earlier):
    """`earlier` models shift the journal, so that its areas are switched at different places."""
    cut = 0
    while True:
        flash = new_flash(journal_bytes=1024)
        board = Board(flash)
        for number in range(1, earlier + 1):
            board.install(number)
        old, new = model_id(earlier), model_id(100)
        flash.torn = torn
        flash.cut_at = flash.operations + cut
        try:
            replace(board, 100)
        except PowerLossError:
            board = Board(flash)
            assert board.boots in (old, new)
            replace(board, 100)
            assert Board(flash).boots == new
            cut += 1
            continue
        assert cut >= 6
        return


def test_power_loss_again_and_again():
    noise = random.Random(3)
    flash = new_flash(journal_bytes=512)
    Board(flash).install(1)
    current, number, losses = model_id(1), 2, 0
    while losses < 400:
        flash.torn = noise.random()
        flash.cut_at = flash.operations + noise.randrange(14)
        wanted = model_id(number)
        board = None
        try:
            board = Board(flash)
            assert board.boots == current
            if noise.random() < 0.2:
                board.request(wire.ModelOp.ABORT)
            replace(board, number)
            current = wanted
        except PowerLossError:
            losses += 1
            flash.check_power()
            rebooted = Board(flash)
            assert rebooted.boots in (current, wanted)
            current = rebooted.boots
        if current == wanted:
            number = number % 250 + 1
