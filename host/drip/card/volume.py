"""Log files on FAT16, FAT32 and exFAT volumes, as firmware/core/src/volume.c finds them.

A card is an image or a block device, with or without an MBR before the volume; a log without a
volume begins in block 0. Structures: Microsoft, "FAT: General Overview of On-Disk Format" 1.03 and
"exFAT file system specification" (2019).
"""

from __future__ import annotations

import itertools
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from drip import wire
from drip.errors import CardError

__all__ = ["BLOCK", "LogFile", "Region", "Volume", "find_region", "find_volume", "log_files"]

BLOCK = wire.BLOCK_BYTES
_PARTITION_TYPES = frozenset({0x04, 0x06, 0x07, 0x0B, 0x0C, 0x0E})
_MAX_DIRECTORY_BLOCKS = 8192
_MAGIC = wire.SUPERBLOCK_MAGIC.to_bytes(4, "little")
_NO_FILES_HINT = "make them with: drip card format"
_FRAGMENTED_HINT = (
    "copy what is on the card to a computer, format the card, then run: drip card format; "
    "frames in a copied DRIP00.LOG are read with: drip card pull DRIP00.LOG"
)

Kind = Literal["fat16", "fat32", "exfat"]


@dataclass(frozen=True)
class Volume:
    """Layout of a volume; blocks count from the start of the card, clusters from 2.

    Attributes:
        kind: File system.
        start: First block.
        blocks: Of all of it.
        fat: First block of the table that counts.
        fat_blocks: Blocks of one table.
        fats: Copies of the table, from ``first_fat`` on.
        first_fat: First block of the first copy.
        heap: Block of cluster 2.
        clusters: How many there are.
        cluster_blocks: Blocks of one.
        root: First cluster of the root directory; of FAT16 its first block.
        root_blocks: Blocks of a FAT16 root directory, else 0.
        serial: Volume serial number.
    """

    kind: Kind
    start: int
    blocks: int
    fat: int
    fat_blocks: int
    fats: int
    first_fat: int
    heap: int
    clusters: int
    cluster_blocks: int
    root: int
    root_blocks: int
    serial: int

    def block_of(self, cluster: int) -> int:
        """First block of a cluster."""
        return self.heap + (cluster - 2) * self.cluster_blocks

    def has(self, cluster: int) -> bool:
        """Whether a cluster exists."""
        return 2 <= cluster < self.clusters + 2


@dataclass(frozen=True)
class LogFile:
    """A log file of a volume.

    Attributes:
        number: Of its name.
        cluster: First cluster.
        size: Bytes.
        chained: Its clusters are listed in the table; otherwise they are declared consecutive.
        valid: All its bytes are valid (exFAT).
    """

    number: int
    cluster: int
    size: int
    chained: bool
    valid: bool


@dataclass(frozen=True)
class Region:
    """Consecutive blocks that hold a log, in one or several open files.

    Attributes:
        pieces: File, first block in it, blocks.
        first_block: Of the region on its card; 0 where that is unknown.
        volume: That it lies in, None for none.
    """

    pieces: tuple[tuple[IO[bytes], int, int], ...]
    first_block: int = 0
    volume: Volume | None = None

    @property
    def blocks(self) -> int:
        """Blocks of all pieces."""
        return sum(count for _, _, count in self.pieces)

    def read(self, block: int, count: int) -> bytes:
        """Read blocks of the region; what cannot be read is missing at the end."""
        found = bytearray()
        for file, first, blocks in self.pieces:
            if block < blocks and count > 0:
                part = min(count, blocks - block)
                found += read_blocks(file, first + block, part)
                if len(found) % BLOCK or len(found) < part * BLOCK:
                    break
                block, count = 0, count - part
            else:
                block -= blocks
        return bytes(found)


def read_blocks(file: IO[bytes], block: int, count: int) -> bytes:
    """Read blocks of a card; what it lacks or cannot read is missing at the end."""
    try:
        file.seek(block * BLOCK)
        return file.read(count * BLOCK)
    except OSError:
        # A bad block of a real card: what cannot be read is as good as not there.
        return b""


def find_region(file: IO[bytes], name: object, blocks: int) -> Region:
    """Find the log region of a card.

    Args:
        file: The card.
        name: Of it, for messages.
        blocks: Of the card.

    Returns:
        The region of the log files of its first volume that has any; all of the card when it has no
        volume. Whether a log is in it is for the caller to see.

    Raises:
        CardError: There is a volume, but no log files, or they are not in one piece.
    """
    if read_blocks(file, 0, 1)[:4] == _MAGIC:
        return Region(((file, 0, blocks),))
    seen = None
    for volume in _volumes(file, blocks):
        seen = volume
        files = log_files(file, volume)
        if files:
            return _joined(file, name, volume, files)
    if seen is None:
        return Region(((file, 0, blocks),))
    raise CardError(f"{name} holds a {seen.kind} volume without DRIP00.LOG", _NO_FILES_HINT)


def find_volume(file: IO[bytes], blocks: int, start: int = 0) -> Volume | None:
    """The volume that begins at a block, None when there is none that the firmware can use."""
    boot = read_blocks(file, start, 1)
    if len(boot) < BLOCK or boot[510:] != b"\x55\xaa":
        return None
    if boot[:1] == b"\xeb" and boot[3:11] == b"EXFAT   " and not any(boot[11:64]):
        return _exfat(boot, start, blocks)
    return _fat(boot, start, blocks)


def log_files(file: IO[bytes], volume: Volume) -> list[LogFile]:
    """The log files of a volume, from DRIP00.LOG on as long as their numbers are consecutive."""
    found: dict[int, LogFile] = {}
    listed = _exfat_files(file, volume) if volume.kind == "exfat" else _fat_files(file, volume)
    for item in listed:
        found.setdefault(item.number, item)
    files: list[LogFile] = []
    while len(files) in found:
        files.append(found[len(files)])
    return files


def _volumes(file: IO[bytes], blocks: int) -> Iterator[Volume]:
    whole = find_volume(file, blocks)
    if whole is not None:
        yield whole
        return
    first = read_blocks(file, 0, 1)
    if first[510:] != b"\x55\xaa":
        return
    for at in range(446, 510, 16):
        start = int.from_bytes(first[at + 8 : at + 12], "little")
        if (
            first[at] & 0x7F == 0
            and first[at + 4] in _PARTITION_TYPES
            and 0 < start < blocks
            and (volume := find_volume(file, blocks, start)) is not None
        ):
            yield volume


def _fat(boot: bytes, start: int, blocks: int) -> Volume | None:
    sector, cluster, reserved, fats, entries, small, _, fat16 = struct.unpack_from(
        "<HBHBHHBH", boot, 11
    )
    total = small or int.from_bytes(boot[32:36], "little")
    fat_blocks = fat16 or int.from_bytes(boot[36:40], "little")
    root_blocks = -(-entries * 32 // BLOCK)
    heap = reserved + fats * fat_blocks + root_blocks
    if (
        boot[0] not in (0xEB, 0xE9)
        or sector != BLOCK
        or cluster not in (1, 2, 4, 8, 16, 32, 64, 128)
        or reserved == 0
        or fats not in (1, 2)
        or fat_blocks == 0
        or total > blocks - start
        or heap >= total
    ):
        return None
    clusters = (total - heap) // cluster
    active = 0
    if fat16:
        sane = 4085 <= clusters <= 65524 and root_blocks > 0 and fat_blocks * 256 >= clusters + 2
        root, serial_at = start + heap - root_blocks, 39
    else:
        root, serial_at = int.from_bytes(boot[44:48], "little"), 67
        flags, version = struct.unpack_from("<HH", boot, 40)
        active = flags & 15 if flags & 0x80 else 0
        sane = (
            root_blocks == 0
            and version == 0
            and 0 < clusters <= 0x0FFFFFF5
            and fat_blocks * 128 >= clusters + 2
            and 2 <= root < clusters + 2
            and active < fats
        )
    if not sane:
        return None
    return Volume(
        kind="fat16" if fat16 else "fat32",
        start=start,
        blocks=total,
        fat=start + reserved + active * fat_blocks,
        fat_blocks=fat_blocks,
        fats=fats,
        first_fat=start + reserved,
        heap=start + heap,
        clusters=clusters,
        cluster_blocks=cluster,
        root=root,
        root_blocks=root_blocks,
        serial=int.from_bytes(boot[serial_at : serial_at + 4], "little"),
    )


def _exfat(boot: bytes, start: int, blocks: int) -> Volume | None:
    (total,) = struct.unpack_from("<Q", boot, 72)
    fat, fat_blocks, heap, clusters, root, serial, _, flags = struct.unpack_from(
        "<IIIIIIHH", boot, 80
    )
    sector_shift, shift, fats = boot[108], boot[109], boot[110]
    if (
        sector_shift != 9
        or shift > 16
        or fats not in (1, 2)
        or total > blocks - start
        or not 24 <= fat < heap < total
        or fats * fat_blocks > heap - fat
        or not 0 < clusters <= (total - heap) >> shift
        or fat_blocks * 128 < clusters + 2
        or not 2 <= root < clusters + 2
    ):
        return None
    active = fats == 2 and flags & 1
    return Volume(
        kind="exfat",
        start=start,
        blocks=total,
        fat=start + fat + (fat_blocks if active else 0),
        fat_blocks=fat_blocks,
        fats=fats,
        first_fat=start + fat,
        heap=start + heap,
        clusters=clusters,
        cluster_blocks=1 << shift,
        root=root,
        root_blocks=0,
        serial=serial,
    )


# ---------------------------------------------------------------- directory


def _root(file: IO[bytes], volume: Volume) -> Iterator[bytes]:
    """Entries of the root directory up to its end mark."""
    for block in itertools.islice(_root_blocks(file, volume), _MAX_DIRECTORY_BLOCKS):
        data = read_blocks(file, block, 1)
        if len(data) < BLOCK:
            return
        for at in range(0, BLOCK, 32):
            if data[at] == 0:
                return
            yield data[at : at + 32]


def _root_blocks(file: IO[bytes], volume: Volume) -> Iterator[int]:
    if volume.root_blocks:
        yield from range(volume.root, volume.root + volume.root_blocks)
        return
    cluster, left = volume.root, _MAX_DIRECTORY_BLOCKS
    while volume.has(cluster) and left > 0:
        first = volume.block_of(cluster)
        yield from range(first, first + volume.cluster_blocks)
        left -= volume.cluster_blocks
        cluster = _links(file, volume, cluster, 1)[0]


def _number(name: str) -> int | None:
    """Number of a log file's name, None for another name."""
    name = name.upper()
    if len(name) == 10 and name.startswith("DRIP") and name.endswith(".LOG"):
        digits = name[4:6]
        return int(digits) if digits.isascii() and digits.isdigit() else None
    return None


def _fat_files(file: IO[bytes], volume: Volume) -> Iterator[LogFile]:
    for entry in _root(file, volume):
        if entry[11] & 0x18 or entry[6:8] != b"  ":
            continue
        number = _number(f"{entry[:6].decode('latin-1')}.{entry[8:11].decode('latin-1')}")
        if number is not None:
            high, _, _, low, size = struct.unpack_from("<HHHHI", entry, 20)
            cluster = low | (high << 16 if volume.kind == "fat32" else 0)
            yield LogFile(number, cluster, size, chained=True, valid=True)


def set_checksum(entries: bytes) -> int:
    """Checksum of an exFAT entry set (specification, 6.3.3)."""
    value = 0
    for at, byte in enumerate(entries):
        if at not in (2, 3):
            value = ((value << 15 | value >> 1) + byte) & 0xFFFF
    return value


def _exfat_files(file: IO[bytes], volume: Volume) -> Iterator[LogFile]:
    entries = b""
    for entry in _root(file, volume):
        if entry[0] == 0x85:
            entries = entry
        elif entries and entry[0] & 0xC0 == 0xC0:
            entries += entry
        else:
            entries = b""
        if entries and 2 <= entries[1] <= 18 and len(entries) == 32 * (entries[1] + 1):
            found = _exfat_file(entries)
            if found is not None:
                yield found
            entries = b""


def _exfat_file(entries: bytes) -> LogFile | None:
    """What an entry set says of a log file, None for anything else."""
    (stored,) = struct.unpack_from("<H", entries, 2)
    stream, name = entries[32:64], entries[64:96]
    if (
        entries[4] & 0x10
        or stream[0] != 0xC0
        or name[0] != 0xC1
        or stream[3] != 10
        or set_checksum(entries) != stored
    ):
        return None
    number = _number(name[2:22].decode("utf-16-le", "replace"))
    if number is None:
        return None
    valid, _, cluster, size = struct.unpack_from("<QIIQ", stream, 8)
    return LogFile(number, cluster, size, chained=not stream[1] & 2, valid=valid == size)


# ---------------------------------------------------------------- contiguity


def _joined(file: IO[bytes], name: object, volume: Volume, files: list[LogFile]) -> Region:
    """The region that the files make together.

    Raises:
        CardError: They are not one piece.
    """
    following, blocks = files[0].cluster, 0
    for item in files:
        label = f"DRIP{item.number:02d}.LOG"
        count = item.size // BLOCK
        clusters = -(-count // volume.cluster_blocks)
        if not item.valid:
            raise CardError(f"{label} of {name} is not written to its end", _FRAGMENTED_HINT)
        if not count or not volume.has(item.cluster) or not volume.has(item.cluster + clusters - 1):
            raise CardError(f"{label} of {name} lies outside of its volume", _FRAGMENTED_HINT)
        if item.cluster != following or blocks % volume.cluster_blocks:
            raise CardError(
                f"{label} of {name} does not follow the file before it", _FRAGMENTED_HINT
            )
        if item.chained and not _is_run(file, volume, item.cluster, clusters):
            raise CardError(f"{label} of {name} is fragmented", _FRAGMENTED_HINT)
        following, blocks = item.cluster + clusters, blocks + count
    first = volume.block_of(files[0].cluster)
    return Region(((file, first, blocks),), first, volume)


def _links(file: IO[bytes], volume: Volume, cluster: int, count: int) -> array[int]:
    """Entries of the table from a cluster on; marks of the end are 0xFFFFFFFF."""
    size = 2 if volume.kind == "fat16" else 4
    first, last = cluster * size // BLOCK, ((cluster + count) * size - 1) // BLOCK
    data = read_blocks(file, volume.fat + first, last - first + 1)
    skip = cluster * size - first * BLOCK
    # What cannot be read links to nothing.
    data = data[skip : skip + count * size].ljust(count * size, b"\0")
    found = array("H" if size == 2 else "I", data)
    if sys.byteorder == "big":
        found.byteswap()
    if volume.kind == "exfat":
        return found
    mask, end = (0xFFFF, 0xFFF8) if size == 2 else (0x0FFFFFFF, 0x0FFFFFF8)
    return array("I", [0xFFFFFFFF if item & mask >= end else item & mask for item in found])


def _is_run(file: IO[bytes], volume: Volume, cluster: int, count: int) -> bool:
    links = _links(file, volume, cluster, count)
    return links[-1] >= 0xFFFFFFF8 and links[:-1] == array(
        links.typecode, range(cluster + 1, cluster + count)
    )
