"""Loads a language model that Muster exported with the transformers library, and compares what it has learned.

usage: check_language.py MODEL_DIR PRETRAINED_DIR SENTENCES

MODEL_DIR is what Muster made of PRETRAINED_DIR by training on SENTENCES (one text per line). Exits 1 when
transformers misses a tensor or finds one too many, when the output layer is not the table of word embeddings with
the exported bias, or when hidden tokens of the sentences are not guessed better than before.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file

RATE = 0.15
BIASES = ("cls.predictions.bias", "vocab_projector.bias", "lm_head.bias")


def load(directory, class_name, strict):
    model, loading = getattr(transformers, class_name).from_pretrained(
        directory, local_files_only=True, output_loading_info=True, attn_implementation="eager")
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if strict and loading[kind]:
            sys.exit(f"error: transformers reports {kind} in {directory}: {sorted(loading[kind])}")
    return model.eval()


def check_output_layer(model, directory):
    output, words = model.get_output_embeddings(), model.get_input_embeddings()
    if output.weight.data_ptr() != words.weight.data_ptr():
        sys.exit("error: the output layer is not the table of word embeddings")
    tensors = load_file(directory / "model.safetensors")
    bias = next(tensors[name] for name in BIASES if name in tensors)
    if not torch.equal(output.bias.detach(), bias):
        sys.exit("error: the output layer has another bias than the exported one")
    if not bias.abs().max() > 0:
        sys.exit("error: the exported bias is zero throughout; it was not trained, or not exported")


def loss_of(model, tokenizer, sentences):
    """Mean loss per hidden token; the same tokens are hidden for every model."""
    generator = torch.Generator().manual_seed(1)
    read = tokenizer(sentences, truncation=True, max_length=64, padding=True, return_tensors="pt")
    ids, attention = read["input_ids"], read["attention_mask"]
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    hidden = (torch.rand(ids.shape, generator=generator) < RATE) & ~special
    truth = torch.where(hidden, ids, torch.tensor(-100))
    read = torch.where(hidden, torch.tensor(tokenizer.mask_token_id), ids)
    with torch.no_grad():
        result = model(input_ids=read, attention_mask=attention)
    logits = getattr(result, "prediction_logits", None)
    logits = result.logits if logits is None else logits
    return float(torch.nn.functional.cross_entropy(logits[hidden], truth[hidden]))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    directory, pretrained, sentences = map(pathlib.Path, sys.argv[1:])
    sentences = sentences.read_text(encoding="utf-8").splitlines()
    torch.manual_seed(1)
    [class_name] = transformers.AutoConfig.from_pretrained(directory, local_files_only=True).architectures
    model = load(directory, class_name, strict=True)
    print(f"{class_name}: every tensor is there, none too many")
    if class_name.endswith("NextSentencePrediction"):
        return
    check_output_layer(model, directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    after = loss_of(model, tokenizer, sentences)
    before = loss_of(load(pretrained, class_name, strict=False), tokenizer, sentences)
    print(f"loss per hidden token, by transformers: {before:.3f} before, {after:.3f} after")
    if not after < before - 0.1:
        sys.exit("error: transformers sees nothing of what Muster says to have learned")


if __name__ == "__main__":
    main()
