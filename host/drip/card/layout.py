"""Card images: making an empty log, by the rule of `drip_log_format`; docs/SPEC.md, section Card.

Nothing here needs the compiled core: what is written equals what it writes.
"""

from __future__ import annotations

import dataclasses
import os
import uuid as uuids
import zlib
from typing import IO

from drip import wire
from drip.data.files import write_atomic
from drip.errors import CardError, UsageError

__all__ = ["LARGEST_SEGMENT_BLOCKS", "default_unit", "format_image", "log_superblocks"]

_BLOCK = wire.BLOCK_BYTES
_SMALLEST_IMAGE = 512 << 10
_LARGE_IMAGE = 64 << 20
LARGEST_SEGMENT_BLOCKS = 65536


def format_image(
    path: str | os.PathLike[str],
    size: int,
    *,
    log_uuid: bytes | None = None,
    unit_bytes: int | None = None,
    segment_bytes: int | None = None,
) -> wire.Superblock:
    """Make an image file with an empty log; an earlier file is replaced in one step.

    Args:
        path: The image.
        size: Bytes of the image, a multiple of 512, at least 512 KiB by default.
        log_uuid: 16 bytes that name the log; random by default.
        unit_bytes: Erase unit of the card it will be copied to, a power of two. Default: 4 MiB
            from 64 MiB on, 16 KiB below.
        segment_bytes: A power of two. The largest frame plus 1 KiB must fit. Default: 256 KiB from
            8 MiB on, 128 KiB below.

    Returns:
        The newest superblock.

    Raises:
        UsageError: The sizes leave no room for two segments.
        CardError: The file cannot be written.
    """
    if size % _BLOCK or not 0 < size // _BLOCK < 1 << 32:
        raise UsageError(
            f"a card of {size} bytes is not possible", "give a multiple of 512 below 2 TiB"
        )
    made, blocks = log_superblocks(
        size // _BLOCK, unit_bytes or default_unit(size), segment_bytes, log_uuid
    )

    def write(file: IO[bytes]) -> None:
        file.truncate(size)
        for block, content in blocks.items():
            file.seek(block * _BLOCK)
            file.write(content)

    try:
        write_atomic(path, write)
    except OSError as error:
        raise CardError(
            f"{path} cannot be written: {error.strerror}",
            "check the folder, its permissions and the space on its disk",
        ) from error
    return made


def default_unit(size: int) -> int:
    """Erase unit in bytes that is assumed of a card of ``size`` bytes."""
    return 4 << 20 if size >= _LARGE_IMAGE else 16 << 10


def log_superblocks(
    blocks: int,
    unit_bytes: int,
    segment_bytes: int | None = None,
    log_uuid: bytes | None = None,
    first_block: int = 0,
) -> tuple[wire.Superblock, dict[int, bytes]]:
    """Plan an empty log in a region, by the rule of `drip_log_format`.

    Args:
        blocks: Of the region.
        unit_bytes: Erase unit, a power of two.
        segment_bytes: Default: 256 KiB from 8 MiB on, 128 KiB below.
        log_uuid: Random by default.
        first_block: Of the region on the card: segments begin at erase units of the card.

    Returns:
        The newest superblock, and the content of every block that makes the log, by its number in
        the region. The one between the superblocks overwrites what an earlier log may have left.

    Raises:
        UsageError: The sizes leave no room for two segments.
    """
    size = blocks * _BLOCK
    if segment_bytes is None:
        segment_bytes = 256 << 10 if size >= 8 << 20 else 128 << 10
    made = _plan(blocks, unit_bytes, segment_bytes, log_uuid or uuids.uuid4().bytes, first_block)
    return made, {
        made.data_block: bytes(_BLOCK),
        blocks - 1: _seal(dataclasses.replace(made, generation=1)),
        0: _seal(made),
    }


def _plan(
    blocks: int, unit_bytes: int, segment_bytes: int, log_uuid: bytes, first_block: int
) -> wire.Superblock:
    size = blocks * _BLOCK
    for name, value in (("erase unit", unit_bytes), ("segment", segment_bytes)):
        if value < _BLOCK or value & (value - 1):
            raise UsageError(f"the {name} of {value} bytes is no power of two from 512 on")
    unit, segment = unit_bytes // _BLOCK, segment_bytes // _BLOCK
    start = (first_block // unit + 1) * unit - first_block
    end = (first_block + blocks - 1) // unit * unit - first_block
    count = max(0, end - start) // segment
    if not 2 <= segment <= LARGEST_SEGMENT_BLOCKS or count < 2 or len(log_uuid) != 16:
        raise UsageError(
            f"{size} bytes leave no room for two segments of {segment_bytes} bytes",
            f"give at least {max(_SMALLEST_IMAGE, 2 * (unit_bytes + segment_bytes))} bytes",
        )
    return wire.Superblock(
        magic=wire.SUPERBLOCK_MAGIC,
        version=wire.SUPERBLOCK_VERSION,
        header_bytes=wire.Superblock.SIZE,
        log_uuid=log_uuid,
        generation=2,
        unit_blocks=unit,
        segment_blocks=segment,
        segment_count=count,
        next_seq=1,
        data_block=start,
        region_blocks=blocks,
    )


def _seal(superblock: wire.Superblock) -> bytes:
    content = superblock.pack()[: wire.Superblock.OFFSETS["crc"]]
    return content + zlib.crc32(content).to_bytes(4, "little")
