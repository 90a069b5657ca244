"""Reads a file of predictions as pyarrow and DuckDB see it.

usage: predictions_readable.py FILE

Prints one JSON object: `columns` (name and Arrow type), `metadata` (key-value metadata) and the rows in the order of
the file, once from each reader. Numbers are written as the 16 hexadecimal digits of their bits.
"""

import json
import struct
import sys

import duckdb
import pyarrow.parquet as pq


def row(number, label, prediction, probabilities, *rest):
    bits = [struct.pack(">d", value).hex() for value in probabilities]
    return [number, label, prediction, bits, *rest]


def main():
    (file,) = sys.argv[1:]
    table = pq.read_table(file)
    metadata = pq.read_metadata(file).metadata
    connection = duckdb.connect()
    columns = "row, label, prediction, probabilities, num_tokens, text, file, file_row"
    query = f"SELECT {columns} FROM read_parquet('{file}') ORDER BY row"
    print(
        json.dumps(
            {
                "columns": [[field.name, str(field.type)] for field in table.schema],
                "metadata": {
                    key.decode(): value.decode()
                    for key, value in metadata.items()
                    if key.startswith(b"muster.")
                },
                "pyarrow": [row(*values.values()) for values in table.to_pylist()],
                "duckdb": [row(*values) for values in connection.sql(query).fetchall()],
            }
        )
    )


if __name__ == "__main__":
    main()
