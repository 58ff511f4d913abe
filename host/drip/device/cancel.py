"""Ending a conversation with a device from another thread."""

from __future__ import annotations

import threading
import time
from typing import Any

from drip.device.transport import Transport

__all__ = ["Cancellable"]

_TICK_S = 0.1


class Cancellable:
    """A transport whose waits end with KeyboardInterrupt once an event is set.

    What runs on it then unwinds as after Ctrl-C: a sync spools what has arrived, nothing is lost,
    and the device needs no goodbye. Anything else is passed on to the transport inside.

    Args:
        inner: The transport; closed together with this one.
        stop: Set it, from any thread, to end everything within a tenth of a second.
    """

    def __init__(self, inner: Transport, stop: threading.Event) -> None:
        self.name = inner.name
        self._inner = inner
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, size: int, timeout_s: float) -> bytes:
        """See :class:`Transport`."""
        until = time.monotonic() + timeout_s
        while True:
            self._check()
            left = until - time.monotonic()
            data = self._inner.read(size, max(0.0, min(left, _TICK_S)))
            if data or left <= _TICK_S:
                return data

    def write(self, data: bytes) -> None:
        """See :class:`Transport`."""
        self._check()
        self._inner.write(data)

    def last_words(self) -> None:
        """From now on nothing is cancelled: what is left is to leave the device as it was."""
        self._stop = threading.Event()

    def close(self) -> None:
        """See :class:`Transport`."""
        self._inner.close()

    def _check(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
