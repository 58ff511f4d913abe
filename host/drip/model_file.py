"""Reading of model files, with one message for each way in which they can be unusable.

Needs neither TensorFlow nor the compiled core.
"""

from __future__ import annotations

from pathlib import Path

from drip.errors import ModelError

__all__ = ["read_model"]


def read_model(path: Path, kind: str) -> bytes:
    """The content of a model file, after a look at whether it is one.

    Args:
        path: The file.
        kind: What it should be: ``".drip"`` or ``".tflite"``.

    Raises:
        ModelError: It cannot be read, is damaged or something else.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"no such file: {path}", f"pass a {kind} file") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path} is a folder, not a file", f"pass a {kind} file") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", f"pass a {kind} file") from error
    try:
        if kind == ".drip":
            from drip.compile.blob import unpack_blob

            unpack_blob(content)
        else:
            from drip.compile.graph import read_graph

            read_graph(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", error.hint) from error
    return content
