"""What the sweeps of Ray Tune and of Optuna are told, and what they leave; for both the same."""
import argparse
import json
import pathlib

import common


def parser(description):
    """A parser of their arguments; the caller may add some of its own."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--trials", type=pathlib.Path, required=True, help="JSON: a list of {lr, batch, steps}")
    arguments.add_argument("--asha", action="store_true", help="stop them by successive halving, whatever their steps are")
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--data", required=True, help="folder with train.parquet and validation.parquet")
    arguments.add_argument("--rung", type=int, required=True, help="steps to the first rung")
    arguments.add_argument("--max", type=int, required=True, help="steps that the learning rate is planned for")
    arguments.add_argument("--factor", type=int, required=True)
    arguments.add_argument("--freeze", type=int, required=True, help="embeddings and so many layers; 0: nothing")
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--slots", type=int, default=2, help="trials at a time, one thread each")
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    return arguments


def listed(arguments):
    """The trials, in their order."""
    return json.loads(arguments.trials.read_text(encoding="utf-8"))


def leave(arguments, table):
    """Writes rows of {number, lr, batch, steps, accuracy}, and the seconds since the process was started."""
    found = {"wall_s": common.since_start(), "trials": table}
    arguments.out.write_text(json.dumps(found), encoding="utf-8")
