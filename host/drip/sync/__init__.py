"""From device to store: pulling, spooling, acknowledging, and several boards at once."""

from __future__ import annotations

from drip.sync.session import SyncReport, ingest_log, ingest_spool, sync_device

__all__ = ["SyncReport", "ingest_log", "ingest_spool", "sync_device"]
