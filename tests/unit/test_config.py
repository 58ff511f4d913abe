"""drip.toml: what is accepted, what is refused and with which words."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest

from drip import config
from drip.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "drip.toml"
    path.write_text(text)
    return path


def test_the_template_holds_exactly_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, config.template())
    loaded = config.load(path)
    assert loaded.file == path
    defaults = config.Config()
    for name in ("labels", "preprocessing", "model", "policy", "board"):
        assert getattr(loaded, name) == getattr(defaults, name)
    assert dataclasses.replace(loaded.data, path="data.npz") == defaults.data


def test_every_setting_is_in_the_template() -> None:
    text = config.template()
    for section in dataclasses.fields(config.Config):
        if section.name == "file":
            continue
        assert f"[{section.name}]" in text
        part = getattr(config.Config(), section.name)
        for item in dataclasses.fields(part):
            assert f"\n{item.name} = " in text or f"\n# {item.name} = " in text, item.name


def test_the_commented_examples_are_valid_too(tmp_path: Path) -> None:
    lines = config.template().splitlines()
    text = "\n".join(
        line[2:] if " = " in line and line.startswith("# ") else line for line in lines
    )
    loaded = config.load(write(tmp_path, text))
    assert loaded.board.port == "/dev/ttyACM0"
    assert loaded.labels.path == str(tmp_path / "labels.csv")
    assert loaded.preprocessing.scale == pytest.approx(1 / 255, rel=1e-5)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, '[data]\npath = "sets/a.npz"\n'))
    assert loaded.data.path == str(tmp_path / "sets" / "a.npz")
    assert loaded.store.path == str(tmp_path / "store")


def test_the_store_may_be_a_url(tmp_path: Path) -> None:
    (tmp_path / "drip.toml").write_text('[store]\npath = "s3://bucket/frames"\n')
    assert config.load(tmp_path / "drip.toml").store.path == "s3://bucket/frames"


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load() == config.Config()
    write(tmp_path, "[policy]\ntarget_ratio = 0.25\n")
    assert config.load().policy.target_ratio == 0.25


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[polcy]\n", "unknown section: polcy", "did you mean policy?"),
        (
            "[policy]\ntarget_ration = 0.2\n",
            "unknown key in [policy]: target_ration",
            "target_ratio",
        ),
        ("policy = 3\n", "policy is not a section", "[policy]"),
        ("[policy]\ntarget_ratio = 1.5\n", "target_ratio is 1.5", "0.001 to 0.999"),
        ("[policy]\ntarget_ratio = nan\n", "target_ratio is nan", "0.001 to 0.999"),
        ("[policy]\ntarget_ratio = true\n", "target_ratio is True", "a number"),
        ("[model]\nsteps = 2.5\n", "steps is 2.5", "a whole number"),
        ("[model]\nsteps = 0\n", "steps is 0", "at least 1"),
        ("[model]\nbuilder = 7\n", "builder is 7", "a string"),
        ("[preprocessing]\nscale = [1.0, 'x']\n", "scale is 'x'", "a number"),
        ("[preprocessing]\nscale = []\n", "scale is []", "a number or a list of numbers"),
        ("[data]\nfit = 0.9\n", "add up to 1.3", "at most 1"),
        ("[data\n", "is not TOML", "drip init"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(tmp_path / "none.toml")
    binary = tmp_path / "drip.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(binary)


def test_lists_become_tuples(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, "[preprocessing]\nscale = [1, 0.5]\noffset = 2\n"))
    assert loaded.preprocessing.scale == (1.0, 0.5)
    assert loaded.preprocessing.offset == 2.0


def test_options_win_and_are_checked() -> None:
    section = config.override(config.ModelConfig(), steps=7, batch=None)
    assert (section.steps, section.batch) == (7, 32)
    with pytest.raises(ConfigError) as caught:
        config.override(config.PolicyConfig(), target_ratio=2.0)
    assert caught.value.message == "--target-ratio is 2"


def test_writing_refuses_to_replace(tmp_path: Path) -> None:
    path = write(tmp_path, "mine")
    with pytest.raises(ConfigError) as caught:
        config.write_template(path)
    assert "--force" in caught.value.hint
    assert path.read_text() == "mine"
    config.write_template(path, force=True)
    assert path.read_text() == config.template()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "mine")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        config.write_template(path, force=True)
    assert path.read_text() == "mine"
    assert [item.name for item in tmp_path.iterdir()] == ["drip.toml"]
