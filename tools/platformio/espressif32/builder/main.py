"""Compile with Debian's RISC-V compiler; there is none for Xtensa, and nothing to link with."""

from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
PREFIX = "riscv64-unknown-elf-"
env.Replace(
    AR=PREFIX + "ar",
    AS=PREFIX + "as",
    CC=PREFIX + "gcc",
    CXX=PREFIX + "g++",
    OBJCOPY=PREFIX + "objcopy",
    RANLIB=PREFIX + "ranlib",
    ARFLAGS=["rc"],
    PROGNAME="firmware",
)
CPU = ["-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"]
env.Append(CCFLAGS=[*CPU, "-std=gnu17"], ASFLAGS=CPU[:2], ASPPFLAGS=["-x", "assembler-with-cpp"])
env.BuildFrameworks(env.get("PIOFRAMEWORK"))
env.ProcessProgramDeps()
env.ProcessProjectDeps()
objects = env.Library("$BUILD_DIR/objects", env.get("PIOBUILDFILES"))
print("note: object files only; ESP-IDF links them (docs/BOARDS.md)")
Default(objects)
