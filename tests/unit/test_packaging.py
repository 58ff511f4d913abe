"""What is built and shipped: cffi's view of the headers, wheel, sdist, extras, the finder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import compile_core

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_cffi_sees_every_function_of_the_public_headers() -> None:
    from drip import _core

    seen = 0
    for header in compile_core.public_headers():
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        for name in re.findall(r"^[a-z][\w \*]*?\b(drip_\w+)\([^;{]*\);", text, flags=re.MULTILINE):
            assert hasattr(_core.lib, name), f"{header.name}: {name}"
            seen += 1
    assert seen > 20


def test_aligned_members_leave_the_layout_to_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drip").mkdir()
    (tmp_path / "drip" / "sample.h").write_text(
        "#include <stdint.h>\n"
        'enum { SIZE = 4 };\n_Static_assert(SIZE == (2 + 2), "four; really (four)");\n'
        "typedef struct {\n uint8_t a;\n"
        " uint8_t b[SIZE] __attribute__((aligned(8)));\n} aligned_t;\n"
        "typedef struct {\n uint8_t c;\n} plain_t;\n"
    )
    monkeypatch.setattr(compile_core, "INCLUDE", tmp_path)
    text = " ".join(compile_core.cdef().split())
    assert "typedef struct { uint8_t a; uint8_t b[SIZE]; ...; } aligned_t;" in text
    assert "typedef struct { uint8_t c; } plain_t;" in text
    assert "assert" not in text
    assert "#" not in text


def tensorflows(environment: dict[str, str]) -> list[str]:
    names = []
    for line in PROJECT["optional-dependencies"]["train"]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name).startswith("tensorflow") and (
            requirement.marker is None or requirement.marker.evaluate(environment)
        ):
            names.append(requirement.name)
    return names


@pytest.mark.parametrize(
    ("platform", "machine", "python", "expected"),
    [
        ("linux", "x86_64", "3.11", ["tensorflow-cpu"]),
        ("win32", "AMD64", "3.13", ["tensorflow-cpu"]),
        ("linux", "aarch64", "3.12", ["tensorflow"]),
        ("darwin", "arm64", "3.12", ["tensorflow"]),
        ("darwin", "x86_64", "3.10", ["tensorflow"]),
        ("linux", "x86_64", "3.14", []),
    ],
)
def test_each_platform_gets_one_tensorflow(
    platform: str, machine: str, python: str, expected: list[str]
) -> None:
    environment = {
        "sys_platform": platform,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    assert tensorflows(environment) == expected


def find_python(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run find_python.sh in a world that has only these programs."""
    for name, script in programs.items():
        path = folder / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    script = ROOT / "tools" / "build" / "find_python.sh"
    environment = {"PATH": str(folder)}
    return subprocess.run(
        ["/bin/sh", str(script)], env=environment, capture_output=True, text=True, check=False
    )


REAL = f'exec "{sys.executable}" "$@"'
OLD = 'case "$*" in *"3, 10"*) exit 1;; *) echo 3.14.1;; esac'


@pytest.mark.skipif(os.name == "nt", reason="make and sh are POSIX tools")
def test_the_finder_names_what_is_missing_in_one_line(tmp_path: Path) -> None:
    done = find_python(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: missing tools; install them with: sudo apt-get install "
        "git gcc libc6-dev python3 python3-venv python3-dev\n"
    )


@pytest.mark.skipif(os.name == "nt", reason="make and sh are POSIX tools")
def test_the_finder_takes_another_python_when_python3_is_too_new(tmp_path: Path) -> None:
    done = find_python(tmp_path, python3=OLD, git="", cc="")
    assert done.returncode == 1
    assert "python3 is 3.14.1, DRIP needs 3.10 to 3.13" in done.stderr
    assert done.stderr.count("\n") == 1
    done = find_python(tmp_path, python3=OLD, python3_12=REAL, git="", cc="")
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path}/python3.12\n"
    assert "note: using python3.12" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="make and sh are POSIX tools")
def test_the_finder_names_venv_and_headers(tmp_path: Path) -> None:
    bare = f'case "$*" in *ensurepip*|*Python.h*) exit 1;; esac\n{REAL}'
    done = find_python(tmp_path, python3=bare, git="", cc="")
    assert done.returncode == 1
    assert done.stderr.endswith("sudo apt-get install python3-venv python3-dev\n")


@pytest.mark.slow
def test_the_sdist_builds_a_wheel_with_everything_in_it(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames()}
    for needed in (
        "LICENSE",
        "firmware/core/include/drip/wire.h",
        "firmware/core/src/wire.c",
        "host/drip/cli/__init__.py",
        "tools/build/hatch_build.py",
        "tools/schema/wire.toml",
    ):
        assert needed in packed
    assert any(re.match(r"firmware/ports/native/\w+\.c$", name) for name in packed)
    assert not [name for name in packed if name.endswith((".so", ".pyd", "drip-native"))]
    (wheel,) = tmp_path.glob("*.whl")
    assert re.match(r"drip-[\d.]+-cp310-abi3-\w+\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        members = {item.filename: item for item in archive.infolist()}
    assert "drip/py.typed" in members
    assert (
        len([name for name in members if re.match(r"drip/_core\.abi3\.so|drip/_core\.pyd", name)])
        == 1
    )
    if os.name != "nt":
        assert (members["drip/_bin/drip-native"].external_attr >> 16) & 0o111
