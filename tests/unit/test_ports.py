"""Which ports may be asked for a board, and how numbers are shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from drip import units
from drip.sync.ports import KNOWN_USB, find_ports, usb_name


def listed(device: str, vid: int | None, pid: int | None, description: str = "n/a") -> object:
    return SimpleNamespace(device=device, vid=vid, pid=pid, description=description)


def test_boards_come_first_and_strangers_are_marked() -> None:
    found = find_ports(
        lambda: [
            listed("/dev/ttyS0", None, None, "ttyS0"),
            listed("/dev/ttyUSB1", 0x10C4, 0xEA60, "CP2102 USB to UART"),
            listed("/dev/ttyACM3", 0x1234, 0x0001, "Laser printer"),
            listed("/dev/ttyACM0", 0x0483, 0x374B),
        ]
    )
    assert [(item.port, item.known) for item in found] == [
        ("/dev/ttyACM0", True),
        ("/dev/ttyUSB1", True),
        ("/dev/ttyACM3", False),
        ("/dev/ttyS0", False),
    ]
    assert [item.description for item in found] == [
        "ST-Link/V2-1",
        "Silicon Labs CP210x",
        "Laser printer",
        "ttyS0",
    ]
    assert found[3].usb_id is None


@pytest.mark.parametrize(
    ("usb_id", "part"),
    [
        ((0x1A86, 0x7523), "CH340"),
        ((0x0403, 0x6001), "FTDI"),
        ((0x303A, 0x1001), "Espressif"),
        ((0x2E8A, 0x000A), "Pico"),
    ],
)
def test_adapters_have_names(usb_id: tuple[int, int], part: str) -> None:
    name = usb_name(usb_id)
    assert name is not None
    assert part in name


def test_other_products_of_a_known_vendor_are_unknown() -> None:
    assert usb_name((0x0403, 0x0001)) is None
    assert usb_name(None) is None
    assert all(0 < vendor < 0x10000 and 0 <= product < 0x10000 for vendor, product in KNOWN_USB)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (8 << 20, "8.0 MiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00003, "30 us"),
        (0.0123, "12.3 ms"),
        (4.25, "4.25 s"),
        (61, "1 min 1 s"),
        (3 * 3600 + 720, "3 h 12 min"),
        (3 * 86400, "3 d 0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_shares_and_sparklines() -> None:
    assert units.percent(1, 8) == "12.5 %"
    assert units.percent(1, 0) == "-"
    assert units.sparkline([0, 1, 4, 8]) == " ▁▄█"
    assert units.sparkline([]) == ""
    assert units.sparkline([0, 0]) == "  "


@pytest.mark.parametrize(("text", "count"), [("4096", 4096), ("512k", 524288), ("8G", 8 << 30)])
def test_sizes_are_read(text: str, count: int) -> None:
    assert units.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5M", "3X"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        units.parse_size(text)
