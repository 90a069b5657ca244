"""Writes format_1.parquet, a metrics file as builds before format 2 wrote them, with pyarrow."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = [
    ("trial", pa.string(), ["demo-1/t2"] * 2),
    ("attempt", pa.uint32(), [2, 2]),
    ("resumed_from", pa.uint64(), [20, 20]),
    ("rank", pa.uint32(), [0, 0]),
    ("step", pa.uint64(), [21, 22]),
    ("name", pa.string(), ["train_loss"] * 2),
    ("value", pa.float64(), [0.5, math.inf]),
    ("recorded_at", pa.timestamp("ms", "UTC"), [1_700_000_000_000, 1_700_000_000_001]),
]


def main():
    fields = [pa.field(name, kind, nullable=False) for name, kind, _ in COLUMNS]
    schema = pa.schema(fields, metadata={"muster.metrics.format": "1"})
    table = pa.table([pa.array(values, kind) for _, kind, values in COLUMNS], schema=schema)
    pq.write_table(table, Path(__file__).with_name("format_1.parquet"))


if __name__ == "__main__":
    main()
