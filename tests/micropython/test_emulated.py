"""The native module on emulated processors: the shared vectors, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mpy_boards import CORTEX_M4F, RV32, board_files, emulate

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits"
VECTORS = json.loads((DIGITS / "vectors.json").read_text())["vectors"]

BOARDS = {
    "cortex-m4f": (CORTEX_M4F, "armv7emsp"),
    "cortex-m4f-as-m3": (CORTEX_M4F, "armv7m"),
    "cortex-m4f-as-m0": (CORTEX_M4F, "armv6m"),
    "rv32": (RV32, "rv32imc"),
}

_SCORE = """
import binascii, json, drip
scorer = drip.Scorer("/rom/model.drip")
out = []
for text in json.loads({frames!r}):
    r = scorer.score(binascii.a2b_base64(text))
    row = [r.raw, r.class_1, r.class_2, r.logit_1, r.logit_2]
    out.append([row, binascii.crc32(scorer.cam()), r.label])
print(json.dumps([drip.native.__name__, out]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_the_shared_vectors_bit_for_bit(name, tmp_path):
    machine, arch = BOARDS[name]
    model = (DIGITS / "model.drip").read_bytes()
    image = board_files(tmp_path / "board", arch, {"model.drip": model})
    with emulate(machine, image, tmp_path) as board:
        frames = json.dumps([vector["frame"] for vector in VECTORS])
        loaded, rows = json.loads(board.repl.run(_SCORE.format(frames=frames)))
    assert loaded == f"drip.native_{arch}"
    assert len(rows) == len(VECTORS)
    for (row, crc, label), vector in zip(rows, VECTORS, strict=True):
        assert row == [vector["scores"]["cam_evidence"], *vector["classes"], *vector["logits"]]
        assert crc == int(vector["cam"]["crc"], 16)
        assert label == str(vector["classes"][0])
