"""mpremote puts the package on an emulated board: drip micropython install, and mip."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from interpreters import ROOT, build, module
from mpy_boards import CORTEX_M4F, Emulated, emulate

from drip.cli import main

DIGITS = ROOT / "models" / "digits"
VECTOR = json.loads((DIGITS / "vectors.json").read_text())["vectors"][0]

_SCORE = """
import binascii, json, os, drip
result = drip.Scorer("model.drip").score(binascii.a2b_base64({frame!r}))
print(json.dumps([drip.native.__name__, result.raw, sorted(os.listdir("/lib/drip"))]))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for every architecture."""
    for arch in build.COMPILERS:
        module(arch)
    return build.package(folder=tmp_path_factory.mktemp("package") / "dist")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Emulated]:
    """A board with an empty file system that outlives the soft resets of mpremote."""
    with emulate(CORTEX_M4F, b"", tmp_path) as board:
        yield board


def score(board: Emulated) -> list:
    board.reopen()
    return json.loads(board.repl.run(_SCORE.format(frame=VECTOR["frame"])))


def test_the_package_lists_what_was_built_and_nothing_else(dist):
    urls = json.loads((dist / "package.json").read_text())["urls"]
    listed = {source for _, source in urls}
    built = {path.relative_to(dist).as_posix() for path in dist.rglob("*.*py")}
    assert listed == built
    assert all(target.startswith("drip/") for target, _ in urls)
    assert not any(":" in source or source.startswith(("/", ".")) for source in listed)


def test_drip_micropython_install_brings_what_fits(board, dist, capsys):
    model = str(DIGITS / "model.drip")
    assert main(["micropython", "install", board.url, model, "--from", str(dist)]) == 0
    assert "armv7emsp" in capsys.readouterr().out
    loaded, raw, files = score(board)
    assert (loaded, raw) == ("drip.native_armv7emsp", VECTOR["scores"]["cam_evidence"])
    assert files == ["__init__.py", "device.mpy", "native_armv7emsp.mpy", "scorer.mpy"]


def test_mip_brings_what_is_listed_and_import_takes_what_runs(board, dist, tmp_path):
    # One architecture, and not the best: each is half a minute on the emulated line.
    served = shutil.copytree(dist, tmp_path / "served")
    listed = json.loads((served / "package.json").read_text())
    listed["urls"] = [pair for pair in listed["urls"] if re.search("^drip/|v7m", pair[1])]
    (served / "package.json").write_text(json.dumps(listed))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/package.json"
        remote = [sys.executable, "-m", "mpremote", "connect", board.url]
        command = [*remote, "mip", "install", "--target", "/lib", url]
        command += ["+", "fs", "cp", str(DIGITS / "model.drip"), ":"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    loaded, raw, files = score(board)
    assert (loaded, raw) == ("drip.native_armv7m", VECTOR["scores"]["cam_evidence"])
    assert files == ["__init__.py", "device.mpy", "native_armv7m.mpy", "scorer.mpy"]
