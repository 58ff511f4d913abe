"""The one place that imports TensorFlow and Keras: late, quiet, repeatable, with few threads."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from drip.errors import MissingDependencyError, UsageError, install_hint

_HINT = f"{install_hint('train')}; TensorFlow has wheels for Python 3.10 to 3.13 only"


def tensorflow() -> ModuleType:
    """TensorFlow, with deterministic operations and capped threads.

    ``TF_NUM_INTRAOP_THREADS`` and ``TF_NUM_INTEROP_THREADS`` override the caps (at most 4 and 2).

    Raises:
        MissingDependencyError: TensorFlow is not installed for this interpreter.
    """
    return _load()[0]


def keras() -> ModuleType:
    """Keras 3 on TensorFlow; see :func:`tensorflow`."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ModuleType, ModuleType]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with quiet_stderr():
            import keras as keras_module
            import tensorflow as tf
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise MissingDependencyError(
            f"TensorFlow cannot be imported in Python {version} ({error})", _HINT
        ) from error
    if keras_module.backend.backend() != "tensorflow":
        raise UsageError(
            f"Keras already runs on {keras_module.backend.backend()}",
            "set KERAS_BACKEND=tensorflow before anything imports keras",
        )
    # More threads than cores make small nets 3-4x slower, so the caps stay low.
    cores = os.cpu_count() or 1
    intra = int(os.environ.get("TF_NUM_INTRAOP_THREADS", min(cores, 4)))
    inter = int(os.environ.get("TF_NUM_INTEROP_THREADS", min(cores, 2)))
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra)
        tf.config.threading.set_inter_op_parallelism_threads(inter)
    except RuntimeError:
        # The user's own program has already started TensorFlow with its own settings.
        pass
    tf.config.experimental.enable_op_determinism()
    tf.get_logger().setLevel("ERROR")
    return tf, keras_module


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Swallow what TensorFlow's C++ side writes straight to file descriptor 2."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
