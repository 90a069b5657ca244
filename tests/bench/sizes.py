"""How much is measured: whole rows, or with MUSTER_BENCH_QUICK=1 the least that goes through all of a row.

Quick figures say nothing; they show that a row comes to its end. Their records go to `target/bench/quick`.
"""
import os

QUICK = os.environ.get("MUSTER_BENCH_QUICK") == "1"


def size(whole, quick):
    """The one of the two that counts now."""
    return quick if QUICK else whole
