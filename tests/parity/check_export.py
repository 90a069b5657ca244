"""Compares the scores Muster gives with those of the transformers library for the same exported model.

usage: check_export.py MODEL_DIR SENTENCES PREDICTIONS

MODEL_DIR is a Hugging Face directory that Muster exported, SENTENCES holds one text per line, and PREDICTIONS
what `muster predict MODEL_DIR --json < SENTENCES` printed: one JSON object per line and text, with the
keys `label` (a name out of config.json) and `logits` (one float per class). Exits 1 when a logit differs by
more than 1e-5 or a label differs.
"""

import json
import math
import pathlib
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MAX_DIFFERENCE = 1e-5
# Scores that hardly depend on the text would agree for the wrong reason.
MIN_SPREAD = 1e-3


def reference(model_dir, sentences):
    """Logits of transformers, one row per sentence, each computed alone so that there is no padding."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        model_dir, local_files_only=True, output_loading_info=True, attn_implementation="eager"
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[kind]:
            sys.exit(f"error: transformers reports {kind} in {model_dir}: {sorted(loading[kind])}")
    model.eval()
    rows = []
    with torch.no_grad():
        for sentence in sentences:
            encoded = tokenizer(sentence, truncation=True, max_length=512, return_tensors="pt")
            rows.append(model(**encoded).logits[0].to(torch.float32).tolist())
    return rows, model.config.id2label


def largest_difference(ours, theirs):
    """The largest absolute difference; not finite when a score is not."""
    differences = [abs(a - b) for row_a, row_b in zip(ours, theirs, strict=True) for a, b in zip(row_a, row_b, strict=True)]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model_dir, sentences_path, predictions_path = map(pathlib.Path, sys.argv[1:])
    sentences = sentences_path.read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line) for line in predictions_path.read_text(encoding="utf-8").splitlines()]
    if not sentences or len(predictions) != len(sentences):
        sys.exit(f"error: {len(sentences)} sentences, but {len(predictions)} predictions")

    ours = [prediction["logits"] for prediction in predictions]
    theirs, id2label = reference(model_dir, sentences)
    difference = largest_difference(ours, theirs)
    labels = [id2label[max(range(len(row)), key=row.__getitem__)] for row in theirs]
    wrong = [text for text, label, prediction in zip(sentences, labels, predictions) if label != prediction["label"]]
    spread = max(row[0] for row in theirs) - min(row[0] for row in theirs)

    print(f"{len(sentences)} sentences, {len(id2label)} classes")
    print(f"largest difference of a logit: {difference:.2e} (at most {MAX_DIFFERENCE:.0e})")
    print(f"labels that differ: {len(wrong)}")
    if spread < MIN_SPREAD:
        sys.exit(f"error: the first logit varies by only {spread:.2e} over the sentences; nothing is compared")
    if wrong or not difference <= MAX_DIFFERENCE:
        sys.exit("error: Muster and transformers disagree")


if __name__ == "__main__":
    main()
