"""Part of every PlatformIO build of an STM32F4 board: what changes after the platform's own script.

A build without a framework leaves the FPU out of the link and asks for C++.
"""

Import("env")  # type: ignore[name-defined]  # noqa: F821  (SCons)
env = env  # type: ignore[name-defined]  # noqa: F821

env.Append(LINKFLAGS=["-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-nostartfiles"])
env.Append(LINKFLAGS=["-L" + env.subst("$PROJECT_DIR/firmware/ports/stm32f4")])
env.Append(LINKFLAGS=["-Wl,-Map=" + env.subst("$BUILD_DIR/firmware.map")])
env.Append(LINKFLAGS=["-Wl,--no-warn-rwx-segments"])
env.Replace(LIBS=[library for library in env.get("LIBS", []) if library != "stdc++"])
