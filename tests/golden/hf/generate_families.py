"""Writes `families/` and `families_odd/` beside it: tiny random models of three families, of even sizes and of odd
ones, and what transformers computes.

    .cache/parity/bin/python tests/golden/hf/generate_families.py [families|families_odd]

Every model is a complete Hugging Face directory, as `save_pretrained` writes it, with `gradients.safetensors`
beside it: the gradient of every parameter (`CASE/PARAMETER`). `cases.json` holds token ids, labels, logits and
losses. Tokenizers and predictions are made for the even sizes only. The cases are single sentences of one length, sentences padded to the longest, and padded pairs; each
padded case has the padding token inside a sentence too.

Dropout is checked in two ways. With a probability of 1 everything that passes a place of dropout vanishes, so
the logits in training mode say where these places are. And with the same masks in the same order a loss in
training mode says that there are no other places. For that torch's dropout is replaced by one that draws as Muster
does, a hash of the element's number under a key from torch's generator; `probe` is what it makes of sixteen ones.

Run on one thread in 32-bit floats.
"""

import dataclasses
import json
import shutil
import sys
import unittest.mock
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the models of one folder."""
    folder: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    labels: tuple

    @property
    def path(self):
        return HERE / self.folder


EVEN = Shape("families", 32, 8, 2, 2, 12, 16, ("bad", "so-so", "good"))
# Nothing is a power of two, and a head is 5 wide.
ODD = Shape("families_odd", 37, 15, 3, 3, 23, 19, ("1", "2", "3", "4", "5"))
DROPOUT_SEED = 99
RATES = {"hidden": 0.3, "attention": 0.2, "head": 0.4}
NO_RATES = {"hidden": 0.0, "attention": 0.0, "head": 0.0}
IGNORED = -100


def config(shape, family, rates):
    numbers = dict(enumerate(shape.labels))
    labels = {"id2label": numbers, "label2id": {name: number for number, name in numbers.items()}}
    if family == "distilbert":
        made = transformers.DistilBertConfig(
            vocab_size=shape.vocabulary, dim=shape.hidden, n_layers=shape.layers, n_heads=shape.heads,
            hidden_dim=shape.inner, max_position_embeddings=shape.positions, pad_token_id=0, dropout=rates["hidden"],
            attention_dropout=rates["attention"], seq_classif_dropout=rates["head"], **labels)
    else:
        common = dict(
            vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads, intermediate_size=shape.inner, hidden_dropout_prob=rates["hidden"],
            attention_probs_dropout_prob=rates["attention"], classifier_dropout=rates["head"], **labels)
        if family == "bert":
            made = transformers.BertConfig(max_position_embeddings=shape.positions, pad_token_id=0, **common)
        else:
            # As the published models: one token type, two rows of the position table left to padding, 1e-5.
            made = transformers.RobertaConfig(
                max_position_embeddings=shape.positions + 2, type_vocab_size=1, pad_token_id=1, bos_token_id=0,
                eos_token_id=2, layer_norm_eps=1e-5, **common)
    made._attn_implementation = "eager"
    return made


FAMILIES = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta"}
TASKS = {
    "classification": "ForSequenceClassification",
    "masked": "ForMaskedLM",
    "next_sentence": "ForNextSentencePrediction",
    "both": "ForPreTraining",
}


def tasks_of(family):
    return list(TASKS) if family == "bert" else ["classification", "masked"]


def make_model(shape, family, task, rates=NO_RATES):
    model = getattr(transformers, FAMILIES[family] + TASKS[task])(config(shape, family, rates))
    generator = torch.Generator().manual_seed(20 + len(family) + len(task))
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            # LayerNorm scales around 1, so that neither scale nor shift can be left out unnoticed.
            is_scale = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(noise * 0.3 + 1 if is_scale else noise)
    return model


def make_cases(shape, family):
    """Token ids with special tokens, segments, labels and masked positions."""
    generator = torch.Generator().manual_seed(21)
    draw = lambda low, high, n: torch.randint(low, high, (n,), generator=generator).tolist()
    first, pad, last, mask = (0, 1, 2, 4) if family == "roberta" else (2, 0, 3, 4)
    between = [last, last] if family == "roberta" else [last]
    words = lambda n: draw(5, shape.vocabulary, n)

    def case(sentences):
        tokens, segments = [], []
        for sentence in sentences:
            row, types = [first], [0]
            for number, part in enumerate(sentence):
                row += (between if number else []) + part
                types += [0] * (len(between) if number else 0) + [number] * len(part)
            # BERT counts the separator behind the first text to the first segment.
            tokens.append(row + [last])
            segments.append(types + [types[-1]])
        masked, originals = [], []
        for row in tokens:
            places = [place for place, token in enumerate(row) if token >= 5]
            chosen = sorted(places[i] for i in draw(0, len(places), 2))
            chosen = sorted(set(chosen))
            truth = [IGNORED] * len(row)
            read = list(row)
            for place in chosen:
                truth[place] = row[place]
                read[place] = mask
            masked.append(read)
            originals.append(truth)
        count = len(tokens)
        return {
            "tokens": tokens, "segments": segments, "masked": masked, "originals": originals,
            "labels": draw(0, len(shape.labels), count), "follows": [bool(bit) for bit in draw(0, 2, count)],
        }

    with_pad = words(9)
    with_pad[4] = pad
    pair_with_pad = words(4)
    pair_with_pad[2] = pad
    return pad, {
        "single": case([[words(5)], [words(5)], [words(5)]]),
        "padded": case([[words(1)], [words(14)], [with_pad], [words(3)]]),
        "pairs": case([[words(2), words(3)], [words(6), words(4)], [pair_with_pad, words(1)]]),
    }


def forward(model, task, case, pad, family):
    def filled(rows, filler):
        longest = max(map(len, rows))
        return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])

    reads_masked = task in ("masked", "both")
    rows = case["masked"] if reads_masked else case["tokens"]
    inputs = {
        "input_ids": filled(rows, pad),
        "attention_mask": filled([[1] * len(row) for row in rows], 0),
    }
    if family == "bert":
        inputs["token_type_ids"] = filled(case["segments"], 0)
    strangers = torch.tensor([0 if follows else 1 for follows in case["follows"]])
    if task == "classification":
        result = model(**inputs, labels=torch.tensor(case["labels"]))
        return result.loss, {"logits": result.logits.tolist()}
    truth = filled(case["originals"], IGNORED)
    if task == "masked":
        result = model(**inputs, labels=truth)
        return result.loss, {"masked_logits": result.logits[truth != IGNORED].tolist()}
    if task == "next_sentence":
        result = model(**inputs, labels=strangers)
        return result.loss, {"logits": result.logits.tolist()}
    result = model(**inputs, labels=truth, next_sentence_label=strangers)
    return result.loss, {
        "masked_logits": result.prediction_logits[truth != IGNORED].tolist(),
        "logits": result.seq_relationship_logits.tolist(),
    }


def hashed_dropout(x, p=0.5, training=True, inplace=False):
    """Dropout whose mask is a hash, as in `worker/shim/dropout.cpp`."""
    if not training or p == 0.0:
        return x
    key = int(torch.empty((), dtype=torch.int64).random_())
    hashes = np.arange(x.numel(), dtype=np.uint32) + np.uint32(key & 0xFFFFFFFF)
    for high in (key >> 32, 0):
        hashes ^= hashes >> 16
        hashes *= np.uint32(0x21F0AAAD)
        hashes ^= hashes >> 15
        hashes *= np.uint32(0x735A2D97)
        hashes ^= hashes >> 15
        hashes ^= np.uint32(high)
    kept = torch.from_numpy(hashes >= min(int(p * 2**32), 2**32 - 1)).view(x.shape)
    return torch.where(kept, x / (1.0 - p), 0.0) if p < 1.0 else x * 0.0


def dropped(shape, family, task, rates, case, pad):
    """Loss and logits in training mode."""
    model = make_model(shape, family, task, rates).train()
    torch.manual_seed(DROPOUT_SEED)
    with unittest.mock.patch("torch.nn.functional.dropout", hashed_dropout):
        loss, found = forward(model, task, case, pad, family)
    return {"rates": rates, "loss": loss.item(), **found}


def write_family(shape, family):
    pad, cases = make_cases(shape, family)
    golden = {"cases": cases, "tasks": {}, "dropout": {}}
    for task in tasks_of(family):
        model = make_model(shape, family, task).eval()
        directory = shape.path / f"{family}-{task}"
        model.save_pretrained(directory)
        gradients, results = {}, {}
        for name, case in cases.items():
            model.zero_grad()
            loss, results[name] = forward(model, task, case, pad, family)
            results[name]["loss"] = loss.item()
            loss.backward()
            for parameter_name, parameter in model.named_parameters():
                gradients[f"{name}/{parameter_name}"] = parameter.grad.clone()
        save_file(gradients, directory / "gradients.safetensors", {"format": "pt"})
        golden["tasks"][task] = results
    for place in RATES:
        rates = {**NO_RATES, place: 1.0}
        golden["dropout"][place] = dropped(shape, family, "classification", rates, cases["padded"], pad)
    # Muster computes only the first token in the last layer of a classifier: with one token per sequence the
    # masks have the same shapes.
    alone = {**cases["single"], "tokens": [row[:1] for row in cases["single"]["tokens"]],
             "segments": [[0]] * len(cases["single"]["tokens"])}
    golden["dropout"]["drawn_head"] = dropped(shape, family, "classification", RATES, alone, pad)
    golden["dropout"]["drawn"] = dropped(shape, family, "masked", RATES, cases["single"], pad)
    return golden


TEXTS = [
    {"text": "good film"}, {"text": ""}, {"text": "a bad film and nobody goods it"}, {"text": "Good"},
    {"text": "good film " * 12}, {"text": "bad", "text_pair": "good film"},
    {"text": "a film", "text_pair": "bad " * 20}, {"text": "good " * 14, "text_pair": "film"},
]


def word_piece():
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad film a and it is no ##s ##body ##not the of was seen by"
    vocabulary = {word: number for number, word in enumerate(words.split())}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = tokenizers.decoders.WordPiece()
    special = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=EVEN.positions, **special)


def byte_pairs():
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"\u0120godfilmbatnsyeG"]
    merges = [("g", "o"), ("go", "o"), ("goo", "d"), ("\u0120", "good"), ("f", "i"), ("fi", "l"), ("fil", "m"),
              ("\u0120", "film"), ("\u0120", "a"), ("b", "a")]
    tokens += [a + b for a, b in merges]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    assert len(vocabulary) <= EVEN.vocabulary
    model = tokenizers.models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = tokenizers.processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    special = dict(unk_token="<unk>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=EVEN.positions, **special)


def predictions(family):
    """What the library's own tokenizer and model make of texts and pairs, each alone."""
    tokenizer = byte_pairs() if family == "roberta" else word_piece()
    directory = EVEN.path / f"{family}-classification"
    tokenizer.save_pretrained(directory)
    model = make_model(EVEN, family, "classification").eval()
    found = []
    for example in TEXTS:
        pair = example.get("text_pair")
        encoded = tokenizer(example["text"], pair, truncation=True, max_length=EVEN.positions,
                            return_token_type_ids=True, return_tensors="pt")
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        if family == "bert":
            inputs["token_type_ids"] = encoded["token_type_ids"]
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        found.append({
            **example, "token_ids": encoded["input_ids"][0].tolist(), "logits": logits.tolist(),
            "probabilities": logits.softmax(-1).tolist(), "label": EVEN.labels[logits.argmax().item()],
        })
    return found


def write(shape):
    shutil.rmtree(shape.path, ignore_errors=True)
    shape.path.mkdir()
    golden = {family: write_family(shape, family) for family in FAMILIES}
    if shape == EVEN:
        for family in FAMILIES:
            golden[family]["predictions"] = predictions(family)
    torch.manual_seed(DROPOUT_SEED)
    probe = hashed_dropout(torch.ones(4, 4), 0.3)
    golden["dropout_seed"] = DROPOUT_SEED
    golden["probe"] = probe.flatten().tolist()
    golden["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    (shape.path / "cases.json").write_text(json.dumps(golden) + "\n")


def main():
    torch.set_num_threads(1)
    for shape in (EVEN, ODD):
        if shape.folder in (sys.argv[1:] or [EVEN.folder, ODD.folder]):
            write(shape)


if __name__ == "__main__":
    main()
