"""The commands of the README, exactly as written."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from written import figure, run

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"


def script() -> str:
    """The indented block that starts by making data.npz."""
    lines = README.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "save_npz('data.npz'" in line)
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("    "))
    return textwrap.dedent("\n".join(lines[start:end]))


def test_the_loop_by_hand(tmp_path: Path) -> None:
    said = run(script(), tmp_path)
    assert "confirmed" in said, said
    assert 0 < figure("frames kept", said) < figure("frames fed", said) == 359, said
