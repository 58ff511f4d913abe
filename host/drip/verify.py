"""Bit-exactness: every intermediate tensor of the C core against the tflite-micro interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.compile.blob import unpack_blob
from drip.compile.graph import Graph, read_graph
from drip.core import Model
from drip.errors import ModelError, VerifyError
from drip.oracle import Oracle


@dataclass(frozen=True)
class TensorReport:
    """How one tensor compares.

    Attributes:
        name: As in the ``.tflite``.
        index: Tensor in the ``.tflite``.
        shape: Height, width, channels.
        compared: Bytes compared over all inputs.
        mismatches: Bytes that differ.
        largest: Largest absolute difference.
    """

    name: str
    index: int
    shape: tuple[int, int, int]
    compared: int
    mismatches: int
    largest: int


@dataclass(frozen=True)
class VerifyReport:
    """Result of :func:`verify`.

    Attributes:
        inputs: Inputs run, random and real.
        random_inputs: Of these, random ones.
        seed: Of the random inputs.
        tensors: In execution order.
        fused: Names of tensors that the compiled model does not have (padding and dilation that
            became part of a convolution, conversions at the border).
    """

    inputs: int
    random_inputs: int
    seed: int
    tensors: tuple[TensorReport, ...]
    fused: tuple[str, ...]

    @property
    def mismatches(self) -> int:
        """Bytes that differ, in all tensors."""
        return sum(t.mismatches for t in self.tensors)

    @property
    def compared(self) -> int:
        """Bytes compared."""
        return sum(t.compared for t in self.tensors)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "inputs": self.inputs,
            "random_inputs": self.random_inputs,
            "seed": self.seed,
            "compared": self.compared,
            "mismatches": self.mismatches,
            "tensors": [vars(t) | {"shape": list(t.shape)} for t in self.tensors],
            "fused": list(self.fused),
        }


def verify(
    tflite: bytes,
    *,
    blob: bytes | None = None,
    inputs: int = 1000,
    seed: int = 0,
    real: NDArray[Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Run both engines on the same inputs and compare every tensor.

    Args:
        tflite: Content of the ``.tflite``.
        blob: What it was compiled to; None compiles it.
        inputs: Random int8 inputs, uniform over all values.
        seed: Of the random inputs.
        real: Raw frames to run as well, ``[N, *frame_shape]``.
        on_progress: Called with ``(inputs done, inputs)``.

    Raises:
        ModelError: The model cannot be compiled or the interpreter refuses it.
        VerifyError: The blob was not compiled from this ``.tflite``.
        MissingDependencyError: tflite-micro or the compiled core is not installed.
    """
    graph = read_graph(tflite)
    oracle = Oracle(tflite, graph)
    model = Model(_compile(tflite) if blob is None else blob)
    _check_source(model, tflite)
    names = [(int(t["index"]), str(t["name"])) for t in model.meta["tensors"]]
    tally = {n: [0, 0, 0] for n in range(len(names))}
    order: dict[int, None] = {}
    total = inputs + (0 if real is None else len(real))
    for done, x in enumerate(_inputs(model, inputs, seed, real)):
        oracle.run(x)
        for n, content in model.tensors(x):
            order[n] = None
            _compare(content, oracle.tensor(names[n][0]), tally[n])
        if on_progress is not None:
            on_progress(done + 1, total)
    reports = tuple(
        TensorReport(names[n][1], names[n][0], model.tensor_shape(n), *tally[n]) for n in order
    )
    return VerifyReport(total, inputs, seed, reports, _fused(graph, {i for i, _ in names}))


def _compile(tflite: bytes) -> bytes:
    from drip.compile import compile_model

    try:
        return compile_model(tflite)
    except ModelError:
        # The arithmetic does not depend on whether there is a Grad-CAM head.
        return compile_model(tflite, cam=False)


def _check_source(model: Model, tflite: bytes) -> None:
    import hashlib

    if unpack_blob(model.blob).header.source_sha256 != hashlib.sha256(tflite).digest():
        raise VerifyError(
            "the .drip was not compiled from this .tflite", "compile it again, then verify"
        )


def _inputs(
    model: Model, count: int, seed: int, real: NDArray[Any] | None
) -> Iterator[NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.integers(-128, 128, model.input_shape, np.int8)
    for frame in () if real is None else real:
        yield model.quantise(np.ascontiguousarray(frame))


def _compare(ours: NDArray[np.int8], theirs: NDArray[np.int8], tally: list[int]) -> None:
    a, b = ours.reshape(-1).astype(np.int16), theirs.reshape(-1).astype(np.int16)
    tally[0] += a.size
    if a.size != b.size:
        tally[1] += a.size
        return
    difference = np.abs(a - b)
    tally[1] += int(np.count_nonzero(difference))
    tally[2] = max(tally[2], int(difference.max(initial=0)))


def _fused(graph: Graph, compared: set[int]) -> tuple[str, ...]:
    made = [i for node in graph.nodes for i in node.outputs]
    return tuple(graph.tensors[i].name for i in made if i not in compared)
