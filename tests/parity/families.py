"""Makes small random models of the three families, and manifests for each that train it.

usage: families.py SENTENCES DIRECTORY

DIRECTORY/FAMILY is a Hugging Face directory as transformers writes it, with a tokenizer trained on SENTENCES;
DIRECTORY/FAMILY.yaml fine-tunes it on DIRECTORY/rows.csv for a few steps; DIRECTORY/FAMILY-OBJECTIVE.yaml teaches it
hidden tokens, next sentences or both on DIRECTORY/documents.txt.
"""

import csv
import pathlib
import sys

import tokenizers
import torch
import transformers

VOCAB = 600
SHAPE = {"hidden": 64, "layers": 4, "heads": 4, "inner": 128, "positions": 512}
MANIFEST = """\
version: 1
name: parity-{family}
model:
  pretrained: {directory}/{family}
  freeze: {{embeddings: true, layers: 1}}
data:
  train: {{path: {directory}/rows.csv}}
  validation: {{fraction: 0.2}}
  text: text
  label: {{column: label}}
hyperparameters: {{learning_rate: 1e-3, global_batch_size: 16}}
budget: {{epochs: 2}}
"""

LANGUAGE_MANIFEST = """\
version: 1
name: parity-{family}-{slug}
objective: {objective}
model: {{pretrained: {directory}/{family}, max_length: 64}}
data:
  train: {{path: {directory}/documents.txt}}
  validation: {{fraction: 0.2}}
  text: text
hyperparameters: {{learning_rate: 3e-3, global_batch_size: 8, dropout: 0}}
budget: {{steps: 150}}
"""
OBJECTIVES = {
    "bert": ["masked_lm", "next_sentence", "pretraining"], "distilbert": ["masked_lm"], "roberta": ["masked_lm"]}


def word_piece(sentences):
    made = tokenizers.BertWordPieceTokenizer(lowercase=True)
    made.train([str(sentences)], vocab_size=VOCAB, min_frequency=1, show_progress=False)
    special = ("[SEP]", made.token_to_id("[SEP]")), ("[CLS]", made.token_to_id("[CLS]"))
    made._tokenizer.post_processor = tokenizers.processors.BertProcessing(*special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"])


def byte_pairs(sentences):
    made = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train([str(sentences)], vocab_size=VOCAB, min_frequency=1, show_progress=False, special_tokens=special)
    made._tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, unk_token="<unk>", cls_token="<s>", sep_token="</s>", pad_token="<pad>",
        mask_token="<mask>", model_input_names=["input_ids", "attention_mask"])


def make_model(family, tokenizer):
    common = dict(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, initializer_range=0.2)
    if family == "distilbert":
        config = transformers.DistilBertConfig(
            dim=SHAPE["hidden"], n_layers=SHAPE["layers"], n_heads=SHAPE["heads"], hidden_dim=SHAPE["inner"],
            max_position_embeddings=SHAPE["positions"], **common)
        return transformers.DistilBertForMaskedLM(config)
    sizes = dict(
        hidden_size=SHAPE["hidden"], num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"],
        intermediate_size=SHAPE["inner"], **common)
    if family == "bert":
        return transformers.BertModel(
            transformers.BertConfig(max_position_embeddings=SHAPE["positions"], **sizes))
    return transformers.RobertaForMaskedLM(transformers.RobertaConfig(
        max_position_embeddings=SHAPE["positions"] + 2, type_vocab_size=1, layer_norm_eps=1e-5, bos_token_id=0,
        eos_token_id=2, **sizes))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sentences, directory = map(pathlib.Path, sys.argv[1:])
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    for family in ("bert", "distilbert", "roberta"):
        tokenizer = byte_pairs(sentences) if family == "roberta" else word_piece(sentences)
        make_model(family, tokenizer).save_pretrained(directory / family)
        tokenizer.save_pretrained(directory / family)
        manifest = MANIFEST.format(family=family, directory=directory)
        (directory / f"{family}.yaml").write_text(manifest, encoding="utf-8")
        for objective in OBJECTIVES[family]:
            manifest = LANGUAGE_MANIFEST.format(
                family=family, directory=directory, objective=objective, slug=objective.replace("_", "-"))
            (directory / f"{family}-{objective}.yaml").write_text(manifest, encoding="utf-8")
    lines = sentences.read_text(encoding="utf-8").splitlines()
    with open(directory / "rows.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        documents = []
        for number in range(200):
            words = " ".join((lines[number % len(lines)], lines[(number * 7 + 1) % len(lines)])).split()
            turned = number % len(words)
            text = " ".join(words[turned:] + words[:turned])
            writer.writerow([text, "no" if number % 3 else "yes"])
            documents.append(text if number % 5 else "\n" + text)
    (directory / "documents.txt").write_text("\n".join(documents) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
