"""The tools around the native module: what the lint rejects, and where the source comes from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from interpreters import HOW, ROOT, build, unix_own

pytest.importorskip("elftools", reason="pyelftools is missing: pip install pyelftools")

from lint import check_objects


def compile_object(folder: Path, text: str, name: str = "part.o") -> Path:
    """Compile C for this computer as a native module is compiled."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing: apt install gcc")
    source, target = folder / "part.c", folder / name
    source.write_text(text)
    flags = ["-O2", "-fpic", "-fno-common", "-fno-stack-protector", "-fcf-protection=none"]
    subprocess.run(["gcc", *flags, "-c", source, "-o", target], check=True)
    return target


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("int f(int n) { return n * 2; }", ""),
        ("int v = 3; int f(void) { return v++; }", "in .data"),
        ("static int v; int f(void) { return v++; }", "in .bss"),
        ("static const int t[] = {5, 9, 2, 7}; int f(int n) { return t[n]; }", "in .rodata"),
        ('const char *f(void) { return "text"; }', "in .rodata"),
        ("int g(int); int f(int n) { return g(n) + 1; }", "calls g"),
    ],
)
def test_the_lint_finds_what_is_linked_wrong_in_silence(tmp_path, text, found):
    broken = check_objects("x64", [compile_object(tmp_path, text)])
    assert bool(broken) == bool(found)
    assert all(found in line for line in broken)


def test_static_data_is_found_in_the_table_of_the_module_too(tmp_path):
    text = "static const int t[] = {5, 9, 2, 7}; int f(int n) { return t[n]; }"
    broken = check_objects("rv32imc", [compile_object(tmp_path, text, "mp_module.o")])
    assert broken == ["rv32imc: mp_module.o: t is static data"]


def test_the_archive_is_the_one_of_this_machine(tmp_path):
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    with pytest.raises(build.BuildError, match="no Debian archive") as caught:
        build.archive_entry(tmp_path, tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "sources.list").write_text(
        "deb file:/m/debian-security stable main\n"
        "deb [signed-by=/k.gpg] file:/m/debian stable main\n"
    )
    assert build.archive_entry(tmp_path, tmp_path) == ("file:/m/debian", "signed-by=/k.gpg")
    stanza = "Types: deb\nURIs: file:/n/debian/\nSuites: stable\nSigned-By: /n.gpg\n"
    (folder / "a.sources").write_text("Types: deb\nURIs: file:/other\n\n" + stanza)
    assert build.archive_entry(tmp_path, tmp_path) == ("file:/n/debian/", "signed-by=/n.gpg")


def test_ubuntu_knows_where_the_archive_of_debian_is(tmp_path):
    (tmp_path / "sources.list").write_text("deb file:/m/ubuntu stable main\n")
    templates, keys = tmp_path / "python-apt" / "templates", tmp_path / "keyrings"
    templates.mkdir(parents=True)
    keys.mkdir()
    info = "Suite: a\nBaseURI: file:/s/security\n\nSuite: b\nBaseURI: file:/d/debian/\n"
    (templates / "Debian.info").write_text(info)
    with pytest.raises(build.BuildError, match="debian-archive-keyring"):
        build.archive_entry(tmp_path, tmp_path)
    (keys / "debian-archive-keyring.gpg").touch()
    uri, options = build.archive_entry(tmp_path, tmp_path)
    assert uri == "file:/d/debian"
    assert options == f"signed-by={keys / 'debian-archive-keyring.gpg'}"


def test_a_fetch_that_fails_says_why_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    monkeypatch.setattr(build, "archive_entry", lambda: (f"file:{tmp_path}/debian", ""))
    with pytest.raises(build.BuildError, match=r"cannot fetch micropython .*debian") as caught:
        build.fetch()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.xz"))


def test_a_source_that_is_not_the_pinned_one_is_refused(tmp_path):
    path = tmp_path / "source.tar.xz"
    path.write_bytes(b"other")
    with pytest.raises(build.BuildError, match="has SHA-256"):
        build.verify(path)


@pytest.mark.parametrize("name", ["score", "imu", "microphone"])
def test_the_examples_compile(tmp_path, name):
    if not build.MPY_CROSS.is_file():
        pytest.skip(f"no cross compiler of MicroPython: {HOW}")
    source = build.MODULE / "examples" / f"{name}.py"
    command = [build.MPY_CROSS, "-o", tmp_path / "out.mpy", source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out.mpy").read_bytes().startswith(b"M\x06")


# What a port with CMake does with modules of its own: RP2 and ESP32, without their SDKs.
_FIRMWARE = """
cmake_minimum_required(VERSION 3.13)
project(firmware C)
include(${MPY}/py/usermod.cmake)
add_library(firmware STATIC ${MICROPY_SOURCE_USERMOD})
target_include_directories(firmware PRIVATE ${MICROPY_INC_USERMOD} ${MPY} ${MPY}/ports/unix
    ${MPY}/ports/unix/variants/standard ${GENERATED})
target_compile_options(firmware PRIVATE -Wall -Werror)
"""


@pytest.mark.slow
def test_cmake_builds_the_module_of_a_firmware(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is missing: apt install cmake")
    generated = unix_own().parent  # names and configuration that MicroPython's build has made
    (tmp_path / "CMakeLists.txt").write_text(_FIRMWARE)
    module = build.MODULE / "src" / "micropython.cmake"
    options = [f"-DMPY={build.SOURCE}", f"-DGENERATED={generated}", f"-DUSER_C_MODULES={module}"]
    for step in (["-S", tmp_path, "-B", tmp_path / "out", *options], ["--build", tmp_path / "out"]):
        done = subprocess.run(["cmake", *step], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    command = ["ar", "t", tmp_path / "out" / "libfirmware.a"]
    objects = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    core = ROOT / "firmware" / "core" / "src"
    folders = (core.glob("*.c"), core.glob("kernels/*.c"), module.parent.glob("*.c"))
    wanted = {path.name for folder in folders for path in folder} - {"mp_memory.c"}
    assert {name.removesuffix(".o") for name in objects.split()} == wanted
