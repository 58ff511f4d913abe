"""A whole device in this process: the C core with a card in memory and a clock of its own.

Frames go in, in the order of arrival, and what comes out is what the firmware would decide and log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.core import Model, aligned, library
from drip.data.files import write_atomic
from drip.errors import CardError, DataError, DeviceError
from drip.wire import Config, Err

_BLOCK = wire.BLOCK_BYTES
_UNIT_BLOCKS, _SEGMENT_BLOCKS = 8, 64
_STEP_US = 100
# A frame that has not been decided after so many steps never will be.
_STEPS = 10_000_000


class Device:
    """A simulated device that runs one model.

    Args:
        blob: The model.
        card_bytes: Size of the card; 0 = no card.
        settings: Settings that differ from the firmware's own.
        log_uuid: Identity of the log, 16 bytes.
        period_us: Time between two frames.

    Raises:
        ModelError: The core refuses the blob.
        DeviceError: A setting is refused.
        CardError: The card is too small for a log.
        MissingDependencyError: The compiled core is not installed.
    """

    def __init__(
        self,
        blob: bytes,
        *,
        card_bytes: int = 1 << 24,
        settings: Mapping[Config, int] | None = None,
        log_uuid: bytes = bytes(range(16)),
        period_us: int = 100_000,
    ) -> None:
        self._ffi, self._lib = library()
        self.model = Model(blob)
        self.card = bytearray(card_bytes // _BLOCK * _BLOCK)
        self._period_us = period_us
        self._now_us = 0
        self._port = self._make_port()
        if self.card:
            self._format(log_uuid)
        self._memory = self._make_memory(blob)
        self._device = self._ffi.new("drip_device_t *")
        self._start()
        self._configure(settings or {})
        self._settle()

    def power_cycle(self, settings: Mapping[Config, int] | None = None) -> None:
        """Cut the power and switch it on again: only the card stays, not even settings.

        Args:
            settings: Settings that differ from these.

        Raises:
            DeviceError: A setting is refused.
        """
        self._start()
        self._configure(settings or {})
        self._settle()

    def sleep(self) -> bytes:
        """What the device wants kept in deep sleep, 256 bytes; everything logged is durable."""
        out = self._ffi.new("uint8_t[]", wire.DeviceState.SIZE)
        for _ in range(_STEPS):
            code = self._lib.drip_device_save(self._device, out)
            if code != Err.BUSY:
                break
            self._now_us += _STEP_US
            self._lib.drip_device_step(self._device)
        if code < 0:
            raise DeviceError("the simulated device does not go to sleep", code)
        return bytes(self._ffi.buffer(out))

    def wake(self, state: bytes) -> None:
        """Start again after deep sleep, with nothing but the card and these bytes.

        Raises:
            DeviceError: The bytes are no state of this device.
        """
        self._start()
        code = self._lib.drip_device_restore(self._device, state)
        if code < 0:
            raise DeviceError(f"the state is refused: {Err(code).name}", code)
        self._settle()

    def feed(self, frame: NDArray[Any], *, stream_id: int = 0) -> wire.Result:
        """Let one frame arrive and wait for the decision; a kept frame is on its way to the card.

        Args:
            frame: A raw frame as the model wants it.
            stream_id: Stream that it belongs to.

        Raises:
            DataError: The frame does not fit the model.
        """
        model = self.model
        if frame.dtype != model.frame_dtype or tuple(frame.shape) != model.frame_shape:
            raise DataError(
                f"the frame is {frame.dtype}{list(frame.shape)},"
                f" the model takes {model.frame_dtype}{list(model.frame_shape)}",
                "pass frames of the stream that the model was made for",
            )
        ffi = self._ffi
        content = ffi.from_buffer("uint8_t[]", np.ascontiguousarray(frame))
        offered = ffi.new("drip_frame_t *")
        offered.data, offered.size = content, frame.nbytes
        offered.time_us, offered.stream_id = self._now_us, stream_id
        code = self._lib.drip_device_offer(self._device, offered)
        if code < 0:
            raise DeviceError(f"the frame is refused: {Err(code).name}", code)
        result = ffi.new("drip_result_t *")
        for _ in range(_STEPS):
            self._lib.drip_device_step(self._device)
            if self._lib.drip_device_idle(self._device, result):
                break
        else:
            raise DeviceError("the simulated device does not decide", int(Err.TIMEOUT))
        self._now_us += self._period_us
        return wire.Result.unpack(bytes(ffi.buffer(result)))

    def run(self, frames: Iterable[NDArray[Any]]) -> list[wire.Result]:
        """Feed frames one after the other."""
        return [self.feed(frame) for frame in frames]

    @property
    def period_us(self) -> int:
        """Time between two frames."""
        return self._period_us

    @property
    def score_kind(self) -> int:
        """The ``wire.ScoreKind`` in use."""
        return int(self._device.score.kind)

    @property
    def policy_kind(self) -> int:
        """The ``wire.PolicyKind`` in use."""
        return int(self._device.policy.config.kind)

    def status(self) -> wire.Status:
        """Counters and states."""
        status = self._ffi.new("drip_status_t *")
        self._lib.drip_device_status(self._device, status)
        return wire.Status.unpack(bytes(self._ffi.buffer(status)))

    def sync(self) -> None:
        """Make everything that was logged durable on the card.

        Raises:
            CardError: The device has no usable card.
        """
        log = self._ffi.addressof(self._device, "log")
        code = self._lib.drip_log_sync(log)
        if code < 0:
            raise CardError(
                f"the simulated card cannot be synced: {Err(code).name}", "give it a card"
            )
        self._settle()

    def save_card(self, path: str | Path) -> None:
        """Write the card to an image file that ``drip card`` and sync read.

        Raises:
            CardError: The device has no usable card.
        """
        self.sync()
        write_atomic(path, lambda file: file.write(self.card))

    def _start(self) -> None:
        self._now_us = 0
        size = self._ffi.sizeof("drip_device_t")
        self._ffi.memmove(self._device, b"\xa5" * size, size)
        code = self._lib.drip_device_init(self._device, self._port, self._memory)
        if code < 0:
            raise DeviceError("the simulated device does not start", code)

    def _configure(self, settings: Mapping[Config, int]) -> None:
        for key, value in settings.items():
            code = self._lib.drip_device_config(self._device, int(key), value)
            if code < 0:
                raise DeviceError(
                    f"the setting {key.name} = {value} is refused: {Err(code).name}", code
                )

    def _settle(self) -> None:
        """Step until nothing is left to do, while the clock goes on."""
        quiet = 0
        while quiet < 8:
            self._now_us += _STEP_US
            quiet = 0 if self._lib.drip_device_step(self._device) else quiet + 1

    def _make_memory(self, blob: bytes) -> Any:
        memory = self._ffi.new("drip_device_memory_t *")
        frame_bytes = int(np.prod(self.model.frame_shape)) * self.model.frame_dtype.itemsize
        features = self.model.header.features_tensor
        channels = self.model.tensor_shape(features)[2] if self.model.has_cam else 0
        sizes = {
            "arena": self.model.arena_bytes,
            "capture": frame_bytes,
            "scratch": 16 + 8 * channels,
            "fixed_model": len(blob),
        }
        self._owners = []
        for name, size in sizes.items():
            owner, at = aligned(size)
            self._owners.append(owner)
            setattr(memory, name, at)
            setattr(memory, f"{name}_bytes", size)
        self._ffi.memmove(self._ffi.cast("uint8_t *", memory.fixed_model), blob, len(blob))
        return memory

    def _make_port(self) -> Any:
        ffi = self._ffi
        port = ffi.new("drip_port_t *")
        # The core keeps these pointers for the device's life.
        self._callbacks = {
            "time_us": ffi.callback("uint64_t(void *)", lambda _: self._now_us),
            "link_read": ffi.callback("int(void *, uint8_t *, uint32_t)", lambda *_: 0),
            "link_write": ffi.callback(
                "int(void *, const uint8_t *, uint32_t)", lambda _c, _d, size: size
            ),
            "card_blocks": ffi.callback("int(void *, uint32_t *)", self._card_blocks),
            "card_read": ffi.callback(
                "int(void *, uint32_t, uint8_t *, uint32_t)", self._card_read
            ),
            "card_write": ffi.callback(
                "int(void *, uint32_t, const uint8_t *, uint32_t)", self._card_write
            ),
            "card_poll": ffi.callback("int(void *)", lambda _: int(Err.OK)),
            "reset": ffi.callback("void(void *)", lambda _: None),
        }
        for name, callback in self._callbacks.items():
            setattr(port, name, callback)
        port.name = b"simulated"
        return port

    def _card_blocks(self, _context: Any, blocks: Any) -> int:
        blocks[0] = len(self.card) // _BLOCK
        return int(Err.OK if self.card else Err.NO_CARD)

    def _span(self, block: int, count: int) -> slice | None:
        span = slice(block * _BLOCK, (block + count) * _BLOCK)
        return span if span.stop <= len(self.card) else None

    def _card_read(self, _context: Any, block: int, data: Any, count: int) -> int:
        span = self._span(block, count)
        if span is None:
            return int(Err.IO)
        self._ffi.memmove(data, self.card[span], count * _BLOCK)
        return int(Err.OK)

    def _card_write(self, _context: Any, block: int, data: Any, count: int) -> int:
        span = self._span(block, count)
        if span is None:
            return int(Err.IO)
        self.card[span] = self._ffi.buffer(data, count * _BLOCK)
        return int(Err.OK)

    def _format(self, log_uuid: bytes) -> None:
        geometry = self._ffi.new("drip_log_geometry_t *")
        geometry.uuid = log_uuid
        geometry.first_block, geometry.blocks = 0, len(self.card) // _BLOCK
        geometry.unit_blocks, geometry.segment_blocks = _UNIT_BLOCKS, _SEGMENT_BLOCKS
        work = self._ffi.new("drip_superblock_t *")
        if self._lib.drip_log_format(self._port, geometry, work) < 0:
            raise CardError(f"a card of {len(self.card)} bytes is too small", "give it more")
