"""Volumes as mkfs, mtools and a small exFAT writer make them, and the search on them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cardsim import BLOCK, SimCard
from drip._core import ffi, lib

from drip import wire
from drip.card.volume import Volume, find_volume, set_checksum

_PACKAGES = {
    "mkfs.fat": "dosfstools",
    "dosfsck": "dosfstools",
    "mcopy": "mtools",
    "mmd": "mtools",
    "mdel": "mtools",
    "mkfs.exfat": "exfatprogs",
    "fsck.exfat": "exfatprogs",
}


def tool(name: str) -> str:
    """Path of a program; skips the test when it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is missing: sudo apt-get install {_PACKAGES[name]}")
    return found


def run_tool(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [tool(name), *map(str, arguments)], capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def need_mkfs(fs: str) -> None:
    tool("mkfs.exfat" if fs == "exfat" else "mkfs.fat")


def check(path: Path, fs: str, start: int = 0) -> None:
    """Have fsck look at the volume that begins at a block of an image; it must find nothing."""
    if start:
        part = path.with_suffix(".part")
        with path.open("rb") as image, part.open("wb") as file:
            image.seek(start * BLOCK)
            shutil.copyfileobj(image, file)
        path = part
    if fs == "exfat":
        run_tool("fsck.exfat", "-n", path)
    else:
        run_tool("dosfsck", "-n", path)


@dataclass
class Found:
    """What the core says of a card."""

    result: int
    first_block: int
    blocks: int
    place: tuple[int, int, int, int]
    reads: int


def find(card: SimCard, limit: int = 200_000) -> Found:
    """Search a card with the compiled core."""
    volume = ffi.new("drip_volume_t *")
    buffer = ffi.new("drip_superblock_t *")
    before = card.reads
    lib.drip_volume_start(volume, card.port, ffi.cast("uint8_t *", buffer))
    result = int(wire.Err.BUSY)
    while result == wire.Err.BUSY:
        result = lib.drip_volume_step(volume)
        limit -= 1
        assert limit > 0, "the search never ends"
    place = volume.place
    return Found(
        result,
        volume.first_block,
        volume.blocks,
        (place.serial, place.cluster, place.blocks, place.check),
        card.reads - before,
    )


# ---------------------------------------------------------------- exFAT


class Exfat:
    """Adds files to an exFAT image, with chains in the table and a root directory that grows."""

    def __init__(self, data: bytearray, start: int = 0) -> None:
        import io

        self.data = data
        volume = find_volume(io.BytesIO(bytes(data)), len(data) // BLOCK, start)
        assert volume is not None and volume.kind == "exfat"
        self.volume: Volume = volume
        self.bitmap_at = -1
        for at in self._root_slots():
            if data[at] == 0x81:
                cluster = struct.unpack_from("<I", data, at + 20)[0]
                self.bitmap_at = volume.block_of(cluster) * BLOCK
        assert self.bitmap_at > 0

    def _link_at(self, cluster: int) -> int:
        return self.volume.fat * BLOCK + cluster * 4

    def link(self, cluster: int) -> int:
        return struct.unpack_from("<I", self.data, self._link_at(cluster))[0]

    def set_link(self, cluster: int, value: int) -> None:
        struct.pack_into("<I", self.data, self._link_at(cluster), value)

    def _root_slots(self) -> list[int]:
        slots, cluster = [], self.volume.root
        while cluster < 0xFFFFFFF8:
            first = self.volume.block_of(cluster) * BLOCK
            slots += range(first, first + self.volume.cluster_blocks * BLOCK, 32)
            cluster = self.link(cluster)
        return slots

    def is_used(self, cluster: int) -> bool:
        at, bit = divmod(cluster - 2, 8)
        return bool(self.data[self.bitmap_at + at] >> bit & 1)

    def allocate(self, count: int) -> list[int]:
        free = [
            number for number in range(2, self.volume.clusters + 2) if not self.is_used(number)
        ][:count]
        assert len(free) == count
        for cluster in free:
            at, bit = divmod(cluster - 2, 8)
            self.data[self.bitmap_at + at] |= 1 << bit
        return free

    def add(
        self,
        name: str,
        size: int,
        *,
        chained: bool = True,
        clusters: list[int] | None = None,
        valid: int | None = None,
        attributes: int = 0x20,
    ) -> list[int]:
        """Add a file; returns its clusters."""
        count = -(-size // (self.volume.cluster_blocks * BLOCK))
        clusters = self.allocate(count) if clusters is None else clusters
        if chained:
            for here, after in zip(clusters, [*clusters[1:], 0xFFFFFFFF], strict=True):
                self.set_link(here, after)
        text = name.encode("utf-16-le")
        names = [text[at : at + 30] for at in range(0, len(text), 30)]
        value = 0
        for byte in name.upper().encode("utf-16-le"):
            value = ((value << 15 | value >> 1) + byte) & 0xFFFF
        stamp = 0x5A210000
        entries = bytearray(
            struct.pack("<BBHHHIII12x", 0x85, 1 + len(names), 0, attributes, 0, stamp, stamp, stamp)
        )
        entries += struct.pack(
            "<BBBBHHQIIQ", 0xC0, 1 if chained else 3, 0, len(name), value, 0,
            size if valid is None else valid, 0, clusters[0], size,
        )  # fmt: skip
        for part in names:
            entries += struct.pack("<BB30s", 0xC1, 0, part)
        entries[2:4] = set_checksum(bytes(entries)).to_bytes(2, "little")
        self._put(bytes(entries))
        return clusters

    def _put(self, entries: bytes) -> None:
        slots = self._root_slots()
        used = next((n for n, at in enumerate(slots) if self.data[at] == 0), len(slots))
        if used + len(entries) // 32 > len(slots):
            (more,) = self.allocate(1)
            last = self.volume.root
            while self.link(last) < 0xFFFFFFF8:
                last = self.link(last)
            self.set_link(last, more)
            self.set_link(more, 0xFFFFFFFF)
            slots = self._root_slots()
        for n in range(len(entries) // 32):
            at = slots[used + n]
            self.data[at : at + 32] = entries[n * 32 : n * 32 + 32]
