"""The SD driver against a byte-level model of a card: every kind, every fault, every byte."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import compiled
import pytest

from drip.wire import Err

ROOT = compiled.ROOT
DRIVERS = ROOT / "firmware" / "drivers"
BLOCK = 512
BLOCKS = 4096
V1, V2, HIGH, MMC = range(4)
KINDS = {"v1": V1, "v2": V2, "high capacity": HIGH}
# Three tries of a start each, and the deadlines of the waits between.
LIMIT_MS = 6000


@pytest.fixture(scope="module")
def bench_module():
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        yield compiled.load(
            "sd_bench",
            [
                DRIVERS / "sd_spi.c",
                DRIVERS / "sd_spi_start.c",
                ROOT / "tools" / "qemu" / "sdcard.c",
                here / "sd_bench.c",
            ],
            [
                DRIVERS / "sd_spi_internal.h",
                ROOT / "tools" / "qemu" / "sdcard.h",
                here / "sd_bench.h",
            ],
            Path(folder),
        )


class Bench:
    """A driver and a card; the members of the model are set through `card`."""

    def __init__(self, module, kind: int = HIGH, **settings: int) -> None:
        self.ffi, self.lib = module.ffi, module.lib
        self.data = self.ffi.new("uint8_t[]", BLOCKS * BLOCK)
        self.medium = self.ffi.buffer(self.data)
        self.bench = self.ffi.new("bench_t *")
        self.card, self.sd = self.bench.card, self.bench.sd
        defaults = {"latency": 1, "start_us": 20_000, "read_us": 100, "busy_us": 300, "serial": 7}
        for name, value in {**defaults, **settings}.items():
            setattr(self.card, name, value)
        self.card.data, self.card.blocks, self.card.kind = self.data, BLOCKS, kind
        self.lib.bench_open(self.bench)

    def restart(self) -> None:
        self.lib.drip_sd_init(self.ffi.addressof(self.sd), self.ffi.addressof(self.bench.bus))

    def _done(self, code: int) -> Err:
        assert not self.bench.late, "it never ends"
        assert code <= 0
        return Err(code)

    def start(self, limit_ms: int = LIMIT_MS) -> Err:
        blocks = self.ffi.new("uint32_t *")
        code = self._done(self.lib.bench_blocks(self.bench, blocks, limit_ms))
        assert code != Err.OK or blocks[0] == BLOCKS
        return code

    def write(self, block: int, data: bytes, limit_ms: int = LIMIT_MS) -> Err:
        keep = self.ffi.new("uint8_t[]", data)
        return self._done(
            self.lib.bench_write(self.bench, block, keep, len(data) // BLOCK, limit_ms)
        )

    def read(self, block: int, count: int) -> tuple[Err, bytes]:
        out = self.ffi.new("uint8_t[]", count * BLOCK)
        code = self._done(self.lib.bench_read(self.bench, block, out, count, LIMIT_MS))
        return code, bytes(self.ffi.buffer(out))

    def swap(self, serial: int) -> None:
        self.card.serial = serial
        self.lib.sdcard_insert(self.ffi.addressof(self.card))

    def pull(self) -> None:
        self.lib.sdcard_remove(self.ffi.addressof(self.card))

    def on_medium(self, block: int, count: int) -> bytes:
        return bytes(self.medium[block * BLOCK : (block + count) * BLOCK])


def content(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count * BLOCK)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("latency", [1, 8])
def test_every_kind_of_card(bench_module, kind: int, latency: int) -> None:
    bench = Bench(bench_module, kind, latency=latency)
    assert bench.start() == Err.OK
    assert bench.sd.by_block == (kind == HIGH)
    assert bench.card.crc_on == 1 and bench.sd.checks == 1
    assert bench.bench.highest_hz == bench.lib.DRIP_SD_FULL_HZ
    for block, count in ((0, 1), (BLOCKS - 1, 1), (17, 5), (BLOCKS - 8, 8)):
        data = content(count, block)
        assert bench.write(block, data) == Err.OK
        assert bench.on_medium(block, count) == data
        assert bench.read(block, count) == (Err.OK, data)
    assert bench.card.pre_erased == 8
    assert bench.card.blocks_written == 15
    assert (bench.sd.retries, bench.sd.crc_errors, bench.sd.starts) == (0, 0, 1)
    assert bench.card.violations == 0


def test_a_call_never_waits(bench_module) -> None:
    bench = Bench(bench_module, start_us=900_000, busy_us=450_000)
    assert bench.start() == Err.OK
    # At 400 kHz: a command, its answer, another, the end of the wake-up.
    assert bench.bench.longest_ns < 3_000_000
    bench.bench.longest_ns = 0
    assert bench.write(3, content(3)) == Err.OK
    # A block at 25 MHz is 165 microseconds.
    assert bench.bench.longest_ns < 200_000


def test_start_of_one_second(bench_module) -> None:
    assert Bench(bench_module, start_us=980_000).start() == Err.OK
    slow = Bench(bench_module, start_us=1_200_000)
    assert slow.start() == Err.TIMEOUT
    # The card goes on starting; the next call finds it ready.
    assert slow.start() in (Err.OK, Err.TIMEOUT)


def test_busy_of_half_a_second(bench_module) -> None:
    bench = Bench(bench_module, busy_us=495_000)
    assert bench.start() == Err.OK
    data = content(3)
    assert bench.write(9, data) == Err.OK
    assert bench.on_medium(9, 3) == data


def test_busy_for_ever_ends(bench_module) -> None:
    bench = Bench(bench_module, stall_at=2)
    assert bench.start() == Err.OK
    assert bench.write(9, content(3)) == Err.TIMEOUT
    assert bench.start() == Err.NO_CARD
    bench.swap(7)
    assert bench.start() == Err.OK


@pytest.mark.parametrize("fault", ["refuse_at", "garble_at", "complain_at"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_write_that_fails_once_is_repeated(bench_module, fault: str, count: int) -> None:
    bench = Bench(bench_module, **{fault: count})
    assert bench.start() == Err.OK
    data = content(count, 5)
    assert bench.write(100, data) == Err.OK
    assert bench.on_medium(100, count) == data
    assert bench.sd.retries == 1
    assert bench.sd.crc_errors == (fault == "garble_at")


@pytest.mark.parametrize("count", [1, 4])
def test_a_block_that_cannot_be_written(bench_module, count: int) -> None:
    bench = Bench(bench_module, bad_block=50)
    assert bench.start() == Err.OK
    assert bench.write(51 - count, content(count)) == Err.IO
    # Every block before it, at each of three tries.
    assert bench.card.blocks_written == 3 * count
    assert bench.start() == Err.OK
    assert bench.write(50 - count, content(count)) == Err.OK


@pytest.mark.parametrize("count", [1, 3])
def test_a_read_with_a_wrong_bit_is_repeated(bench_module, count: int) -> None:
    bench = Bench(bench_module, flip_at=count)
    assert bench.start() == Err.OK
    bench.medium[: 3 * BLOCK] = content(3)
    assert bench.read(0, count) == (Err.OK, content(3)[: count * BLOCK])
    assert (bench.sd.retries, bench.sd.crc_errors) == (1, 1)


def test_garbage_before_the_answer_to_a_stop(bench_module) -> None:
    # The model sends 0x3F there, which looks like an answer full of errors.
    bench = Bench(bench_module, latency=8, read_us=0)
    assert bench.start() == Err.OK
    for _ in range(20):
        assert bench.read(5, 2)[0] == Err.OK
    assert bench.sd.retries == 0
    sd = bench.ffi.addressof(bench.sd)
    assert bench.lib.drip_sd_command(sd, bench.lib.CMD_READ_MANY, 0) == 0
    bench.lib.drip_sd_byte(sd)
    assert bench.lib.drip_sd_command(sd, bench.lib.CMD_STOP, 0) == 0


def test_write_protected_card(bench_module) -> None:
    bench = Bench(bench_module, locked=1)
    assert bench.start() == Err.OK
    assert bench.write(0, content(1)) == Err.PROTECTED
    assert bench.read(0, 1) == (Err.OK, bytes(BLOCK))
    unnoticed = Bench(bench_module)
    assert unnoticed.start() == Err.OK
    unnoticed.card.locked = 1
    assert unnoticed.write(0, content(1)) in (Err.PROTECTED, Err.TIMEOUT)
    assert unnoticed.on_medium(0, 1) == bytes(BLOCK)


def test_outside_of_the_card(bench_module) -> None:
    bench = Bench(bench_module)
    assert bench.read(0, 1)[0] == Err.NO_CARD
    assert bench.start() == Err.OK
    assert bench.read(BLOCKS, 1)[0] == Err.ARGUMENT
    assert bench.read(BLOCKS - 1, 2)[0] == Err.ARGUMENT
    assert bench.write(0xFFFFFFFF, content(2)) == Err.ARGUMENT
    assert bench.write(0, b"") == Err.ARGUMENT


def test_no_card_and_one_put_in(bench_module) -> None:
    bench = Bench(bench_module)
    bench.pull()
    assert bench.start() == Err.NO_CARD
    assert bench.start() == Err.NO_CARD
    bench.swap(9)
    assert bench.start() == Err.OK
    bench.bench.float_low = 1
    bench.pull()
    assert bench.start() == Err.NO_CARD


def test_a_mmc_is_refused(bench_module) -> None:
    assert Bench(bench_module, MMC).start() == Err.UNSUPPORTED


def test_cards_without_checksums(bench_module) -> None:
    bench = Bench(bench_module, refuses_crc=1)
    assert bench.start() == Err.OK
    assert bench.sd.checks == 1, "what it sends it checksums all the same"
    emulated = Bench(bench_module, V2, sends_no_crc=1)
    assert emulated.start() == Err.OK
    assert emulated.sd.checks == 0
    data = content(4)
    assert emulated.write(1, data) == Err.OK
    assert emulated.read(1, 4) == (Err.OK, data)


def test_a_short_loss_of_power_is_survived(bench_module) -> None:
    probe = Bench(bench_module)
    assert probe.start() == Err.OK
    first = probe.card.commands
    data = content(4)
    assert probe.write(20, data) == Err.OK
    for command in range(first + 1, probe.card.commands + 1):
        bench = Bench(bench_module, brownout_at=command)
        assert bench.start() == Err.OK
        assert bench.write(20, data) == Err.OK, command
        assert bench.on_medium(20, 4) == data
        assert bench.sd.starts == 2


def test_another_card_never_gets_the_transfer(bench_module) -> None:
    bench = Bench(bench_module)
    assert bench.start() == Err.OK
    bench.swap(8)
    assert bench.write(20, content(4)) == Err.NO_CARD
    assert bench.card.blocks_written == 0
    assert bench.start() == Err.OK
    assert bench.write(20, content(4)) == Err.OK


def test_a_card_that_was_away_never_gets_the_transfer(bench_module) -> None:
    # It may have been in a computer in the meantime.
    bench = Bench(bench_module)
    assert bench.start() == Err.OK
    bench.pull()
    bench.bench.now_ns += 400_000_000
    bench.swap(7)
    assert bench.write(20, content(4)) == Err.NO_CARD
    assert bench.card.blocks_written == 0
    assert bench.start() == Err.OK


@pytest.mark.parametrize("kind", [V2, HIGH])
def test_command_that_gets_no_answer(bench_module, kind: int) -> None:
    clean = Bench(bench_module, kind)
    assert clean.start() == Err.OK
    started = clean.card.commands
    data = content(2)
    assert clean.write(4, data) == Err.OK and clean.read(4, 2)[0] == Err.OK
    for command in range(1, clean.card.commands + 1):
        bench = Bench(bench_module, kind, mute_at=command)
        code = bench.start()
        if command <= started:
            assert code in (Err.OK, Err.NO_CARD), command
            assert code == Err.OK or bench.start() == Err.OK
        assert bench.write(4, data) == Err.OK, command
        assert bench.read(4, 2) == (Err.OK, data), command


def _session(bench: Bench) -> list[tuple[str, Err, bytes]]:
    """Start, write one and four blocks, read them."""
    seen = [("start", bench.start(), b"")]
    seen.append(("write one", bench.write(2, content(1, 1)), b""))
    seen.append(("write four", bench.write(8, content(4, 2)), b""))
    seen += [("read", *bench.read(2, 1)), ("read", *bench.read(8, 4))]
    return seen


@pytest.mark.parametrize("put_back", [False, True], ids=["pulled", "pulled and put back"])
@pytest.mark.parametrize("float_low", [0, 1], ids=["pull-up", "line low"])
def test_removal_at_every_byte(bench_module, put_back: bool, float_low: int) -> None:
    clean = Bench(bench_module, busy_us=60, start_us=2000, read_us=30)
    assert all(code == Err.OK for _, code, _ in _session(clean))
    total = clean.card.bytes
    assert total > 5000
    for position in range(1, total + 1):
        bench = Bench(bench_module, busy_us=60, start_us=2000, read_us=30, remove_at=position)
        bench.bench.float_low = float_low
        seen = _session(bench)
        for name, code, data in seen:
            if name == "write one" and code == Err.OK:
                assert bench.on_medium(2, 1) == content(1, 1), position
            if name == "write four" and code == Err.OK:
                assert bench.on_medium(8, 4) == content(4, 2), position
            if name == "read" and code == Err.OK:
                assert data in (content(1, 1), content(4, 2)), position
        # From the last checksum on the card is no longer needed.
        assert seen[-1][1] != Err.OK or position > total - 24, position
        if put_back:
            bench.card.remove_at = 0
            bench.swap(7)
            assert bench.start() == Err.OK, position
            assert all(code == Err.OK for _, code, _ in _session(bench)), position


@pytest.mark.parametrize("stubborn", [0, 1])
def test_reset_of_the_processor_at_every_byte(bench_module, stubborn: int) -> None:
    """The card keeps its power and waits for the rest of what it was sent."""
    clean = Bench(bench_module, busy_us=60, start_us=2000, read_us=30, stubborn=stubborn)
    _session(clean)
    for position in range(1, clean.bench.sent):
        bench = Bench(bench_module, busy_us=60, start_us=2000, read_us=30, stubborn=stubborn)
        bench.bench.freeze_at = position
        _session(bench)
        bench.bench.freeze_at = 0
        bench.restart()
        assert bench.start() == Err.OK, position
        assert all(code == Err.OK for _, code, _ in _session(bench)), position
