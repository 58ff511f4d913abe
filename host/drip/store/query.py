"""Questions to a store in SQL, answered by DuckDB over its Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from drip.errors import StoreError

__all__ = ["VIEWS", "run_sql"]

VIEWS = {
    "labels": """
        SELECT log_uuid, seq, arg_max(label, labelled_at) AS label,
               arg_max(source, labelled_at) AS source,
               arg_max(confidence, labelled_at) AS confidence,
               max(labelled_at) AS labelled_at
        FROM label_events GROUP BY ALL""",
    "frames": """
        SELECT records.* EXCLUDE (frame), labels.label, labels.source AS label_source,
               octet_length(frame) AS bytes
        FROM records LEFT JOIN labels USING (log_uuid, seq)""",
}
"""What a query finds beside the tables records, conflicts and label_events: the label that counts
of each record, and the records without their bytes but with their labels."""


def run_sql(tables: Mapping[str, Any], sql: str) -> Any:
    """Answer a query.

    Args:
        tables: Name and Arrow table or dataset of each table.
        sql: One query, in DuckDB's dialect. It sees these tables and :data:`VIEWS`, no files.

    Returns:
        A ``pyarrow.Table``.

    Raises:
        StoreError: The query is wrong.
    """
    with duckdb.connect(":memory:") as database:
        for name, table in tables.items():
            database.register(name, table)
        for name, view in VIEWS.items():
            database.execute(f"CREATE VIEW {name} AS {view}")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        try:
            answer = database.sql(sql)
            if answer is None:
                raise StoreError("that query has no result", "use SELECT, DESCRIBE or SHOW TABLES")
            return answer.to_arrow_table()
        except duckdb.Error as error:
            text = str(error).strip()
            if "reading the stream" in text:
                # The query is right; what Arrow reads for it is not.
                raise StoreError(
                    "a file of the store is damaged", "restore it from a backup"
                ) from error
            raise StoreError(
                text.splitlines()[0] if text else type(error).__name__,
                "tables: records, frames, labels, label_events, conflicts; see: DESCRIBE frames",
            ) from error
