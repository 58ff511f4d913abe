"""A million small records into a store, and what is in it: seconds and memory.

    python tests/bench/store.py --records 1000000

The baseline is what the bytes alone cost: writing the same columns with pyarrow into one file, with
no identity, no check for duplicates and no lock.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drip.store import Store, StoreRecord
from drip.store.rows import RECORDS

LOGS = 10  # devices
FRAME = 64  # bytes
BATCH = 65_536  # records per append


def records(count: int, start: int = 0) -> Iterator[StoreRecord]:
    """Records of several devices with random frames."""
    rng = np.random.default_rng(start)
    logs = [str(uuid.UUID(int=n + 1)) for n in range(LOGS)]
    noise = rng.integers(0, 256, (count, FRAME), np.uint8)
    for n in range(count):
        frame = noise[n].tobytes()
        yield StoreRecord(
            log_uuid=logs[(start + n) % LOGS],
            seq=(start + n) // LOGS,
            device_id=f"device{(start + n) % LOGS}",
            boot_id=1,
            time_us=(start + n) * 1000,
            utc_us=1_700_000_000_000_000 + (start + n) * 1000,
            time_source="host_clock",
            stream_id=0,
            raw_score=int(noise[n, 0]),
            percentile=int(noise[n, 1]) * 257,
            policy=1,
            score_kind=0,
            flags=0,
            class_1=int(noise[n, 2]) % 10,
            class_2=int(noise[n, 3]) % 10,
            logit_1=50,
            logit_2=10,
            model_id="00112233",
            frame=frame,
            dtype="uint8",
            shape=(8, 8, 1),
            scale=1.0,
            offset=0.0,
            header_crc=n & 0xFFFFFFFF,
            payload_crc=zlib.crc32(frame),
        )


def batches(count: int) -> Iterator[list[StoreRecord]]:
    """All records, a batch at a time."""
    for start in range(0, count, BATCH):
        yield list(records(min(BATCH, count - start), start))


def memory_mib() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def baseline(count: int, file: Path) -> float:
    """Seconds to write the same columns with nothing but pyarrow."""
    spent = 0.0
    with pq.ParquetWriter(file, RECORDS, compression="zstd") as writer:
        for batch in batches(count):
            started = time.perf_counter()
            columns: dict[str, Any] = {
                item.name: [getattr(record, item.name) for record in batch]
                for item in fields(StoreRecord)
            }
            columns["ingested_at"] = [0] * len(batch)
            writer.write_table(pa.Table.from_pydict(columns, schema=RECORDS))
            spent += time.perf_counter() - started
    return spent


def run(count: int) -> dict[str, float]:
    """Ingest, ingest again, summarise."""
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, float] = {"records": count}
        figures["baseline_s"] = baseline(count, Path(folder) / "plain.parquet")
        figures["baseline_mib"] = memory_mib()
        store = Store.open(Path(folder) / "store", create=True)
        spent = 0.0
        for batch in batches(count):
            started = time.perf_counter()
            store.append(batch)
            spent += time.perf_counter() - started
        figures["ingest_s"] = spent
        figures["ingest_mib"] = memory_mib()
        started = time.perf_counter()
        again = store.append(next(batches(count)))
        figures["repeat_batch_s"] = time.perf_counter() - started
        assert (again.new, again.duplicates) == (0, min(BATCH, count))
        started = time.perf_counter()
        summary = store.query(
            "SELECT device_id, class_1, count(*) AS n, sum(bytes) AS b FROM frames GROUP BY ALL"
        )
        figures["summary_s"] = time.perf_counter() - started
        figures["summary_mib"] = memory_mib()
        assert sum(summary["n"].to_pylist()) == count
        figures["bytes_on_disk"] = sum(f.stat().st_size for f in store.path.rglob("*.parquet"))
        return figures


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = run(arguments.records)
    for name, value in figures.items():
        print(f"{name:16} {value:14.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
