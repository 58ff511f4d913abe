"""Mounts a file system in memory that outlives soft resets, as boards have one in flash."""

import sys

import uctypes
import vfs


class _Flash:
    """Blocks of the machine's second memory."""

    SIZE, COUNT = 4096, 256

    def __init__(self):
        # A view: storing into a slice of a bytearray moves all that follows it.
        self.data = memoryview(uctypes.bytearray_at(0x21800000, self.SIZE * self.COUNT))

    def readblocks(self, block, buffer, offset=0):
        at = block * self.SIZE + offset
        buffer[:] = self.data[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * self.SIZE + offset
        self.data[at : at + len(buffer)] = buffer

    def ioctl(self, request, argument):
        if request == 4:
            return self.COUNT
        return self.SIZE if request == 5 else 0


_flash = _Flash()
_sizes = {"readsize": 256, "progsize": 256}
try:
    _files = vfs.VfsLfs2(_flash, **_sizes)
except OSError:
    vfs.VfsLfs2.mkfs(_flash, **_sizes)
    _files = vfs.VfsLfs2(_flash, **_sizes)
vfs.mount(_files, "/")
sys.path.append("/lib")
