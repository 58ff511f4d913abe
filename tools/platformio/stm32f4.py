"""Part of every PlatformIO build of an STM32F4 board: the model, and what is small or fast.

The model is a blob file: ``custom_model`` in platformio.ini, or DRIP_MODEL in the environment.
Whether it fits is said by the linker (flash) and by ``image.py`` (arena and frame), which
``stm32f4_link.py`` calls.
"""

import os
import struct
from pathlib import Path

Import("env")  # type: ignore[name-defined]  # noqa: F821  (SCons)
env = env  # type: ignore[name-defined]  # noqa: F821

ROOT = Path(env.subst("$PROJECT_DIR"))
# Of the blob: docs/SPEC.md.
SECTION_COUNT_AT, CAM_HEAD_AT, OPS, FRONTEND, HIDDEN_HEAD = 28, 82, 2, 10, 2
OP_BYTES, LAYOUT_AT, WINDOWED, PLAIN = 96, 82, (1, 2), 0
# Speed counts where every weight of a model or every byte of the line passes. The rest is small.
SMALL = ["-Os", "-fno-thread-jumps", "-fno-schedule-insns2"]
SMALL += ["-fno-move-loop-invariants", "-fno-tree-loop-im", "-fno-optimize-sibling-calls"]
SMALL += ["-fno-ssa-phiopt", "-fno-tree-tail-merge", "-fno-tree-dominator-opts"]
SMALL += ["-fno-if-conversion", "-fno-caller-saves"]
FAST = ("_dsp.c", "/bytes.c", "/cam_map.c", "/spi.c", "/uart.c", "/memory.c")


def refuse(message, hint):
    """End the build with one line and a hint."""
    print(f"error: {message}\nhint: {hint}")
    env.Exit(1)


def choose_speed(env, node):
    """Compile what is not in FAST small: no code twice to save a jump or a stall."""
    if any(part in node.srcnode().get_path().replace("\\", "/") for part in FAST):
        return node
    return env.Object(node, CCFLAGS=[*env["CCFLAGS"], *SMALL])


def read_option(name, default):
    """An option of platformio.ini; DRIP_NAME in the environment goes before it."""
    return os.environ.get("DRIP_" + name.upper(), env.GetProjectOption("custom_" + name, default))


def sections_of(content):
    """Kind, offset and size of the sections of a blob."""
    (count,) = struct.unpack_from("<H", content, SECTION_COUNT_AT)
    entries = [struct.unpack_from("<HHIII", content, 128 + 16 * n) for n in range(count)]
    return [(kind, offset, size) for kind, _, offset, size, _ in entries]


def has_plain(content):
    """Whether a convolution of the blob has weights in the plain layout."""
    for kind, offset, size in sections_of(content):
        for at in range(offset, offset + size if kind == OPS else offset, OP_BYTES):
            (layout,) = struct.unpack_from("<H", content, at + LAYOUT_AT)
            if content[at] in WINDOWED and layout == PLAIN:
                return True
    return False


def add_model(model):
    """Let model.S embed the blob, and compile it again when the blob changes."""
    if not model.is_file():
        refuse(f"there is no model {model}", "make one: drip compile MODEL.tflite")
    header = model.read_bytes()[:128]
    if header[:4] != b"DRIP" or len(header) < 128:
        refuse(f"{model} is no compiled model", "make one: drip compile MODEL.tflite")
    env.Append(CPPDEFINES=[("DRIP_MODEL_FILE", f'\\"{model}\\"')])
    env.Depends(env.subst("$BUILD_SRC_DIR/ports/stm32f4/model.o"), str(model))
    if read_option("operators", "all") == "model":
        (operators,) = struct.unpack_from("<Q", header, 16)
        env.Append(CPPDEFINES=[("DRIP_OPS", f"{operators}ull")])
        (head,) = struct.unpack_from("<H", header, CAM_HEAD_AT)
        env.Append(CPPDEFINES=[("DRIP_HIDDEN_HEADS", int(head == HIDDEN_HEAD))])
        env.Append(CPPDEFINES=[("DRIP_PLAIN_WEIGHTS", int(has_plain(model.read_bytes())))])


def hears(model):
    """Whether a blob has a front-end."""
    return FRONTEND in [kind for kind, _, _ in sections_of(model.read_bytes())]


env.AddBuildMiddleware(choose_speed, "*.c")
chosen = read_option("model", "")
if chosen:
    model = (ROOT / chosen).resolve()
    add_model(model)
    env["MODEL_TO_CHECK"] = str(model)
# These boards have no microphone: 2 KiB less where the image has no model that hears.
if not chosen or not hears(model):
    env.Append(CPPDEFINES=[("DRIP_FRONTEND", 0)])
