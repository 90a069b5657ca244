"""The part `storage`: checkpoints of MiniLM with both moments of AdamW, beside torch.save and torch.load."""
import pathlib
import statistics
import tempfile

import muster
import peers
import search
import shards

NAMES = ("checkpoint_stall_vs_copy", "checkpoint_stall_share", "checkpoint_save_vs_torch", "restore_vs_torch")
TRAINER_NAMES = ("checkpoint_stall_vs_hf", "checkpoint_save_vs_hf")
LARGE = "checkpoint_stall_vs_copy_bert_base"
THREADS = 2
# HF Trainer saves so often, every other step: the first of them has the directory to make and counts too.
TRAINER_STEPS = 10


def rows(root, wanted, pairs):
    """Yields one row of the record after the other; ours and theirs in turns."""
    yield from small(root, wanted, pairs)
    if any(map(wanted, TRAINER_NAMES)):
        yield from beside_trainer(root, wanted, pairs)
    if wanted(shards.NAME):
        with tempfile.TemporaryDirectory(dir=root / "target/bench") as work:
            try:
                yield shards.row(root, pathlib.Path(work), pairs)
            except peers.Missing as missing:
                yield {"name": shards.NAME, "skipped": str(missing)}
            except muster.Failed as failed:
                yield {"name": shards.NAME, "skipped": f"failed: {failed}", "failed": True}
    if wanted(LARGE):
        try:
            yield large(root)
        except peers.Missing as missing:
            yield {"name": LARGE, "skipped": str(missing)}


def large(root):
    """The same for the shapes of BERT-base, which the peer's environment makes, from random weights."""
    with tempfile.TemporaryDirectory(dir=root / "target/bench") as work:
        model = pathlib.Path(work) / "model"
        peers.run(root, root / "tests/bench/shape.py", "--shape", "bert-base", "--tokenizer", root / ".cache/demo/minilm",
                  "--model", model)
        found = search.measure(root, "storage", "--model", model, "--store", pathlib.Path(work) / "store",
                               "--threads", THREADS, "--every", 2, "--batch", 4)
    median = statistics.median
    return {"name": LARGE, "unit": "ratio", "better": "lower",
            "samples": [stall / median(found["copy_s"]) for stall in found["stall_s"]], "ours": median(found["stall_s"]),
            "peer": {"name": "a copy of the same tensors, s", "value": median(found["copy_s"])},
            "note": f"{found['megabytes']:.0f} MB, saved in {median(found['save_s']):.1f} s, restored in "
                    f"{median(found['restore_s']):.1f} s, {THREADS} threads"}


def beside_trainer(root, wanted, pairs):
    """The same of MiniLM beside HF Trainer, whose loop waits for the whole checkpoint."""
    model = root / ".cache/demo/minilm"
    stalls, saves, megabytes, theirs = [], [], 0, []
    try:
        data = peers.shared(root, "data/sst2")
        for _ in range(pairs):
            with tempfile.TemporaryDirectory(dir=root / "target/bench") as work:
                store = pathlib.Path(work) / "store"
                own = search.measure(root, "storage", "--model", model, "--store", store, "--threads", THREADS)
                stalls.append(statistics.median(own["stall_s"]))
                saves.append(statistics.median(own["save_s"]))
                megabytes = own["megabytes"]
                found = peers.run(root, "hf_trainer.py", "--model", model, "--data", data, "--work", work, "--no-eval",
                                  "--variant", "dynamic", "--threads", THREADS, "--batch", 16, "--max-len", 64,
                                  "--max-steps", TRAINER_STEPS, "--skip", 1, "--save-steps", 2)
                theirs.append(statistics.median(found["save_stall_s"]))
    except peers.Missing as missing:
        yield from ({"name": name, "skipped": str(missing)} for name in TRAINER_NAMES if wanted(name))
        return
    median = statistics.median
    note = f"{megabytes:.0f} MB, {THREADS} threads; HF Trainer's on the same disk without fsync and digests"
    if wanted(TRAINER_NAMES[0]):
        yield {"name": TRAINER_NAMES[0], "unit": "ratio", "better": "lower",
               "samples": [a / b for a, b in zip(stalls, theirs)], "ours": median(stalls),
               "peer": {"name": "HF Trainer stands still, s", "value": median(theirs)}, "note": note}
    if wanted(TRAINER_NAMES[1]):
        yield {"name": TRAINER_NAMES[1], "unit": "ratio", "better": "higher",
               "samples": [b / a for a, b in zip(saves, theirs)], "ours": megabytes / median(saves),
               "peer": {"name": "HF Trainer, MB/s", "value": megabytes / median(theirs)}, "note": note}


def small(root, wanted, pairs):
    """Of MiniLM."""
    if not any(wanted(name) for name in NAMES):
        return
    model = root / ".cache/demo/minilm"
    ours, theirs, missing = [], [], None
    for _ in range(pairs):
        with tempfile.TemporaryDirectory(dir=root / "target/bench") as work:
            store = pathlib.Path(work) / "store"
            ours.append(search.measure(root, "storage", "--model", model, "--store", store, "--threads", THREADS))
            try:
                theirs.append(peers.run(root, "ckpt.py", "--model", model, "--dir", work, "--threads", THREADS))
            except peers.Missing as error:
                missing = str(error)
    megabytes = ours[0]["megabytes"]
    note = f"{megabytes:.0f} MB, {THREADS} threads"
    median = statistics.median
    if wanted(NAMES[0]):
        samples = [median(one["stall_s"]) / median(one["copy_s"]) for one in ours]
        yield {"name": NAMES[0], "unit": "ratio", "better": "lower", "samples": samples,
               "ours": median(s for one in ours for s in one["stall_s"]),
               "peer": {"name": "a copy of the same tensors, s", "value": median(s for one in ours for s in one["copy_s"])},
               "note": note}
    if wanted(NAMES[1]):
        samples = [one["stall_share"] for one in ours]
        yield {"name": NAMES[1], "unit": "share", "better": "lower", "samples": samples,
               "note": f"{note}, a checkpoint every 10 steps of 16 x 64 tokens"}
    for name, own, other in ((NAMES[2], "save_s", "torch_save_fsync_rename"), (NAMES[3], "restore_s", "torch_load")):
        if not wanted(name):
            continue
        if missing or not theirs:
            yield {"name": name, "skipped": missing}
            continue
        mine = [megabytes / median(one[own]) for one in ours]
        peer = [one["mb"] * 1.048576 / one[other]["median_s"] for one in theirs]
        yield {"name": name, "unit": "ratio", "better": "higher", "samples": [a / b for a, b in zip(mine, peer)],
               "ours": median(mine), "peer": {"name": f"{other}, MB/s", "value": median(peer)},
               "note": f"{note}; ours with SHA-256 of every part"}
