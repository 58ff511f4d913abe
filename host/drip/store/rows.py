"""Rows of the store: their columns, their identity, their version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

SCHEMA_VERSION = 2
"""Of the columns below. Version 1 had no ``confidence``; its files are read as they are."""

VERSION_KEY = b"drip.schema_version"

_UTC = pa.timestamp("us", tz="UTC")
RECORDS = pa.schema(
    [
        pa.field("log_uuid", pa.string(), nullable=False),
        pa.field("seq", pa.uint64(), nullable=False),
        pa.field("device_id", pa.string()),
        pa.field("boot_id", pa.uint32(), nullable=False),
        pa.field("time_us", pa.uint64(), nullable=False),
        pa.field("utc_us", _UTC),
        pa.field("time_source", pa.string(), nullable=False),
        pa.field("stream_id", pa.uint16(), nullable=False),
        pa.field("raw_score", pa.int32(), nullable=False),
        pa.field("percentile", pa.uint16(), nullable=False),
        pa.field("policy", pa.uint8(), nullable=False),
        pa.field("score_kind", pa.uint8(), nullable=False),
        pa.field("flags", pa.uint16(), nullable=False),
        pa.field("class_1", pa.uint16(), nullable=False),
        pa.field("class_2", pa.uint16(), nullable=False),
        pa.field("logit_1", pa.int16(), nullable=False),
        pa.field("logit_2", pa.int16(), nullable=False),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("frame", pa.binary(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.uint32()), nullable=False),
        pa.field("scale", pa.float32(), nullable=False),
        pa.field("offset", pa.float32(), nullable=False),
        pa.field("header_crc", pa.uint32(), nullable=False),
        pa.field("payload_crc", pa.uint32(), nullable=False),
        pa.field("ingested_at", _UTC, nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)
LABELS = pa.schema(
    [
        pa.field("log_uuid", pa.string(), nullable=False),
        pa.field("seq", pa.uint64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        # Chance that the label is right, as far as the source can tell; null: it did not say.
        pa.field("confidence", pa.float32()),
        pa.field("labelled_at", _UTC, nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)


class RecordKey(NamedTuple):
    """Identity of a record: the log's UUID, made at format, and a number never used twice in it."""

    log_uuid: str
    seq: int

    def __str__(self) -> str:
        return f"{self.log_uuid}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> RecordKey:
        """Read ``LOG_UUID:SEQ``.

        Raises:
            ValueError: It is something else.
        """
        log_uuid, colon, seq = text.strip().rpartition(":")
        if not colon or not log_uuid or not seq.isdigit():
            raise ValueError(f"{text!r} is not LOG_UUID:SEQ")
        return cls(log_uuid.lower(), int(seq))


@dataclass(frozen=True)
class StoreRecord:
    """One row of the store; meanings as in docs/SPEC.md, record_header.

    Attributes:
        utc_us: Microseconds since 1970, None when nobody can tell.
        time_source: How ``utc_us`` is known: ``host_clock``, ``estimate`` (the earliest time that
            is possible, of a boot that no host has seen) or ``unknown``.
        model_id: Hex of the first bytes of the model's id.
        frame: Bytes as captured, little-endian.
        dtype, shape: Of the frame: a name as in numpy, elements per dimension.
        scale, offset: Physical value = raw * scale + offset.
    """

    log_uuid: str
    seq: int
    device_id: str | None
    boot_id: int
    time_us: int
    utc_us: int | None
    time_source: str
    stream_id: int
    raw_score: int
    percentile: int
    policy: int
    score_kind: int
    flags: int
    class_1: int
    class_2: int
    logit_1: int
    logit_2: int
    model_id: str
    frame: bytes
    dtype: str
    shape: tuple[int, ...]
    scale: float
    offset: float
    header_crc: int
    payload_crc: int

    @property
    def key(self) -> RecordKey:
        """Its identity."""
        return RecordKey(self.log_uuid, self.seq)
