"""Images of FAT and exFAT cards with preallocated log files.

dosfstools and exfatprogs make the file system; the log files are added to the fresh volume here,
because neither can promise consecutive clusters.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import uuid as uuids
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from drip.card import default_unit, log_superblocks
from drip.card.volume import BLOCK, Volume, find_volume, read_blocks, set_checksum
from drip.data.files import write_atomic
from drip.errors import CardError, MissingDependencyError, UsageError
from drip.wire import Superblock

__all__ = ["FILE_SYSTEMS", "file_sizes", "format_volume"]

FILE_SYSTEMS = ("fat16", "fat32", "exfat")
_LABEL = "DRIP"
_FAT_LIMIT = 1 << 32
_COPY_BYTES = 1 << 20
_SMALL_FAT16 = 17 << 20
_TABLE_UNIT = 8192  # the SD standard puts the volume of cards up to 32 GB at 4 MiB


def format_volume(
    path: str | os.PathLike[str],
    size: int,
    fs: str,
    *,
    mbr: bool = False,
    log_uuid: bytes | None = None,
    unit_bytes: int | None = None,
    segment_bytes: int | None = None,
) -> Superblock:
    """Make an image of a card: a volume with log files and an empty log in them.

    A 64th of the volume (at most 64 MiB) stays free for other files. Large images are sparse.

    Args:
        path: The image; an earlier file is replaced in one step.
        size: Bytes of the image, a multiple of 512.
        fs: "fat16", "fat32" or "exfat".
        mbr: Put a partition table before the volume, as on most cards.
        log_uuid: 16 bytes that name the log; random by default.
        unit_bytes: Erase unit, see :func:`drip.card.format_image`.
        segment_bytes: See there.

    Returns:
        The newest superblock.

    Raises:
        MissingDependencyError: mkfs.fat or mkfs.exfat is not installed.
        UsageError: The size does not suit the file system, or leaves no room for a log.
        CardError: The file cannot be written.
    """
    if size % BLOCK or size <= 0 or size // BLOCK >= 1 << 32:
        raise UsageError(
            f"a card of {size} bytes is not possible", "give a multiple of 512 below 2 TiB"
        )
    unit_bytes = unit_bytes or default_unit(size)
    start = min(_TABLE_UNIT, unit_bytes // BLOCK) if mbr else 0
    made: list[Superblock] = []

    def write(image: IO[bytes]) -> None:
        image.truncate(size)
        with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".drip-") as scratch:
            volume_file = Path(scratch) / "volume"
            _make(volume_file, size - start * BLOCK, fs, start)
            with volume_file.open("r+b") as volume:
                made.append(
                    _add_log(
                        volume,
                        size,
                        start,
                        log_uuid or uuids.uuid4().bytes,
                        unit_bytes,
                        segment_bytes,
                    )
                )
                _copy_sparse(volume, image, start * BLOCK)
        if mbr:
            image.seek(0)
            image.write(_partition_table(fs, start, size // BLOCK - start))

    try:
        write_atomic(path, write)
    except OSError as error:
        raise CardError(f"{path} cannot be written: {error.strerror}") from error
    return made[0]


def file_sizes(total: int, fs: str, cluster_bytes: int) -> list[int]:
    """Sizes of the log files that hold ``total`` bytes together, all but the last full clusters."""
    if fs == "exfat":
        return [total]
    largest = _FAT_LIMIT - max(cluster_bytes, 4 << 20)
    return [min(largest, total - at) for at in range(0, total, largest)]


def _make(path: Path, size: int, fs: str, hidden: int) -> None:
    """Make an empty file system in a new file."""
    with path.open("wb") as file:
        file.truncate(size)
    if fs == "exfat":
        tool, package, arguments = "mkfs.exfat", "exfatprogs", ["-L", _LABEL]
    else:
        tool, package = "mkfs.fat", "dosfstools"
        arguments = ["-F", fs.removeprefix("fat"), "-n", _LABEL, "-h", str(hidden)]
        if fs == "fat16" and size < _SMALL_FAT16:
            # By default it would have fewer clusters than FAT16 needs.
            arguments += ["-s", "1"]
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise MissingDependencyError(
            f"{tool} is not installed", f"install it with: sudo apt-get install {package}"
        )
    done = subprocess.run([found, *arguments, str(path)], capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UsageError(
            f"{size} bytes cannot become a {fs} volume: {lines[-1] if lines else tool + ' failed'}",
            "choose another --size or --fs",
        )


def _add_log(
    file: IO[bytes], size: int, start: int, log_uuid: bytes, unit: int, segment: int | None
) -> Superblock:
    """Add the log files, and a log, to a fresh volume that begins at ``start`` of its card."""
    volume = find_volume(file, size // BLOCK - start)
    if volume is None:
        raise UsageError(
            f"{size} bytes make a file system that the firmware does not read",
            "choose another --size or --fs; FAT16 needs 4085 clusters",
        )
    cluster_bytes = volume.cluster_blocks * BLOCK
    first = _first_free(file, volume)
    spare = min(64 << 20, volume.blocks * BLOCK // 64) // cluster_bytes
    count = volume.clusters + 2 - first - spare
    if count <= 0:
        raise UsageError(f"{size} bytes leave no room for a log", "give a larger --size")
    region = volume.block_of(first)
    newest, blocks = log_superblocks(
        count * volume.cluster_blocks, unit, segment, log_uuid, start + region
    )
    sizes = file_sizes(count * cluster_bytes, volume.kind, cluster_bytes)
    if volume.kind == "exfat":
        _add_exfat_file(file, volume, first, count)
    else:
        _add_fat_files(file, volume, first, sizes)
    for block, content in blocks.items():
        file.seek((region + block) * BLOCK)
        file.write(content)
    file.flush()
    return newest


def _first_free(file: IO[bytes], volume: Volume) -> int:
    """The cluster behind all that are in use; a fresh volume uses the first few."""
    if volume.kind == "exfat":
        used = _bitmap(file, volume)[1]
        last = max(at for at, byte in enumerate(used) if byte)
        return 2 + last * 8 + used[last].bit_length()
    data = read_blocks(file, volume.fat, volume.fat_blocks).rstrip(b"\0")
    size = 2 if volume.kind == "fat16" else 4
    return max(2, -(-len(data) // size))


def _dos_time() -> tuple[int, int]:
    now = time.gmtime()
    year = min(max(now.tm_year, 1980), 2107) - 1980
    date = year << 9 | now.tm_mon << 5 | now.tm_mday
    return date, now.tm_hour << 11 | now.tm_min << 5 | now.tm_sec // 2


# ---------------------------------------------------------------- FAT


def _add_fat_files(file: IO[bytes], volume: Volume, first: int, sizes: Sequence[int]) -> None:
    cluster_bytes = volume.cluster_blocks * BLOCK
    code, end = ("H", 0xFFFF) if volume.kind == "fat16" else ("I", 0x0FFFFFFF)
    links = array(code)
    entries = b""
    date, moment = _dos_time()
    cluster = first
    for number, size in enumerate(sizes):
        count = size // cluster_bytes
        links.extend(range(cluster + 1, cluster + count))
        links.append(end)
        entries += struct.pack(
            "<8s3sBBBHHHHHHHI",
            b"DRIP%02d  " % number, b"LOG", 0x20, 0, 0, moment, date, date,
            cluster >> 16, moment, date, cluster & 0xFFFF, size,
        )  # fmt: skip
        cluster += count
    if sys.byteorder == "big":
        links.byteswap()
    for copy in range(volume.fats):
        file.seek((volume.first_fat + copy * volume.fat_blocks) * BLOCK + first * links.itemsize)
        file.write(links.tobytes())
    _append_root(file, volume, entries)
    if volume.kind == "fat32":
        _set_free_clusters(file, volume, volume.clusters + 2 - cluster, cluster)


def _append_root(file: IO[bytes], volume: Volume, entries: bytes) -> None:
    """Write entries behind those of a fresh root directory, which fit into its first cluster."""
    root = volume.root if volume.root_blocks else volume.block_of(volume.root)
    room = (volume.root_blocks or volume.cluster_blocks) * BLOCK
    data = read_blocks(file, root, room // BLOCK)
    at = next(at for at in range(0, room, 32) if data[at] == 0)
    if at + len(entries) > room:
        raise UsageError("the files do not fit into the root directory", "give a smaller --size")
    file.seek(root * BLOCK + at)
    file.write(entries)


def _set_free_clusters(file: IO[bytes], volume: Volume, free: int, following: int) -> None:
    boot = read_blocks(file, volume.start, 1)
    info = volume.start + int.from_bytes(boot[48:50], "little")
    file.seek(info * BLOCK + 488)
    file.write(struct.pack("<II", free, min(following, volume.clusters + 1)))


# ---------------------------------------------------------------- exFAT


def _bitmap(file: IO[bytes], volume: Volume) -> tuple[int, bytes]:
    """Byte position and content of the allocation bitmap."""
    root = read_blocks(file, volume.block_of(volume.root), volume.cluster_blocks)
    for at in range(0, len(root), 32):
        if root[at] == 0x81:
            cluster, size = struct.unpack_from("<IQ", root, at + 20)
            block = volume.block_of(cluster)
            return block * BLOCK, read_blocks(file, block, -(-size // BLOCK))[:size]
    raise CardError("the new exFAT volume has no allocation bitmap", "report this")


def _add_exfat_file(file: IO[bytes], volume: Volume, first: int, count: int) -> None:
    position, used = _bitmap(file, volume)
    bits = int.from_bytes(used, "little") | ((1 << count) - 1) << (first - 2)
    file.seek(position)
    file.write(bits.to_bytes(len(used), "little"))
    name = "DRIP00.LOG"
    date, moment = _dos_time()
    stamp = date << 16 | moment
    size = count * volume.cluster_blocks * BLOCK
    utc = 0x80
    entries = bytearray(
        struct.pack(
            "<BBHHHIIIBBBBB7x", 0x85, 2, 0, 0x20, 0, stamp, stamp, stamp, 0, 0, utc, utc, utc
        )
        # 3: clusters are allocated, and consecutive without a chain (NoFatChain).
        + struct.pack("<BBBBHHQIIQ", 0xC0, 3, 0, len(name), _hash(name), 0, size, 0, first, size)
        + struct.pack("<BB30s", 0xC1, 0, name.encode("utf-16-le"))
    )
    entries[2:4] = set_checksum(bytes(entries)).to_bytes(2, "little")
    _append_root(file, volume, bytes(entries))
    file.seek(volume.start * BLOCK + 112)
    file.write(bytes([100 * bits.bit_count() // volume.clusters]))


def _hash(name: str) -> int:
    """Hash of a name that is in upper case (specification, 7.6.4)."""
    value = 0
    for byte in name.encode("utf-16-le"):
        value = ((value << 15 | value >> 1) + byte) & 0xFFFF
    return value


# ---------------------------------------------------------------- card


def _partition_table(fs: str, start: int, blocks: int) -> bytes:
    kind = {"fat16": 0x0E, "fat32": 0x0C, "exfat": 0x07}[fs]
    # Cylinders, heads and sectors: FE FF FF says that the numbers of blocks count.
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, blocks)
    return bytes(440) + os.urandom(4) + bytes(2) + entry + bytes(48) + b"\x55\xaa"


def _copy_sparse(source: IO[bytes], target: IO[bytes], offset: int) -> None:
    """Copy what is not a hole or zero."""
    end = source.seek(0, os.SEEK_END)
    at = 0
    while at < end:
        if hasattr(os, "SEEK_DATA"):
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
        source.seek(at)
        data = source.read(_COPY_BYTES)
        if any(data):
            target.seek(offset + at)
            target.write(data)
        at += len(data)
