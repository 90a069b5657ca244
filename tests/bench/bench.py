"""`make bench`: measures Muster beside its peers and leaves one record per part in target/bench/.

Every ratio is taken in this run, ours and theirs in turns, because machines are noisy. A peer that is not
installed makes its row `skipped` with the reason, never a pass. `tests/bench/README.md` says what is needed.
"""
import argparse
import datetime
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys

import accuracy
import control
import ddp
import metric_rows
import search
import sizes
import storage
import sweep
import train
import ui

PARTS = {"accuracy": accuracy.rows, "control": control.rows, "ddp": ddp.rows, "search": search.rows,
         "storage": lambda *sides: itertools.chain(storage.rows(*sides), metric_rows.rows(*sides)), "sweep": sweep.rows,
         "train": train.rows, "ui": ui.rows}
# Too long to run unasked.
ON_REQUEST = {"accuracy", "sweep"}
ROOT = pathlib.Path(__file__).resolve().parents[2]


def machine():
    cpu = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": None, "load_at_start": os.getloadavg()[0]}


def commit():
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def show(row):
    name = f"{row['name']:32}"
    if "skipped" in row:
        return f"{name} skipped: {row['skipped']}"
    value = f"{row['value']:.4g} {row['unit']}"
    spread = row.get("samples", [])
    spread = f"  [{min(spread):.3f} to {max(spread):.3f}, {len(spread)} samples]" if len(spread) > 1 else ""
    peer = row.get("peer")
    sides = f"  ours {row['ours']:.2f}, {peer['name']} {peer['value']:.2f}" if peer and "ours" in row else ""
    note = f"  ({row['note']})" if row.get("note") else ""
    return f"{name} {value:>16}{spread}{sides}{note}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="by default all but those that take hours")
    parser.add_argument("--row", action="append", help="only the rows whose name begins so")
    parser.add_argument("--pairs", type=int, default=3, help="how often each pair is measured")
    arguments = parser.parse_args()
    target = ROOT / "target" / "bench" / ("quick" if sizes.QUICK else "")
    target.mkdir(parents=True, exist_ok=True)
    failed = False
    for part in arguments.part or sorted(set(PARTS) - ON_REQUEST):
        record = {"part": part, "commit": commit(), "date": datetime.date.today().isoformat(), "machine": machine()}
        record["results"] = []
        print(f"[{part}]", flush=True)
        wanted = lambda name: not arguments.row or any(name.startswith(row) for row in arguments.row)
        for row in PARTS[part](ROOT, wanted, arguments.pairs):
            failed |= row.get("failed", False)
            if "samples" in row and "value" not in row:
                row["value"] = statistics.median(row["samples"])
            record["results"].append(row)
            print(show(row), flush=True)
            # After every row: what was measured survives whatever comes.
            (target / f"{part}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
