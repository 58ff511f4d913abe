"""Folders that survive a power cut, lock files, and what to say when the disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from drip.errors import StoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_DISK_HINT = "free some space or check permissions, then run the same command again"


def disk_error(path: Path, error: OSError) -> StoreError:
    """Return what the user reads when the disk refuses a write."""
    return StoreError(f"cannot write to {path}: {error.strerror or error}", _DISK_HINT)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, so that not even a power cut undoes it.

    Raises:
        OSError: It cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        return
    for folder in reversed(missing):
        # The name of a folder is kept by the folder above.
        handle = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _wait_for_lock(handle: int) -> None:
    if sys.platform == "win32":
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
                return
            except OSError as error:
                # It gives up after ten seconds; another board's frames may take longer.
                if error.errno != errno.EDEADLK:
                    raise


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two programs do not change one thing at once; waits for it.

    Raises:
        StoreError: The lock file cannot be made.
    """
    try:
        make_folder(path.parent)
        file = path.open("ab")
    except OSError as error:
        raise disk_error(path, error) from error
    with file:
        if sys.platform == "win32":
            file.seek(0)
            _wait_for_lock(file.fileno())
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        # Closing the file releases it, whatever happens.
        yield
