"""The wiring pictures show the pins that the firmware uses."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "platformio" / "wiring.py"


def test_pictures_are_what_the_headers_say() -> None:
    subprocess.run([sys.executable, str(TOOL), "--check"], check=True)


@pytest.mark.parametrize("board", ["nucleo_f446re", "disco_f407vg", "black_f407ve"])
def test_no_pin_of_a_board_has_two_uses(board: str) -> None:
    spec = importlib.util.spec_from_file_location("wiring", TOOL)
    assert spec is not None and spec.loader is not None
    wiring = importlib.util.module_from_spec(spec)
    sys.modules["wiring"] = wiring
    spec.loader.exec_module(wiring)
    pins = wiring.read_pins(board)
    assert len(pins) >= 8
    assert len(set(pins.values())) == len(pins), pins


def test_a_changed_pin_changes_the_picture() -> None:
    picture = (ROOT / "docs" / "wiring" / "nucleo_f446re.svg").read_text()
    assert re.search(r"PA5 = D13.*\n.*\n.*SCK", picture)
