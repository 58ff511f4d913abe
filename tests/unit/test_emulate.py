"""Launchers of emulated boards, as far as they need no emulator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drip import cli, errors
from drip.device import emulate, qemu, renode
from drip.device.emulate import Board

BOARDS = {
    "nucleo_f446re": Board("nucleo_f446re", 2, ("A", 4)),
    "disco_f407vg": Board("disco_f407vg", 2, ("B", 7)),
    "black_f407ve": Board("black_f407ve", 1, ("B", 7)),
}


def image_of(folder: Path, name: str) -> Path:
    path = folder / "firmware.elf"
    path.write_bytes(b"\x7fELF" + bytes(100) + f"\r\nDRIP on {name}\r\n\0".encode())
    return path


@pytest.mark.parametrize("name", BOARDS)
def test_board_is_read_from_its_image_and_header(name: str, tmp_path: Path) -> None:
    assert emulate.read_board(image_of(tmp_path, name)) == BOARDS[name]


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelError, match="is no image of a board"):
        emulate.read_board(image_of(tmp_path, "unknown"))
    (tmp_path / "text").write_text("DRIP on nucleo_f446re\r\n")
    with pytest.raises(errors.ModelError, match="is no image of a board"):
        emulate.read_board(tmp_path / "text")
    with pytest.raises(errors.ModelError, match="cannot read"):
        emulate.read_board(tmp_path / "none")


def test_renode_gets_the_card_and_the_pins_of_the_board(tmp_path: Path) -> None:
    card = tmp_path / "my card.img"
    card.write_bytes(bytes(1 << 20))
    text = renode.card_platform(card, BOARDS["black_f407ve"])
    assert f'imageFile: "{card}"' in text
    assert "capacity: 1048576" in text
    assert "gpioPortB:\n    7 -> spiMux@0" in text
    assert "card.img" not in text.replace(str(card), "").split("spiMux:", 1)[1]
    script = renode.start_script(Path("/x.elf"), BOARDS["black_f407ve"], Path("/p"), Path("/c"))
    assert script.split("; ")[0] == "$bin=@/x.elf"
    assert script.split("; ")[2:] == [
        "machine LoadPlatformDescription @/c",
        'emulation CreateUartPtyTerminal "link" "/p" true',
        "connector Connect sysbus.usart1 link",
        "start",
    ]


@pytest.mark.parametrize("size", [0, 1000, (1 << 20) + 512])
def test_an_image_of_a_size_that_no_card_has(size: int, tmp_path: Path) -> None:
    card = tmp_path / "card.img"
    card.write_bytes(bytes(size))
    with pytest.raises(errors.CardError, match="multiple of 512 KiB"):
        emulate.check_card(card)


def test_an_untried_qemu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(qemu, "_qemu_version", lambda: "3.1")
    assert "not tried with QEMU 3.1" in (qemu.missing_for_qemu() or "")
    monkeypatch.setattr(qemu.shutil, "which", lambda name: None)
    assert "apt-get install qemu-system-arm" in (qemu.missing_for_qemu() or "")
    assert "renode.io" in (renode.missing_for_renode() or "")


@pytest.mark.parametrize(
    "options", [["--kind", "qemu", "--tcp", "0"], ["--kind", "native", "--firmware", "x.elf"]]
)
def test_options_of_another_kind(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["device", "start", *options]) == errors.UsageError.exit_code
    assert "does not go with --kind" in capsys.readouterr().err


def test_scripts_for_renode_say_when_they_were_last_run() -> None:
    scripts = [path for path in renode._SCRIPTS.iterdir() if path.suffix != ".md"]
    assert len(scripts) >= 6
    for path in scripts:
        head = "".join(path.read_text().splitlines(keepends=True)[:4])
        said = re.search(r"Renode (\d+\.\d+\.\d+)\. Last run: (not run|\d{4}-\d\d-\d\d)\.\n", head)
        assert said, path.name
