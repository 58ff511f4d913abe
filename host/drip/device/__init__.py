"""Talking to a device: byte streams, frames, the typed client, launchers of simulated devices."""

from __future__ import annotations

from drip.device.cancel import Cancellable
from drip.device.client import Client, ClockReading
from drip.device.framing import Frame, FrameReader, encode_frame
from drip.device.launch import (
    Kind,
    NativeDevice,
    SimulatedDevice,
    launch,
    launch_native,
    native_binary,
)
from drip.device.opening import connect
from drip.device.stream import LogStream, ReadChunk
from drip.device.transport import (
    MemoryTransport,
    SerialTransport,
    TcpTransport,
    Transport,
    memory_pair,
    open_transport,
)

__all__ = [
    "Cancellable",
    "Client",
    "ClockReading",
    "Frame",
    "FrameReader",
    "Kind",
    "LogStream",
    "MemoryTransport",
    "NativeDevice",
    "ReadChunk",
    "SerialTransport",
    "SimulatedDevice",
    "TcpTransport",
    "Transport",
    "connect",
    "encode_frame",
    "launch",
    "launch_native",
    "memory_pair",
    "native_binary",
    "open_transport",
]
