"""Cards with file systems, without a device: making images, mounted volumes, what users read."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from drip.card import inspect_image, log_paths, open_log, volume_format
from drip.card import mounted as card_mounted
from drip.card.mounted import Mount, find_mount, format_mounted
from drip.card.volume import BLOCK, find_volume, log_files
from drip.card.volume_format import file_sizes, format_volume
from drip.cli import app
from drip.errors import CardError, MissingDependencyError, UsageError

FS = ["fat16", "fat32", "exfat"]


def need(fs: str) -> None:
    tool, package = ("mkfs.exfat", "exfatprogs") if fs == "exfat" else ("mkfs.fat", "dosfstools")
    if not (shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")):
        pytest.skip(f"{tool} is missing: sudo apt-get install {package}")


def fsck(path: Path, fs: str) -> None:
    command = ["fsck.exfat", "-n"] if fs == "exfat" else ["dosfsck", "-n"]
    tool = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin:/sbin")
    if tool is None:
        pytest.skip(f"{command[0]} is missing")
    done = subprocess.run([tool, command[1], str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fs", FS)
def test_segments_begin_at_erase_units_of_the_card(tmp_path, fs):
    need(fs)
    path = tmp_path / "card.img"
    made = format_volume(path, 80 << 20, fs, mbr=True)
    with open_log(path) as log:
        assert log.superblocks == ("ok", "ok")
        assert replace(log.superblock, crc=0) == made
        first = log.region.first_block
        assert log.region.blocks == made.region_blocks
    assert made.unit_blocks == 8192
    assert (first + made.data_block) % 8192 == 0
    end = first + made.data_block + made.segment_count * made.segment_blocks
    assert end // 8192 <= (first + made.region_blocks - 1) // 8192
    report = inspect_image(path)
    assert (report.file_system, report.first_block, report.records) == (fs, first, 0)


def test_a_large_exfat_card_is_sparse_and_one_file(tmp_path):
    need("exfat")
    path = tmp_path / "card.img"
    made = format_volume(path, 32 << 30, "exfat")
    assert path.stat().st_size == 32 << 30
    assert path.stat().st_blocks * 512 < 32 << 20
    assert made.segment_count * made.segment_blocks * BLOCK > 31 << 30
    with path.open("rb") as file:
        volume = find_volume(file, (32 << 30) // BLOCK)
        assert volume is not None
        (only,) = log_files(file, volume)
        assert (only.chained, only.valid) == (False, True)
    fsck(path, "exfat")


def test_a_large_fat32_card_has_several_files_in_one_piece(tmp_path):
    need("fat32")
    path = tmp_path / "card.img"
    made = format_volume(path, 9 << 30, "fat32")
    assert path.stat().st_blocks * 512 < 64 << 20
    with path.open("rb") as file:
        volume = find_volume(file, (9 << 30) // BLOCK)
        assert volume is not None
        files = log_files(file, volume)
    assert [item.size < 1 << 32 for item in files] == [True, True, True]
    assert sum(item.size for item in files) == made.region_blocks * BLOCK
    with open_log(path) as log:
        assert log.superblock.region_blocks == made.region_blocks
    fsck(path, "fat32")


def test_file_sizes():
    assert file_sizes(10 << 30, "exfat", 1 << 17) == [10 << 30]
    sizes = file_sizes(10 << 30, "fat32", 32768)
    assert sum(sizes) == 10 << 30
    assert sizes[:-1] == [(1 << 32) - (4 << 20)] * 2
    assert all(size % 32768 == 0 for size in sizes)


@pytest.mark.parametrize("fs", FS)
def test_a_copied_log_file_is_a_card_too(tmp_path, fs):
    need(fs)
    path = tmp_path / "card.img"
    made = format_volume(path, 16 << 20, fs)
    with open_log(path) as log:
        content = log.region.read(0, log.region.blocks)
    (tmp_path / "DRIP00.LOG").write_bytes(content[: 4 << 20])
    (tmp_path / "drip01.log").write_bytes(content[4 << 20 :])
    (tmp_path / "DRIP03.LOG").write_bytes(b"not of it")
    assert [item.name for item in log_paths(tmp_path)] == ["DRIP00.LOG", "drip01.log"]
    report = inspect_image(tmp_path)
    assert replace(report.superblock, crc=0) == made
    assert report.damage == ()


@pytest.mark.parametrize(
    ("size", "fs"), [(1 << 20, "fat16"), (1 << 10, "exfat"), (1000, "fat32"), (0, "exfat")]
)
def test_sizes_that_make_no_card(tmp_path, size, fs):
    need(fs)
    with pytest.raises(UsageError):
        format_volume(tmp_path / "card.img", size, fs)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(("fs", "package"), [("fat32", "dosfstools"), ("exfat", "exfatprogs")])
def test_a_missing_tool_is_named_with_its_package(tmp_path, monkeypatch, fs, package):
    monkeypatch.setattr(volume_format.shutil, "which", lambda *_, **__: None)
    with pytest.raises(MissingDependencyError, match="is not installed") as caught:
        format_volume(tmp_path / "card.img", 64 << 20, fs)
    assert package in caught.value.hint
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- mounted


def mounts(folder: Path, text: str) -> str:
    table = folder / "mounts"
    table.write_text(text)
    return str(table)


def test_what_is_mounted(tmp_path):
    card = tmp_path / "my card"
    card.mkdir()
    escaped = str(card).replace(" ", "\\040")
    table = mounts(tmp_path, f"/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 {escaped} vfat rw 0 0\n")
    found = find_mount(card, table)
    assert (found.folder, found.device, found.fs) == (card, Path("/dev/sdb1"), "fat32")
    with pytest.raises(CardError, match="not where a FAT or exFAT volume is mounted"):
        find_mount(tmp_path, table)
    with pytest.raises(CardError, match="does not say"):
        find_mount(card, str(tmp_path / "nothing"))


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """A folder and, as its device, an image that shows a log file."""
    need("fat32")
    folder, device = tmp_path / "mounted", tmp_path / "device"
    folder.mkdir()
    format_volume(device, 40 << 20, "fat32")
    clusters = SimpleNamespace(f_frsize=BLOCK)
    monkeypatch.setattr(card_mounted.os, "statvfs", lambda _: clusters)
    return Mount(folder, device, "fat32", start=2048)


def shown(device: Path) -> int:
    """Bytes of the log file that the device shows."""
    with open_log(device) as log:
        return log.region.blocks * BLOCK


def test_log_files_on_a_mounted_volume(mounted):
    size = shown(mounted.device)
    made = format_mounted(mounted, size)
    (path,) = log_paths(mounted.folder)
    assert path.stat().st_size == size
    with open_log(mounted.device) as log:
        first = log.region.first_block + 2048
    assert (first + made.data_block) % made.unit_blocks == 0, "the partition's place counts"
    assert replace(inspect_image(mounted.folder).superblock, crc=0) == made
    with pytest.raises(CardError, match="exists"):
        format_mounted(mounted, size)
    again = format_mounted(mounted, size, force=True)
    assert again.log_uuid != made.log_uuid


def test_a_fragmented_mounted_volume_is_refused_and_left_clean(mounted):
    size = shown(mounted.device)
    data = bytearray(mounted.device.read_bytes())
    reserved = int.from_bytes(data[14:16], "little")
    data[reserved * BLOCK + 400] ^= 1
    fats_at = reserved + int.from_bytes(data[36:40], "little")
    data[fats_at * BLOCK + 400] ^= 1
    mounted.device.write_bytes(data)
    with pytest.raises(CardError, match="fragmented") as caught:
        format_mounted(mounted, size)
    assert "format the card" in caught.value.hint
    assert list(mounted.folder.iterdir()) == []


def test_a_mounted_volume_that_shows_something_else(mounted, monkeypatch):
    with pytest.raises(CardError, match="does not show the files"):
        format_mounted(mounted, 1 << 20)
    assert list(mounted.folder.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card_mounted.os, "posix_fallocate", full)
    with pytest.raises(CardError, match="No space left"):
        format_mounted(mounted, 1 << 20)
    assert list(mounted.folder.iterdir()) == []
    gone = Mount(mounted.folder, mounted.folder / "nothing", "exfat", 0)
    with pytest.raises(CardError, match="cannot be read") as caught:
        format_mounted(gone, 1 << 20)
    assert "root" in caught.value.hint


# ---------------------------------------------------------------- command line


def test_commands(tmp_path):
    need("exfat")
    run = CliRunner()
    path = tmp_path / "card.img"
    made = run.invoke(app, ["card", "format", str(path), "--fs", "exfat", "--mbr", "--size", "16M"])
    assert made.exit_code == 0, made.output
    assert re.search(r"wrote .*16777216 bytes, log [0-9a-f]{32}", made.output.replace("\n", ""))
    shown = run.invoke(app, ["card", "inspect", str(path)])
    assert shown.exit_code == 0
    assert "exfat" in shown.output
    pulled = run.invoke(app, ["card", "pull", str(path), str(tmp_path / "store")])
    assert pulled.exit_code == 0, pulled.output
    for arguments in (["format", str(path), "--fs", "exfat"], ["format", str(tmp_path)]):
        refused = run.invoke(app, ["card", *arguments])
        assert isinstance(refused.exception, CardError)
    refused = run.invoke(app, ["card", "format", str(tmp_path / "raw.img"), "--mbr"])
    assert isinstance(refused.exception, UsageError)
    assert isinstance(run.invoke(app, ["card", "format", "/dev/null"]).exception, CardError)
