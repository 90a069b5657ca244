"""Finds and runs the peers: scripts that do the same work with other people's tools, and print JSON.

The scripts are not part of the repository. MUSTER_PEERS names their folder (default: ../shared/peers beside the
checkout), MUSTER_PEERS_PYTHON a Python with torch, transformers and datasets (default: .cache/peers, which
`tests/bench/peers.sh` makes).
"""
import json
import os
import pathlib
import subprocess
import tempfile


class Missing(Exception):
    """A peer cannot be run here; the message says what is missing."""


def python(root):
    found = pathlib.Path(os.environ.get("MUSTER_PEERS_PYTHON", root / ".cache/peers/bin/python"))
    if not found.exists():
        raise Missing("no Python with transformers: run tests/bench/peers.sh or set MUSTER_PEERS_PYTHON")
    return found


def shared(root, what):
    """A folder or file of the data and scripts beside the checkout."""
    found = pathlib.Path(os.environ.get("MUSTER_SHARED", root.parent / "shared")) / what
    if not found.exists():
        raise Missing(f"{what} is not in the folder that MUSTER_SHARED names")
    return found


def scripts(root):
    own = os.environ.get("MUSTER_PEERS")
    return pathlib.Path(own) if own else shared(root, "peers")


def run(root, script, *arguments, limit=1800, uses=()):
    """The JSON that a peer leaves; `script` is a path, or a name in the folder of the peers.

    `uses`: folders of modules that a script needs besides those of its own folder. `limit`: seconds.
    """
    path = script if isinstance(script, pathlib.Path) else scripts(root) / script
    if not path.exists():
        raise Missing(f"{path.name} is not among the peers")
    with tempfile.TemporaryDirectory() as work:
        out = pathlib.Path(work) / "out.json"
        command = [python(root), path, *map(str, arguments), "--out", out]
        more = os.environ.get("PYTHONPATH")  # libraries that are not installed beside the peers
        paths = os.pathsep.join([str(path.parent), *map(str, uses), *([more] if more else [])])
        # Ray's workers step back behind every other process; measured beside any, they would only look slow.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths, "RAY_worker_niceness": "0"}
        # numpy picks its own kernels: a wish for old ones would slow the peers down.
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            environment.pop(name, None)
        try:
            done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired as late:
            raise Missing(f"{path.name} was not through after {limit} s") from late
        if done.returncode != 0 or not out.exists():
            raise Missing(f"{path.name} failed: {done.stderr.strip().splitlines()[-1:]}")
        return json.loads(out.read_text(encoding="utf-8"))
