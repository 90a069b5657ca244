"""Fine-tunes with HF Trainer by a given recipe and scores the result once; prints what it reached."""
import argparse
import json
import os
import pathlib
import tempfile

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with train.parquet, validation.parquet")
parser.add_argument("--text", required=True)
parser.add_argument("--classes", type=int, required=True)
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--rate", type=float, required=True)
parser.add_argument("--max-length", type=int, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--out", required=True)
arguments = parser.parse_args()
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = str(arguments.threads)

import datasets
import numpy
import torch
import transformers

torch.set_num_threads(arguments.threads)
datasets.disable_progress_bars()
transformers.logging.set_verbosity_error()
transformers.set_seed(arguments.seed)
tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
# gte-small's weights are kept in 16 bits, in which training on a CPU is slow and learns nothing.
model = transformers.AutoModelForSequenceClassification.from_pretrained(
    arguments.model, num_labels=arguments.classes, ignore_mismatched_sizes=True, dtype=torch.float32
)


def encode(batch):
    return tokenizer(batch[arguments.text], truncation=True, max_length=arguments.max_length)


with tempfile.TemporaryDirectory() as work:
    files = {split: str(arguments.data / f"{split}.parquet") for split in ("train", "validation")}
    rows = datasets.load_dataset("parquet", data_files=files, cache_dir=work)
    drop = [column for column in rows["train"].column_names if column != "label"]
    rows = rows.map(encode, batched=True, remove_columns=drop)
    options = transformers.TrainingArguments(
        output_dir=os.path.join(work, "out"), per_device_train_batch_size=arguments.batch,
        per_device_eval_batch_size=64, learning_rate=arguments.rate, weight_decay=0.01, warmup_steps=0.06,
        max_steps=arguments.steps, seed=arguments.seed, use_cpu=True, report_to=[], disable_tqdm=True,
        logging_strategy="no", save_strategy="no", lr_scheduler_type="linear", dataloader_pin_memory=False,
        train_sampling_strategy="group_by_length",
    )

    def accuracy(prediction):
        return {"accuracy": float(numpy.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}

    trainer = transformers.Trainer(
        model=model, args=options, train_dataset=rows["train"], eval_dataset=rows["validation"],
        data_collator=transformers.DataCollatorWithPadding(tokenizer), compute_metrics=accuracy,
    )
    trainer.train()
    scores = trainer.evaluate()
with open(arguments.out, "w", encoding="utf-8") as file:
    json.dump({"accuracy": scores["eval_accuracy"], "loss": scores["eval_loss"]}, file)
