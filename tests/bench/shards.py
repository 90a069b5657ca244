"""Checkpoints that the ranks of two hosts write together: each host has a cable of its own to the S3 server, and rank 0's
alone carries everything when nothing is shared. Gradients take another network.
"""
import json
import os
import statistics
import subprocess
import time

import hosts
import muster
import peers

NAME = "checkpoint_shards_vs_whole"
# What a host's cable to the store carries, Mbit/s; little, so that two hosts on one machine's cores are limited by it.
CABLE = 400
STEPS = 8
PORT = 8333
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester-secret"}
# Of one rank, or of as many as there are.
SHARD_MIB = {"whole": 1_000_000, "shards": 16}


def row(root, work, pairs):
    """How long a checkpoint takes that rank 0 writes, over one of which both ranks write a half."""
    seconds = {kind: [] for kind in SHARD_MIB}
    with hosts.Hosts() as pair:
        pair.add_storage(CABLE)
        with Server(root, pair, work / "s3"):
            for number in range(pairs):
                for kind, shard_mib in SHARD_MIB.items():
                    seconds[kind].append(checkpoint_seconds(root, pair, work / f"{kind}-{number}", shard_mib))
    whole, shards = seconds["whole"], seconds["shards"]
    return {
        "name": NAME, "unit": "ratio", "better": "higher", "samples": [a / b for a, b in zip(whole, shards)],
        "ours": statistics.median(shards), "peer": {"name": "rank 0 writes everything, s", "value": statistics.median(whole)},
        "note": f"from one index to the next, MiniLM, two hosts (network namespaces) with {CABLE} Mbit/s each to an S3 server",
    }


class Server:
    """SeaweedFS in the place of the switch."""

    def __init__(self, root, pair, directory):
        self.program, self.pair, self.directory, self.child = root / ".cache/s3-server/bin/weed", pair, directory, None

    def __enter__(self):
        if not self.program.exists():
            raise peers.Missing("there is no S3 server; run deploy/setup/s3_server.sh")
        self.directory.mkdir()
        keys = [{"accessKey": CREDENTIALS["AWS_ACCESS_KEY_ID"], "secretKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}]
        identity = {"name": "tester", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        command = [self.program, f"-logdir={self.directory}", "server", f"-dir={self.directory}", f"-ip={hosts.STORAGE}",
                   f"-ip.bind={hosts.STORAGE}", "-volume.max=200", "-master.volumeSizeLimitMB=64", "-filer", "-s3",
                   f"-s3.port={PORT}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.directory / 's3.json'}",
                   f"-s3.localSocket={self.directory / 's3.sock'}", f"-filer.localSocket={self.directory / 'filer.sock'}"]
        with open(self.directory / "log", "w", encoding="utf-8") as log:
            self.child = subprocess.Popen(self.pair.storage_command(*command), cwd=self.directory, stdout=log, stderr=log)
        # The filer makes a container of a directory; both are asked from where they run.
        asked = [["-X", "POST", f"http://{hosts.STORAGE}:8888/buckets/runs/"], [f"http://{hosts.STORAGE}:{PORT}/healthz"]]
        begun = time.time()
        while time.time() - begun < 60:
            ask = self.pair.storage_command("curl", "-sf", *asked[0])
            if subprocess.run(ask, capture_output=True, check=False).returncode == 0:
                asked.pop(0)
            if not asked:
                return self
            time.sleep(0.2)
        self.__exit__()
        raise muster.Failed(f"the S3 server does not start: {self.directory / 'log'}")

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


def checkpoint_seconds(root, pair, directory, shard_mib):
    """Median time from one checkpoint to the next of a trial whose steps take next to nothing."""
    directory.mkdir(parents=True)
    data, model = peers.shared(root, "data/sst2"), root / ".cache/demo/minilm"
    extra = f"resources: {{slots: 2}}\ncheckpoint: {{every_steps: 1, keep_last: 100, shard_mib: {shard_mib}}}\n"
    text = muster.manifest(model, data, f"steps: {STEPS}", batch=2, max_length=16, extra=extra)
    (directory / "manifest.yaml").write_text(text, encoding="utf-8")
    store = f"s3://runs/{directory.name}?endpoint=http://{hosts.STORAGE}:{PORT}&path_style=true&region=us-east-1"
    (directory / "muster.toml").write_text(f'max_slots = 2\nstore = "{store}"\n', encoding="utf-8")
    release, address = root / "target/release", f"{hosts.ADDRESSES['a']}:7700"
    serve = [release / "muster", "serve", "--listen", address, "--no-workers"]
    supervise = [release / "muster-worker", "supervise", "--coordinator", f"http://{address}"]
    submit = [release / "muster", "submit", "manifest.yaml", "--coordinator", f"http://{address}"]
    variables = {**os.environ, **CREDENTIALS, "OMP_NUM_THREADS": "1"}
    children = []
    with open(directory / "output", "w", encoding="utf-8") as output:
        say = {"cwd": directory, "env": variables, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        try:
            for host, command in (("a", serve), ("a", supervise), ("b", supervise)):
                children.append(subprocess.Popen(pair.command(host, *command), **say))
                time.sleep(1)
            subprocess.run(pair.command("a", *submit), check=True, timeout=60, **say)
            times = created_at(root, pair, directory, variables, address)
        except subprocess.CalledProcessError as error:
            said = (directory / "output").read_text(encoding="utf-8")[:800]
            raise muster.Failed(f"{error}: {said}") from error
        finally:
            for child in reversed(children):
                child.kill()
                child.wait()
    return statistics.median(b - a for a, b in zip(times, times[1:]))


def created_at(root, pair, directory, variables, address):
    """When each checkpoint's index was written, once all of them are."""
    command = [root / "target/release/muster", "checkpoints", "ls", "--json"]
    begun = time.time()
    while time.time() - begun < 600:
        found = subprocess.run(
            pair.command("a", *command), cwd=directory, env=variables, capture_output=True, text=True, timeout=60, check=False,
        )
        listed = json.loads(found.stdout) if found.returncode == 0 and found.stdout.strip() else []
        # One that is on its way has no index yet.
        whole = [checkpoint for checkpoint in listed if checkpoint["created_at_ms"]]
        if len(whole) >= STEPS:
            return sorted(checkpoint["created_at_ms"] / 1e3 for checkpoint in whole)
        time.sleep(1)
    raise muster.Failed(f"no {STEPS} checkpoints at {address}: {(directory / 'output').read_text(encoding='utf-8')[-800:]}")
