"""The package on the unix port of MicroPython; everything skips where there is no interpreter."""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
for folder in ("core", "link", "micropython"):
    sys.path.insert(0, str(TESTS / folder))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder lib of a board, with the package in it."""
    import interpreters

    interpreters.unix()
    return interpreters.install(tmp_path_factory.mktemp("board"))
