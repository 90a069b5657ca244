"""Compares what `muster explain MODEL ... --json FILE` has written with Captum and transformers on the same weights.

    PYTHONPATH=captum-files .cache/peers/bin/python tests/golden/explain/compare.py MODEL FILE [CONDUCTANCE_STEPS]

Prints, for every text, the largest difference of each kind as a share of the largest value, and ends with 1 if one is
above 1e-3. `generate.py` says what is needed. The baseline must be the padding token. Conductance is only compared where
steps are given: 150 take minutes on a real model.
"""

import json
import sys

import torch
import transformers

from generate import Explained

LIMIT = 1e-3


def largest(found, wanted):
    found, wanted = torch.as_tensor(found, dtype=torch.float64), torch.as_tensor(wanted, dtype=torch.float64)
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def compare(model, tokenizer, text, steps, conductance_steps):
    ids = [token["id"] for token in text["tokens"]]
    ordinary = [token["ordinary"] for token in text["tokens"]]
    encoded = tokenizer(text["text"], text.get("text_pair"), truncation=True, return_token_type_ids=True)
    assert encoded["input_ids"] == ids, "other tokens"
    classes = [entry["name"] for entry in text["classes"]]
    target = classes.index(text["explained"])
    subject = Explained(model, ids, encoded["token_type_ids"], ordinary, tokenizer.pad_token_id, target)
    found = {entry["method"]: entry["tokens"] for entry in text["importance"]}
    # Muster leaves out what special tokens have, which for these two methods is not always nothing.
    only_ordinary = lambda values: [value if keep else 0.0 for value, keep in zip(values, ordinary)]
    differences = {
        "attention": max(
            largest(ours, theirs) for ours, theirs in zip(text["layers"]["attentions"], subject.attentions())),
        "rollout": largest(text["layers"]["rollout"], subject.rollout()),
        "integrated gradients": largest(found["integrated_gradients"], subject.integrated_gradients(steps)),
        "gradient x input": largest(found["gradient_times_input"], only_ordinary(subject.gradient_times_input())),
        "occlusion": largest(found["occlusion"], only_ordinary(subject.occlusion())),
    }
    if conductance_steps:
        # The error of a sum over left ends falls with the step, so that two sums tell where it ends (Richardson).
        coarse, fine = (torch.tensor(subject.conductance(n)) for n in (conductance_steps, 2 * conductance_steps))
        theirs = 2 * fine - coarse
        ours = [layer["tokens"] for layer in text["layers"]["conductance"][1:]]
        differences["conductance"] = max(largest(a, b) for a, b in zip(ours, theirs))
    return differences


def main():
    directory, file = sys.argv[1], sys.argv[2]
    conductance_steps = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    report = json.load(open(file, encoding="utf-8"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        directory, attn_implementation="eager").double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    worst = 0.0
    for text in report["texts"]:
        differences = compare(model, tokenizer, text, report["settings"]["steps"], conductance_steps)
        worst = max(worst, *differences.values())
        print(text["text"][:60], {name: f"{value:.1e}" for name, value in differences.items()})
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
