"""The Python of the package, without the core, on the unix port and in WebAssembly."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from interpreters import HOW, ROOT, build, unix

HERE = Path(__file__).resolve().parent
PACKAGE = ROOT / "firmware" / "micropython" / "drip"
ERASED = "ff"


def here(folder: Path) -> str:
    shutil.copytree(PACKAGE, folder / "lib" / "drip")
    script = folder / "pure.py"
    script.write_text((HERE / "pure.py").read_text().replace('"/lib"', repr(str(folder / "lib"))))
    return run([unix(), script], folder)


def wasm(folder: Path) -> str:
    program = build.WASM / "run.mjs"
    if shutil.which("node") is None:
        pytest.skip("node is missing: apt install nodejs npm")
    if not program.is_file():
        pytest.skip(f"no MicroPython for WebAssembly: {HOW}")
    files = [f"/lib/drip/{path.name}={path}" for path in PACKAGE.glob("*.py")]
    return run(["node", program, HERE / "pure.py", *files], folder)


def run(command: list[Any], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["unix", pytest.param("wasm", marks=pytest.mark.slow)])
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pure")
    printed = here(folder) if request.param == "unix" else wasm(folder)
    return {"where": request.param} | json.loads(printed.splitlines()[-1])


def test_without_a_core_it_explains_itself(said):
    reason = {"unix": "none of native_x64.mpy is in", "wasm": "cannot load native modules"}
    assert reason[said["where"]] in said["without a core"]


def test_results_have_names_and_errors_have_codes(said):
    assert said["names"] == ["cat", "bird"]
    assert said["result"] == [-7, 65535, "bird", True]
    assert said["no name"] == [5, False]
    assert said["error"] == ["Error", "model refused (error -6)"]


def test_a_log_is_a_block_device_or_a_file(said):
    assert said["log"] == [[8, True, True]] * 2
    assert said["past the end"] == ["OSError", "short read"]
    assert said["large blocks"] == ["ValueError", "drip.Log wants blocks of 512 bytes"]


def test_slots_keep_what_they_are_told_and_nothing_else(said):
    assert said["slots"] == [b"new".hex() + ERASED, b"ok".hex() + ERASED]
    assert said["not kept"] == 3 * ERASED
    assert said["other slots"] == [
        "ValueError",
        "slots.bin was made with another slot_bytes; remove it",
    ]
    assert said["file"] == 2 * 1024 + 2 * 2048


def test_the_device_does_what_the_core_wants(said):
    assert said["line"] == ["hello", "abcde"]
    assert said["written"] == [0, 0, 0, 0, 65, 66, 0, 0]
    assert said["read"] == "AABB"
    # A card that fails, a write of three bytes to slot 0, a reset, nothing.
    assert said["calls"] == [["done", 0, -12], ["done", 1, 0], ["done", 2, 0], ["start"]]
    assert said["more"] == [True, True, True, False]
    assert said["resets"] == 1
    assert said["kept now"] == b"not".hex()


def test_the_loop_asks_the_sensor_until_a_frame_is_full(said):
    assert said["loop"] == [["start"], ["offer", 2], ["offer", 4]]
