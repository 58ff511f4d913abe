"""Log files on a volume that is mounted on this computer (Linux).

The files are allocated through the file system; then the volume itself is read, as the firmware
will, to see whether they are in one piece and where. FIBMAP needs the same rights and says less;
Linux's FAT and exFAT do not offer FIEMAP.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from drip.card import default_unit, log_paths, log_superblocks
from drip.card.volume import BLOCK, Region, find_region
from drip.card.volume_format import file_sizes
from drip.errors import CardError, UsageError
from drip.wire import Superblock

__all__ = ["Mount", "find_mount", "format_mounted"]

_FILE_SYSTEMS = {"vfat": "fat32", "msdos": "fat16", "exfat": "exfat"}


@dataclass(frozen=True)
class Mount:
    """A mounted volume.

    Attributes:
        folder: Where.
        device: Its block device.
        fs: "exfat", "fat32" or "fat16".
        start: First block of the volume on its card.
    """

    folder: Path
    device: Path
    fs: str
    start: int


def find_mount(folder: str | os.PathLike[str], table: str = "/proc/self/mounts") -> Mount:
    """Find what is mounted at a folder.

    Raises:
        CardError: It is no FAT or exFAT volume, or this system does not say.
    """
    wanted = Path(folder).resolve()
    try:
        lines = Path(table).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        raise CardError(
            f"this system does not say what is mounted at {folder}",
            "make an image instead, and write it to the card",
        ) from None
    for line in reversed(lines):
        device, point, kind = [*line.split(" "), "", ""][:3]
        if Path(point.replace("\\040", " ")) == wanted:
            if kind not in _FILE_SYSTEMS:
                break
            return Mount(wanted, Path(device), _FILE_SYSTEMS[kind], _start_of(Path(device)))
    raise CardError(
        f"{folder} is not where a FAT or exFAT volume is mounted",
        "name the top folder of the card, or a file to make an image",
    )


def _start_of(device: Path) -> int:
    """First block of a partition on its disk; 0 for a whole disk."""
    try:
        return int((Path("/sys/class/block") / device.resolve().name / "start").read_text())
    except (OSError, ValueError):
        return 0


def format_mounted(
    mount: Mount,
    size: int,
    *,
    force: bool = False,
    log_uuid: bytes | None = None,
    unit_bytes: int | None = None,
) -> Superblock:
    """Add log files with an empty log to a mounted volume.

    Args:
        mount: Of :func:`find_mount`.
        size: Bytes of the log; rounded down to whole clusters.
        force: Replace log files, with all frames in them.
        log_uuid: 16 bytes that name the log; random by default.
        unit_bytes: Erase unit, see :func:`drip.card.format_image`.

    Returns:
        The newest superblock.

    Raises:
        CardError: There are log files already; the volume cannot be read, is full, or is so
            fragmented that the files are not in one piece. Then none are left.
        UsageError: The size leaves no room for a log.
    """
    folder = mount.folder
    there = log_paths(folder)
    if there and not force:
        raise CardError(
            f"{there[0]} exists", "its frames would be lost; replace the log files with --force"
        )
    with _open_device(mount.device) as device:
        for path in there:
            path.unlink()
        cluster = os.statvfs(folder).f_frsize
        sizes = file_sizes(size // cluster * cluster, mount.fs, cluster)
        paths = [folder / f"DRIP{number:02d}.LOG" for number in range(len(sizes))]
        try:
            _allocate(paths, sizes)
            region = _look(device, mount)
            if region.blocks * BLOCK != sum(sizes):
                raise CardError(
                    f"{mount.device} does not show the files made in {folder}",
                    "eject the card, insert it again and try once more",
                )
            return _write_log(
                paths,
                log_superblocks(
                    region.blocks,
                    unit_bytes or default_unit(size),
                    None,
                    log_uuid,
                    mount.start + region.first_block,
                ),
            )
        except BaseException as error:
            for path in paths:
                with contextlib.suppress(OSError):
                    path.unlink()
            if isinstance(error, OSError):
                raise CardError(
                    f"{folder} cannot be written: {error.strerror}",
                    "check that the card is writable and has space",
                ) from error
            raise


def _open_device(path: Path) -> IO[bytes]:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise CardError(
            f"{path} cannot be read to see whether the files are in one piece: {error.strerror}",
            "run this as root, or make an image and write it to the card",
        ) from error


def _allocate(paths: list[Path], sizes: list[int]) -> None:
    """Make files of zeros; the C library writes them where the file system cannot reserve space."""
    if not hasattr(os, "posix_fallocate"):
        raise UsageError("this system cannot preallocate files", "make an image instead")
    for path, size in zip(paths, sizes, strict=True):
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            os.fsync(file.fileno())
    os.sync()


def _look(device: IO[bytes], mount: Mount) -> Region:
    """Find the files as the firmware will."""
    if hasattr(os, "posix_fadvise"):
        # What the system read before the files were made is not to be believed.
        os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return find_region(device, mount.device, device.seek(0, os.SEEK_END) // BLOCK)


def _write_log(paths: list[Path], log: tuple[Superblock, dict[int, bytes]]) -> Superblock:
    newest, contents = log
    for block, content in contents.items():
        at = block * BLOCK
        for path in paths:
            size = path.stat().st_size
            if at < size:
                with path.open("r+b") as file:
                    file.seek(at)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                break
            at -= size
    return newest
