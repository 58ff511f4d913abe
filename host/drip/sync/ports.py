"""Finding boards among the serial ports of this computer, by their USB ids.

A port is only ever opened when its ids are known or when somebody asks for it: what hangs on
another port may be a modem, a printer or a machine that acts on any byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import serial.tools.list_ports

__all__ = ["KNOWN_USB", "FoundPort", "find_ports", "usb_name"]

KNOWN_USB: dict[tuple[int, int], str] = {
    (0x0483, 0x374A): "ST-Link/V2-1",
    (0x0483, 0x374B): "ST-Link/V2-1",
    (0x0483, 0x3752): "ST-Link/V2-1",
    (0x0483, 0x374D): "ST-Link/V3",
    (0x0483, 0x374E): "ST-Link/V3E",
    (0x0483, 0x374F): "ST-Link/V3",
    (0x0483, 0x3753): "ST-Link/V3",
    (0x0483, 0x3754): "ST-Link/V3E",
    (0x0483, 0x5740): "STM32 virtual COM port",
    (0x10C4, 0xEA60): "Silicon Labs CP210x",
    (0x10C4, 0xEA70): "Silicon Labs CP2105",
    (0x10C4, 0xEA71): "Silicon Labs CP2108",
    (0x1A86, 0x7523): "WCH CH340",
    (0x1A86, 0x7522): "WCH CH340K",
    (0x1A86, 0x5523): "WCH CH341",
    (0x1A86, 0x55D3): "WCH CH343",
    (0x1A86, 0x55D4): "WCH CH9102",
    (0x0403, 0x6001): "FTDI FT232R",
    (0x0403, 0x6010): "FTDI FT2232",
    (0x0403, 0x6011): "FTDI FT4232",
    (0x0403, 0x6014): "FTDI FT232H",
    (0x0403, 0x6015): "FTDI FT-X",
    (0x303A, 0x1001): "Espressif USB serial/JTAG",
    (0x303A, 0x4001): "Espressif USB CDC",
    (0x2E8A, 0x0005): "Raspberry Pi Pico (MicroPython)",
    (0x2E8A, 0x0009): "Raspberry Pi Pico 2",
    (0x2E8A, 0x000A): "Raspberry Pi Pico",
    (0x2E8A, 0x000C): "Raspberry Pi Debug Probe",
    (0x0D28, 0x0204): "Arm DAPLink",
    (0x1366, 0x0105): "SEGGER J-Link",
    (0x1366, 0x1015): "SEGGER J-Link",
    (0x1366, 0x1051): "SEGGER J-Link",
    (0xF055, 0x9800): "MicroPython board",
}
"""Vendor and product id of what boards with DRIP hang on."""


@dataclass(frozen=True)
class FoundPort:
    """A serial port of this computer.

    Attributes:
        port: Its name, as :func:`drip.device.open_transport` takes it.
        usb_id: Vendor and product id, None when it is not on USB.
        description: What it is, in a few words.
        known: Its ids are in :data:`KNOWN_USB`, so it may be asked for a board.
    """

    port: str
    usb_id: tuple[int, int] | None
    description: str
    known: bool


def usb_name(usb_id: tuple[int, int] | None) -> str | None:
    """Name of a USB adapter or board, None when it is not a known one."""
    return None if usb_id is None else KNOWN_USB.get(usb_id)


def find_ports(list_ports: Callable[[], Iterable[Any]] | None = None) -> list[FoundPort]:
    """List the serial ports of this computer, those with known ids first; opens none.

    Args:
        list_ports: Gives what ``serial.tools.list_ports.comports`` gives, which is the default.
    """
    listed = (list_ports or serial.tools.list_ports.comports)()
    found = []
    for item in listed:
        usb_id = (item.vid, item.pid) if item.vid is not None and item.pid is not None else None
        name = usb_name(usb_id)
        says = (item.description or "").strip()
        description = name or (says if says not in ("", "n/a") else "unknown")
        found.append(FoundPort(str(item.device), usb_id, description, name is not None))
    return sorted(found, key=lambda port: (not port.known, port.port))
