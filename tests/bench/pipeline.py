"""Sentences per second of the transformers pipeline on a JSONL file of texts, sorted by length."""
import argparse
import json
import os
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--texts", required=True)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--out", required=True)
arguments = parser.parse_args()
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = str(arguments.threads)

import torch
import transformers

torch.set_num_threads(arguments.threads)
transformers.logging.set_verbosity_error()
with open(arguments.texts, encoding="utf-8") as file:
    texts = sorted((json.loads(line)["text"] for line in file), key=len)
pipeline = transformers.pipeline("text-classification", model=arguments.model, device="cpu", top_k=None)
with torch.inference_mode():
    pipeline(texts[:8], batch_size=8)
    started = time.perf_counter()
    results = pipeline(texts, batch_size=arguments.batch, truncation=True)
    elapsed = time.perf_counter() - started
assert len(results) == len(texts)
with open(arguments.out, "w", encoding="utf-8") as file:
    json.dump({"sentences_per_second": len(texts) / elapsed, "sentences": len(texts)}, file)
