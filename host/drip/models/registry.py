"""Names of the built-in builders, and loading of a user's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from drip.errors import ModelError
from drip.models.cnn import cnn, flatten_cnn, hidden_cnn
from drip.models.conv1d import conv1d
from drip.models.dense import autoencoder
from drip.models.ds_cnn import ds_cnn
from drip.models.mobilenet import mobilenet
from drip.models.resnet import resnet8
from drip.models.wakeword import wakeword

Builder = Callable[[tuple[int, ...], int], Any]
"""From the shape of one frame and the number of classes to an untrained ``keras.Model``."""

BUILDERS: dict[str, Builder] = {
    "cnn": cnn,
    "cnn-hidden": hidden_cnn,
    "cnn-flatten": flatten_cnn,
    "conv1d": conv1d,
    "ds-cnn": ds_cnn,
    "mobilenet": mobilenet,
    "resnet8": resnet8,
    "wakeword": wakeword,
    "autoencoder": autoencoder,
}


def load_builder(spec: str) -> Builder:
    """Find a builder by name, or in a Python file.

    Args:
        spec: A key of :data:`BUILDERS` such as ``"cnn"``, or ``"path/my.py:function"``. The file
            is executed: pass only files you trust.

    Raises:
        ModelError: No such name, file or function, or the file does not run.
    """
    if spec in BUILDERS:
        return BUILDERS[spec]
    path, colon, name = spec.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ModelError(
            f"no model builder named {spec}",
            f"use one of {', '.join(BUILDERS)}, or my.py:function",
        )
    if not Path(path).is_file():
        raise ModelError(f"no such file: {path}", "give the path of a Python file")
    module_spec = importlib.util.spec_from_file_location(f"drip_user_{Path(path).stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(
            f"{path} does not run: {type(error).__name__}: {error}".splitlines()[0],
            "run it with python to see the whole error",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ModelError(f"{path} has no function {name}", "define def build(input_shape, classes)")
    return cast(Builder, function)


def custom_objects(spec: str) -> dict[str, Any]:
    """Classes and functions of a user's file, for Keras to find when it loads a model.

    Args:
        spec: As for :func:`load_builder`.

    Raises:
        ModelError: As :func:`load_builder`.
    """
    module = getattr(load_builder(spec), "__globals__", {})
    return {name: thing for name, thing in module.items() if callable(thing)}
