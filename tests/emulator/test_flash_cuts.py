"""Power cuts while a model is pushed to the board's own image: a model always boots afterwards."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import boards
import pytest

from drip import wire
from drip.compile import compile_model
from drip.deploy import deploy
from drip.device import Kind, connect
from drip.errors import DripError

STATUS_CUT = 99


def model_id(blob: bytes) -> bytes:
    return wire.BlobHeader.unpack(blob).model_id


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_power_cuts_while_a_model_is_pushed(tmp_path: Path) -> None:
    boards.needs(Kind.QEMU)
    tflite = (boards.ROOT / "models" / "digits" / "model.tflite").read_bytes()
    old, new = (compile_model(tflite, parent=parent) for parent in ("01", "02"))
    before = tmp_path / "before.bin"
    with boards.in_qemu(flash=before) as board, connect(board.url) as client:
        deploy(client, old)
    flash = tmp_path / "flash.bin"
    shutil.copy(before, flash)
    with boards.in_qemu(flash=flash) as board, connect(board.url) as client:
        start = board.counters.flash_operations
        deploy(client, new)
        end = board.counters.flash_operations
    # All of the first and last operations (erase, journal), and some of the many in between.
    middle = random.Random(4).sample(range(start + 20, end - 60), 20)
    wrong = []
    for cut in [*range(start + 1, start + 8), *sorted(middle), *range(end - 30, end + 1)]:
        shutil.copy(before, flash)
        with boards.in_qemu({"flashcut": cut}, flash=flash) as board:
            with contextlib.suppress(DripError), connect(board.url, timeout_s=2.0) as client:
                deploy(client, new)
            assert board.wait(10) == STATUS_CUT
        with boards.in_qemu(flash=flash) as board, connect(board.url) as client:
            if client.device.model_id not in (model_id(old), model_id(new)):
                wrong.append(f"operation {cut}: {client.device.model_id.hex()} boots")
            deploy(client, new)
            if client.hello().model_id != model_id(new):
                wrong.append(f"operation {cut}: the model cannot be pushed any more")
    assert wrong == [], f"of {start + 1} to {end}"
