"""The native module on emulated processors: the shared vectors, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from interpreters import HOW, build, module
from raw_repl import RawRepl, package_files

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits"
VECTORS = json.loads((DIGITS / "vectors.json").read_text())["vectors"]

# Architecture of the module, QEMU, its machine, and the board of the interpreter.
BOARDS = {
    "cortex-m4f": ("armv7emsp", "qemu-system-arm", "mps2-an386", "mps2_an386", ()),
    "cortex-m4f-as-m3": ("armv7m", "qemu-system-arm", "mps2-an386", "mps2_an386", ()),
    "cortex-m4f-as-m0": ("armv6m", "qemu-system-arm", "mps2-an386", "mps2_an386", ()),
    "rv32": ("rv32imc", "qemu-system-riscv32", "virt", "virt_rv32", ("-bios", "none")),
}

_SCORE = """
import json, drip
scorer = drip.Scorer(files["model.drip"])
out = []
for text in json.loads({frames!r}):
    r = scorer.score(binascii.a2b_base64(text))
    row = [r.raw, r.class_1, r.class_2, r.logit_1, r.logit_2]
    out.append([row, binascii.crc32(scorer.cam()), r.label])
print(json.dumps([drip.native.__name__, out]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_the_shared_vectors_bit_for_bit(name):
    arch, emulator, machine, board, extra = BOARDS[name]
    image = build.BUILD / board / "firmware.elf"
    if not image.is_file():
        pytest.skip(f"no MicroPython for {machine}: {HOW} {board}")
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is missing: apt install qemu-system-arm qemu-system-misc")
    command = [emulator, "-machine", machine, *extra, "-display", "none", "-monitor", "none"]
    command += ["-semihosting", "-serial", "stdio", "-kernel", str(image)]
    repl = RawRepl(command)
    try:
        files = package_files(ROOT / "firmware" / "micropython" / "drip", module(arch))
        files["model.drip"] = (DIGITS / "model.drip").read_bytes()
        repl.put(files)
        frames = json.dumps([vector["frame"] for vector in VECTORS])
        loaded, rows = json.loads(repl.run(_SCORE.format(frames=frames)))
    finally:
        repl.close()
    assert loaded == f"drip.native_{arch}"
    assert len(rows) == len(VECTORS)
    for (row, crc, label), vector in zip(rows, VECTORS, strict=True):
        assert row == [vector["scores"]["cam_evidence"], *vector["classes"], *vector["logits"]]
        assert crc == int(vector["cam"]["crc"], 16)
        assert label == str(vector["classes"][0])
