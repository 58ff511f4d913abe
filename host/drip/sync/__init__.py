"""From device to store: pulling, spooling, acknowledging, and several boards at once."""

from __future__ import annotations

from drip.sync.session import SyncReport, add_reports, ingest_log, ingest_spool, sync_device

__all__ = ["SyncReport", "add_reports", "ingest_log", "ingest_spool", "sync_device"]
