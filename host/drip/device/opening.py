"""Opening a port and finding out who is behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from drip import wire
from drip.device.cancel import Cancellable
from drip.device.client import Client
from drip.device.exchange import Event
from drip.device.transport import Transport, open_transport

__all__ = ["connect"]


def connect(
    port: str,
    *,
    baud: int = wire.LINK_BAUD_DEFAULT,
    timeout_s: float = 5.0,
    max_baud: int = 0,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
    prepare: Callable[[Client, Transport], None] | None = None,
) -> Client:
    """Open a port and say hello to the device behind it.

    Args:
        port: ``/dev/ttyACM0``, ``COM3``, a pty or ``tcp:HOST:PORT``.
        baud: Bits per second, serial ports only.
        timeout_s: How long the device may stay silent before a request fails.
        max_baud: Raise the line as far as both ends can, up to this rate; closing the client takes
            it back. 0: leave it as it is.
        on_event: Called with what the device reports of its own accord, during requests.
        stop: Set it to end what runs on the client with KeyboardInterrupt, from any thread.
        prepare: Called before hello, for instance to restart the device.

    Returns:
        A client whose ``device`` tells who answered. Close it, or use it in a ``with``.

    Raises:
        UsageError: The address is malformed.
        LinkError: The port cannot be opened, is silent, or is not a DRIP device.
    """
    opened = open_transport(port, baud=baud, timeout_s=timeout_s)
    line = opened if stop is None else Cancellable(opened, stop)
    client = Client(line, timeout_s=timeout_s, on_event=on_event)
    try:
        if prepare is not None:
            prepare(client, opened)
        client.hello()
        if max_baud:
            client.raise_baud(max_baud)
    except BaseException:
        client.close()
        raise
    return client
