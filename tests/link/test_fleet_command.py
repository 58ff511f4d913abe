"""`drip sync` with several boards, and Ctrl-C; real processes and ptys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleets import eventually

from drip import cli, errors
from drip.device import NativeDevice, connect
from drip.store import Store
from drip.sync import ports
from drip.sync.ports import FoundPort

if os.name == "nt":
    pytest.skip("ptys are POSIX", allow_module_level=True)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_command_cleanly(
    boards: list[NativeDevice], tmp_path: Path, end: signal.Signals
) -> None:
    folder = tmp_path / "store"
    command = [sys.executable, "-m", "drip", "sync", boards[0].url, str(folder)]
    command += ["--watch", "--every", "0.2", "--json", "-"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: bool(list(folder.glob("records/*.parquet"))))
        process.send_signal(end)
        process.send_signal(end)  # as timeout(1) does
        out, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "20 new frames" in said
    assert json.loads(out)["store_new"] == 20
    with connect(boards[0].url) as client:
        assert client.status().frames_seen == 20, "the port is free again"


def test_ctrl_c_ends_a_sync_at_once(boards: list[NativeDevice], tmp_path: Path) -> None:
    """The board hangs; nobody has to wait for its timeout."""
    os.kill(boards[0].pid, signal.SIGSTOP)
    settings = tmp_path / "drip.toml"
    settings.write_text("[board]\ntimeout_s = 500.0\n")
    command = [sys.executable, "-m", "drip", "sync", boards[0].url, str(tmp_path / "store")]
    command += ["--config", str(settings)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: (tmp_path / "store" / "store.json").exists())
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    os.kill(boards[0].pid, signal.SIGCONT)
    assert process.returncode == 130
    assert said == "error: interrupted\n"


def pretend(monkeypatch: pytest.MonkeyPatch, found: dict[str, bool]) -> None:
    listed = [FoundPort(port, None, "test", known) for port, known in found.items()]
    monkeypatch.setattr(ports, "find_ports", lambda: listed)


def test_all_asks_known_ports_only(
    boards: list[NativeDevice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known, unknown = boards[0].url, boards[1].url
    pretend(monkeypatch, {known: True, unknown: False})
    folder = tmp_path / "store"
    assert cli.main(["sync", "--all", str(folder), "--json", "-"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [(item["port"], item["store_new"]) for item in out["boards"]] == [(known, 20)]
    with connect(unknown) as client:
        assert client.status().log_acked == 0
    assert cli.main(["sync", "--all", "--probe", str(folder), "--json", "-"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [item["store_new"] for item in out["boards"]] == [0, 20]
    assert len(Store.open(folder)) == 40


def test_adapters_without_a_board_are_left_out(
    boards: list[NativeDevice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nowhere = str(tmp_path / "nowhere")
    pretend(monkeypatch, {nowhere: True, boards[0].url: True})
    folder = tmp_path / "store"
    assert cli.main(["sync", "--all", str(folder), "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert [item["port"] for item in json.loads(printed.out)["boards"]] == [boards[0].url]
    assert f"left out: no such port: {nowhere}" in printed.err
    pretend(monkeypatch, {nowhere: True})
    assert cli.main(["sync", "--all", str(folder)]) == errors.LinkError.exit_code
    assert "no board answers" in capsys.readouterr().err
    pretend(monkeypatch, {nowhere: False})
    assert cli.main(["sync", "--all", str(folder)]) == errors.LinkError.exit_code
    assert "--probe" in capsys.readouterr().err


def test_a_store_may_be_a_url(
    boards: list[NativeDevice],
    cards: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    away, here = "memory://bench/url", f"file://{tmp_path}/store"
    assert cli.main(["sync", boards[0].url, away, "--keep", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["store_new"] == 20
    assert cli.main(["store", "stats", away, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 20
    boards[0].cut_power()
    assert cli.main(["card", "pull", str(cards[0]), away, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["store_new"] == 0
    assert cli.main(["sync", boards[1].url, here]) == 0
    assert len(Store.open(tmp_path / "store")) == 20
    (tmp_path / "drip.toml").write_text(f'[store]\npath = "{away}"\n')
    assert cli.main(["sync", boards[2].url]) == 0
    assert len(Store.open(away)) == 40
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".img"}
    assert left == {"state", "store", "drip.toml"}, "no folder is called memory:"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--all", "port", "store"],
        ["port", "store", "--probe"],
        ["port", "store", "--watch", "--dry-run"],
        [],
    ],
)
def test_contradictions_are_refused(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sync", *arguments]) == errors.UsageError.exit_code
    assert capsys.readouterr().err.startswith("error: ")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
