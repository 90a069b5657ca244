"""The part `train`: speed, latency and memory of fine-tuning, tokenization and inference."""
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import pyarrow.parquet

import muster
import peers

THREADS = 2
HF = ("hf_trainer.py", "--variant", "group_by_length", "--no-eval")
EXPERT = ("torch_loop.py", "--no-eval")


def rows(root, wanted, pairs):
    """Yields one row of the record after the other."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as work:
        bench = Bench(root, pathlib.Path(work), pairs)
        for name, measure in bench.measures():
            if wanted(name):
                try:
                    yield from measure()
                except peers.Missing as missing:
                    yield {"name": name, "skipped": str(missing)}
                except muster.Failed as failed:
                    yield {"name": name, "skipped": f"failed: {failed}", "failed": True}


class Bench:
    def __init__(self, root, work, pairs):
        self.root, self.work, self.pairs = root, work, pairs
        self.count = 0
        self.shapes_made = {}

    def measures(self):
        return [
            ("losses_agree", self.losses_agree),
            ("train_sst2", self.sst2),
            ("train_imdb256", self.imdb256),
            ("train_frozen_half", self.frozen_half),
            ("first_step", self.first_step),
            ("tokenize_vs_datasets", self.tokenize),
            ("predict_vs_hf", self.predict),
        ]

    # What the measurements share.

    @property
    def minilm(self):
        found = self.root / ".cache/demo/minilm"
        if not (found / "model.safetensors").exists():
            raise peers.Missing("the demo's model is missing: run deploy/setup/demo_inputs.sh")
        return found

    def data(self, name):
        return peers.shared(self.root, f"data/{name}")

    def folder(self, name):
        self.count += 1
        return self.work / f"{self.count}-{name}"

    def ours(self, data, steps, skip, **settings):
        """Real tokens per second and the run."""
        text = muster.manifest(self.minilm, data, f"steps: {steps}", **settings)
        run = muster.run(self.root, self.folder("train"), text, threads=THREADS)
        return run.real_tokens_per_second("1", skip), run

    def peer(self, script, data, steps, skip, *more):
        return peers.run(
            self.root, script[0], "--model", self.minilm, "--data", data, "--max-steps", steps,
            "--skip", skip, "--threads", THREADS, *script[1:], *more,
        )

    def compare(self, name, data, steps, skip, settings, flags):
        """Ours against both peers, in turns; two speed rows and, for SST-2, one of memory."""
        sides = {"hf": [], "expert": []}
        ours, memory, padding = [], [], {}
        for _ in range(self.pairs):
            speed, run = self.ours(data, steps, skip, **settings)
            ours.append(speed)
            for side, script in (("hf", HF), ("expert", EXPERT)):
                found = self.peer(script, data, steps, skip, *flags)
                padding[side] = found["pad_fraction"]
                sides[side].append(found["real_tokens_per_s"])
                if side == "hf":
                    memory.append((run.peak_mib, found["peak_rss_mb"]))
        note = f"real tokens/s, {THREADS} threads, {steps} steps; we pad nothing, HF {padding['hf']:.1%}"
        labels = {"hf": "HF Trainer, dynamic, grouped", "expert": "PyTorch loop, buckets"}
        for side, theirs in sides.items():
            samples = [a / b for a, b in zip(ours, theirs)]
            yield ratio(f"{name}_vs_{side}", samples, ours, labels[side], theirs, note)
        if name == "train_sst2":
            samples = [a / b for a, b in memory]
            note = "peak resident sets, all our processes added up"
            yield ratio("peak_rss_vs_hf", samples, [a for a, _ in memory], labels["hf"],
                        [b for _, b in memory], note, better="lower")

    # The measurements.

    def sst2(self):
        return self.compare("train_sst2", self.data("sst2"), 100, 20, {}, ())

    def imdb256(self):
        settings = {"batch": 16, "max_length": 256, "text": "text"}
        return self.compare("train_imdb256", self.data("imdb"), 30, 10, settings, ("--batch", 16, "--max-len", 256))

    def frozen_half(self):
        """Three epochs with embeddings and 3 of 6 layers frozen. Our clock runs from the start of the program, so
        that filling the cache of activations counts (and so do start-up and tokenization, against us); HF
        Trainer's only while it trains."""
        data = self.folder("sst2-part")
        data.mkdir(parents=True)
        table = pyarrow.parquet.read_table(self.data("sst2") / "train.parquet")
        pyarrow.parquet.write_table(table.slice(0, 4200), data / "train.parquet")
        shutil.copy(self.data("sst2") / "validation.parquet", data)
        ours, theirs, steps = [], [], 3 * 125
        for _ in range(self.pairs):
            text = muster.manifest(self.minilm, data, f"steps: {steps}", frozen=3)
            run = muster.run(self.root, self.folder("frozen"), text, threads=THREADS)
            ours.append(32 * steps / run.last_step_at("1"))
            found = self.peer(HF, data, steps, 20, "--freeze", 3)
            theirs.append(32 * steps / found["train_wall_s"])
        samples = [a / b for a, b in zip(ours, theirs)]
        note = "examples/s over 3 epochs of 4,000 rows, ours from process start with the cache filled on the way"
        yield ratio("train_frozen_half_vs_hf", samples, ours, "HF Trainer, grouped, same layers frozen", theirs, note)

    def first_step(self):
        """Process start to first optimizer step, without and with the token cache; then the next trial."""
        data = self.data("sst2")
        text = muster.manifest(self.minilm, data, "steps: 12")
        cold, untokenized, warm = [], [], []
        theirs = {"hf": [], "expert": []}
        for _ in range(self.pairs):
            folder = self.folder("start")
            run = muster.run(self.root, folder, text, threads=THREADS)
            untokenized.append(run.first_step_at("1"))
            shutil.rmtree(run.store / "experiments")
            muster.forget_state(folder)
            run = muster.run(self.root, folder, text, threads=THREADS)
            cold.append(run.first_step_at("1"))
            for side, script in (("hf", HF), ("expert", EXPERT)):
                theirs[side].append(self.peer(script, data, 3, 1)["first_step_s"])
        own = []
        two = text.replace("5e-5", "{values: [5e-5, 4e-5]}")
        two += "searcher: {metric: loss, sampler: grid}\n"
        for _ in range(self.pairs):
            # Where tokens are there: the rest of the data being tokenized beside it is the row above.
            shutil.rmtree(run.store / "experiments")
            muster.forget_state(folder)
            run = muster.run(self.root, folder, two, threads=THREADS)
            ends = [at for at in run.log_time("run completed") if at > run.last_step_at("1")]
            warm.append(run.first_step_at("2") - min(ends))
            own.append(32 / run.metric("2", "examples_per_second")[0][1])
        note = f"HF Trainer {statistics.median(theirs['hf']):.1f} s, PyTorch loop {statistics.median(theirs['expert']):.1f} s"
        yield seconds("first_step_cold_s", cold, note)
        yield seconds("first_step_cold_untokenized_s", untokenized, note)
        before = statistics.median(a - b for a, b in zip(warm, own))
        note = f"end of a trial's run to the first step of the next, same runner: {before:.3f} s before it and "
        note += f"{statistics.median(own):.3f} s of it"
        yield seconds("first_step_warm_s", warm, note)

    def tokenize(self):
        data, ours, theirs = self.data("sst2"), [], []
        for _ in range(self.pairs):
            found = self.measure("tokenize", "--model", self.minilm, "--file", data / "train.parquet",
                                 "--text", "sentence", "--max-length", 128, "--threads", THREADS)
            ours.append(found["rows_per_second"])
            peer = peers.run(self.root, "tokenize_bench.py", "--model", self.minilm, "--data", data,
                             "--threads", THREADS, "--repeat", 1)
            theirs.append(peer["map"]["rows_per_s"])
        samples = [a / b for a, b in zip(ours, theirs)]
        yield ratio("tokenize_vs_datasets", samples, ours, "datasets.map, batched", theirs, "rows/s, SST-2 train")

    def losses_agree(self):
        """The first 50 losses of HF Trainer, dropout 0, replayed on the same rows from the same head."""
        data, folder = self.data("sst2"), self.folder("replay")
        folder.mkdir(parents=True)
        losses, head = folder / "losses.json", folder / "head.safetensors"
        self.peer(HF, data, 50, 1, "--dropout", 0, "--losses", losses, "--dump-head", head)
        found = self.measure("replay", "--model", self.minilm, "--head", head, "--losses", losses,
                             "--file", data / "train.parquet", "--text", "sentence", "--threads", THREADS)
        worst = max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(found["losses"], found["theirs"]))
        agree = len(found["losses"]) == 50 and worst < 1e-2
        yield {
            "name": "losses_agree", "value": worst, "unit": "relative", "better": "lower", "failed": not agree,
            "note": f"largest difference of the first {len(found['losses'])} losses from HF Trainer's, same rows",
        }

    def predict(self):
        data = pyarrow.parquet.read_table(self.data("sst2") / "validation.parquet")
        texts = data["sentence"].to_pylist() * 2
        for shape in ("distilbert", "bert-base"):
            model = self.shape(shape)
            files = [self.folder(f"{shape}-{count}.jsonl") for count in (1, len(texts))]
            for file, some in zip(files, (texts[:1], texts)):
                file.write_text("".join(json.dumps({"text": text}) + "\n" for text in some), encoding="utf-8")
            ours, theirs = [], []
            for _ in range(self.pairs):
                alone, all_of_them = (self.predict_seconds(model, file) for file in files)
                ours.append((len(texts) - 1) / (all_of_them - alone))
                peer = peers.run(self.root, self.root / "tests/bench/pipeline.py", "--model", model,
                                 "--texts", files[1], "--threads", THREADS)
                theirs.append(peer["sentences_per_second"])
            samples = [a / b for a, b in zip(ours, theirs)]
            name = "predict_vs_hf" if shape == "distilbert" else "predict_vs_hf_bert_base"
            note = f"sentences/s of SST-2, {shape} shapes, both sorted by length, batches of 32"
            yield ratio(name, samples, ours, "transformers pipeline", theirs, note)

    def predict_seconds(self, model, file):
        command = [self.root / "target/release/muster", "predict", model, "--file", file, "--json"]
        environment = {"MUSTER_THREADS_PER_SLOT": str(THREADS), "PATH": "/usr/bin:/bin"}
        started = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
        elapsed = time.monotonic() - started
        if done.returncode != 0:
            raise muster.Failed(f"muster predict: {done.stderr[-400:]}")
        return elapsed

    def shape(self, name):
        """A classifier of random weights in the shape of a well-known model."""
        if name not in self.shapes_made:
            folder = self.folder(name)
            peers.run(self.root, self.root / "tests/bench/shape.py", "--shape", name, "--tokenizer", self.minilm,
                      "--model", folder)
            self.shapes_made[name] = folder
        return self.shapes_made[name]

    def measure(self, *arguments):
        """The JSON of `measure`, the part of the benchmark that is Rust."""
        build = ["cargo", "build", "--release", "--locked", "--quiet", "--workspace", "--example", "measure"]
        subprocess.run(build, cwd=self.root, check=True, timeout=1800)
        command = [self.root / "target/release/examples/measure", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode != 0:
            raise muster.Failed(f"measure {arguments[0]}: {done.stderr[-400:]}")
        return json.loads(done.stdout)


def ratio(name, samples, ours, peer, theirs, note, better="higher"):
    return {
        "name": name, "unit": "ratio", "better": better, "samples": samples, "ours": statistics.median(ours),
        "peer": {"name": peer, "value": statistics.median(theirs)}, "note": note,
    }


def seconds(name, samples, note):
    return {"name": name, "unit": "s", "better": "lower", "samples": samples, "note": note}
