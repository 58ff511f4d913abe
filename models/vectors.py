"""Test vectors of a model: frames, and what every target must compute from them.

The checksums of tensors come from tflite-micro, so they do not depend on the compiler or on the
layout of a blob; those of Grad-CAM and scores come from the core. models/README.md gives the
format.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.compile.graph import read_graph
from drip.core import Model
from drip.oracle import Oracle
from drip.wire import ScoreKind

VERSION = 1
_REPEATABLE = (
    ScoreKind.CAM_EVIDENCE,
    ScoreKind.CAM_CONTRAST,
    ScoreKind.MARGIN,
    ScoreKind.MAX_LOGIT,
)


def make_vectors(tflite: bytes, blob: bytes, frames: NDArray[Any]) -> dict[str, Any]:
    """Vectors of a model.

    Args:
        tflite: Content of the ``.tflite``.
        blob: The same, compiled.
        frames: Raw frames ``[N, ...]``.
    """
    graph = read_graph(tflite)
    oracle, model = Oracle(tflite, graph), Model(blob)
    made = [i for node in graph.nodes for i in node.outputs if graph.tensors[i].dtype == "int8"]
    vectors = []
    for frame in frames:
        x = model.quantise(frame)
        oracle.run(x)
        vectors.append(
            {
                "frame": base64.b64encode(frame.tobytes()).decode(),
                "input": _crc(x),
                "tensors": {str(i): _crc(oracle.tensor(i)) for i in made},
                **_judged(model, frame),
            }
        )
    return {
        "version": VERSION,
        "tflite_sha256": hashlib.sha256(tflite).hexdigest(),
        "frame_dtype": frames.dtype.name,
        "frame_shape": list(frames.shape[1:]),
        "tensors": {str(i): graph.tensors[i].name for i in made},
        "vectors": vectors,
    }


def differences(expected: dict[str, Any], blob: bytes) -> list[str]:
    """What a blob computes in the core on this machine that the vectors say otherwise.

    Args:
        expected: What :func:`make_vectors` returned.
        blob: The model, compiled.
    """
    model = Model(blob)
    index = [str(t["index"]) for t in model.meta["tensors"]]
    found = []
    if model.header.source_sha256.hex() != expected["tflite_sha256"]:
        found.append("the blob was compiled from another .tflite")
    for n, vector in enumerate(expected["vectors"]):
        raw = np.frombuffer(base64.b64decode(vector["frame"]), expected["frame_dtype"])
        frame = raw.reshape(expected["frame_shape"])
        if _crc(model.quantise(frame)) != vector["input"]:
            found.append(f"frame {n}: input")
        for number, content in model.tensors(frame, quantised=False):
            if _crc(content) != vector["tensors"][index[number]]:
                found.append(f"frame {n}: tensor {expected['tensors'][index[number]]}")
        judged = _judged(model, frame)
        found += [f"frame {n}: {key}" for key in judged if judged[key] != vector[key]]
    return found


def _judged(model: Model, frame: NDArray[Any]) -> dict[str, Any]:
    if model.header.class_count < 2:
        return {}
    kinds = [kind for kind in _REPEATABLE if model.has_cam or "CAM" not in kind.name]
    scores = {kind.name.lower(): model.score(frame, kind) for kind in kinds}
    first = scores["margin"]
    judged: dict[str, Any] = {
        "classes": [first.class_1, first.class_2],
        "logits": [first.logit_1, first.logit_2],
        "scores": {name: score.raw for name, score in scores.items()},
    }
    if model.has_cam:
        units, total = model.cam_units(frame)
        judged["cam"] = {"crc": _crc(units.astype("<i4")), "sum": total}
    return judged


def _crc(content: NDArray[Any]) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(content).tobytes()):08x}"
