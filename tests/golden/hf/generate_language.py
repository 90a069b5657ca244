"""Writes `language.json` beside it: losses and gradient norms of a few steps of training language models.

    .cache/parity/bin/python tests/golden/hf/generate_language.py

The models are those of `generate_families.py`, dropout 0; transformers computes the losses, torch the updates
(AdamW with weight decay on everything but biases and LayerNorm, clipping to 1, a straight fall of the rate to 0).
What is hidden at each step is drawn here once more, from nothing but the description: the seed tree (SHA-256) and
SplitMix64, one seed for each step and example. Positions that are not given here are thereby checked too.

Run on one thread in 32-bit floats.
"""

import hashlib
import json
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).resolve().parent
MASK64 = (1 << 64) - 1
IGNORED = -100
SEED, STEPS, EXAMPLES, BATCH, VOCAB = 4, 6, 24, 8, 32
PEAK, DECAY, CLIP = 2e-3, 0.01, 1.0
MASK, SPECIAL = 4, range(5)
ORDINARY = [token for token in range(VOCAB) if token not in SPECIAL]
CONTINUES = [token % 3 == 0 and token not in SPECIAL for token in range(VOCAB)]
CASES = [
    ("bert", "masked", "ForMaskedLM", {"rate": 0.15, "whole_words": False}),
    ("distilbert", "masked", "ForMaskedLM", {"rate": 0.4, "whole_words": True}),
    ("roberta", "masked", "ForMaskedLM", {"rate": 0.3, "whole_words": False}),
    ("bert", "next_sentence", "ForNextSentencePrediction", None),
    ("bert", "both", "ForPreTraining", {"rate": 0.2, "whole_words": True}),
]
NAMES = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta"}
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


def child(seed, purpose, index):
    text = purpose.encode()
    parts = [seed.to_bytes(8, "little"), len(text).to_bytes(8, "little"), text, index.to_bytes(8, "little")]
    return int.from_bytes(hashlib.sha256(b"".join(parts)).digest()[:8], "little")


class Draws:
    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK64
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
        return z ^ (z >> 31)

    def unit(self):
        return (self.next() >> 11) / (1 << 53)

    def below(self, bound):
        threshold = ((1 << 64) - bound) % bound
        while True:
            wide = self.next() * bound
            if wide & MASK64 >= threshold:
                return wide >> 64


def hide(tokens, rate, whole_words, seed):
    draws, read, truth = Draws(seed), list(tokens), [IGNORED] * len(tokens)
    chosen, inside = False, False
    for place, token in enumerate(tokens):
        if token in SPECIAL:
            inside = False
            continue
        if not (whole_words and inside and CONTINUES[token]):
            chosen = draws.unit() < rate
        inside = True
        if chosen:
            truth[place] = token
            draw = draws.unit()
            if draw < MASK_SHARE:
                read[place] = MASK
            elif draw < MASK_SHARE + RANDOM_SHARE:
                read[place] = ORDINARY[draws.below(len(ORDINARY))]
    return read, truth


def make_examples(family, pairs):
    draws = Draws(7)
    first, last = (0, 2) if family == "roberta" else (2, 3)
    word = lambda: 5 + draws.below(VOCAB - 5)
    examples = []
    for _ in range(EXAMPLES):
        row = [first] + [word() for _ in range(1 + draws.below(6))] + [last]
        first_segment = len(row)
        if pairs:
            row += [word() for _ in range(1 + draws.below(6))] + [last]
        examples.append({
            "tokens": row, "first_segment": first_segment if pairs else len(row),
            "label": draws.below(2) if pairs else 0})
    return examples


def filled(rows, filler):
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def train(family, task, suffix, masking, examples):
    path = HERE / "families" / f"{family}-{task}"
    model = getattr(transformers, NAMES[family] + suffix).from_pretrained(path, attn_implementation="eager")
    model.train()
    plain = lambda name: name.endswith("bias") or "norm" in name.lower()
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW([
        {"params": [p for name, p in named if not plain(name)], "weight_decay": DECAY},
        {"params": [p for name, p in named if plain(name)], "weight_decay": 0.0}], lr=PEAK)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: (STEPS - done) / STEPS)
    pad = model.config.pad_token_id
    losses, norms, counts = [], [], []
    for step in range(1, STEPS + 1):
        indices = [(step * 5 + number * 3) % EXAMPLES for number in range(BATCH)]
        rows, truths = [], []
        for index in indices:
            read, truth = examples[index]["tokens"], [IGNORED] * len(examples[index]["tokens"])
            if masking:
                seed = child(child(SEED, "masks", step), "example", index)
                read, truth = hide(read, masking["rate"], masking["whole_words"], seed)
            rows.append(read)
            truths.append(truth)
        inputs = {"input_ids": filled(rows, pad), "attention_mask": filled([[1] * len(row) for row in rows], 0)}
        if family == "bert":
            segments = [
                [int(place >= examples[index]["first_segment"]) for place in range(len(row))]
                for index, row in zip(indices, rows)]
            inputs["token_type_ids"] = filled(segments, 0)
        strangers = torch.tensor([examples[index]["label"] for index in indices])
        labels = {
            "masked": lambda: {"labels": filled(truths, IGNORED)},
            "next_sentence": lambda: {"labels": strangers},
            "both": lambda: {"labels": filled(truths, IGNORED), "next_sentence_label": strangers},
        }[task]()
        loss = model(**inputs, **labels).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        counts.append(sum(token != IGNORED for truth in truths for token in truth))
    return {"losses": losses, "norms": norms, "num_masked": counts}


def main():
    torch.set_num_threads(1)
    cases = []
    for family, task, suffix, masking in CASES:
        examples = make_examples(family, task != "masked")
        cases.append({
            "family": family, "task": task, "masking": masking, "examples": examples,
            **train(family, task, suffix, masking, examples)})
    golden = {
        "seed": SEED, "batch": BATCH, "peak": PEAK, "decay": DECAY, "clip": CLIP, "mask": MASK,
        "num_special": len(SPECIAL), "continues": CONTINUES, "cases": cases}
    (HERE / "language.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
