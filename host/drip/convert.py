"""From a trained Keras model to a full-int8 ``.tflite`` with a head that exposes Grad-CAM.

The result has int8 inputs and outputs, batch 1, and the outputs ``logits`` and ``features`` in
that order; ``features`` is the last spatial tensor before the head, whose channels Grad-CAM
weighs: Selvaraju et al., Grad-CAM, arXiv:1610.02391.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import __version__
from drip.data import InputScaling
from drip.errors import DataError, ModelError
from drip.models.backend import keras, quiet_stderr, tensorflow
from drip.tflite_file import finish, read_metadata

__all__ = ["convert", "convert_file", "features_tensor", "read_metadata"]

METADATA_VERSION = 1
# Quantisation ranges settle long before this many frames.
_MAX_REPRESENTATIVE = 500
# Layers that change neither which channel nor which position a value belongs to.
_PASSING_LAYERS = ("Activation", "BatchNormalization", "Dropout", "ReLU", "Reshape", "Softmax")


def convert(
    model: Any,
    representative: NDArray[Any],
    *,
    scaling: InputScaling,
    classes: tuple[str, ...],
    metadata: dict[str, Any] | None = None,
) -> bytes:
    """Quantise a model to int8.

    A softmax at the end is left out: the output is always logits. A model without a spatial
    tensor (an autoencoder) gets the output ``logits`` alone.

    Args:
        model: A functional or sequential ``keras.Model`` with one input and one output.
        representative: Raw frames ``[N, ...]`` that show the range of every activation; 500 at
            most are used, evenly spaced.
        scaling: What the model was trained with.
        classes: Class names, stored with the model; not those of an autoencoder, which outputs
            a frame.
        metadata: More fields to store, such as ``data_digest`` and ``seed``.

    Returns:
        The ``.tflite``; same model and frames, same bytes.

    Raises:
        DataError: ``representative`` is empty or does not fit the model.
        ModelError: The model cannot be converted.
        MissingDependencyError: TensorFlow is not installed.
    """
    tf = tensorflow()
    input_shape = _check_input(model, representative, scaling)
    units = int(np.prod(model.outputs[0].shape[1:]))
    if units == int(np.prod(input_shape)) != len(classes):
        classes = ()
    if classes and units != len(classes):
        raise ModelError(
            f"the model has {units} outputs, there are {len(classes)} class names",
            "give one name per logit, or none for a model that does not classify",
        )
    count = min(len(representative), _MAX_REPRESENTATIVE)
    x = scaling.apply(representative[np.linspace(0, len(representative) - 1, count).astype(int)])
    fields = {
        "version": METADATA_VERSION,
        "classes": list(classes),
        "frame_shape": list(representative.shape[1:]),
        **scaling.to_json(),
        "versions": _versions(),
        **(metadata or {}),
    }
    json.dumps(fields)

    with _without_softmax(model) as logits:
        spatial = _features_or_none(logits)
        hidden = isinstance(_made_by(logits)[0], keras().Model)
        tensors = {"outputs" if hidden else "logits": logits} | (
            {} if spatial is None else {"features": spatial}
        )
        core = keras().Model(model.inputs, tensors)
        with tempfile.TemporaryDirectory(prefix="drip-convert-") as folder, quiet_stderr():
            try:
                _export(core, input_shape, folder)
                converter = tf.lite.TFLiteConverter.from_saved_model(
                    folder, signature_keys=["serve"]
                )
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(len(x)))
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = tf.int8
                converter.inference_output_type = tf.int8
                blob = converter.convert()
            except Exception as error:
                raise ModelError(
                    f"TensorFlow cannot convert this model: {_one_line(error)}",
                    "use layers that exist in TensorFlow Lite as int8; --debug shows all",
                ) from error
    return finish(bytes(blob), list(tensors), fields)


def convert_file(
    keras_path: str | os.PathLike[str],
    representative: NDArray[Any],
    *,
    scaling: InputScaling,
    classes: tuple[str, ...],
    metadata: dict[str, Any] | None = None,
    custom_objects: dict[str, Any] | None = None,
) -> bytes:
    """:func:`convert` for a ``.keras`` file.

    Args:
        keras_path: The file.
        representative: As for :func:`convert`; so are the rest but the last.
        scaling: See there.
        classes: See there.
        metadata: See there.
        custom_objects: Layers and functions of the user's own that the model is made of, by name.

    Raises:
        ModelError: The file is missing or is not a Keras model, or as :func:`convert`.
    """
    path = Path(keras_path)
    if not path.is_file():
        raise ModelError(f"no such file: {path}", "pass a .keras file")
    k = keras()
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path} is cut off, or no .keras file", "save it with model.save('name.keras')"
        )
    try:
        with quiet_stderr():
            model = k.models.load_model(
                path, compile=False, safe_mode=True, custom_objects=custom_objects
            )
    except Exception as error:
        missing = re.search(r"Could not locate \w+ '?([\w.>]+)", str(error))
        if missing:
            raise ModelError(
                f"{path.name} uses {missing[1]}, which is not part of Keras",
                "name the file that defines it: drip convert --model my.py:build",
            ) from error
        raise ModelError(
            f"{path.name} is not a readable Keras 3 model ({_one_line(error)})",
            "save it with model.save('name.keras')",
        ) from error
    return convert(model, representative, scaling=scaling, classes=classes, metadata=metadata)


def features_tensor(logits: Any) -> Any | None:
    """The last spatial tensor before the head of a Keras model, or None.

    Walks back from the logits over dense layers, activations, reshapes, pooling and convolution
    down to one position, to the first tensor ``[1, ..., channels]`` with a spatial axis that
    another layer made.

    Args:
        logits: Symbolic output of the model.

    Raises:
        ModelError: The head is hidden inside a nested model.
    """
    tensor = logits
    while True:
        operation, inputs = _made_by(tensor)
        if not inputs:
            return None
        if isinstance(operation, keras().Model) and len(tensor.shape) < 3:
            raise ModelError(
                f"the head is inside the nested model {operation.name}",
                "call its layers on the outer tensors, or convert the nested model itself",
            )
        if len(tensor.shape) >= 3:
            map_before = _before_one_position(tensor)
            return tensor if map_before is None else map_before
        if "Pooling" in type(operation).__name__:
            return inputs[0]
        tensor = inputs[0]
        # A join of several branches without spatial axes leaves no single map to look at.
        if len(inputs) > 1:
            return None


def _features_or_none(logits: Any) -> Any | None:
    """:func:`features_tensor`, None where the compiler has to find it in the ``.tflite``."""
    try:
        return features_tensor(logits)
    except ModelError:
        return None


def _made_by(tensor: Any) -> tuple[Any, list[Any]]:
    operation, node, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


def _before_one_position(tensor: Any) -> Any | None:
    """What pooling or a convolution of everything made a map of one position from, if it is one."""
    while _positions(tensor) == 1:
        operation, inputs = _made_by(tensor)
        if len(inputs) != 1:
            return None
        kind = type(operation).__name__
        if "Pooling" in kind:
            return inputs[0]
        # A convolution down to one position is a dense layer by another name.
        if "Conv" in kind and len(inputs[0].shape) == len(tensor.shape):
            if _positions(inputs[0]) > 1:
                return inputs[0]
        elif kind not in _PASSING_LAYERS:
            return None
        tensor = inputs[0]
    return None


def _positions(tensor: Any) -> int:
    return int(np.prod(tensor.shape[1:-1]))


def _check_input(
    model: Any, representative: NDArray[Any], scaling: InputScaling
) -> tuple[int, ...]:
    if not getattr(model, "built", False) or not hasattr(model, "inputs") or not model.inputs:
        raise ModelError(
            f"{type(model).__name__} is not a functional or built sequential model",
            "build it from keras.Input, so that its layers and shapes are known",
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            "one of each is supported; wrap it in keras.Model(input, logits)",
        )
    for layer in model._flatten_layers():
        # TensorFlow's converter does not refuse these in int8: it takes the process down.
        if isinstance(layer, keras().layers.RNN):
            raise ModelError(
                f"layer {layer.name} ({type(layer).__name__}) is recurrent",
                "use convolutions along time, as the builders conv1d and wakeword do",
            )
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ModelError(f"the model's input {list(shape)} is not fixed", "give every axis a size")
    if not len(representative):
        raise DataError("there are no representative frames", "pass at least one frame")
    if scaling.input_shape(tuple(representative.shape[1:])) != shape:
        raise DataError(
            f"frames are {list(representative.shape[1:])}, the model takes {list(shape)}",
            "pass frames of the stream the model was trained on",
        )
    return shape


@contextlib.contextmanager
def _without_softmax(model: Any) -> Iterator[Any]:
    """The symbolic logits; a softmax inside the last layer is off for the duration."""
    k = keras()
    logits = model.outputs[0]
    operation, node, _ = logits._keras_history
    activation = getattr(operation, "activation", None)
    if isinstance(operation, k.layers.Softmax) or (
        isinstance(operation, k.layers.Activation) and activation is k.activations.softmax
    ):
        yield operation._inbound_nodes[node].input_tensors[0]
    elif activation is k.activations.softmax:
        operation.activation = k.activations.linear
        try:
            yield logits
        finally:
            operation.activation = activation
    else:
        yield logits


def _export(core: Any, frame_shape: tuple[int, ...], folder: str) -> None:
    tf = tensorflow()
    archive = keras().export.ExportArchive()
    archive.track(core)
    serve: Callable[[Any], Any] = tf.function(
        lambda x: core(x, training=False),
        input_signature=[tf.TensorSpec((1, *frame_shape), tf.float32, name="frame")],
    )
    archive.add_endpoint("serve", serve)
    archive.write_out(folder, verbose=False)


def _versions() -> dict[str, str]:
    return {
        "drip": __version__,
        "keras": keras().__version__,
        "tensorflow": tensorflow().__version__,
    }


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]
