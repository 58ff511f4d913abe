"""The commands of the tutorials, exactly as written."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

import pytest
from written import figure, run

pytestmark = pytest.mark.slow

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"


def commands(name: str) -> str:
    """All indented lines of a tutorial; what is fenced is not for running."""
    lines, fenced = [], False
    for line in (TUTORIALS / name).read_text().splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("    ") and not fenced:
            lines.append(line)
    return textwrap.dedent("\n".join(lines)) + "\n"


@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs timeout of GNU coreutils")
def test_sync(tmp_path: Path) -> None:
    said = run(commands("sync.md"), tmp_path)
    assert figure("frames kept", said, 0) == 200, said
    assert "200 seen, 200 kept (100.0 %)" in said, said
    pulled = [int(line.split()[-2]) for line in said.splitlines() if "new frames" in line]
    # Of sync, ingest, sync again, and after the settings were changed.
    assert pulled == [200, 0, 0, 10], said
    assert "waits on the board" in said
    assert (figure("frames fed", said), figure("frames kept", said)) == (40, 10), said
    assert "every_kth" in said
    assert "(210, 64)" in said, said
    assert "210" in said.split("count_star()")[1], said
    assert "acknowledged" in said
    assert "error:" not in said, said
    assert (tmp_path / "work" / "store" / "records").is_dir()
