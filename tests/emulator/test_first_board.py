"""The tutorial from the box to the first synced frame, as written, on the emulated board."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from boards import ROOT, firmware, needs

from drip.device import Kind

sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from written import figure, run

pytestmark = pytest.mark.slow


def commands() -> str:
    """Its indented lines; what is fenced needs hardware or a checkout."""
    lines = (ROOT / "docs" / "tutorials" / "first-board.md").read_text().splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    "))) + "\n"


def test_every_command_does_what_the_tutorial_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(Kind.QEMU)
    monkeypatch.setenv("DRIP", str(ROOT))
    script = commands().replace("--kind qemu", f"--kind qemu --firmware {firmware()}")
    said = run(script, tmp_path)
    assert "nucleo_f446re" in said
    assert "50 frames: board and core agree in every value" in said
    assert [figure("frames fed", said, n) for n in (0, 1)] == [100, 100]
    assert figure("frames kept", said, 0) == 100, "not calibrated"
    assert 10 < figure("frames kept", said, 1) < 60, said
    assert "boots from now on" in said
    assert "error:" not in said, said
