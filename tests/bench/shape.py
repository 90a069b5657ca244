"""Writes a classifier with random weights in the shape of a well-known model, to measure speed with."""
import argparse
import json

import torch
import transformers

SHAPES = {
    "distilbert": lambda vocabulary: transformers.DistilBertConfig(vocab_size=vocabulary, num_labels=2),
    "bert-base": lambda vocabulary: transformers.BertConfig(vocab_size=vocabulary, num_labels=2),
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
parser.add_argument("--tokenizer", required=True, help="directory with a tokenizer to copy")
parser.add_argument("--model", required=True, help="directory to write")
parser.add_argument("--out", required=True)
arguments = parser.parse_args()
torch.manual_seed(0)
tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.tokenizer)
model = transformers.AutoModelForSequenceClassification.from_config(SHAPES[arguments.shape](len(tokenizer)))
model.save_pretrained(arguments.model)
tokenizer.save_pretrained(arguments.model)
with open(arguments.out, "w", encoding="utf-8") as file:
    json.dump({"parameters": sum(parameter.numel() for parameter in model.parameters())}, file)
