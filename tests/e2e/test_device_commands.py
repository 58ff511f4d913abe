"""The commands that talk to boards and cards, against the native device as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drip import cli, config, errors
from drip.data import digits, save_npz
from drip.device import connect
from drip.store import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the native device needs POSIX terminals")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    image = tmp_path / "card.img"
    assert cli.main(["card", "format", str(image), "--size", "2M"]) == 0
    return image


@pytest.fixture
def board(card: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`drip device start` without a model: it keeps every frame."""
    command = [sys.executable, "-m", "drip", "device", "start", "--card", str(card)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        yield port, process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not Path(port).exists()


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert cli.main([*arguments, "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert isinstance(figures, dict)
    return figures


def test_frames_come_back_and_are_freed(
    board: tuple[str, subprocess.Popen[str]],
    card: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port, _ = board
    frames = digits().x[:40]
    with connect(port) as client:
        for frame in frames:
            client.feed(frame.tobytes())
    state = run_json(capsys, "status", port)
    assert (state["frames_seen"], state["frames_kept"]) == (40, 40)
    assert state["card_state"] == "ready"
    store = tmp_path / "store"
    waiting = run_json(capsys, "sync", port, str(store), "--dry-run")
    assert waiting["records"] == 0
    assert len(Store.open(store)) == 0
    first = run_json(capsys, "sync", port, str(store))
    assert (first["records"], first["store_new"]) == (40, 40)
    again = run_json(capsys, "sync", port, str(store))
    assert again["store_new"] == 0
    stored = Store.open(store).frames()
    assert stored.x.tobytes() == frames.tobytes()
    seen = run_json(capsys, "card", "inspect", str(card))
    assert (seen["records"], seen["damage"]) == (40, [])


def test_a_card_is_not_replaced_by_accident(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = card.read_bytes()
    assert cli.main(["card", "format", str(card)]) == errors.CardError.exit_code
    assert "--force" in capsys.readouterr().err
    assert card.read_bytes() == before
    assert cli.main(["card", "format", str(card), "--size", "1M", "--force"]) == 0
    assert card.stat().st_size == 1 << 20


@pytest.mark.parametrize("content", [b"", b"MZ not a card" * 1000])
def test_what_is_no_card_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "other.img"
    image.write_bytes(content)
    assert cli.main(["card", "inspect", str(image)]) == errors.CardError.exit_code
    assert cli.main(["card", "inspect", str(tmp_path / "none")]) == errors.CardError.exit_code
    printed = capsys.readouterr().err
    assert printed.count("error: ") == 2
    assert "Traceback" not in printed
    assert image.read_bytes() == content


def test_damage_on_a_card_is_an_error_with_its_place(
    card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(card.read_bytes())
    content[8] ^= 0x40
    card.write_bytes(content)
    assert cli.main(["card", "inspect", str(card)]) == errors.CardError.exit_code
    assert "superblock A" in capsys.readouterr().err


def test_a_board_refuses_what_is_no_model(
    board: tuple[str, subprocess.Popen[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, _ = board
    model = tmp_path / "model.drip"
    model.write_bytes(bytes(4096))
    assert cli.main(["deploy", str(model), port]) == errors.ModelError.exit_code
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (["--card", "none.img"], errors.CardError, "none.img cannot be read"),
        (["--card", "junk"], errors.CardError, "junk holds no log"),
        (["--card", "none.img", "--any-card"], errors.CardError, "no such card image: none.img"),
        (["--model", "none.drip"], errors.ModelError, "no such file: none.drip"),
        (["--model", "junk"], errors.ModelError, "not a .drip model"),
        (["--flash", "junk"], errors.LinkError, "did not start: junk has 4096 bytes"),
    ],
)
def test_a_board_does_not_start_with_what_is_missing_or_damaged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    error: type[errors.DripError],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk").write_bytes(bytes(4096))
    assert cli.main(["device", "start", *options]) == error.exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["junk"]


def test_settings_name_port_and_store(
    board: tuple[str, subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port, _ = board
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "data.npz", digits())
    config.write_template(tmp_path / "drip.toml")
    text = (tmp_path / "drip.toml").read_text()
    text = text.replace("# port = ", "port = ").replace("/dev/ttyACM0", port)
    (tmp_path / "drip.toml").write_text(text)
    with connect(port) as client:
        client.feed(digits().x[0].tobytes())
    assert run_json(capsys, "sync")["store_new"] == 1
    assert len(Store.open(tmp_path / "store")) == 1
