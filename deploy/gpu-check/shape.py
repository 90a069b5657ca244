"""BERT directories with random weights, made with numpy alone."""
import json
import pathlib
import shutil

import numpy

SHAPES = {
    # layers, hidden, heads, feed-forward
    "tiny": (2, 64, 4, 256),
    "bert-base": (12, 768, 12, 3072),
}


def parameters(layers, hidden, feed_forward, vocabulary):
    """Names and shapes as transformers writes them."""
    yield "bert.embeddings.word_embeddings.weight", (vocabulary, hidden)
    yield "bert.embeddings.position_embeddings.weight", (512, hidden)
    yield "bert.embeddings.token_type_embeddings.weight", (2, hidden)
    yield from norm("bert.embeddings.LayerNorm", hidden)
    for layer in range(layers):
        here = f"bert.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            yield from linear(f"{here}.attention.self.{name}", hidden, hidden)
        yield from linear(f"{here}.attention.output.dense", hidden, hidden)
        yield from norm(f"{here}.attention.output.LayerNorm", hidden)
        yield from linear(f"{here}.intermediate.dense", feed_forward, hidden)
        yield from linear(f"{here}.output.dense", hidden, feed_forward)
        yield from norm(f"{here}.output.LayerNorm", hidden)
    yield from linear("bert.pooler.dense", hidden, hidden)
    yield from linear("classifier", 2, hidden)


def linear(name, rows, columns):
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def norm(name, size):
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def write(directory, shape, tokenizer):
    """Writes the model and returns the numbers that its arithmetic is counted with."""
    layers, hidden, heads, feed_forward = SHAPES[shape]
    directory, tokenizer = pathlib.Path(directory), pathlib.Path(tokenizer)
    directory.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.iterdir():
        shutil.copy(file, directory)
    vocabulary = len((tokenizer / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": vocabulary,
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": feed_forward, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512, "type_vocab_size": 2,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "id2label": {"0": "0", "1": "1"}, "label2id": {"0": 0, "1": 1},
    }
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    generator = numpy.random.default_rng(0)
    header, arrays, offset = {}, [], 0
    for name, size in parameters(layers, hidden, feed_forward, vocabulary):
        if name.endswith("LayerNorm.weight"):
            values = numpy.ones(size, dtype=numpy.float32)
        elif name.endswith("bias"):
            values = numpy.zeros(size, dtype=numpy.float32)
        else:
            values = generator.standard_normal(size, dtype=numpy.float32) * numpy.float32(0.02)
        end = offset + values.nbytes
        header[name] = {"dtype": "F32", "shape": list(size), "data_offsets": [offset, end]}
        arrays.append(values)
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in arrays:
            file.write(values.tobytes())
    return {"layers": layers, "hidden": hidden, "feed_forward": feed_forward}
