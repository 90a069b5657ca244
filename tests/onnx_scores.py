"""Runs a model that `muster export --onnx` wrote on what `muster predict --json` has read, with ONNX Runtime.

usage: onnx_scores.py MODEL PREDICTIONS PAD

Sequences are padded with the token PAD to the longest of 16. Prints one JSON object: `count` of sequences, `largest`
difference of any logit, `right`, how many have the same class, and `labels`, the class names in the file. What says
whether that means anything: `spread`, the smallest standard deviation of a class's logits from text to text, `rarest`,
the share of texts of the rarest class, `tokens`, how many different ones there were, and `longest`, in tokens.
"""

import json
import sys

import numpy as np
import onnxruntime


def main():
    path, predictions, pad = sys.argv[1], sys.argv[2], int(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    rows = [json.loads(line) for line in open(predictions, encoding="utf-8")]
    largest, right = 0.0, 0
    expected_all = np.array([row["logits"] for row in rows])
    classes = np.bincount(expected_all.argmax(-1), minlength=expected_all.shape[1])
    for start in range(0, len(rows), 16):
        batch = rows[start:start + 16]
        longest = max(len(row["token_ids"]) for row in batch)
        ids = np.full((len(batch), longest), pad, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for index, row in enumerate(batch):
            tokens = row["token_ids"]
            ids[index, :len(tokens)], mask[index, :len(tokens)] = tokens, 1
            if "text_pair" in row:
                # The second text begins behind the first separator, which is the last token too.
                types[index, tokens.index(tokens[-1]) + 1:len(tokens)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        logits, = session.run(["logits"], {name: inputs[name] for name in wanted})
        expected = np.array([row["logits"] for row in batch])
        largest = max(largest, float(np.abs(logits - expected).max()))
        right += int((logits.argmax(-1) == expected.argmax(-1)).sum())
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    print(json.dumps({
        "count": len(rows), "largest": largest, "right": right, "labels": labels,
        "spread": float(expected_all.std(0).min()), "rarest": float(classes.min() / len(rows)),
        "tokens": len({token for row in rows for token in row["token_ids"]}),
        "longest": max(len(row["token_ids"]) for row in rows),
    }))


if __name__ == "__main__":
    main()
