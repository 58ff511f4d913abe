"""MicroPython in QEMU, driven over its serial line in raw mode."""

from __future__ import annotations

import base64
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_CHUNK = 768

# A file system of the files that were sent, so that `import drip` works without a medium.
_FILES = """
import io, vfs, sys
files = {}
class File(io.IOBase):
    def __init__(self, data):
        self.data, self.at = memoryview(data), 0
    def ioctl(self, request, argument):
        return 0 if request == 4 else -1
    def readinto(self, buffer):
        size = min(len(buffer), len(self.data) - self.at)
        buffer[:size] = self.data[self.at:self.at + size]
        self.at += size
        return size
class Files:
    def mount(self, readonly, make):
        pass
    def umount(self):
        pass
    def chdir(self, path):
        pass
    def getcwd(self):
        return ""
    def stat(self, path):
        path = path.lstrip("/")
        if path in files:
            return (0x8000, 0, 0, 0, 0, 0, len(files[path]), 0, 0, 0)
        if any(name.startswith(path + "/") for name in files):
            return (0x4000, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        raise OSError(2)
    def open(self, path, mode):
        path = path.lstrip("/")
        if path not in files:
            raise OSError(2)
        return File(files[path])
vfs.mount(Files(), "/lib")
sys.path.insert(0, "/lib")
"""


class RawRepl:
    """An emulated board.

    Args:
        command: QEMU with the machine and the image, the serial line on its standard input and
            output.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        self._until(b">>> ")
        self._send(b"\r\x01")
        self._until(b"CTRL-B to exit\r\n>")

    def _send(self, data: bytes) -> None:
        self._in.write(data)
        self._in.flush()

    def _until(self, end: bytes, seconds: float = 120) -> bytes:
        deadline, got = time.monotonic() + seconds, b""
        while not got.endswith(end):
            if not select.select([self._out], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {end!r} from the board, only {got[-400:]!r}")
            byte = os.read(self._out.fileno(), 1)
            assert byte, f"the emulator has ended: {got[-400:]!r}"
            got += byte
        return got[: -len(end)]

    def run(self, script: str) -> str:
        """Execute a script and return what it printed.

        Raises:
            AssertionError: It raised an exception there.
        """
        self._send(script.encode() + b"\x04")
        self._until(b"OK")
        printed, error = self._until(b"\x04"), self._until(b"\x04>")
        assert not error, error.decode()
        return printed.decode().replace("\r\n", "\n")

    def put(self, files: dict[str, bytes]) -> None:
        """Send files; they lie in the folder /lib and in the variable `files`."""
        self.run(_FILES + "\nimport binascii")
        for name, content in files.items():
            self.run(f"data = bytearray({len(content)})\nfiles[{name!r}] = data\nat = 0")
            for start in range(0, len(content), _CHUNK):
                text = base64.b64encode(content[start : start + _CHUNK]).decode()
                self.run(
                    f"part = binascii.a2b_base64('{text}')\n"
                    "data[at:at + len(part)] = part\nat += len(part)"
                )

    def close(self) -> None:
        """Stop the emulator."""
        self.process.kill()
        self.process.wait()
        self._in.close()
        self._out.close()


def package_files(folder: Path, module: Path) -> dict[str, bytes]:
    """Return the files of the package and a native module, by their path on a board."""
    files = {f"drip/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.py"))}
    return files | {f"drip/{module.name}": module.read_bytes()}
