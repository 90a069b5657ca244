"""Runs the queries of a document as they stand in it.

usage: metrics_queries.py DOCUMENT STORE

Every fenced block of `sql` (DuckDB) and `python` is run, in the order of the document, with `muster-data` replaced by
the directory STORE. Prints a JSON list: for SQL the rows, or null where there is no result; for Python the table
`metrics` that the block makes, as sorted rows of trial, rank, step, name, value and attempt.
"""

import json
import re
import sys
from pathlib import Path

import duckdb

KEY = ["trial", "rank", "step", "name", "value", "attempt"]


def rows(table):
    if hasattr(table, "itertuples"):  # pandas
        return [list(row) for row in table[KEY].itertuples(index=False, name=None)]
    return [list(row) for row in table.select(KEY).rows()]  # polars


def main():
    document, store = sys.argv[1:]
    text = Path(document).read_text(encoding="utf-8")
    connection = duckdb.connect()
    results = []
    for language, block in re.findall(r"^```(sql|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        block = block.replace("muster-data", store)
        if language == "sql":
            result = connection.sql(block)
            results.append(result and [list(row) for row in result.fetchall()])
        elif "metrics" in block:  # others are about predictions
            names = {}
            exec(compile(block, document, "exec"), names)  # noqa: S102
            results.append(sorted(rows(names["metrics"])))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
