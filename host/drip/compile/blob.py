"""Write and read model blobs (``.drip``): a header, a section table, sections, a CRC."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from drip import wire
from drip.errors import ModelError
from drip.wire import BlobHeader, BlobSection, Section

_AFTER_CRC = BlobHeader.OFFSETS["crc"] + 4
_MODEL_ID = slice(BlobHeader.OFFSETS["model_id"], BlobHeader.OFFSETS["model_id"] + 16)


@dataclass(frozen=True)
class Part:
    """A section: kind, flags, number of elements and content."""

    kind: Section
    content: bytes
    count: int
    flags: int = 0


@dataclass(frozen=True)
class Blob:
    """A blob taken apart."""

    header: BlobHeader
    parts: tuple[Part, ...]

    def find(self, kind: Section, flags: int = 0) -> Part | None:
        """The first section of a kind, with the given flags."""
        for part in self.parts:
            if part.kind == kind and part.flags == flags:
                return part
        return None

    def meta(self) -> dict[str, Any]:
        """The META section, empty when there is none."""
        part = self.find(Section.META)
        if part is None:
            return {}
        try:
            fields = json.loads(part.content)
        except ValueError as error:
            raise ModelError(f"the blob's META section is damaged ({error})", _AGAIN) from error
        return fields if isinstance(fields, dict) else {}

    def classes(self) -> tuple[str, ...]:
        """Class names."""
        part = self.find(Section.CLASSES)
        names: list[str] = []
        at = 0
        while part is not None and len(names) < part.count and at < len(part.content):
            end = at + 1 + part.content[at]
            names.append(part.content[at + 1 : end].decode("utf-8", "replace"))
            at = end
        return tuple(names)


_AGAIN = "compile the model again"


def pack_blob(header: BlobHeader, parts: tuple[Part, ...]) -> bytes:
    """Lay out sections and fill in sizes, checksum and model id.

    Args:
        header: With the fields that do not follow from the sections.
        parts: Sections in the order wanted.
    """
    at = _align(BlobHeader.SIZE + BlobSection.SIZE * len(parts))
    table, body = b"", b""
    start = at
    for part in parts:
        table += BlobSection(part.kind, part.flags, at, len(part.content), part.count).pack()
        padded = part.content + bytes(-len(part.content) % wire.BLOB_ALIGN)
        body += padded
        at += len(padded)
    header = dataclasses.replace(
        header,
        magic=wire.BLOB_MAGIC,
        version=wire.BLOB_VERSION,
        header_bytes=BlobHeader.SIZE,
        total_bytes=at,
        section_count=len(parts),
        crc=0,
        model_id=bytes(16),
    )
    content = bytearray((header.pack() + table).ljust(start, b"\0") + body)
    content[_MODEL_ID] = hashlib.sha256(content).digest()[:16]
    struct.pack_into("<I", content, BlobHeader.OFFSETS["crc"], zlib.crc32(content[_AFTER_CRC:]))
    return bytes(content)


def unpack_blob(content: bytes) -> Blob:
    """Take a blob apart after checking it as the device does, as far as Python needs.

    Raises:
        ModelError: Not a blob, another version, or damaged.
    """
    if len(content) < BlobHeader.SIZE:
        raise ModelError(f"{len(content)} bytes are too short for a model blob", _AGAIN)
    header = BlobHeader.unpack(content)
    if header.magic != wire.BLOB_MAGIC:
        raise ModelError("this is not a .drip model blob", "pass what `drip compile` wrote")
    if header.version != wire.BLOB_VERSION:
        raise ModelError(
            f"the blob has version {header.version}, this DRIP reads {wire.BLOB_VERSION}", _AGAIN
        )
    if header.total_bytes != len(content):
        raise ModelError(
            f"the blob should have {header.total_bytes} bytes but has {len(content)}",
            "it is truncated or extended: copy it again",
        )
    if zlib.crc32(content[_AFTER_CRC:]) != header.crc:
        raise ModelError("the blob is damaged (checksum mismatch)", "copy or compile it again")
    end = header.header_bytes + BlobSection.SIZE * header.section_count
    if header.header_bytes != BlobHeader.SIZE or end > len(content):
        raise ModelError("the blob's section table is damaged", _AGAIN)
    parts = []
    for n in range(header.section_count):
        entry = BlobSection.unpack(content, header.header_bytes + n * BlobSection.SIZE)
        known = entry.kind in {int(kind) for kind in Section}
        if not known or entry.offset + entry.size > len(content):
            raise ModelError("the blob's section table is damaged", _AGAIN)
        body = content[entry.offset : entry.offset + entry.size]
        parts.append(Part(Section(entry.kind), body, entry.count, entry.flags))
    return Blob(header, tuple(parts))


def _align(value: int) -> int:
    return -(-value // wire.BLOB_ALIGN) * wire.BLOB_ALIGN
