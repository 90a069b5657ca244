"""Makes one classifier of each family with a real vocabulary, for the tests of ONNX.

usage: onnx_models.py MINILM SENTENCES DIRECTORY

`DIRECTORY/bert` is the pretrained encoder in MINILM under a random head. `DIRECTORY/distilbert` is random and has its
words. `DIRECTORY/roberta` is random and has pieces of bytes, learned here from the column of texts in SENTENCES, as
`vocab.json` and `merges.txt`. All take 128 tokens. Weights come from fixed seeds and are large enough that logits
differ by ones from text to text.
"""

import collections
import heapq
import json
import pathlib
import re
import shutil
import struct
import sys

import numpy as np

POSITIONS = 128
CLASSES = ["bad", "so-so", "good"]
NUM_MERGES = 2000
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
"""RoBERTa's, by their ids."""


def read_tensors(path):
    content = path.read_bytes()
    size, = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "F32":
            values = np.frombuffer(content[8 + size + begin:8 + size + end], np.float32)
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def write_tensors(path, tensors):
    header, end = {}, 0
    for name, values in tensors.items():
        begin, end = end, end + values.nbytes
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values, np.float32).tobytes())


def write_model(directory, config, tensors):
    labels = {str(number): name for number, name in enumerate(CLASSES)}
    config |= {"id2label": labels, "label2id": {name: number for number, name in enumerate(CLASSES)}}
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    write_tensors(directory / "model.safetensors", tensors)


def drawn(seed, shapes):
    """Large enough for attention that looks at something, and scales of LayerNorm around 1."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = generator.standard_normal(shape, np.float32)
        is_scale = "norm" in name.lower() and name.endswith("weight")
        # Sums of as many terms as there are columns should neither vanish nor explode.
        scale = 0.1 if len(shape) == 1 else 1.5 / shape[1] ** 0.5
        tensors[name] = 1 + 0.1 * noise if is_scale else scale * noise
    return tensors


def spread(tensors, head, scale, means):
    """A head whose logits are `scale` times as far apart, around 0 where they were around `means` (as measured)."""
    tensors[f"{head}.weight"] = tensors[f"{head}.weight"] * scale
    tensors[f"{head}.bias"] = (tensors[f"{head}.bias"] - np.array(means, np.float32)) * scale


def dense(name, out, width):
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def bert(minilm, directory):
    directory.mkdir(parents=True)
    for name in ["vocab.txt", "tokenizer_config.json"]:
        shutil.copy(minilm / name, directory / name)
    config = json.loads((minilm / "config.json").read_text())
    config |= {"architectures": ["BertForSequenceClassification"], "max_position_embeddings": POSITIONS}
    tensors = {f"bert.{name}": values for name, values in read_tensors(minilm / "model.safetensors").items()}
    positions = "bert.embeddings.position_embeddings.weight"
    tensors[positions] = tensors[positions][:POSITIONS]
    head = np.random.default_rng(1).standard_normal((len(CLASSES), config["hidden_size"]), np.float32)
    tensors |= {"classifier.weight": head, "classifier.bias": np.zeros(len(CLASSES), np.float32)}
    spread(tensors, "classifier", 4, [-0.32, 0.59, 1.06])
    write_model(directory, config, tensors)


def distilbert(minilm, directory):
    directory.mkdir(parents=True)
    for name in ["vocab.txt", "tokenizer_config.json"]:
        shutil.copy(minilm / name, directory / name)
    words, width, inner, layers = len((minilm / "vocab.txt").read_text().splitlines()), 48, 96, 3
    shapes = {
        "distilbert.embeddings.word_embeddings.weight": (words, width),
        "distilbert.embeddings.position_embeddings.weight": (POSITIONS, width),
        **norm("distilbert.embeddings.LayerNorm", width),
    }
    for layer in range(layers):
        at = f"distilbert.transformer.layer.{layer}"
        for part in ["q_lin", "k_lin", "v_lin", "out_lin"]:
            shapes |= dense(f"{at}.attention.{part}", width, width)
        shapes |= norm(f"{at}.sa_layer_norm", width) | norm(f"{at}.output_layer_norm", width)
        shapes |= dense(f"{at}.ffn.lin1", inner, width) | dense(f"{at}.ffn.lin2", width, inner)
    shapes |= dense("pre_classifier", width, width) | dense("classifier", len(CLASSES), width)
    config = {
        "architectures": ["DistilBertForSequenceClassification"], "model_type": "distilbert", "activation": "gelu",
        "dim": width, "hidden_dim": inner, "n_heads": 4, "n_layers": layers, "max_position_embeddings": POSITIONS,
        "vocab_size": words, "pad_token_id": 0, "dropout": 0.1, "attention_dropout": 0.1,
        "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False,
    }
    tensors = drawn(2, shapes)
    spread(tensors, "classifier", 4, [-1.09, 0.07, 1.45])
    write_model(directory, config, tensors)


def letters():
    """A printable letter for each byte: itself where it is one, else one behind the first 256."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in plain)
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + at) for at, byte in enumerate(others)}


def joined(pieces, pair):
    merged, place = [], 0
    while place < len(pieces):
        taken = 2 if tuple(pieces[place:place + 2]) == pair else 1
        merged.append("".join(pieces[place:place + taken]))
        place += taken
    return merged


def learn_merges(texts):
    """Byte pair encoding: the pair seen most often becomes one piece, again and again."""
    letter = letters()
    counts = collections.Counter(
        word for text in texts for word in re.findall(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+", text))
    words = [([letter[byte] for byte in word.encode()], count) for word, count in sorted(counts.items()) if count > 1]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for at, (pieces, count) in enumerate(words):
        for pair in zip(pieces, pieces[1:]):
            pairs[pair] += count
            where[pair].add(at)
    # Counts that have changed since stay in the heap and are passed over.
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while len(merges) < NUM_MERGES:
        count, best = heapq.heappop(heap)
        if pairs[best] != -count:
            continue
        merges.append(best)
        changed = set()
        for at in where.pop(best):
            pieces, count = words[at]
            merged = joined(pieces, best)
            words[at] = (merged, count)
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] -= count
                changed.add(pair)
            for pair in zip(merged, merged[1:]):
                pairs[pair] += count
                where[pair].add(at)
                changed.add(pair)
        for pair in changed:
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
    return sorted(letter.values()), merges


def roberta(texts, directory):
    directory.mkdir(parents=True)
    alphabet, merges = learn_merges(texts)
    pieces = dict.fromkeys(SPECIAL + alphabet + ["".join(pair) for pair in merges])
    (directory / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    width, inner, layers = 48, 96, 3
    shapes = {
        "roberta.embeddings.word_embeddings.weight": (len(pieces), width),
        "roberta.embeddings.position_embeddings.weight": (POSITIONS + 2, width),
        "roberta.embeddings.token_type_embeddings.weight": (1, width),
        **norm("roberta.embeddings.LayerNorm", width),
    }
    for layer in range(layers):
        at = f"roberta.encoder.layer.{layer}"
        for part in ["self.query", "self.key", "self.value", "output.dense"]:
            shapes |= dense(f"{at}.attention.{part}", width, width)
        shapes |= norm(f"{at}.attention.output.LayerNorm", width) | norm(f"{at}.output.LayerNorm", width)
        shapes |= dense(f"{at}.intermediate.dense", inner, width) | dense(f"{at}.output.dense", width, inner)
    shapes |= dense("classifier.dense", width, width) | dense("classifier.out_proj", len(CLASSES), width)
    config = {
        "architectures": ["RobertaForSequenceClassification"], "model_type": "roberta", "hidden_act": "gelu",
        "hidden_size": width, "intermediate_size": inner, "num_attention_heads": 4, "num_hidden_layers": layers,
        "max_position_embeddings": POSITIONS + 2, "vocab_size": len(pieces), "type_vocab_size": 1,
        "layer_norm_eps": 1e-5, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    }
    tensors = drawn(3, shapes)
    spread(tensors, "classifier.out_proj", 8, [1.08, 1.03, -0.35])
    write_model(directory, config, tensors)


def main():
    minilm, sentences, directory = map(pathlib.Path, sys.argv[1:])
    lines = sentences.read_text(encoding="utf-8").splitlines()
    bert(minilm, directory / "bert")
    distilbert(minilm, directory / "distilbert")
    roberta([line.split("\t")[2] for line in lines], directory / "roberta")


if __name__ == "__main__":
    main()
