"""Prints the regrets by number of trials of a record as a table in Markdown.

usage: regrets.py [target/bench/search.json ...]
"""
import json
import pathlib
import sys


def main():
    default = pathlib.Path(__file__).resolve().parents[2] / "target/bench/search.json"
    rows = [row for file in sys.argv[1:] or [default]
            for row in json.loads(pathlib.Path(file).read_text(encoding="utf-8"))["results"] if "regret" in row]
    counts = sorted({at["after"] for row in rows for at in row["regret"]})
    print("| row | " + " | ".join(f"after {count}" for count in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for row in rows:
        by_count = {at["after"]: at for at in row["regret"]}
        print(f"| `{row['name']}` | " + " | ".join(cell(by_count.get(count)) for count in counts) + " |")


def cell(at):
    """Ours and theirs, in bold type where ours is larger with p below 0.05."""
    if at is None:
        return ""
    ours, theirs = ("none" if at[side] is None else f"{at[side]:.3g}" for side in ("ours", "theirs"))
    return f"**{ours}**, {theirs}" if at["p_worse"] < 0.05 else f"{ours}, {theirs}"


if __name__ == "__main__":
    main()
