"""The frame of the command line: errors, exit codes, help, and what it imports."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drip import __version__, cli, config, errors
from drip.cli import console


def all_errors() -> list[type[errors.DripError]]:
    found: list[type[errors.DripError]] = [errors.DripError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def build(kind: type[errors.DripError]) -> errors.DripError:
    if issubclass(kind, errors.DeviceError):
        return kind("went wrong", -3, "do this")
    return kind("went wrong", "do this")


def raising(error: BaseException) -> Any:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_is_one_line_a_hint_and_its_code(
    kind: type[errors.DripError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.run(raising(build(kind)), debug=False) == kind.exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: went wrong\nhint: do this\n"


def test_long_lines_and_brackets_stay_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    message = "[data] " + "x" * 300 + "\nsecond"
    console.run(raising(errors.DataError(message)), debug=False)
    assert capsys.readouterr().err == "error: [data] " + "x" * 300 + " second\n"


def test_exit_codes_are_distinct_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = all_errors()
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    assert cli.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for code, summary in console.exit_codes().items():
        assert f"{code}: {summary}" in text
    assert set(console.exit_codes()) == {0, 70, 130, *(kind.exit_code for kind in kinds)}


def test_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(raising(KeyboardInterrupt()), debug=False) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_full_disk_is_a_store_error(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "store/000.seg")
    assert console.run(raising(full), debug=False) == errors.StoreError.exit_code
    printed = capsys.readouterr().err
    assert printed.startswith(
        "error: store/000.seg: No space left on device\nhint: free some space"
    )
    assert "Traceback" not in printed


def test_a_defect_says_how_to_report_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(raising(ZeroDivisionError("division by zero")), debug=False) == 70
    printed = capsys.readouterr().err
    assert printed.startswith("error: unexpected ZeroDivisionError: division by zero\nhint: ")
    assert "--debug" in printed
    assert "Traceback" not in printed


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    for arguments in (
        ["--debug", "train", "--config", missing],
        ["train", "--config", missing, "--debug"],
    ):
        assert cli.main(arguments) == errors.ConfigError.exit_code
        assert "Traceback" in capsys.readouterr().err
    assert cli.main(["train", "--config", missing]) == errors.ConfigError.exit_code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "frobnicate"),
        (["init", "--nonsense"], "--nonsense"),
        (["train", "--steps", "many"], "--steps"),
    ],
)
def test_wrong_usage_is_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == errors.UsageError.exit_code
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 2
    assert "--help" in printed


def test_version_and_bare_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"drip {__version__}\n"
    assert cli.main([]) == 0
    assert "Usage: drip" in capsys.readouterr().out


def commands() -> list[list[str]]:
    """Every command and subcommand, as it is typed."""

    def walk(app: Any, before: list[str]) -> list[list[str]]:
        found = [[*before, item.name or item.callback.__name__] for item in app.registered_commands]
        for group in app.registered_groups:
            name = [group.name] if isinstance(group.name, str) else []
            found += walk(group.typer_instance, [*before, *name])
        return found

    return walk(cli.app, [])


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"Usage: drip {' '.join(command)}" in printed
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    summary = lines[1]
    assert len(summary) > 20
    assert summary[0].isupper()


def test_help_imports_nothing_heavy() -> None:
    heavy = ("tensorflow", "keras", "sklearn", "matplotlib", "pyarrow", "duckdb", "drip._core")
    program = (
        "import sys; from drip.cli import main; main(['--help']); "
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_python_m_drip_is_drip() -> None:
    command = [sys.executable, "-m", "drip", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""


def test_init_writes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init"]) == 0
    assert capsys.readouterr().out == "wrote drip.toml\n"
    assert (tmp_path / "drip.toml").read_text() == config.template()
    assert cli.main(["init"]) == errors.ConfigError.exit_code
    assert "--force" in capsys.readouterr().err
    assert cli.main(["init", "--force"]) == 0
    capsys.readouterr()
    assert cli.main(["init", "--print"]) == 0
    assert capsys.readouterr().out == config.template()


def test_missing_and_corrupt_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing more")
    assert cli.main(["train", "--data", "none.npz"]) == errors.DataError.exit_code
    assert "none.npz" in capsys.readouterr().err
    assert cli.main(["train", "--data", "bad.npz"]) == errors.DataError.exit_code
    printed = capsys.readouterr().err
    assert "bad.npz" in printed
    assert printed.count("\n") <= 2
    assert [item.name for item in tmp_path.iterdir()] == ["bad.npz"]


def test_an_output_that_cannot_be_written_is_named_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for target in (Path("nowhere/x.json"), tmp_path):

        def command(target: Path = target) -> None:
            console.write_json(str(target), {})

        assert console.run(command, debug=False) == errors.StoreError.exit_code
        assert capsys.readouterr().err.startswith(f"error: {target}: ")
    assert list(tmp_path.iterdir()) == []


def test_json_goes_to_a_file_or_alone_to_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console.tables("-").print("for people")
    console.write_json("-", {"kept": 3})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"kept": 3}
    assert "for people" in printed.err
    console.tables(None).print("for people")
    console.write_json(str(tmp_path / "out.json"), {"kept": 4})
    assert capsys.readouterr().out == "for people\n"
    assert json.loads((tmp_path / "out.json").read_text()) == {"kept": 4}
    with pytest.raises(ValueError, match="JSON"):
        console.write_json("-", {"ratio": float("nan")})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["report", "nowhere"], errors.DataError.exit_code, "nowhere"),
        (["status"], errors.UsageError.exit_code, "no port given"),
        (["status", "/dev/does-not-exist"], errors.LinkError.exit_code, "/dev/does-not-exist"),
        (["status", "tcp:host"], errors.UsageError.exit_code, "tcp:HOST:PORT"),
        (["convert", "none.keras"], errors.ModelError.exit_code, "none.keras"),
        (["train", "-o", "no/such/m.keras"], errors.DataError.exit_code, "data.npz"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") <= 2
    assert list(tmp_path.iterdir()) == []
