"""Build and upload as the registry's platform does for a board without a framework."""

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Builder, Default, DefaultEnvironment

env = DefaultEnvironment()
platform = env.PioPlatform()
board = env.BoardConfig()

PREFIX = "arm-none-eabi-"
CPU = ["-mthumb", f"-mcpu={board.get('build.cpu')}"]

env.Replace(
    AR=PREFIX + "gcc-ar",
    AS=PREFIX + "as",
    CC=PREFIX + "gcc",
    CXX=PREFIX + "g++",
    GDB=PREFIX + "gdb",
    OBJCOPY=PREFIX + "objcopy",
    RANLIB=PREFIX + "gcc-ranlib",
    SIZETOOL=PREFIX + "size",
    ARFLAGS=["rc"],
    PROGSUFFIX=".elf",
    SIZEPROGREGEXP=r"^(?:\.text|\.data|\.rodata|\.text.align|\.ARM.exidx)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.data|\.bss|\.noinit)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    SIZEPRINTCMD="$SIZETOOL -B -d $SOURCES",
)
env.Append(
    BUILDERS={
        "ElfToBin": Builder(
            action=env.VerboseAction("$OBJCOPY -O binary $SOURCES $TARGET", "Building $TARGET"),
            suffix=".bin",
        )
    },
    CCFLAGS=["-Os", "-ffunction-sections", "-fdata-sections", "-Wall", "-nostdlib", *CPU],
    ASFLAGS=[*CPU],
    ASPPFLAGS=["-x", "assembler-with-cpp"],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=["-Os", "-Wl,--gc-sections,--relax", *CPU],
    # The registry's platform links C++, which Debian's compiler lacks; stm32f4.py takes it out.
    LIBS=["c", "gcc", "m", "stdc++"],
)
if env.get("PROGNAME", "program") == "program":
    env.Replace(PROGNAME="firmware")

elf = env.BuildProgram()
binary = env.ElfToBin("$BUILD_DIR/${PROGNAME}", elf)
env.Depends(binary, "checkprogsize")
AlwaysBuild(env.Alias("nobuild", binary))

env.AddPlatformTarget(
    "size", elf, env.VerboseAction("$SIZEPRINTCMD", "Calculating size $SOURCE"), "Program Size"
)

protocol = env.subst("$UPLOAD_PROTOCOL")
if protocol == "stlink":
    scripts = f"{platform.get_package_dir('tool-openocd')}/scripts"
    flags = ["-d2", "-s", scripts, "-f", "interface/stlink.cfg", "-c", "transport select hla_swd"]
    flags += ["-f", f"target/{board.get('debug.openocd_target')}.cfg"]
    flags += ["-c", "program {$SOURCE} verify reset; shutdown;"]
    env.Replace(UPLOADER="openocd", UPLOADERFLAGS=flags, UPLOADCMD="$UPLOADER $UPLOADERFLAGS")
    source = elf
elif protocol == "dfu":
    flags = ["-d", "0483:df11", "-a", "0", "-s", "0x08000000:leave", "-D"]
    env.Replace(
        UPLOADER="dfu-util", UPLOADERFLAGS=flags, UPLOADCMD='$UPLOADER $UPLOADERFLAGS "$SOURCE"'
    )
    source = binary
else:
    source = None
if source is not None:
    env.AddPlatformTarget(
        "upload", source, env.VerboseAction("$UPLOADCMD", "Uploading $SOURCE"), "Upload"
    )
elif "upload" in COMMAND_LINE_TARGETS:
    raise SystemExit(f"the stand-in platform cannot upload by {protocol}")

Default([elf, binary])
