"""Pushing a model to a device: upload, self-test on trial, confirm.

Until the confirmation the old model boots, so nothing that fails on the way can leave a device
without a model.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from drip import wire
from drip.device.client import Client
from drip.errors import DeviceError, LinkError, ModelError

__all__ = ["DeployReport", "deploy"]

_CRC_FROM = wire.BlobHeader.OFFSETS["crc"] + 4
_RESTARTS = 3
# Bytes of the blob per request: small enough to get through a bad line, and doubled while it holds;
# after a loss only when so many got through at once.
_LEAST, _FIRST, _CALM = 128, 256, 8


@dataclass(frozen=True)
class DeployReport:
    """What a deployment did.

    Attributes:
        before_id: Model that answered before, 16 bytes; zeros: none.
        after_id: Model that answers now and boots.
        slot: Slot that holds it.
        bytes_sent: Bytes of the blob that had to be sent; 0 when it ran already.
        resumed_at: Bytes of it that an earlier, interrupted upload had left there.
        bytes_wire: Bytes on the line, both directions, everything included.
        seconds: How long it took.
    """

    before_id: bytes
    after_id: bytes
    slot: int
    bytes_sent: int
    resumed_at: int
    bytes_wire: int
    seconds: float


def deploy(
    client: Client, blob: bytes, on_progress: Callable[[int, int], None] | None = None
) -> DeployReport:
    """Make a device run a model, and boot it from now on.

    Args:
        client: The device.
        blob: The model, a whole ``.drip`` file.
        on_progress: Called with bytes of the blob that are on the device, and its size.

    Raises:
        ModelError: The blob is damaged, or does not fit this device; nothing was sent.
        SchemaError: The device was built from another schema.
        DeviceError: It refused the model or the model failed its self-test; the old model runs.
        LinkError: It stopped answering. Until the new model is confirmed the old one boots;
            running it again continues the upload.
    """
    started, wire_before = time.monotonic(), client.bytes_wire
    header = _blob_header(blob)
    device = client.hello()
    info = client.model_info()
    before = device.model_id
    sent = resumed = 0
    if not (info.active_id == info.confirmed_id == header.model_id):
        _check_fits(client.name, header, device)
        if info.state == wire.SlotState.TRIAL and info.active_id != info.confirmed_id:
            # Somebody left a trial open; it must end before another model can come.
            client.model_abort()
        try:
            resumed, sent = _upload(client, header, blob, on_progress)
            info = _switch(client, header.model_id)
        except (DeviceError, ModelError) as error:
            _roll_back(client, info)
            error.hint = "; ".join(filter(None, (error.hint, _who_runs(client))))
            raise
    if on_progress is not None:
        on_progress(len(blob), len(blob))
    return DeployReport(
        before_id=before,
        after_id=client.hello().model_id,
        slot=info.slot,
        bytes_sent=sent,
        resumed_at=resumed,
        bytes_wire=client.bytes_wire - wire_before,
        seconds=time.monotonic() - started,
    )


def _blob_header(blob: bytes) -> wire.BlobHeader:
    if len(blob) < wire.BlobHeader.SIZE:
        raise ModelError("the model is too short to be a .drip file", "compile it: drip compile")
    header = wire.BlobHeader.unpack(blob)
    if header.magic != wire.BLOB_MAGIC:
        raise ModelError("the model is not a .drip file", "compile it: drip compile")
    if header.version != wire.BLOB_VERSION:
        raise ModelError(
            f"the model has blob version {header.version}, this drip knows {wire.BLOB_VERSION}",
            "compile it again: drip compile",
        )
    if header.total_bytes != len(blob) or zlib.crc32(blob[_CRC_FROM:]) != header.crc:
        raise ModelError("the model file is damaged", "compile it again: drip compile")
    return header


def _check_fits(name: str, header: wire.BlobHeader, device: wire.Hello) -> None:
    if not device.capabilities & wire.Capability.MODEL_PUSH:
        simulated = device.port.rstrip(b"\0") == b"native"
        raise ModelError(
            f"{name} does not accept pushed models",
            "start it with --flash FILE" if simulated else "build the model into its firmware",
        )
    if header.total_bytes > device.slot_bytes:
        raise ModelError(
            f"the model has {header.total_bytes} bytes, {name} takes {device.slot_bytes}",
            "make the model smaller",
        )
    if header.arena_bytes > device.arena_bytes:
        raise ModelError(
            f"the model works in {header.arena_bytes} bytes, {name} has {device.arena_bytes}",
            "make its layers smaller",
        )
    missing = header.op_bitmap & ~device.op_bitmap
    if missing:
        names = [op.name for op in wire.Op if missing >> op & 1] or [f"{missing:#x}"]
        raise ModelError(
            f"the firmware of {name} lacks operators: {', '.join(names)}", "update the firmware"
        )


def _upload(
    client: Client,
    header: wire.BlobHeader,
    blob: bytes,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[int, int]:
    """Send the blob; return the offset that it went on from, and the bytes sent."""
    resumed = offset = _begin(client, header, blob)
    sent = restarts = 0
    size, calm, patience = _FIRST, 0, 1
    while offset < len(blob):
        chunk = blob[offset : offset + size]
        repetitions = client.repetitions
        try:
            reached = client.model_data(offset, chunk).offset
            sent += len(chunk)
        except DeviceError as error:
            # A device that restarted in between has to be told again what is coming.
            if error.code not in (wire.Err.STATE, wire.Err.RANGE) or restarts == _RESTARTS:
                raise
            restarts += 1
            reached = _begin(client, header, blob)
        else:
            if not offset < reached <= len(blob):
                raise DeviceError(
                    f"{client.name} does not store the model", wire.Err.IO, "check its flash"
                )
        offset = reached
        if client.repetitions != repetitions:
            size, calm, patience = max(size // 2, _LEAST), 0, _CALM
        elif (calm := calm + 1) >= patience:
            size, calm = min(2 * size, wire.MAX_CHUNK_BYTES), 0
        if on_progress is not None:
            on_progress(offset, len(blob))
    return resumed, sent


def _begin(client: Client, header: wire.BlobHeader, blob: bytes) -> int:
    """Announce the blob; return how much of it is on the device already, compared by checksum."""
    for _ in range(2):
        answer = client.model_begin(
            total_bytes=len(blob),
            arena_bytes=header.arena_bytes,
            op_bitmap=header.op_bitmap,
            blob_crc=zlib.crc32(blob),
            model_id=header.model_id,
        )
        if answer.crc == zlib.crc32(blob[: answer.offset]):
            return answer.offset
        # Power failed in the middle of a write. Flash takes no second one there.
        client.model_abort()
    raise DeviceError(f"{client.name} does not erase its slot", wire.Err.IO, "check its flash")


def _switch(client: Client, model_id: bytes) -> wire.ModelResponse:
    try:
        client.model_trial()
    except DeviceError as error:
        # STATE also answers a repetition, when the first answer was lost on the line.
        if error.code != wire.Err.STATE or client.model_info().active_id != model_id:
            raise
    # A trial starts at once and ends with any restart, so there is nothing to wait for.
    if client.hello().model_id != model_id:
        raise DeviceError(
            f"{client.name} left the new model during its trial",
            wire.Err.SELFTEST,
            "the old model runs again; check the new one, or try once more",
        )
    client.model_confirm()
    info = client.model_info()
    if info.active_id != model_id or info.confirmed_id != model_id:
        raise DeviceError(
            f"{client.name} did not confirm the new model", wire.Err.STATE, "try once more"
        )
    return info


def _who_runs(client: Client) -> str:
    model_id = client.hello().model_id
    if not any(model_id):
        return f"{client.name} runs no model, as before"
    return f"{client.name} runs model {model_id.hex()} as before"


def _roll_back(client: Client, before: wire.ModelResponse) -> None:
    """Ask the device to drop what it got, and make sure that the old model answers."""
    with contextlib.suppress(DeviceError):
        client.model_abort()
    info = client.model_info()
    if info.active_id != before.confirmed_id and any(before.confirmed_id):
        raise LinkError(
            f"{client.name} runs model {info.active_id.hex()} instead of the confirmed one",
            "restart the device: it boots the confirmed model",
        )
