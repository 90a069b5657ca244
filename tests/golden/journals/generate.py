#!/usr/bin/env python3
"""Writes format-1.jsonl and format-2.jsonl: journals as builds of then wrote them.

Every event and the snapshot in the middle have the fields that the types of those builds had, in their order: format 1
is that of the first coordinator, in which a run had one worker and failures no class; format 2 is that of the first
gangs, before snapshots had rows. What the trials try is computed here, apart from the coordinator: the seed tree by
SHA-256 and SplitMix64.

With a journal.db as its argument it writes that one in the same form, with paths replaced, to standard output: so
format-3-asha.jsonl and format-3-population.jsonl were made of journals of a build of 29 November 2026 (rules 3). Their
rows are what that build had decided.
"""

import hashlib
import json
import pathlib
import re
import sqlite3
import sys

MASK = (1 << 64) - 1
START_MS = 1_795_500_000_000


def child(seed, purpose, index):
    """A child in the seed tree."""
    name = purpose.encode()
    text = seed.to_bytes(8, "little") + len(name).to_bytes(8, "little") + name + index.to_bytes(8, "little")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def draw(seed):
    """The first 64 bits of SplitMix64."""
    z = (seed + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def assignment(seed, number):
    """What trial `number` tries: a dropout below 0.5 and a batch of 8 or 16."""
    trial = child(seed, "sampler", number)
    dropout = (draw(child(trial, "dropout", 0)) >> 11) / (1 << 53) * 0.5
    batch = [8, 16][draw(child(trial, "global_batch_size", 0)) * 2 >> 64]
    return {"dropout": {"float": dropout}, "global_batch_size": {"int": batch}}


SPACE = {
    "dropout": {"float": {"min": 0.0, "max": 0.5, "scale": "linear"}},
    "global_batch_size": {"values": [{"int": 8}, {"int": 16}]},
    "learning_rate": {"constant": {"float": 5e-05}},
}
ASHA = {"asha": {"reduction_factor": 2, "min_budget": {"steps": 10}}}
TEXT = "version: 1\n# as the user wrote it\n"
STORE = "file:///data/muster"


def key(trial, step, generation):
    return {"trial": trial, "step": step, "generation": generation}


def score(right, **more):
    return {"loss": 0.5, "confusion": [[right, 100 - right], [0, 100]], **more}


class Journal:
    def __init__(self, version):
        self.lines = [{"user_version": version}]
        self.position = 0

    def at(self):
        return START_MS + 1000 * self.position

    def event(self, event):
        self.position += 1
        self.lines.append({"events": [self.position, self.at(), text(event)]})

    def snapshot(self, engine):
        self.lines.append({"snapshots": [self.position, text(engine)]})

    def write(self, name):
        path = pathlib.Path(__file__).parent / name
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))


def text(value):
    return json.dumps(value, separators=(",", ":"))


def joined(worker, host):
    return {"worker_joined": {"worker": worker, "host": host}}


def format_1():
    """Three trials on two workers: one fails and goes on, one diverges, a worker is lost."""
    journal, seed = Journal(1), 7
    tried = {number: assignment(seed, number) for number in (1, 2, 3)}
    manifest = {
        "name": "old", "description": None, "seed": seed,
        "model": {"pretrained": "/models/m", "max_length": 128, "freeze_embeddings": False, "freeze_layers": 0},
        "data": {
            "train": {"path": "/data/d.csv", "format": {"delimited": {"delimiter": "comma", "columns": None}}},
            "validation": {"fraction": 0.1}, "test": "absent", "text": "text",
            "label": {"class": {"column": "label", "names": None}},
        },
        "hyperparameters": SPACE,
        "searcher": {
            "objective": {"metric": "accuracy", "mode": "max"}, "max_trials": 3, "max_concurrent": None,
            "sampler": "random", "pruner": ASHA,
        },
        "budget": {"steps": 20}, "checkpoint": {"every_steps": 5, "keep_last": 1}, "resources": {"slots": 1},
        "max_restarts": 2,
    }
    data = {
        "cache": "c", "num_train": 1000, "num_validation": 100, "num_test": 0, "labels": ["a", "b"], "num_rows": 1100,
        "num_left_out": 0, "num_duplicates": 0, "mean_tokens": 21.5, "remarks": [],
    }

    def said(generation, sequence, report):
        journal.event({"run_reported": {"generation": generation, "sequence": sequence, "report": report}})

    def ended(generation, sequence, exit="completed"):
        said(generation, sequence, {"ended": {"exit": exit}})

    def committed(generation, sequence, trial, step):
        said(generation, sequence, {"checkpoint_committed": {"checkpoint": key(trial, step, generation)}})

    journal.event(joined("w1", "a"))
    journal.event(joined("w2", "b"))
    journal.event({"experiment_submitted": {"manifest": manifest, "text": TEXT, "store": STORE}})
    created_at = journal.at()
    said(1, 1, {"prepared": data})
    ended(1, 2)
    prepared_at = journal.at()
    committed(2, 1, "old-1/t1", 10)
    said(2, 2, {"evaluated": {"step": 10, "evaluation": score(60)}})
    decided_at = journal.at()
    committed(3, 1, "old-1/t2", 5)
    ended(2, 3)

    def trial(number, state, **more):
        return {
            "number": number, "assignment": tried[number], "state": state, "rungs_passed": 0, "results": [],
            "checkpoints": [], "deleting": [], "attempts": 1, "restarts": 0, "losses": 0, **more,
        }

    def run(worker, number, next_sequence, started_at):
        task = {
            "trial": f"old-1/t{number}", "attempt": 1, "assignment": tried[number], "target_step": 10, "total_steps": 20,
            "resume_from": None,
        }
        return {
            "worker": worker, "experiment": "old-1", "task": {"train": task}, "next_sequence": next_sequence,
            "started_at": started_at, "directive": None,
        }

    first = key("old-1/t1", 10, 2)
    result = {"step": 10, "evaluation": score(60), "checkpoint": first}
    experiment = {
        "id": "old-1", "manifest": manifest, "text": TEXT, "store": STORE, "created_at": created_at, "ended_at": None,
        "phase": "searching", "paused": False, "ladder": [{"steps": 10}, {"steps": 20}], "data": data,
        "trials": {
            "1": trial(1, "paused", rungs_passed=1, results=[result], checkpoints=[first]),
            "2": trial(2, {"running": {"generation": 3}}, checkpoints=[key("old-1/t2", 5, 3)]),
            "3": trial(3, {"running": {"generation": 4}}),
        },
        "decisions": [
            {"at": decided_at, "trial": "old-1/t1", "text": "accuracy 0.8000 after 10 steps, rung 1 of 2"},
        ],
        "failures": 0, "best": None,
    }
    journal.snapshot({
        "experiments": {"old-1": experiment}, "order": ["old-1"], "counts": {"old": 1},
        "workers": {"w1": {"host": "a", "run": 4}, "w2": {"host": "b", "run": 3}},
        "runs": {"3": run("w2", 2, 2, prepared_at), "4": run("w1", 3, 1, journal.at())}, "last_generation": 4,
    })
    ended(3, 2, {"failed": {"message": "its last words", "permanent": False}})
    committed(5, 1, "old-1/t2", 10)
    journal.event({"checkpoint_deleted": {"checkpoint": key("old-1/t2", 5, 3)}})
    said(5, 2, {"evaluated": {"step": 10, "evaluation": score(80)}})
    ended(5, 3)
    ended(4, 1, {"diverged": {"step": 7}})
    journal.event({"worker_lost": {"worker": "w2", "cause": "lease_expired"}})
    committed(7, 1, "old-1/t2", 20)
    said(7, 2, {"evaluated": {"step": 20, "evaluation": score(90)}})
    ended(7, 3)
    said(8, 1, {"finished": {"test": None, "model": "/data/muster/old-1/model"}})
    ended(8, 2)
    journal.write("format-1.jsonl")


def format_2():
    """Two trials on gangs of two: a rank vanishes, and later a worker, so that the gang moves to another machine."""
    journal, seed = Journal(2), 11
    tried = {number: assignment(seed, number) for number in (1, 2)}
    hygiene = {
        "duplicates": "drop", "leaks": "drop", "near_leaks": "keep", "near_duplicates": "together", "empty": "drop",
        "unknown_labels": "refuse", "bad_utf8": "keep",
    }
    manifest = {
        "name": "gang", "description": "of two", "seed": seed,
        "model": {
            "pretrained": "/models/m", "max_length": 128, "truncation": "head", "freeze_embeddings": False,
            "freeze_layers": 0, "freeze_patterns": [], "reinitialize_layers": 0,
        },
        "objective": "classification",
        "data": {
            "train": {
                "path": ["/data/d.csv"], "hub": None, "format": {"delimited": {"delimiter": "comma", "columns": None}},
            },
            "validation": {"fraction": 0.1}, "test": "absent", "text": "text", "text_pair": None,
            "label": {"class": {"column": "label", "names": None}}, "hygiene": hygiene,
        },
        "hyperparameters": SPACE,
        "searcher": {
            "objective": {"metric": "accuracy", "mode": "max"}, "max_trials": 2, "max_concurrent": None,
            "sampler": "random", "pruner": ASHA, "target": None, "warm_start": [],
        },
        "budget": {"steps": 20}, "checkpoint": {"every_steps": 5, "keep_last": 2}, "resources": {"slots": 2},
        "max_restarts": 2,
        "training": {
            "schedule": "linear", "unfreeze": None, "class_weights": "equal", "average": "off", "evaluate_every": None,
            "early_stopping": None, "precision": "float32", "gradient_compression": "off", "step_deadline_s": None,
            "masking": None,
        },
        "evaluation": {"ordered": None},
    }
    flaws = {
        "num_empty": 0, "num_unknown_labels": 0, "num_bad_utf8": 0, "num_leaks": 0, "num_near_leaks": 0,
        "num_near_duplicates": 0,
    }
    data = {
        "cache": "c", "num_train": 1000, "num_validation": 100, "num_test": 0, "labels": ["a", "b"], "num_rows": 1100,
        "num_left_out": 0, "num_duplicates": 0, "mean_tokens": None, "remarks": [], "flaws": flaws,
    }
    numbers = {}

    def said(generation, report, rank=0):
        sequence = numbers[generation, rank] = numbers.get((generation, rank), 0) + 1
        journal.event({
            "run_reported": {"generation": generation, "rank": rank, "sequence": sequence, "report": report},
        })

    def ended(generation, rank, exit="completed"):
        said(generation, {"ended": {"exit": exit}}, rank)

    def opened(generation):
        said(generation, {"rendezvous_opened": {"address": "10.0.0.1:4711"}})

    def committed(generation, trial, step):
        said(generation, {"checkpoint_committed": {"checkpoint": key(f"gang-1/{trial}", step, generation)}})

    def evaluated(generation, step, right):
        said(generation, {"evaluated": {"step": step, "evaluation": score(right, auc=None, masked=None)}})

    journal.event({"rules_adopted": {"rules": 1}})
    for worker, host in (("w1", "a"), ("w2", "a"), ("w3", "b")):
        journal.event(joined(worker, host))
    journal.event({"experiment_submitted": {"manifest": manifest, "text": TEXT, "store": STORE}})
    created_at = journal.at()
    said(1, {"prepared": data})
    ended(1, 0)
    prepared_at = journal.at()
    opened(2)
    committed(2, "t1", 5)

    task = {
        "trial": "gang-1/t1", "attempt": 1, "assignment": tried[1], "target_step": 10, "total_steps": 20,
        "resume_from": None,
    }
    members = [
        {"worker": "w1", "host": "a", "next_sequence": 3, "state": "working"},
        {"worker": "w2", "host": "a", "next_sequence": 1, "state": "working"},
    ]
    run = {
        "members": members, "experiment": "gang-1", "task": {"train": task}, "started_at": prepared_at,
        "directive": None, "rendezvous": "10.0.0.1:4711", "grows": False,
    }
    trial = {
        "number": 1, "assignment": tried[1], "state": {"running": {"generation": 2}}, "first_rung": 0,
        "rungs_passed": 0, "results": [], "checkpoints": [key("gang-1/t1", 5, 2)], "deleting": [], "attempts": 1,
        "restarts": 0, "losses": 0, "early_stop": None, "not_before": None, "memory_failures": 0,
    }
    experiment = {
        "id": "gang-1", "manifest": manifest, "text": TEXT, "store": STORE, "created_at": created_at, "ended_at": None,
        "phase": "searching", "paused": False, "ladder": [{"steps": 10}, {"steps": 20}], "data": data,
        "trials": {"1": trial},
        "decisions": [{"at": prepared_at, "trial": None, "text": "waits for 2 slots; 1 free, kept for it"}],
        "failures": 0, "best": None, "target_reached": None, "prior": [], "waiting_since": prepared_at,
    }
    journal.snapshot({
        "experiments": {"gang-1": experiment}, "order": ["gang-1"], "counts": {"gang": 1},
        "workers": {
            "w1": {"host": "a", "run": 2}, "w2": {"host": "a", "run": 2}, "w3": {"host": "b", "run": None},
        },
        "runs": {"2": run}, "last_generation": 2, "hosts": {}, "last_loss": None, "clock": journal.at(), "rules": 1,
    })
    missed = {"failed": {"message": "rank 1 is missed", "permanent": False, "class": "lost"}}
    ended(2, 1, {"lost": {"reason": "the runner died: signal 9"}})
    ended(2, 0, missed)
    opened(3)
    committed(3, "t1", 10)
    evaluated(3, 10, 60)
    ended(3, 1)
    ended(3, 0)
    opened(4)
    committed(4, "t2", 10)
    evaluated(4, 10, 80)
    journal.event("timer_fired")
    ended(4, 0)
    ended(4, 1)
    opened(5)
    journal.event({"worker_lost": {"worker": "w1", "cause": {"died": {"reason": "signal 9"}}}})
    ended(5, 1, missed)
    opened(6)
    committed(6, "t2", 20)
    evaluated(6, 20, 90)
    ended(6, 0)
    ended(6, 1)
    said(7, {"finished": {"test": None, "model": "/data/muster/gang-1/model"}})
    ended(7, 0)
    journal.write("format-2.jsonl")


def export(path):
    """A journal.db in the same form, without the places and the machine that it was written on."""
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    print(json.dumps({"user_version": connection.execute("PRAGMA user_version").fetchone()[0]}))
    tables = {
        "events": "position", "snapshots": "position", "experiments": "experiment", "trials": "experiment, number",
        "decisions": "experiment, place",
    }
    for table, order in tables.items():
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}"):
            *keys, body = row
            body = re.sub(r"/tmp/[\w.-]+/muster-data", "/data/muster", body)
            body = re.sub(r"(/[\w.-]+)+/demo/", "/data/demo/", body)
            body = re.sub(r"/tmp/[\w.-]+", "/data", body)
            print(json.dumps({table: [*keys, body]}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        export(sys.argv[1])
    else:
        format_1()
        format_2()
