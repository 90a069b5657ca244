"""Reads the metrics files of one trial as pyarrow and DuckDB see them.

usage: metrics_readable.py DIRECTORY SQL_FILE

Prints one JSON object: `columns` (name and Arrow type), `metadata` (key-value metadata of the first
file), `rows` (rows of all files) and `effective` (what the query in SQL_FILE says). Values are written as the 16 hexadecimal digits of their bits, because JSON knows
no NaN.
"""

import json
import struct
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq


def main():
    directory, sql_file = map(Path, sys.argv[1:])
    files = sorted(directory.glob("*.parquet"))
    tables = [pq.read_table(file) for file in files]
    schema = tables[0].schema
    for file, table in zip(files, tables):
        if not table.schema.equals(schema):
            sys.exit(f"{file} has another schema: {table.schema}")
        for name in table.column_names:
            if table.column(name).null_count:
                sys.exit(f"{file} has nulls in {name}")
    metadata = pq.read_metadata(files[0]).metadata
    query = sql_file.read_text(encoding="utf-8")
    connection = duckdb.connect()
    points = connection.sql(
        f"SELECT trial, rank, step, name, value, attempt, epoch_ms(recorded_at) FROM ({query})"
        " ORDER BY trial, rank, step, name"
    ).fetchall()
    print(
        json.dumps(
            {
                "columns": [[field.name, str(field.type)] for field in schema],
                "metadata": {key.decode(): value.decode() for key, value in metadata.items()},
                "rows": sum(table.num_rows for table in tables),
                "effective": [
                    [trial, rank, step, name, struct.pack(">d", value).hex(), attempt, at]
                    for trial, rank, step, name, value, attempt, at in points
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
