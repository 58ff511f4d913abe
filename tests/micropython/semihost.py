"""Runs in MicroPython in QEMU: files of the computer, which outlive the emulator.

The module `semihost_call` is the one for the processor.
"""

import io
from array import array

from semihost_call import call as _call
from uctypes import addressof

_OPEN, _CLOSE, _WRITE, _READ, _SEEK, _LENGTH = 1, 2, 5, 6, 10, 12
_MODES = {"rb": 1, "r+b": 3, "wb": 5}


class File(io.IOBase):
    """A file of the folder in which QEMU runs."""

    def __init__(self, path, mode):
        name = path.encode() + b"\0"
        self._fd = _call(_OPEN, array("i", [addressof(name), _MODES[mode], len(path)]))
        if self._fd == -1:
            raise OSError(2)

    def _move(self, call, buffer):
        left = _call(call, array("i", [self._fd, addressof(buffer), len(buffer)]))
        return len(buffer) - left

    def readinto(self, buffer):
        return self._move(_READ, buffer)

    def write(self, buffer):
        return self._move(_WRITE, buffer)

    def seek(self, offset, whence=0):
        if whence == 2:
            offset += _call(_LENGTH, array("i", [self._fd]))
        _call(_SEEK, array("i", [self._fd, offset]))
        return offset

    def flush(self):
        pass

    def close(self):
        _call(_CLOSE, array("i", [self._fd]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Folder:
    """The folder as a file system."""

    def mount(self, readonly, mkfs):
        pass

    def umount(self):
        pass

    def open(self, path, mode):
        return File(path.lstrip("/"), mode)
