"""In place of ESP-IDF: the stubs that the port's compile check uses.

The registry's framework builds firmware/CMakeLists.txt with ESP-IDF; here the same files are named.
"""

from SCons.Script import DefaultEnvironment

env = DefaultEnvironment()
mcu = env.BoardConfig().get("build.mcu").upper()
env.Append(
    CPPPATH=[f"$PROJECT_DIR/{path}" for path in ("tests/ports/esp32_stubs", "firmware/drivers")],
    CPPDEFINES=[(f"CONFIG_IDF_TARGET_{mcu}", 1)],
)
env.Replace(
    SRC_FILTER=["-<*>", "+<core/src/>", "+<ports/esp32/>", "+<drivers/imu.c>", "+<drivers/mic.c>"]
)
