"""Every command that reads a file says in one line what is wrong with it, and what to do."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from drip import cli, errors
from drip.compile import compile_model
from drip.data import Dataset, save_npz
from drip.store import Store
from drip.store.imports import import_into

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
TFLITE = ROOT / "models/digits/model.tflite"

RETRAIN = "retrain store --base model.drip --data d.npz -o out.drip"

# What is given, the command, the exit code.
COMMANDS = [
    ("npz", "train --data {} -o out.keras", errors.DataError),
    ("npz", "compile model.tflite --data {} -o out.drip", errors.DataError),
    ("npz", "verify model.tflite --inputs 1 --data {}", errors.DataError),
    ("npz", "calibrate model.drip --data {} -o out.drip", errors.DataError),
    ("npz", "explain model.drip {} -o out.png", errors.DataError),
    ("npy", "explain model.drip {} -o out.png", errors.DataError),
    ("npz", "run model.drip {}", errors.DataError),
    ("npz", "feed nothing --data {}", errors.DataError),
    ("npz", "score {} nothing", errors.DataError),
    ("npy", "score {} nothing", errors.DataError),
    ("npz", "retrain store --base model.drip --data {} -o out.drip", errors.DataError),
    (
        "npz",
        RETRAIN + " --labels {}",
        errors.DataError,
    ),
    (
        "csv",
        RETRAIN + " --labels {}",
        errors.DataError,
    ),
    ("npz", "store import {} --store out", errors.DataError),
    ("json", "store import {} --store out", errors.DataError),
    ("csv", "store import {} --store out", errors.DataError),
    ("npz", "label store --from {}", errors.DataError),
    ("npz", "data import {} -o out.npz", errors.DataError),
    ("csv", "data import {} -o out.npz --columns a,b", errors.DataError),
    ("tflite", "compile {} -o out.drip", errors.ModelError),
    ("tflite", "verify {} --inputs 1", errors.ModelError),
    ("drip", "inspect {}", errors.ModelError),
    ("drip", "calibrate {} --data d.npz -o out.drip", errors.ModelError),
    ("drip", "explain {} d.npz -o out.png", errors.ModelError),
    ("drip", "run {} d.npz", errors.ModelError),
    ("drip", "retrain store --data d.npz --base {} -o out.drip", errors.ModelError),
    ("drip", "history {}", errors.ModelError),
    ("drip", "deploy {} nothing", errors.ModelError),
    ("drip", "score d.npz nothing --compare {}", errors.ModelError),
    ("drip", "device start --model {}", errors.ModelError),
    ("drip", "label store --accept 0.9 --model {}", errors.ModelError),
    ("drip", "store export out --store store --as csv --model {}", errors.ModelError),
    ("toml", "train --config {}", errors.ConfigError),
    ("json", "bench select --plan {} --out out", errors.ConfigError),
    ("img", "card inspect {}", errors.CardError),
    ("img", "card pull {} out", errors.CardError),
    ("img", "device start --card {}", errors.CardError),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good file of every kind."""
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (200, 8, 8, 1), np.uint8)
    names = tuple(str(c) for c in range(10))
    save_npz(folder / "d.npz", Dataset(x, np.arange(200) % 10, names))
    (folder / "model.tflite").write_bytes(TFLITE.read_bytes())
    (folder / "model.drip").write_bytes(compile_model(TFLITE.read_bytes()))
    np.save(folder / "good.npy", x[0])
    (folder / "good.json").write_text('[{"data": {"image": "a.png"}}]')
    import_into(Store.open(folder / "store", create=True), folder / "d.npz")
    return folder


GOOD = {"npz": "d.npz", "npy": "good.npy", "tflite": "model.tflite", "drip": "model.drip"}


def bad_files(folder: Path, kind: str) -> Iterator[Path]:
    """What a user may name by mistake, or find after a crash."""
    place = folder / kind
    place.mkdir(exist_ok=True)
    good = folder / GOOD.get(kind, "good.json")
    content = good.read_bytes()
    yield place / f"missing.{kind}"
    for name, damaged in (
        ("empty", b""),
        ("head", content[:20]),
        ("half", content[: len(content) // 2]),
        ("nearly", content[:-1]),
        ("garbage", np.random.default_rng(1).bytes(len(content))),
    ):
        # An empty file of settings is a good one.
        if not (kind == "toml" and name == "empty"):
            (place / f"{name}.{kind}").write_bytes(damaged)
            yield place / f"{name}.{kind}"
    (place / f"folder.{kind}").mkdir(exist_ok=True)
    yield place / f"folder.{kind}"
    # Not even root can read this one.
    loop = place / f"loop.{kind}"
    if not loop.is_symlink():
        loop.symlink_to(loop.name)
    yield loop
    (place / "file").write_bytes(b"")
    yield place / f"file/below.{kind}"


@pytest.mark.parametrize(("kind", "command", "error"), COMMANDS)
def test_a_bad_file_is_named_with_a_hint(
    kind: str,
    command: str,
    error: type[errors.DripError],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command.startswith("train"):
        pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install '.[train]'")
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    for path in list(bad_files(folder, kind)):
        name = str(path.relative_to(folder))
        code = cli.main(command.format(name).split())
        said = capsys.readouterr().err
        lines = said.splitlines()
        assert code == error.exit_code, (name, said)
        assert [line.split(":")[0] for line in lines] == ["error", "hint"], (name, said)
        assert path.name in lines[0], (name, said)
        # Python's and numpy's own words do not help.
        assert not re.search(r"\[Errno|Traceback|pickle|buffer of|codec|unpack", said), (name, said)
        made = set(folder.iterdir()) - set(before) - {folder / kind}
        assert not made, (name, "left behind", made)


def test_a_file_without_permission_is_no_wrong_use_of_the_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.chdir(folder)
    # What a user sees whom the system does not let read; root may read everything.
    monkeypatch.setattr(os, "access", lambda *_args, **_options: False)
    monkeypatch.setattr(Path, "read_bytes", denied)
    assert cli.main(["inspect", "model.drip"]) == errors.ModelError.exit_code
    assert "cannot read model.drip: Permission denied" in capsys.readouterr().err


def test_hints_name_extras_that_there_are() -> None:
    """And none of them fetches the other project that the package index calls drip."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    used = set()
    for file in sorted((ROOT / "host").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"pip install '?drip\b", text), file
        used |= set(re.findall(r"install_hint\(['\"](\w+)['\"]\)", text))
    assert used and used <= set(extras)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        assert not re.search(r"pip install '?drip\b", file.read_text(encoding="utf-8")), file
    assert errors.install_hint("ray") == "in a checkout of DRIP: pip install '.[ray]'"
