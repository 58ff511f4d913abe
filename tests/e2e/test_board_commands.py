"""status, monitor, config, time, score and deploy against the native device with a model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip import cli, errors
from drip.data import digits, save_npz
from drip.device import Client, connect, launch_native, native_binary
from drip.errors import DeviceError, MissingDependencyError
from drip.wire import BlobHeader, Err

try:
    native_binary()
except MissingDependencyError as error:
    pytest.skip(f"{error.message}: {error.hint}", allow_module_level=True)
pytest.importorskip("drip._core", reason="needs the compiled core: run make setup")

from drip.compile import compile_model

TFLITE = Path(__file__).resolve().parents[2] / "models" / "digits" / "model.tflite"
Run = tuple[int, str, str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, parent in (("old", "01"), ("new", "02")):
        found[name] = folder / f"{name}.drip"
        found[name].write_bytes(compile_model(TFLITE.read_bytes(), parent=parent))
    data = digits()
    found["data"] = folder / "data.npz"
    save_npz(found["data"], type(data)(data.x[:30], data.y[:30], data.classes))
    found["frame"] = folder / "frame.bin"
    found["frame"].write_bytes(data.x[3].tobytes())
    found["array"] = folder / "frame.npy"
    np.save(found["array"], data.x[3])
    return found


@pytest.fixture
def port(files: dict[str, Path], tmp_path: Path) -> Iterator[str]:
    card = tmp_path / "card.img"
    assert cli.main(["card", "format", str(card), "--size", "2M"]) == 0
    flash = tmp_path / "flash.bin"
    with launch_native(card=card, flash=flash, model=files["old"]) as device:
        yield device.url


def model_id(file: Path) -> str:
    return BlobHeader.unpack(file.read_bytes()).model_id.hex()


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert cli.main([*arguments, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def feed(port: str, count: int) -> None:
    with connect(port) as client:
        for frame in digits().x[:count]:
            client.feed(frame)


def test_status_is_for_people_and_its_json_for_scripts(
    port: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    feed(port, 20)
    figures = run_json(capsys, "status", port)
    assert figures["frames_seen"] == 20
    assert (figures["card_state"], figures["model_state"]) == ("ready", "confirmed")
    assert sum(figures["histogram"]) == 20
    assert isinstance(figures["log_capacity"], int)
    assert cli.main(["status", port]) == 0
    shown = capsys.readouterr().out
    assert "20 seen" in shown
    assert "MiB wait" in shown
    assert model_id(files["old"]) in shown.replace("\n", "")


def test_monitor_once(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    feed(port, 20)
    figures = run_json(capsys, "monitor", port, "--once")
    assert (figures["frames_seen"], sum(figures["score_histogram"])) == (20, 20)
    assert figures["frames_per_s"] > 0
    assert 0 <= figures["kept_share"] <= 1
    assert 0 < figures["card_fill"] < 1
    assert figures["waiting_bytes"] < figures["card_bytes"]


def test_monitor_goes_on_until_ctrl_c(port: str) -> None:
    command = [sys.executable, "-m", "drip", "monitor", port, "--every", "0.1", "--json", "-"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(4)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert all(line["frames_seen"] == 0 for line in lines)
    uptimes = [line["uptime_s"] for line in lines]
    assert uptimes == sorted(uptimes)
    assert len(set(uptimes)) > 1


def test_settings_are_shown_and_changed(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = run_json(capsys, "config", port)
    assert before["events"] == 0
    after = run_json(capsys, "config", "threshold=25%", "commit_ms=2s", "policy_kind=all", port)
    assert (after["threshold"], after["commit_ms"], after["policy_kind"]) == (16384, 2000, 2)
    unchanged = set(before) - {"threshold", "commit_ms", "policy_kind"}
    assert {key: before[key] for key in unchanged} == {key: after[key] for key in unchanged}
    assert run_json(capsys, "config", port) == after
    assert cli.main(["config", "random_share=50%", port]) == 0
    shown = capsys.readouterr().out
    assert "50%" in shown
    assert "25%" in shown
    assert "before" in shown


def test_impossible_settings_change_nothing(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = run_json(capsys, "config", port)
    usage, refused = errors.UsageError.exit_code, DeviceError.exit_code
    assert cli.main(["config", "threshold=11%", "colour=red", port]) == usage
    assert cli.main(["config", "one", "two"]) == usage
    assert cli.main(["config", "threshold=11%", "every_k=0", port]) == refused
    assert "Traceback" not in capsys.readouterr().err
    assert run_json(capsys, "config", port) == before


def test_clocks_are_compared(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_json(capsys, "time", port)
    assert figures["offset_us"] == figures["host_us"] - figures["device_us"]
    assert abs(figures["host_us"] / 1e6 - time.time()) < 60
    assert 0 <= figures["uncertainty_us"] < 1_000_000


@pytest.mark.parametrize(("name", "count"), [("data", 30), ("frame", 1), ("array", 1)])
def test_board_and_core_agree(
    port: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str, count: int
) -> None:
    arguments = ["score", str(files[name]), port, "--compare", str(files["old"])]
    figures = run_json(capsys, *arguments)
    assert len(figures["results"]) == count
    assert figures["differences"] == []
    assert figures["results"][0]["model_id"] == model_id(files["old"])[:16]
    assert run_json(capsys, "config", "score_kind=margin", port)["score_kind"] == 3
    margin = run_json(capsys, *arguments)
    assert margin["differences"] == []
    assert margin["results"][0]["raw_score"] != figures["results"][0]["raw_score"]
    with connect(port) as client:
        assert client.status().frames_kept == 0


def test_another_model_or_another_answer_ends_with_its_own_code(
    port: str,
    files: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["score", str(files["data"]), port, "--compare"]
    verify = errors.VerifyError.exit_code
    assert cli.main([*arguments, str(files["new"])]) == verify == 6
    assert f"runs model {model_id(files['old'])}" in capsys.readouterr().err
    assert cli.main(["config", "score_kind=random", port]) == 0
    assert cli.main([*arguments, str(files["old"])]) == errors.UsageError.exit_code
    assert cli.main(["config", "score_kind=margin", port]) == 0
    real = Client.score

    def wrong(self: Client, frame: Any, **options: Any) -> Any:
        from dataclasses import replace

        result = real(self, frame, **options)
        return replace(result, logit_2=result.logit_2 + 1)

    monkeypatch.setattr(Client, "score", wrong)
    capsys.readouterr()
    assert cli.main([*arguments, str(files["old"])]) == verify
    assert "30 of 30 frames; first: frame 0, logit_2" in capsys.readouterr().err


def test_frames_that_do_not_fit(
    port: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"no array")
    data = errors.DataError.exit_code
    assert cli.main(["score", str(bad), port]) == data
    assert cli.main(["score", str(tmp_path / "none.bin"), port]) == data
    short = tmp_path / "short.bin"
    short.write_bytes(b"xyz")
    assert cli.main(["score", str(short), port]) == DeviceError.exit_code
    assert "Traceback" not in capsys.readouterr().err


def test_deploy_shows_before_and_after(
    port: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert cli.main(["deploy", str(files["new"]), port]) == 0
    shown = capsys.readouterr().out
    assert shown.index(model_id(files["old"])) < shown.index(model_id(files["new"]))
    assert "boots from now on" in shown
    figures = run_json(capsys, "deploy", str(files["old"]), port)
    assert figures["before_id"] == model_id(files["new"])
    assert figures["after_id"] == model_id(files["old"])


def test_a_model_that_fails_its_trial_is_rolled_back(
    port: str,
    files: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: Client) -> Any:
        raise DeviceError("the self-test failed", Err.SELFTEST, "compile it again")

    monkeypatch.setattr(Client, "model_confirm", fails)
    assert cli.main(["deploy", str(files["new"]), port]) == DeviceError.exit_code
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"runs model {model_id(files['old'])} as before" in said
    monkeypatch.undo()
    with connect(port) as client:
        info = client.model_info()
        assert info.active_id.hex() == info.confirmed_id.hex() == model_id(files["old"])
