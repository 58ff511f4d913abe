"""drip flash: what PlatformIO is asked for, and what is waited for afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from drip import cli, errors, flash, wire
from drip.device import launch_native, native_binary

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "digits" / "model.drip"

try:
    native_binary()
    NATIVE_MISSING = ""
except errors.DripError as error:
    NATIVE_MISSING = f"{error}: {error.hint}"
needs_native = pytest.mark.skipif(bool(NATIVE_MISSING), reason=NATIVE_MISSING)

# Writes down how it was called; fails when told to.
FAKE_PIO = """#!/bin/sh
printf '%s\\n' "$@" "model=$DRIP_MODEL" "in=$PWD" >"$CALLED"
exit ${PIO_STATUS:-0}
"""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PlatformIO that only writes down its arguments, in front of any other."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "pio").write_text(FAKE_PIO)
    (folder / "pio").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(flash, "_OWN_PIO", Path("no/such/pio"))
    monkeypatch.setenv("CALLED", str(tmp_path / "called"))
    return tmp_path / "called"


def test_the_checkout_names_its_boards() -> None:
    project = flash.find_project(ROOT / "host")
    assert project.root == ROOT
    assert {"nucleo_f446re", "disco_f407vg", "black_f407ve"} <= set(project.boards)
    assert "native" not in project.boards


def test_a_folder_elsewhere_falls_back_to_the_checkout(tmp_path: Path) -> None:
    assert flash.find_project(tmp_path).root == ROOT


@needs_native
def test_it_builds_uploads_and_sees_the_board_answer(
    called: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with launch_native(model=MODEL, flash=tmp_path / "flash") as board:
        arguments = ["flash", board.url, "--env", "disco_f407vg", "--model", str(MODEL)]
        status = cli.main([*arguments, "--upload-port", "/dev/x", "--json", "-"])
    figures = json.loads(capsys.readouterr().out)
    assert status == 0
    assert called.read_text().splitlines() == [
        "run",
        "-e",
        "disco_f407vg",
        "-t",
        "upload",
        "--upload-port",
        "/dev/x",
        f"model={MODEL}",
        f"in={ROOT}",
    ]
    header = wire.BlobHeader.unpack(MODEL.read_bytes())
    assert figures["model_id"] == header.model_id.hex()
    assert figures["is_slot_model"] is False


@needs_native
def test_a_model_in_a_slot_is_told_from_the_one_in_the_image(called: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.drip"
    header = wire.BlobHeader.unpack(MODEL.read_bytes())
    content = bytearray(MODEL.read_bytes())
    at = wire.BlobHeader.OFFSETS["model_id"]
    content[at : at + 16] = bytes(16 * [7])
    other.write_bytes(content)
    with launch_native(model=MODEL, flash=tmp_path / "flash") as board:
        report = flash.flash(
            flash.find_project(ROOT), "nucleo_f446re", board.url, model=other, wait_s=5
        )
    assert report.is_slot_model
    assert report.model_id == header.model_id


def test_a_board_that_stays_silent_is_a_link_error(called: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.LinkError):
        flash.flash(
            flash.find_project(ROOT), "nucleo_f446re", str(tmp_path / "no-port"), wait_s=0.1
        )
    assert called.is_file()


def test_a_build_that_fails_is_a_build_error(
    called: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIO_STATUS", "1")
    assert cli.main(["flash", "/dev/none", "--env", "nucleo_f446re"]) == 13
    assert "could not build or upload nucleo_f446re" in capsys.readouterr().err


def test_unknown_boards_and_models_are_refused_before_anything_is_built(
    called: Path, tmp_path: Path
) -> None:
    project = flash.find_project(ROOT)
    with pytest.raises(errors.UsageError, match="no board 'native'"):
        flash.flash(project, "native", "/dev/none")
    (tmp_path / "x.drip").write_bytes(b"DRIP" + bytes(200))
    with pytest.raises(errors.ModelError, match="no compiled model"):
        flash.flash(project, "nucleo_f446re", "/dev/none", model=tmp_path / "x.drip")
    assert not called.exists()


def test_without_platformio_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "_OWN_PIO", Path("no/such/pio"))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(errors.MissingDependencyError, match="PlatformIO"):
        flash.flash(flash.find_project(ROOT), "nucleo_f446re", "/dev/none")
