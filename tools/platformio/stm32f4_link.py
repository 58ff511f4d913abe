"""Part of every PlatformIO build of an STM32F4 board: what changes after the platform's own script.

A build without a framework leaves the FPU out of the link and asks for C++.
"""

import os
import subprocess
import sys
from pathlib import Path

Import("env")  # type: ignore[name-defined]  # noqa: F821  (SCons)
env = env  # type: ignore[name-defined]  # noqa: F821

env.Append(LINKFLAGS=["-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-nostartfiles"])
env.Append(LINKFLAGS=["-L" + env.subst("$PROJECT_DIR/firmware/ports/stm32f4")])
env.Append(LINKFLAGS=["-Wl,-Map=" + env.subst("$BUILD_DIR/firmware.map")])
env.Append(LINKFLAGS=["-Wl,--no-warn-rwx-segments"])
env.Replace(LIBS=[library for library in env.get("LIBS", []) if library != "stdc++"])


def check_image(source, target, env):
    """Refuse an image whose model needs more arena, or longer frames, than it has."""
    command = [sys.executable, env.subst("$PROJECT_DIR/tools/platformio/image.py")]
    command += ["--check-model", env["MODEL_TO_CHECK"], env.subst("$PIOENV")]
    if subprocess.run(command, env={**os.environ, **env["ENV"]}, check=False).returncode != 0:
        Path(str(target[0])).unlink()
        return 1
    return 0


# Only here: before the platform's script has run, the image has no rule to add an action to.
if "MODEL_TO_CHECK" in env:
    env.AddPostAction("$BUILD_DIR/firmware.elf", check_image)
