"""Reading and rewriting of ``.tflite`` flatbuffers.

Reading uses the ``tflite`` package and works without TensorFlow; rewriting uses the object API
of the schema inside TensorFlow, which is there whenever a model is converted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from drip.errors import ModelError

METADATA_NAME = "drip"
_IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16
MALFORMED = (
    struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
)  # fmt: skip
"""What the flatbuffers runtime and the enum lookups raise on bytes that are not what they claim."""


class MalformedError(ValueError):
    """A ``.tflite`` that contradicts itself; the text is for the user."""


def read_metadata(blob: bytes) -> dict[str, Any]:
    """The JSON that :func:`drip.convert.convert` stored in a ``.tflite``.

    Args:
        blob: Content of the file.

    Returns:
        The fields, or an empty dict for a model that another tool converted.

    Raises:
        ModelError: The bytes are not a ``.tflite``, or its metadata is damaged.
    """
    check_identifier(blob)
    import tflite

    try:
        model = tflite.Model.GetRootAs(blob, 0)
        for i in range(model.MetadataLength()):
            entry = model.Metadata(i)
            if entry.Name() == METADATA_NAME.encode():
                fields = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
                if not isinstance(fields, dict):
                    raise MalformedError("its metadata is no JSON object")
                return fields
    except MALFORMED as error:
        raise damaged(error) from error
    return {}


def damaged(error: BaseException) -> ModelError:
    """What the user reads when a ``.tflite`` cannot be parsed.

    Args:
        error: One of :data:`MALFORMED`; what the runtime itself says is about its own buffers.
    """
    reason = (
        str(error) if isinstance(error, MalformedError) else "it is cut off, or its bytes are wrong"
    )
    return ModelError(f"the .tflite is damaged: {reason}", "copy it again, or convert the model")


def check_identifier(blob: bytes) -> None:
    """Refuse what is obviously not a ``.tflite``.

    Raises:
        ModelError: Too short, or without the identifier TFL3.
    """
    if len(blob) < 8 or blob[4:8] != _IDENTIFIER:
        raise ModelError("this is not a .tflite file", "pass what `drip convert` wrote")


def finish(blob: bytes, outputs: list[str], metadata: dict[str, Any]) -> bytes:
    """Fix the order and names of the outputs and store metadata.

    Interpreters without signatures know outputs by index only, and the converter's order follows
    neither the dict nor the names.

    Args:
        blob: A converted model with one signature.
        outputs: Signature output names in the order wanted.
        metadata: What :func:`read_metadata` shall return.

    Raises:
        ModelError: The signature lacks one of the names.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(blob, 0)
    graph = model.subgraphs[0]
    signature = model.signatureDefs[0]
    by_name = {entry.name.decode(): entry for entry in signature.outputs}
    if set(by_name) != set(outputs):
        raise ModelError(
            f"the converted model has outputs {sorted(by_name)}, not {outputs}",
            "this is a defect of the converter in this version of TensorFlow",
        )
    signature.outputs = [by_name[name] for name in outputs]
    graph.outputs = [by_name[name].tensorIndex for name in outputs]
    for name in outputs:
        graph.tensors[by_name[name].tensorIndex].name = name.encode()

    entry = schema.MetadataT()
    entry.name = METADATA_NAME.encode()
    entry.buffer = len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = list(json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode())
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return _pack(model, schema)


def _pack(model: Any, schema: Any) -> bytes:
    import flatbuffers

    # The object API forgets the schema's force_align of buffers, which kernels on a
    # microcontroller rely on when they read weights in place.
    for buffer in model.buffers:
        buffer.Pack = _aligned_pack(buffer, schema)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _aligned_pack(buffer: Any, schema: Any) -> Callable[[Any], int]:
    def pack(builder: Any) -> int:
        data = None
        if buffer.data is not None:
            content = bytes(bytearray(buffer.data))
            builder.Prep(_BUFFER_ALIGNMENT, len(content))
            data = builder.CreateByteVector(content)
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))

    return pack
