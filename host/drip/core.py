"""The C core, in Python: the very code that runs on a device, for tests, simulation, calibration.

The compiled extension is imported only when something here is used; it refuses to work with a
schema other than the one it was compiled from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.errors import DataError, MissingDependencyError, ModelError, UsageError
from drip.wire import Err, ScoreKind

_DTYPES = {wire.Dtype.U8: "uint8", wire.Dtype.I8: "int8", wire.Dtype.I16: "int16"}
_WHOLE_OPERATOR = 0xFFFFFFFF
_NO_TENSOR = 65535
_REASONS = {
    Err.SHORT: "it is truncated",
    Err.MAGIC: "it is not a .drip model blob",
    Err.VERSION: "it has another version of the format",
    Err.CRC: "its checksum does not match",
    Err.CORRUPT: "its structure contradicts itself",
    Err.UNSUPPORTED: "it needs an operator that this core lacks",
    Err.SIGNATURE: "it is signed, which is not supported yet",
    Err.SELFTEST: "it does not reproduce its golden outputs",
    Err.NO_CAM: "it has no Grad-CAM head",
}


@functools.cache
def library() -> tuple[Any, Any]:
    """The extension's ``ffi`` and ``lib``.

    Raises:
        MissingDependencyError: It is not installed, or was compiled from another schema.
    """
    try:
        from drip import _core  # type: ignore[attr-defined, unused-ignore]
    except ImportError as error:
        raise MissingDependencyError(
            f"the compiled C core cannot be loaded ({str(error).splitlines()[0]})",
            "in a checkout of DRIP make setup compiles it, as does: pip install .",
        ) from error
    if _core.lib.drip_wire_schema_hash() != wire.SCHEMA_HASH:
        raise MissingDependencyError(
            "the compiled C core is older than this Python code", "install again: make setup"
        )
    return _core.ffi, _core.lib


def op_bitmap() -> int:
    """Bit n is set when the core can run operator n (``wire.Op``)."""
    return int(library()[1].drip_nn_op_bitmap())


@dataclass(frozen=True)
class Score:
    """What the core thinks of one frame.

    Attributes:
        raw: Higher = more important; the unit depends on the kind of score.
        percentile: Against calibration, 0..65535; 65535 when not calibrated for the kind.
        class_1: Predicted class.
        class_2: Runner-up.
        logit_1: int8 logit of ``class_1``.
        logit_2: int8 logit of ``class_2``.
    """

    raw: int
    percentile: int
    class_1: int
    class_2: int
    logit_1: int
    logit_2: int


@dataclass(frozen=True)
class Scores:
    """Scores of many frames; arrays ``[N]`` with the meaning of :class:`Score`."""

    raw: NDArray[np.int32]
    percentile: NDArray[np.uint16]
    class_1: NDArray[np.uint16]
    class_2: NDArray[np.uint16]
    logit_1: NDArray[np.int16]
    logit_2: NDArray[np.int16]


def aligned(size: int) -> tuple[Any, Any]:
    """Zeroed memory for the core: what keeps it alive, and an address that is a multiple of 16."""
    ffi, _ = library()
    owner = ffi.new("uint8_t[]", size + 15)
    return owner, owner + -int(ffi.cast("uintptr_t", owner)) % 16


class Model:
    """A compiled model in the C core.

    Args:
        blob: Content of a ``.drip`` file.

    Raises:
        ModelError: The core refuses the blob.
        MissingDependencyError: The compiled core is not installed.
    """

    def __init__(self, blob: bytes) -> None:
        ffi, lib = self._ffi, self._lib = library()
        self.blob = bytes(blob)
        self._blob_owner, self._blob_at = aligned(len(blob))
        ffi.memmove(self._blob_at, self.blob, len(blob))
        self._nn = ffi.new("drip_nn_t *")
        self._check(lib.drip_nn_open(self._nn, self._blob_at, len(blob)))
        header = self._nn.header
        self._arena_owner, arena = aligned(header.arena_bytes)
        self._check(lib.drip_nn_bind(self._nn, arena, header.arena_bytes))
        self._frame = ffi.new("drip_frame_t *")
        self._scorers: dict[tuple[ScoreKind, int], tuple[Any, Any]] = {}
        self._cam: tuple[Any, Any] | None = None

    def _check(self, code: int) -> int:
        if code < 0:
            reason = _REASONS.get(Err(code), f"error {Err(code).name}")
            raise ModelError(f"the core refuses the model: {reason}", "compile it again")
        return code

    # ------------------------------------------------------------ what it is

    @functools.cached_property
    def header(self) -> wire.BlobHeader:
        """The blob's header."""
        return wire.BlobHeader.unpack(self.blob)

    @property
    def model_id(self) -> bytes:
        """Identity of the blob, 16 bytes."""
        return self.header.model_id

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        from drip.compile.blob import unpack_blob

        return unpack_blob(self.blob).classes()

    @functools.cached_property
    def meta(self) -> dict[str, Any]:
        """The blob's META section."""
        from drip.compile.blob import unpack_blob

        return unpack_blob(self.blob).meta()

    @functools.cached_property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a raw frame."""
        desc = self._nn.input.desc
        return tuple(int(desc.shape[i]) for i in range(desc.rank))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one int8 input: the frame's, or of the features that a front-end makes."""
        mels = int(self._nn.frontend.desc.mels)
        if self._nn.frontend.desc.fft == 0:
            return self.frame_shape
        return self._nn.input.elements // mels, mels

    @property
    def frame_dtype(self) -> np.dtype[Any]:
        """Element type of a raw frame."""
        return np.dtype(_DTYPES[wire.Dtype(self._nn.input.desc.dtype)])

    @property
    def arena_bytes(self) -> int:
        """Working memory of the network."""
        return int(self._nn.header.arena_bytes)

    @property
    def has_cam(self) -> bool:
        """Whether it has a Grad-CAM head."""
        return int(self._nn.header.cam_head) != wire.CamHead.NONE

    @property
    def default_score(self) -> ScoreKind:
        """The score that is used when none is named."""
        return ScoreKind.CAM_EVIDENCE if self.has_cam else ScoreKind.MARGIN

    @property
    def tensor_count(self) -> int:
        """Tensors of the blob."""
        return int(self._nn.tensor_count)

    def tensor_shape(self, tensor: int) -> tuple[int, int, int]:
        """Height, width, channels."""
        desc = self._nn.tensors[tensor]
        return int(desc.h), int(desc.w), int(desc.c)

    # ------------------------------------------------------------ inference

    def quantise(self, frame: NDArray[Any]) -> NDArray[np.int8]:
        """The int8 input that a raw frame becomes on the device.

        Args:
            frame: One frame as captured, of ``frame_shape`` and ``frame_dtype``.

        Raises:
            DataError: The frame does not fit the model.
        """
        self._load(frame, False)
        return self._copy(self.header.input_tensor).reshape(self.input_shape)

    def run(
        self, frames: NDArray[Any], *, quantised: bool = False
    ) -> tuple[NDArray[np.int8], NDArray[np.int8] | None]:
        """Infer.

        Args:
            frames: Raw frames ``[N, *frame_shape]``, or int8 inputs when ``quantised``.
            quantised: Frames are int8 inputs already.

        Returns:
            int8 logits ``[N, classes]`` and features ``[N, h, w, channels]`` (None without a head).

        Raises:
            DataError: The frames do not fit the model.
        """
        logits, features = [], []
        with_features = self.header.features_tensor != _NO_TENSOR
        for frame in self._each(frames, quantised):
            self._infer(frame, quantised)
            logits.append(self._copy(self.header.logits_tensor).reshape(-1))
            if with_features:
                features.append(self._copy(self.header.features_tensor))
        width = self._nn.tensors[self.header.logits_tensor].size
        stacked = np.array(logits, np.int8).reshape(len(logits), width)
        if not with_features:
            return stacked, None
        shape = self.tensor_shape(self.header.features_tensor)
        return stacked, np.array(features, np.int8).reshape(len(features), *shape)

    def tensors(
        self, frame: NDArray[Any], *, quantised: bool = True
    ) -> Iterator[tuple[int, NDArray[np.int8]]]:
        """Infer operator by operator.

        Args:
            frame: One int8 input, or a raw frame when not ``quantised``.
            quantised: The frame is an int8 input already.

        Yields:
            Tensor number and content ``[h, w, c]`` as the operator that wrote it left it.
        """
        self._load(frame, quantised)
        self._check(self._lib.drip_nn_begin(self._nn))
        ops = self._nn.ops
        # The pieces of a CONCATENATION write one tensor: it is complete after the last of them.
        complete = {int(ops[n].out): n for n in range(self._nn.op_count)}
        more = 1
        while more:
            n = int(self._nn.op)
            out = int(ops[n].out)
            more = self._check(self._lib.drip_nn_step(self._nn, _WHOLE_OPERATOR))
            if complete[out] == n:
                yield out, self._copy(out)

    def tensor(self, number: int) -> NDArray[np.int8]:
        """Content ``[h, w, c]`` of a tensor as its memory is now.

        After an inference only outputs, logits, features and the hidden layer of a head still hold
        their values.

        Args:
            number: Tensor of the blob.
        """
        return self._copy(number)

    def selftest(self) -> int:
        """Run the golden self-test; returns the number of inputs.

        Raises:
            ModelError: An output differs, or the blob has no golden section.
        """
        return self._check(self._lib.drip_nn_selftest(self._nn))

    def golden_digest(self, number: int) -> int:
        """CRC-32 over logits, then features, for a golden input of the blob.

        Args:
            number: Of the input, from 0.

        Raises:
            ModelError: The blob has no such input.
        """
        lib, done = self._lib, 0
        while done < self._nn.input.elements:
            done = self._check(lib.drip_nn_selftest_load(self._nn, number, done))
        while self._check(lib.drip_nn_step(self._nn, _WHOLE_OPERATOR)):
            pass
        crc = 0
        for tensor in (self.header.logits_tensor, self.header.features_tensor):
            if tensor != _NO_TENSOR:
                content = lib.drip_nn_tensor(self._nn, tensor, self._ffi.NULL)
                crc = lib.drip_crc32(crc, content, self._nn.tensors[tensor].size)
        return int(crc)

    # ------------------------------------------------------------ scores

    def score(
        self, frame: NDArray[Any], kind: ScoreKind | None = None, *, quantised: bool = False
    ) -> Score:
        """Score one frame as the device does.

        Args:
            frame: A raw frame, or an int8 input when ``quantised``.
            kind: Kind of score; None = ``default_score``. A RANDOM score goes on from the last.
            quantised: The frame is an int8 input already.

        Raises:
            DataError: The frame does not fit the model.
            ModelError: The model has no such score.
        """
        self._infer(frame, quantised)
        r = self._score(self.default_score if kind is None else kind, 1)
        return Score(r.raw, r.percentile, r.class_1, r.class_2, r.logit_1, r.logit_2)

    def score_all(
        self, frames: NDArray[Any], kind: ScoreKind | None = None, *, seed: int = 1
    ) -> Scores:
        """Score many frames.

        Args:
            frames: Raw frames ``[N, *frame_shape]``.
            kind: Kind of score; None = ``default_score``.
            seed: Of a RANDOM score.
        """
        return self.score_kinds(frames, (self.default_score if kind is None else kind,), seed)[0]

    def score_kinds(
        self, frames: NDArray[Any], kinds: tuple[ScoreKind, ...], seed: int = 1
    ) -> tuple[Scores, ...]:
        """Score many frames by several kinds with one inference each."""
        for kind in kinds:
            self._scorers.pop((kind, seed), None)
        rows: list[list[tuple[int, ...]]] = [[] for _ in kinds]
        for frame in self._each(frames):
            self._infer(frame, False)
            for kind, row in zip(kinds, rows, strict=True):
                r = self._score(kind, seed)
                row.append((r.raw, r.percentile, r.class_1, r.class_2, r.logit_1, r.logit_2))
        return tuple(_columns(row) for row in rows)

    def percentile(self, knots: NDArray[np.int32], raw: int) -> int:
        """``drip_score_percentile``: where a raw score lies among ascending quantiles."""
        table = self._ffi.new("int32_t[]", [int(k) for k in knots])
        return int(self._lib.drip_score_percentile(table, int(raw)))

    def thumbnail(self, frame: NDArray[Any], *, quantised: bool = False) -> NDArray[np.uint8]:
        """The small picture by which the redundancy rule knows near-duplicates, ``[cells]``.

        128 is the mean of the cells.

        Args:
            frame: A raw frame, or an int8 input when ``quantised``.
            quantised: The frame is an int8 input already.

        Raises:
            DataError: The frame does not fit the model.
        """
        self._load(frame, quantised)
        thumb = self._ffi.new("drip_thumb_t *")
        cells = self._lib.drip_policy_thumb(self._nn, thumb)
        return np.array([thumb.cell[i] for i in range(cells)], np.uint8)

    def _score(self, kind: ScoreKind, seed: int) -> Any:
        ffi, lib = self._ffi, self._lib
        stage = self._scorers.get((kind, seed))
        if stage is None:
            scorer = ffi.new("drip_score_t *")
            code = lib.drip_score_open(scorer, self._nn, int(kind), seed)
            if code == Err.NO_CAM:
                raise ModelError(
                    f"the model has no Grad-CAM head, so no {kind.name} score",
                    "use margin, or compile a model with a head",
                )
            if self.header.class_count < 2:
                raise ModelError(
                    "the model has no two classes to tell apart, so no score",
                    "scores need a classifier with one logit per class",
                )
            self._check(code)
            scratch = aligned(max(1, lib.drip_score_scratch_bytes(scorer)))
            stage = self._scorers[kind, seed] = scorer, scratch
        result = ffi.new("drip_score_result_t *")
        self._check(lib.drip_score_compute(stage[0], stage[1][1], result))
        return result

    # ------------------------------------------------------------ Grad-CAM

    def cam(
        self,
        frame: NDArray[Any],
        class_index: int | None = None,
        minus: int | None = None,
        *,
        quantised: bool = False,
    ) -> NDArray[np.float32]:
        """Grad-CAM of a class in real units, positive and negative evidence.

        Args:
            frame: A raw frame, or an int8 input when ``quantised``.
            class_index: The class; None = the predicted one.
            minus: Subtract the map of this class.
            quantised: The frame is an int8 input already.

        Returns:
            float32 ``[h, w]`` of the features, before ReLU. Source: Selvaraju et al.,
            arXiv:1610.02391.

        Raises:
            ModelError: The model has no Grad-CAM head.
            DataError: The frame does not fit the model.
        """
        units, _ = self.cam_units(frame, class_index, minus, quantised=quantised)
        return np.asarray(units * self.cam_scale, np.float32)

    @property
    def cam_scale(self) -> float:
        """Real value of one unit of the integer map."""
        from drip.compile.blob import unpack_blob

        part = unpack_blob(self.blob).find(wire.Section.CAM)
        return 0.0 if part is None else wire.BlobCam.unpack(part.content).scale

    def cam_units(
        self,
        frame: NDArray[Any],
        class_index: int | None = None,
        minus: int | None = None,
        *,
        quantised: bool = False,
    ) -> tuple[NDArray[np.int32], int]:
        """Integer Grad-CAM ``[h, w]`` as the device computes it, and the sum of its positive part.

        Arguments and errors as :meth:`cam`.
        """
        ffi, lib = self._ffi, self._lib
        if self._cam is None:
            cam = ffi.new("drip_cam_t *")
            self._check(lib.drip_cam_open(cam, self._nn))
            self._cam = cam, aligned(lib.drip_cam_scratch_bytes(cam))
        self._infer(frame, quantised)
        if class_index is None:
            class_index = int(self._copy(self.header.logits_tensor).argmax())
        h, w, _ = self.tensor_shape(self.header.features_tensor)
        units = np.zeros((h, w), np.int32)
        total = ffi.new("int32_t *")
        code = lib.drip_cam_sum(
            self._cam[0],
            class_index,
            -1 if minus is None else minus,
            self._cam[1][1],
            ffi.cast("int32_t *", ffi.from_buffer(units)),
            total,
        )
        if code == Err.ARGUMENT:
            raise UsageError(f"the model has no class {class_index}", "classes count from 0")
        self._check(code)
        return units, int(total[0])

    # ------------------------------------------------------------ plumbing

    def _each(self, frames: NDArray[Any], quantised: bool = False) -> Iterator[NDArray[Any]]:
        if tuple(frames.shape[1:]) != (self.input_shape if quantised else self.frame_shape):
            raise self._misfit(frames.dtype, tuple(frames.shape[1:]))
        return iter(np.ascontiguousarray(frames))

    def _misfit(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> DataError:
        return DataError(
            f"frames are {dtype}{list(shape)},"
            f" the model takes {self.frame_dtype}{list(self.frame_shape)}",
            "pass frames of the stream that the model was made for",
        )

    def _load(self, frame: NDArray[Any], quantised: bool) -> None:
        ffi, lib = self._ffi, self._lib
        wanted = np.dtype(np.int8) if quantised else self.frame_dtype
        shape = self.input_shape if quantised else self.frame_shape
        if frame.dtype != wanted or tuple(frame.shape) != shape:
            raise self._misfit(frame.dtype, tuple(frame.shape))
        frame = np.ascontiguousarray(frame)
        target = lib.drip_nn_input(self._nn)
        if quantised:
            ffi.memmove(target, ffi.from_buffer(frame), frame.nbytes)
            return
        source = ffi.from_buffer("uint8_t[]", frame)
        self._frame.data = source
        self._frame.size = frame.nbytes
        done = 0
        while done < self._nn.input.elements:
            done = self._check(lib.drip_nn_load(self._nn, self._frame, done))

    def _infer(self, frame: NDArray[Any], quantised: bool) -> None:
        self._load(frame, quantised)
        self._finish()

    def _finish(self) -> None:
        step, nn = self._lib.drip_nn_step, self._nn
        self._check(self._lib.drip_nn_begin(nn))
        while step(nn, _WHOLE_OPERATOR) > 0:
            pass

    def _copy(self, tensor: int) -> NDArray[np.int8]:
        content = self._lib.drip_nn_tensor(self._nn, tensor, self._ffi.NULL)
        size = int(self._nn.tensors[tensor].size)
        view = np.frombuffer(self._ffi.buffer(content, size), np.int8)
        return np.array(view.reshape(self.tensor_shape(tensor)))


def _columns(rows: list[tuple[int, ...]]) -> Scores:
    table = np.array(rows, np.int64).reshape(len(rows), 6)
    return Scores(
        table[:, 0].astype(np.int32),
        table[:, 1].astype(np.uint16),
        table[:, 2].astype(np.uint16),
        table[:, 3].astype(np.uint16),
        table[:, 4].astype(np.int16),
        table[:, 5].astype(np.int16),
    )
