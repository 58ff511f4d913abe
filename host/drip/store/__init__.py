"""The store: pulled records and their labels as append-only Parquet files in a folder."""

from __future__ import annotations

from drip.store.rows import RecordKey, StoreRecord
from drip.store.store import REJECT, AppendReport, Store

__all__ = ["REJECT", "AppendReport", "RecordKey", "Store", "StoreRecord"]
