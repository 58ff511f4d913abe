"""A line with MicroPython's REPL on it, driven in raw mode."""

from __future__ import annotations

import os
import select
import time


class RawRepl:
    """A board that waits at its prompt.

    Args:
        line: File descriptor of its serial line.
    """

    def __init__(self, line: int) -> None:
        self._line = line
        # Out of raw mode, and to a prompt of which nothing was read yet.
        self._send(b"\x02\r")
        self._until(b">>> ")
        self._send(b"\r\x01")
        self._until(b"CTRL-B to exit\r\n>")

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._line, data) :]

    def _until(self, end: bytes, seconds: float = 120) -> bytes:
        deadline, got = time.monotonic() + seconds, b""
        while not got.endswith(end):
            if not select.select([self._line], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {end!r} from the board, only {got[-400:]!r}")
            byte = os.read(self._line, 1)
            assert byte, f"the emulator has ended: {got[-400:]!r}"
            got += byte
        return got[: -len(end)]

    def start(self, script: str) -> None:
        """Execute a script; what it prints is left on the line."""
        self._send(script.encode() + b"\x04")
        self._until(b"OK")

    def run(self, script: str) -> str:
        """Execute a script and return what it printed.

        Raises:
            AssertionError: It raised an exception there.
        """
        self.start(script)
        printed, error = self._until(b"\x04"), self._until(b"\x04>")
        assert not error, error.decode()
        return printed.decode().replace("\r\n", "\n")
