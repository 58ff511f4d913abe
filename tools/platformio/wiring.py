#!/usr/bin/env python3
"""Draw how each STM32F4 board is wired, from the pins in its ``board_*.h``: docs/wiring/*.svg.

Usage: ``python wiring.py`` writes the pictures; ``python wiring.py --check`` fails when they are
not what the headers say.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
PORT = ROOT / "firmware" / "ports" / "stm32f4"
PICTURES = ROOT / "docs" / "wiring"


@dataclass(frozen=True)
class Board:
    """What the header of a board does not say.

    Attributes:
        title: Its name.
        names: Where a pin is found on the board, if not under its own name.
        has_link: The computer talks to it over the cable that also flashes it.
    """

    title: str
    names: dict[str, str]
    has_link: bool = False


BOARDS = {
    "nucleo_f446re": Board(
        "NUCLEO-F446RE",
        {"PA5": "D13", "PA6": "D12", "PA7": "D11", "PA4": "A2", "PB8": "D15", "PB9": "D14"},
        has_link=True,
    ),
    "disco_f407vg": Board("STM32F4DISCOVERY", {}),
    "black_f407ve": Board(
        "Black STM32F407VET6",
        {"PB3": "nRF24 SCK", "PB4": "nRF24 MISO", "PB5": "nRF24 MOSI", "PB7": "nRF24 CS"},
    ),
}
# Pin of the part, macro of the header or supply, colour of the wire.
CARD = (
    ("VCC 3.3 V", "3V3", "#c0392b"),
    ("GND", "GND", "#222222"),
    ("SCK", "BOARD_SPI_SCK", "#2471a3"),
    ("MISO", "BOARD_SPI_MISO", "#1e8449"),
    ("MOSI", "BOARD_SPI_MOSI", "#b9770e"),
    ("CS", "BOARD_SD_CS", "#7d3c98"),
)
ADAPTER = (
    ("GND", "GND", "#222222"),
    ("RX", "BOARD_UART_TX", "#2471a3"),
    ("TX", "BOARD_UART_RX", "#1e8449"),
)
SENSOR = (
    ("VCC 3.3 V", "3V3", "#c0392b"),
    ("GND", "GND", "#222222"),
    ("SCL", "BOARD_I2C_SCL", "#2471a3"),
    ("SDA", "BOARD_I2C_SDA", "#1e8449"),
)
STEP, TOP, LEFT, RIGHT = 26, 70, 250, 470


def read_pins(name: str) -> dict[str, str]:
    """Pins by macro: ``BOARD_SPI_SCK`` -> ``PA5``."""
    text = (PORT / f"board_{name}.h").read_text()
    return {
        macro: f"P{port}{bit}"
        for macro, port, bit in re.findall(r"#define (BOARD_\w+)\s+PIN\(([A-E]), (\d+)\)", text)
    }


def draw(name: str) -> str:
    """The picture of a board."""
    board, pins = BOARDS[name], read_pins(name)
    parts = [("SD card module, SPI, 3.3 V", CARD)]
    if not board.has_link:
        parts.append(("USB-serial adapter, 3.3 V", ADAPTER))
    parts.append(("motion sensor, I2C (optional)", SENSOR))
    rows = sum(len(wires) + 2 for _, wires in parts)
    height = TOP + STEP * rows + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img"'
        ' font-family="sans-serif" font-size="14">',
        f"<title>Wiring of {escape(board.title)}</title>",
        f'<rect width="720" height="{height}" fill="#ffffff"/>',
        f'<rect x="40" y="40" width="{LEFT - 40}" height="{height - 60}" rx="8" fill="#eaf2f8"'
        ' stroke="#555555"/>',
        f'<text x="55" y="62" font-weight="bold">{escape(board.title)}</text>',
    ]
    if board.has_link:
        out.append('<text x="40" y="26">computer &#8212; USB cable: power, flashing, link</text>')
    else:
        out.append('<text x="40" y="26">computer &#8212; power, flashing: docs/BOARDS.md</text>')
    y = TOP + STEP // 2
    for title, wires in parts:
        box = STEP * (len(wires) + 1)
        out.append(
            f'<rect x="{RIGHT}" y="{y - 8}" width="235" height="{box}" rx="8" fill="#fdf6e3"'
            ' stroke="#555555"/>'
        )
        out.append(f'<text x="{RIGHT + 10}" y="{y + 10}" font-weight="bold">{title}</text>')
        y += STEP
        for pin, macro, colour in wires:
            end = pins.get(macro, macro)
            label = f"{end} = {board.names[end]}" if end in board.names else end
            out.append(f'<text x="{LEFT - 12}" y="{y + 5}" text-anchor="end">{label}</text>')
            out.append(
                f'<line x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}" stroke="{colour}"'
                ' stroke-width="3"/>'
            )
            out.append(f'<text x="{RIGHT + 12}" y="{y + 5}">{pin}</text>')
            y += STEP
        y += STEP
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    """Write or check the pictures."""
    stale = []
    for name in BOARDS:
        path, picture = PICTURES / f"{name}.svg", draw(name)
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text() != picture:
                stale.append(path.name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(picture)
    if stale:
        sys.exit(f"error: {', '.join(stale)} are stale; run: python tools/platformio/wiring.py")


if __name__ == "__main__":
    main()
