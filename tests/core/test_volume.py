"""Log files on FAT16, FAT32 and exFAT, made by this and by other tools, and where they are not."""

from __future__ import annotations

import io
import mmap
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cardsim import BLOCK, Log, SimCard, format_card
from hypothesis import given, settings
from hypothesis import strategies as st
from volumes import Exfat, Found, check, find, need_mkfs, run_tool, tool

from drip import wire
from drip.card import inspect_image
from drip.card.volume import find_region
from drip.card.volume_format import format_volume
from drip.errors import CardError
from drip.wire import Err

KINDS = [("fat16", 16 << 20), ("fat32", 40 << 20), ("exfat", 16 << 20)]


@cache
def image(fs: str, size: int, mbr: bool = False) -> bytes:
    """An image of `drip card format`."""
    need_mkfs(fs)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "card.img"
        format_volume(path, size, fs, mbr=mbr)
        return path.read_bytes()


def host_region(data: bytes | bytearray) -> tuple[int, int]:
    region = find_region(io.BytesIO(bytes(data)), "card", len(data) // BLOCK)
    return region.first_block, region.blocks


def agree(data: bytes | bytearray) -> Found:
    """Search with core and host; both must find the same place."""
    card = SimCard(bytearray(data))
    found = find(card)
    assert found.result == Err.OK
    assert (found.first_block, found.blocks) == host_region(data)
    assert card.writes == []
    return found


def refused(data: bytes | bytearray) -> int:
    """Search with core and host; both must refuse. Returns the core's reason."""
    with pytest.raises(CardError):
        host_region(data)
    card = SimCard(bytearray(data))
    result = find(card).result
    assert card.writes == []
    return result


@pytest.mark.parametrize("mbr", [False, True])
@pytest.mark.parametrize(("fs", "size"), KINDS)
def test_what_the_host_makes_is_found_and_used_and_fsck_is_content(tmp_path, fs, size, mbr):
    data = image(fs, size, mbr)
    start = 32 if mbr else 0
    assert start * BLOCK == (int.from_bytes(data[454:458], "little") * BLOCK if mbr else 0)
    found = agree(data)
    card = SimCard(bytearray(data))
    log = Log(card, first_block=found.first_block)
    assert log.state == wire.CardState.READY
    seqs = [log.append(bytes([n]) * 700) for n in range(40)]
    log.sync()
    inside = range(found.first_block, found.first_block + found.blocks)
    assert {block for block, _ in card.writes} <= set(inside)
    path = tmp_path / "card.img"
    path.write_bytes(card.data)
    check(path, fs, start)
    report = inspect_image(path)
    assert (report.file_system, report.records, report.damage) == (fs, 40, ())
    assert report.oldest is not None and report.oldest.seq == seqs[0]


def fat_volume(path: Path, fs: str, size: int, options: tuple[str, ...] = ()) -> None:
    path.write_bytes(bytes(size))
    run_tool("mkfs.fat", "-F", fs.removeprefix("fat"), *options, path)


def put(path: Path, name: str, data: bytes) -> None:
    source = path.with_suffix(".source")
    source.write_bytes(data)
    run_tool("mcopy", "-o", "-i", path, source, f"::{name}")


@pytest.mark.parametrize("fs", ["fat16", "fat32"])
def test_files_of_other_tools_among_others(tmp_path, fs):
    tool("mcopy")
    path = tmp_path / "card.img"
    fat_volume(path, fs, 40 << 20, ("-s", "1" if fs == "fat32" else "8"))
    for n in range(40 if fs == "fat32" else 12):
        put(path, f"A photograph with a long name {n}.jpeg", bytes(n * 100))
    run_tool("mmd", "-i", path, "::DRIP00.LOG.d", "::old")
    put(path, "old/DRIP00.LOG", bytes(5000))
    put(path, "xDRIP00.LOG", bytes(5000))
    # Both are copied in one go each: mtools allocates consecutive clusters while there is room.
    put(path, "DRIP00.LOG", b"\xa5" * (4 << 20))
    put(path, "drip01.log", b"\x5a" * (1 << 20))
    put(path, "after.txt", b"x" * 3000)
    check(path, fs)
    found = agree(path.read_bytes())
    data = path.read_bytes()
    assert found.blocks == (5 << 20) // BLOCK
    region = data[found.first_block * BLOCK :][: found.blocks * BLOCK]
    assert region == b"\xa5" * (4 << 20) + b"\x5a" * (1 << 20)


@pytest.mark.parametrize("chained", [False, True])
def test_exfat_files_among_others(tmp_path, chained):
    path = tmp_path / "card.img"
    path.write_bytes(bytes(16 << 20))
    run_tool("mkfs.exfat", "-c", "4096", path)
    card = Exfat(bytearray(path.read_bytes()))
    for n in range(60):
        card.add(f"A photograph with a long name {n}.jpeg", 1 + n * 300)
    card.add("DRIP00.LO", 5000)
    card.add("DRIP000.LOG", 5000)
    clusters = card.add("drip00.Log", 2 << 20, chained=chained)
    card.add("after", 1)
    path.write_bytes(card.data)
    check(path, "exfat")
    found = agree(card.data)
    assert found.first_block == card.volume.block_of(clusters[0])
    assert found.blocks == (2 << 20) // BLOCK
    assert len(card._root_slots()) > 128, "the directory has more than one cluster"


def test_a_fragmented_file_is_refused_wherever_it_came_from(tmp_path):
    tool("mdel")
    path = tmp_path / "card.img"
    fat_volume(path, "fat16", 16 << 20)
    for n in range(7):
        put(path, f"fill{n}", bytes(2 << 20))
    run_tool("mdel", "-i", path, "::fill1", "::fill3", "::fill5")
    put(path, "DRIP00.LOG", bytes(5 << 20))
    check(path, "fat16")
    assert refused(path.read_bytes()) == Err.CORRUPT


@pytest.mark.parametrize("trouble", ["chain", "valid", "sum"])
def test_exfat_files_that_cannot_be_trusted(tmp_path, trouble):
    path = tmp_path / "card.img"
    path.write_bytes(bytes(16 << 20))
    run_tool("mkfs.exfat", "-c", "4096", path)
    card = Exfat(bytearray(path.read_bytes()))
    clusters = card.allocate(300)
    if trouble == "chain":
        clusters = clusters[:100] + clusters[200:] + clusters[100:200]
    valid = 4096 if trouble == "valid" else None
    card.add("DRIP00.LOG", 300 * 4096, clusters=clusters, valid=valid)
    if trouble == "sum":
        at = bytes(card.data).index("DRIP00.LOG".encode("utf-16-le"))
        card.data[at + 25] ^= 1
    assert refused(card.data) == (Err.MAGIC if trouble == "sum" else Err.CORRUPT)


def test_files_that_do_not_follow_each_other_are_refused(tmp_path):
    tool("mcopy")
    path = tmp_path / "card.img"
    fat_volume(path, "fat32", 40 << 20)
    put(path, "DRIP00.LOG", bytes(1 << 20))
    put(path, "between", bytes(5000))
    put(path, "DRIP01.LOG", bytes(1 << 20))
    assert refused(path.read_bytes()) == Err.CORRUPT
    run_tool("mdel", "-i", path, "::DRIP01.LOG")
    put(path, "DRIP02.LOG", bytes(1 << 20))
    found = agree(path.read_bytes())
    assert found.blocks == (1 << 20) // BLOCK, "02 without 01 does not belong to the log"


def test_a_volume_without_log_files_is_foreign_and_a_second_partition_may_have_them(tmp_path):
    need_mkfs("fat16")
    path = tmp_path / "empty.img"
    fat_volume(path, "fat16", 8 << 20, ("-s", "2"))
    assert refused(path.read_bytes()) == Err.MAGIC
    card = bytearray(64 * BLOCK) + path.read_bytes() + image("fat16", 16 << 20)
    starts = [64, 64 + (8 << 20) // BLOCK]
    for n, start in enumerate(starts):
        struct.pack_into("<B3xB3xII", card, 446 + 16 * (n + 1), 0x80, 6, start, 1)
    card[510:512] = b"\x55\xaa"
    found = agree(card)
    assert found.first_block == starts[1] + agree(image("fat16", 16 << 20)).first_block


@pytest.mark.parametrize("kind", [0x04, 0x06, 0x07, 0x0B, 0x0C, 0x0E, 0x83, 0xEE])
def test_partition_types(kind):
    card = bytearray(image("fat16", 16 << 20, True))
    card[450] = kind
    if kind in (0x83, 0xEE):
        assert find(SimCard(card)).blocks == 0, "no volume: the card as it is"
    else:
        agree(card)


def test_a_card_without_a_volume_is_left_to_the_log():
    card = SimCard(bytearray(512 * BLOCK))
    assert (find(card).result, find(card).blocks) == (Err.OK, 0)
    assert format_card(card) == 0
    assert (find(card).result, find(card).first_block, find(card).blocks) == (Err.OK, 0, 0)
    card.read_errors = {0}
    assert (find(card).result, find(card).blocks) == (Err.OK, 0), "superblock B may be whole"
    card.absent = True
    assert find(card).result == Err.NO_CARD


def mount(card: SimCard) -> tuple[Found, Log]:
    """Find and mount as the device does."""
    from drip._core import ffi, lib

    found = find(card)
    assert found.result == Err.OK
    log = Log.__new__(Log)
    log.card, log.settings, log.first_block = card, ffi.new("drip_log_config_t *"), 0
    log.log = ffi.new("drip_log_t *")
    lib.drip_log_mount(log.log, card.port, log.settings, found.first_block, found.blocks)
    place = ffi.new("drip_volume_place_t *", found.place)
    lib.drip_log_place(log.log, place)
    log.drive()
    return found, log


@pytest.mark.parametrize("copy", ["A", "B"])
def test_a_known_place_is_believed_as_long_as_nothing_has_moved(copy):
    card = SimCard(bytearray(image("fat32", 40 << 20)))
    first = find(card).reads
    assert first > 300, "the chain is read once"
    found, log = mount(card)
    assert log.state == wire.CardState.READY
    assert find(card).reads <= 6
    # Both superblocks know the place once each was written; one is enough.
    mount(card)
    damaged = found.first_block + (0 if copy == "A" else found.blocks - 1)
    card.read_errors = {damaged}
    assert find(card).reads <= 6
    card.read_errors = set()
    # A computer that writes the file again leaves another time, though size and cluster are equal.
    at = bytes(card.data).index(b"DRIP00  LOG")
    card.data[at + 22] ^= 1
    assert find(card).reads > 300
    mount(card)
    assert find(card).reads <= 6
    # Looking at it, or backing it up, changes the access date and the archive bit only.
    card.data[at + 18] ^= 1
    card.data[at + 11] ^= 0x20
    assert find(card).reads <= 6
    # Another serial number: another volume.
    card.data[67] ^= 1
    assert find(card).reads > 300


def test_a_file_that_came_back_in_pieces_is_refused_before_a_write():
    card = SimCard(bytearray(image("fat32", 40 << 20)))
    found, _ = mount(card)
    data = card.data
    at = bytes(data).index(b"DRIP00  LOG")
    reserved = int.from_bytes(data[14:16], "little")
    cluster = found.place[1] + 1000
    struct.pack_into("<I", data, reserved * BLOCK + 4 * cluster, cluster + 5)
    data[at + 22] ^= 1
    card.writes.clear()
    assert find(card).result == Err.CORRUPT
    assert card.writes == []


def test_a_moved_file_is_used_where_it_lies_now():
    """A computer copied the log to another place, and put a new file where it was."""
    card = SimCard(bytearray(image("fat16", 16 << 20)))
    found, log = mount(card)
    log.append(b"x" * 100)
    log.sync()
    old = bytes(card.data[found.first_block * BLOCK :][: found.blocks * BLOCK])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "card.img"
        fat_volume(path, "fat16", 40 << 20)
        put(path, "first", bytes(1 << 20))
        put(path, "DRIP00.LOG", old)
        moved = SimCard(bytearray(path.read_bytes()))
    place, log = mount(moved)
    assert place.first_block != found.first_block
    assert log.state == wire.CardState.READY
    assert {block for block, _ in moved.writes} <= set(
        range(place.first_block, place.first_block + place.blocks)
    )
    assert len(log.segments()) == 1


@pytest.mark.parametrize("fs", ["exfat", "fat32"])
def test_a_large_card_is_mounted_with_few_reads(tmp_path, fs):
    """32 GiB in a sparse file; the one look at a chain of FAT32 comes on top, once."""
    need_mkfs(fs)
    path = tmp_path / "card.img"
    format_volume(path, 32 << 30, fs, mbr=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        card = SimCard(content)
        if fs == "fat32":
            assert find(card).reads > 10_000
        _, log = mount(card)
        for n in range(300):
            log.append(bytes([n % 256]) * 3000)
        log.sync()
        expected = log.durable
        card.writes.clear()
        before = card.reads
        _, log = mount(card)
        assert card.reads - before <= 64
        assert log.state == wire.CardState.READY
        assert log.durable >= expected
        del log, card


def test_read_errors_end_the_search():
    data = bytearray(image("fat16", 16 << 20))
    fine = find(SimCard(data))
    assert fine.reads > 10
    for block in range(1, fine.first_block):
        card = SimCard(data)
        card.read_errors = {block}
        assert find(card).result in (Err.OK, Err.IO)
    card = SimCard(data)
    card.read_errors = {fine.first_block - 1}
    assert find(card).result in (Err.OK, Err.IO)


# ---------------------------------------------------------------- hostile bytes


@cache
def small(fs: str) -> tuple[bytes, list[int]]:
    """A small card, and where the file system keeps what it says of the log."""
    data = image(fs, {"fat16": 8 << 20, "fat32": 8 << 20, "exfat": 8 << 20}[fs], fs != "fat32")
    region = find_region(io.BytesIO(data), "card", len(data) // BLOCK)
    volume = region.volume
    assert volume is not None
    root = volume.root if volume.root_blocks else volume.block_of(volume.root)
    spots = [446 + n for n in range(66)]
    spots += [volume.start * BLOCK + n for n in range(128)]
    spots += [volume.fat * BLOCK + n for n in range(64)]
    spots += [root * BLOCK + n for n in range(320)]
    return data, spots


VALUES = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF]))


@pytest.mark.parametrize("fs", ["fat16", "fat32", "exfat"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_hostile_bytes_never_hang_nor_lead_out_of_the_card(fs, data):
    content, spots = small(fs)
    changed = bytearray(content)
    for at, value in data.draw(
        st.lists(st.tuples(st.sampled_from(spots), VALUES), min_size=1, max_size=8)
    ):
        changed[at] = value
    # The simulated card fails the test when a block outside of it is asked for.
    card = SimCard(changed)
    found = find(card, limit=50_000)
    assert found.result in (Err.OK, Err.MAGIC, Err.CORRUPT, Err.IO)
    if found.result == Err.OK and found.blocks:
        assert found.first_block > 0
        assert found.first_block + found.blocks <= card.blocks


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 16), st.binary(min_size=512, max_size=512)), max_size=6))
def test_noise_never_hangs(blocks):
    card = SimCard(bytearray(64 * BLOCK))
    card.data[510:512] = b"\x55\xaa"
    for at, content in blocks:
        card.data[at * BLOCK : (at + 1) * BLOCK] = content
    assert find(card, limit=50_000).result <= 0


def test_a_root_directory_that_is_a_ring_ends():
    data = bytearray(image("fat32", 40 << 20))
    reserved = int.from_bytes(data[14:16], "little")
    root = int.from_bytes(data[44:48], "little")
    struct.pack_into("<I", data, reserved * BLOCK + 4 * root, root)
    at = bytes(data).index(b"DRIP00  LOG") // BLOCK * BLOCK
    data[at : at + BLOCK] = b"\xe5" * BLOCK
    found = find(SimCard(data))
    assert (found.result, found.reads <= 20_000) == (Err.MAGIC, True)
