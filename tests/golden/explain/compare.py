"""Compares what `muster explain MODEL ... --json FILE` has written with Captum and transformers on the same weights.

    PYTHONPATH=captum-files .cache/peers/bin/python tests/golden/explain/compare.py [--conductance STEPS] \
        [--table FILE] NAME=MODEL=FILE[=FINE] [NAME=MODEL=FILE[=FINE] ...]

For every kind of value it prints the largest difference over all texts, as a share of the largest value of its text,
and the median beside it, with a column for each model; `--table` writes that to a file too. Ends with 1 if one is
above 1e-3 or no number. `generate.py` says what is needed, and `compare.sh` (`make explained`) does all of it. The
baseline must be the padding token. Conductance is only compared where it is asked for, on the texts of FINE, which is
to be written with so many `--steps` that both sides have come to their limit; Captum takes minutes for that.
"""

import argparse
import json
import statistics
import sys

import captum
import torch
import transformers

from generate import Explained

LIMIT = 1e-3
# What each kind of value is compared with.
KINDS = {
    "attention of every layer and head": "transformers, `eager`, which BertViz draws",
    "attention rollout": "the same maps, multiplied as Abnar and Zuidema say",
    "integrated gradients": "Captum, LayerIntegratedGradients",
    "gradient x input": "Captum, InputXGradient",
    "occlusion": "Captum, Occlusion",
    "conductance of every layer": "Captum, LayerConductance, two sums and their limit",
}


def largest(found, wanted):
    found, wanted = torch.as_tensor(found, dtype=torch.float64), torch.as_tensor(wanted, dtype=torch.float64)
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def explained(model, tokenizer, text):
    """The text as Captum is asked about it, and which of its tokens are ordinary ones."""
    ids = [token["id"] for token in text["tokens"]]
    ordinary = [token["ordinary"] for token in text["tokens"]]
    encoded = tokenizer(text["text"], text.get("text_pair"), truncation=True, return_token_type_ids=True)
    assert encoded["input_ids"] == ids, "other tokens"
    classes = [entry["name"] for entry in text["classes"]]
    target = classes.index(text["explained"])
    return Explained(model, ids, encoded["token_type_ids"], ordinary, tokenizer.pad_token_id, target), ordinary


def compare(subject, ordinary, text, steps):
    """The largest difference of each kind of one text, but for conductance."""
    found = {entry["method"]: entry["tokens"] for entry in text["importance"]}
    # Muster leaves out what special tokens have, which for these two methods is not always nothing.
    only_ordinary = lambda values: [value if keep else 0.0 for value, keep in zip(values, ordinary)]
    attention, rollout, integrated, times_input, occlusion, _ = KINDS
    return {
        attention: max(
            largest(ours, theirs)
            for ours, theirs in zip(text["layers"]["attentions"], subject.attentions(), strict=True)),
        rollout: largest(text["layers"]["rollout"], subject.rollout()),
        integrated: largest(found["integrated_gradients"], subject.integrated_gradients(steps)),
        times_input: largest(found["gradient_times_input"], only_ordinary(subject.gradient_times_input())),
        occlusion: largest(found["occlusion"], only_ordinary(subject.occlusion())),
    }


def compare_conductance(subject, text, steps):
    """The largest difference over all layers of one text."""
    # The error of a sum over left ends falls with the step, so that two sums tell where it ends (Richardson).
    coarse, fine = (torch.tensor(subject.conductance(count)) for count in (steps, 2 * steps))
    ours = [layer["tokens"] for layer in text["layers"]["conductance"][1:]]
    return max(largest(a, b) for a, b in zip(ours, 2 * fine - coarse, strict=True))


def texts_of(file):
    report = json.load(open(file, encoding="utf-8"))
    assert report["settings"]["baseline"] == "pad", "another baseline than the padding token"
    return report


def compare_all(directory, file, fine, conductance_steps):
    """For each kind the differences of all texts that it was compared on, and what the model is."""
    report = texts_of(file)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        directory, attn_implementation="eager").double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    found = {kind: [] for kind in KINDS}
    for text in report["texts"]:
        subject, ordinary = explained(model, tokenizer, text)
        for kind, value in compare(subject, ordinary, text, report["settings"]["steps"]).items():
            found[kind].append(value)
    *_, conductance = KINDS
    for text in texts_of(fine)["texts"] if fine and conductance_steps else []:
        subject, _ = explained(model, tokenizer, text)
        found[conductance].append(compare_conductance(subject, text, conductance_steps))
    layers, heads = report["model"]["num_layers"], report["model"]["num_heads"]
    return found, f"{report['model']['family']}, {layers} layers of {heads} heads, {len(report['texts'])} texts"


def cell(values):
    if not values:
        return "-"
    return f"{max(values):.1e} ({statistics.median(values):.1e})"


def table(models):
    names = [f"{name} ({what})" for name, (_, what) in models.items()]
    rows = [["value", "compared with", *names], ["---"] * (2 + len(names))]
    for kind, reference in KINDS.items():
        rows.append([kind, reference, *(cell(found[kind]) for found, _ in models.values())])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--conductance", type=int, metavar="STEPS", default=0)
    parser.add_argument("--table", help="a file for the table")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL=FILE[=FINE]")
    arguments = parser.parse_args()
    models = {}
    for named in arguments.models:
        name, directory, file, *fine = named.split("=")
        models[name] = compare_all(directory, file, *fine[:1] or [None], arguments.conductance)
    drawn = table(models)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, captum {captum.__version__}"
    print(f"largest relative difference over all texts (median); {versions}, in 64-bit floats\n\n{drawn}")
    if arguments.table:
        with open(arguments.table, "w", encoding="utf-8") as file:
            file.write(drawn)
    values = [value for found, _ in models.values() for all_of_kind in found.values() for value in all_of_kind]
    far = [value for value in values if not value <= LIMIT]
    if far:
        print(f"error: {len(far)} of {len(values)} differences are above {LIMIT} or no numbers", file=sys.stderr)
    sys.exit(bool(far))


if __name__ == "__main__":
    main()
