"""The check of the core rules rejects one bad file per rule, on every target that can show it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import check_core

BY_NAME = {target.name: target for target in check_core.TARGETS}
ALL = tuple(BY_NAME)

GOOD = """
#include <stdint.h>
#include <string.h>
int drip_good(uint8_t *out, const uint8_t *in, uint32_t size, uint32_t kind);
int drip_good(uint8_t *out, const uint8_t *in, uint32_t size, uint32_t kind)
{
    memcpy(out, in, size);
    switch (kind) {
    case 0: return 11;
    case 1: return 7;
    case 2: return 5;
    case 3: return 13;
    case 4: return 2;
    default: return (int)(size / (kind + 1u));
    }
}
"""

SWITCH = """
int other(int);
int bad(int kind);
int bad(int kind)
{
    switch (kind) {
    case 0: return other(3);
    case 1: return other(7) + 1;
    case 2: return other(kind + 5) * 3;
    case 3: return other(1) - 2;
    case 4: return 9;
    case 5: return other(4) + other(2);
    default: return other(0);
    }
}
int other(int x)
{
    return x;
}
"""

RULES = {
    "const table": (
        ALL,
        ".rodata",
        "int bad(unsigned i);\nstatic const int table[9] = {1, 4, 2, 8, 5, 7, 6, 3, 9};\n"
        "int bad(unsigned i) { return table[i]; }\n",
    ),
    "string literal": (
        ALL,
        ".rodata",
        'const char *bad(void);\nconst char *bad(void) { return "text"; }\n',
    ),
    "initialised variable": (
        ALL,
        ".data",
        "int bad(void);\nstatic int count = 3;\nint bad(void) { return count++; }\n",
    ),
    "zeroed variable": (
        ALL,
        ".bss",
        "int bad(void);\nint bad(void) { static int count; return count++; }\n",
    ),
    "table of functions": (
        ALL,
        ".rodata|.data",
        "int one(void);\nint two(void);\nint bad(unsigned i);\n"
        "int one(void) { return 1; }\nint two(void) { return 2; }\n"
        "static int (*const table[2])(void) = {one, two};\n"
        "int bad(unsigned i) { return table[i](); }\n",
    ),
    "library call": (
        ALL,
        "calls strlen",
        "#include <string.h>\nsize_t bad(const char *s);\n"
        "size_t bad(const char *s) { return strlen(s); }\n",
    ),
    "heap": (
        ALL,
        "calls malloc",
        "#include <stdlib.h>\nvoid *bad(void);\nvoid *bad(void) { return malloc(4); }\n",
    ),
    "64-bit division": (
        ("cortex-m4", "rv32imc"),
        "calls __(aeabi_)?uldiv|calls __udivdi3",
        "#include <stdint.h>\nuint64_t bad(uint64_t a, uint64_t b);\n"
        "uint64_t bad(uint64_t a, uint64_t b) { return a / b; }\n",
    ),
    "variable 64-bit shift": (
        ("rv32imc",),
        "calls __ashldi3",
        "#include <stdint.h>\nuint64_t bad(uint64_t a, unsigned n);\n"
        "uint64_t bad(uint64_t a, unsigned n) { return a << n; }\n",
    ),
    "float helper": (
        ("rv32imc",),
        "calls __mulsf3",
        "float bad(float a, float b);\nfloat bad(float a, float b) { return a * b; }\n",
    ),
    "float instruction": (
        ("cortex-m4",),
        "floating point instructions: vmul.f32",
        "float bad(float a, float b);\nfloat bad(float a, float b) { return a * b; }\n",
    ),
    "double helper": (
        ("cortex-m4", "rv32imc"),
        "calls __(aeabi_dmul|muldf3)",
        "double bad(double a, double b);\ndouble bad(double a, double b) { return a * b; }\n",
    ),
    "warning": (
        ALL,
        "does not compile: .*conversion",
        "signed char bad(int a);\nsigned char bad(int a) { return a; }\n",
    ),
}


def compile_on(name: str, folder: Path, text: str, *extra: str) -> tuple[str, ...]:
    target = BY_NAME[name]
    if shutil.which(target.compiler) is None:
        pytest.skip(f"{target.compiler} is missing: sudo apt-get install {target.package}")
    source = folder / "sample.c"
    source.write_text(text)
    (report,) = check_core.check(target, [source], extra)
    return report.violations


@pytest.mark.parametrize("name", ALL)
def test_a_good_file_passes(name: str, tmp_path: Path) -> None:
    assert compile_on(name, tmp_path, GOOD) == ()


@pytest.mark.parametrize(
    ("rule", "name"), [(rule, name) for rule, (names, _, _) in RULES.items() for name in names]
)
def test_each_rule_rejects(rule: str, name: str, tmp_path: Path) -> None:
    _, words, text = RULES[rule]
    violations = compile_on(name, tmp_path, text)
    assert len(violations) == 1
    assert re.search(words, violations[0]), violations


@pytest.mark.parametrize("name", ALL)
def test_switch_tables_are_rejected(name: str, tmp_path: Path) -> None:
    assert compile_on(name, tmp_path, SWITCH) == ()
    violations = compile_on(name, tmp_path, SWITCH, "-fjump-tables")
    assert any("switch table" in line or ".rodata" in line for line in violations)


def test_a_broken_rule_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "bad.c"
    source.write_text(RULES["initialised variable"][2])
    assert check_core.main(["--target", "x86-64", "--source", str(source)]) == 1
    printed = capsys.readouterr()
    assert "4 bytes in .data" in printed.err
    assert "error: 1 broken core rules" in printed.err


def test_a_missing_compiler_names_its_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "good.c"
    source.write_text(GOOD)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_core.main(["--target", "cortex-m4", "--source", str(source)]) == 2
    assert "sudo apt-get install gcc-arm-none-eabi" in capsys.readouterr().err


def test_the_core_obeys_on_every_target_with_a_compiler() -> None:
    checked = 0
    for target in check_core.TARGETS:
        if shutil.which(target.compiler) is None:
            continue
        for report in check_core.check(target, check_core.core_sources()):
            assert report.violations == (), (target.name, report.source)
            checked += 1
    assert checked >= len(check_core.core_sources()) > 0
