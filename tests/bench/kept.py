"""Results of long trainings that are kept, so that a row which was interrupted goes on where it was."""
import datetime
import functools
import hashlib
import json

import sizes


def result(root, part, name, terms, measure, key="result"):
    """What was found on these terms, by calling `measure` if nobody has yet; anything that JSON can hold."""
    folder = root / "target/bench" / ("quick" if sizes.QUICK else "") / part
    path, terms = folder / f"{name}.json", json.loads(json.dumps(terms))
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["terms"] == terms:
            return found[key]
    found = measure()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    at = datetime.datetime.now().isoformat(timespec="seconds")
    unfinished.write_text(json.dumps({"terms": terms, key: found, "at": at}), encoding="utf-8")
    unfinished.rename(path)
    return found


@functools.cache
def build(root):
    """Tells builds of Muster apart: what one has reached says nothing about the speed of the next."""
    digest = hashlib.sha256()
    for name in ("muster", "muster-worker"):
        with open(root / "target/release" / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
