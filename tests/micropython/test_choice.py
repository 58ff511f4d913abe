"""The package picks a native module by itself, and explains itself when none fits."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from interpreters import ROOT, build, execute

from drip import micropython
from drip.errors import UsageError

PACKAGE = ROOT / "firmware" / "micropython"

_EXPLAIN = """
import json, drip
class Fake:
    pass
def ask(version, mpy, name="micropython"):
    fake = Fake()
    fake.name, fake.version, fake._mpy = name, version, mpy
    return drip._explain(fake)
abi = 6 | 3 << 8
print(json.dumps([
    ask((1, 25, 0), 7 << 10 | abi),
    ask((1, 25, 0), 8 << 10 | abi),
    ask((1, 23, 0), 7 << 10 | abi),
    ask((1, 25, 0), 0),
    ask((1, 25, 0), 7 << 10 | 6 | 2 << 8),
    ask((1, 25, 0), 9 << 10 | abi),
    ask((3, 12, 0), 0, "cpython"),
    drip._candidates("armv7emdp"),
    drip._candidates("armv7em"),
    drip._candidates("armv6m"),
    drip._candidates("rv32imc"),
    drip.native.__name__,
]))
"""


def test_what_fits_and_what_is_said_when_nothing_does(library):
    said = execute(library, _EXPLAIN)
    assert said[:2] == [None, None]
    assert "1.23.0 is too old" in said[2]
    assert "cannot load native modules" in said[3]
    assert "wants native modules of version 6.2, these are 6.3" in said[4]
    assert "no native module for xtensa" in said[5]
    assert "make setup" in said[6]
    assert said[7] == ["armv7emsp", "armv7m", "armv6m"]
    assert said[8] == ["armv7m", "armv6m"]
    assert said[9:11] == [["armv6m"], ["rv32imc"]]
    assert said[11] == "drip.native_x64"


def test_a_missing_module_is_named(library):
    module = library / "drip" / "native_x64.mpy"
    content = module.read_bytes()
    script = (
        "import json\ntry:\n    import drip\n"
        "except ImportError as error:\n    print(json.dumps(str(error)))"
    )
    module.unlink()
    try:
        said = execute(library, script)
        module.write_bytes(b"M\x06\x0a" + content[3:])  # bytes of another sub-version
        damaged = execute(library, script)
    finally:
        module.write_bytes(content)
    assert "native_x64.mpy" in said
    assert "drip micropython install" in said
    assert "native_x64.mpy: incompatible" in damaged


@pytest.mark.parametrize("name", ["drip/__init__.py", "drip/scorer.mpy", "drip/device.mpy"])
def test_the_list_for_mip_names_what_is_built(name):
    listed = json.loads((PACKAGE / "package.json").read_text())["urls"]
    assert [name, name] in listed


def test_every_architecture_is_listed_for_mip():
    listed = dict(json.loads((PACKAGE / "package.json").read_text())["urls"])
    for arch in build.COMPILERS:
        assert listed[f"drip/native_{arch}.mpy"] == f"{arch}_6.3/native_{arch}.mpy"
    assert {Path(name).suffix for name in listed} == {".py", ".mpy"}


_CHOICES = """
import json, drip
class Fake:
    name = "micropython"
out = []
for version in ((1, 23, 0), (1, 24, 0), (2, 0, 0)):
    for abi in (6 | 2 << 8, 6 | 3 << 8, 7 | 3 << 8):
        for index in range(14):
            fake = Fake()
            fake.version, fake._mpy = version, index << 10 | abi
            reason = drip._explain(fake)
            names = [] if reason else drip._candidates(drip._ARCHITECTURES[index])
            out.append([version, fake._mpy, [name for name in names if name in drip._BUILT]])
print(json.dumps(out))
"""


def test_board_and_host_choose_the_same_modules(library, tmp_path):
    every = list(build.COMPILERS | build.UNVERIFIED)
    for arch in every:
        (tmp_path / f"{arch}_6.3").mkdir()
    chosen = set()
    for version, mpy, names in execute(library, _CHOICES):
        board, found = micropython.Board(tuple(version), mpy), []
        # Which does the host take, which when that one is missing, and so on.
        for path in tmp_path.glob("*/*"):
            path.unlink()
        for arch in every:
            (tmp_path / f"{arch}_6.3" / f"native_{arch}.mpy").touch()
        with contextlib.suppress(UsageError):
            while True:
                path = micropython.choose(board, tmp_path)
                found.append(path.stem.removeprefix("native_"))
                path.unlink()
        assert found == names, board
        chosen.add(tuple(found))
    assert len(chosen) == 7
