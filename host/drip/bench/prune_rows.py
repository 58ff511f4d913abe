"""Rows of the pruning benchmark: where they come from, and a file that survives a crash."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from drip import __version__
from drip.errors import DataError

__all__ = ["append", "load_rows", "provenance"]


def provenance(trainer: str, digest: str) -> dict[str, Any]:
    """Where a row comes from."""
    import keras

    versions = {
        "drip": __version__, "python": platform.python_version(), "numpy": np.__version__,
        "keras": keras.__version__,
    }  # fmt: skip
    backend = keras.backend.backend()
    device = platform.processor() or platform.machine()
    if backend == "jax":
        import jax

        versions["jax"] = jax.__version__
        device = str(jax.devices()[0].device_kind)
    elif backend == "tensorflow":
        import tensorflow as tf

        versions["tensorflow"] = tf.__version__
    return {
        "data_digest": digest,
        "trainer": trainer,
        "backend": backend,
        "device": device,
        "versions": versions,
        "commit": _commit(),
    }


@functools.cache
def _commit() -> str:
    told = os.environ.get("DRIP_COMMIT")
    if told:
        return told
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file; a last line that was cut short is left out.

    Raises:
        DataError: Another line is not a row.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line)) if line else None
        except ValueError as error:
            if number < len(lines) - 1:
                raise DataError(f"{path}: line {number + 1} is not JSON", "remove it") from error
    return rows


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one row; what a crash has left unfinished before it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(json.dumps(row).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
