"""Real tokens per second of HF Trainer on a JSONL file of texts and labels: bfloat16, batches grouped by length,
padded to their longest, scaled-dot-product attention, fused AdamW."""
import argparse
import json
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--rows", required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--device", required=True)
parser.add_argument("--out", required=True)
arguments = parser.parse_args()

import torch
import transformers

transformers.logging.set_verbosity_error()
on_gpu = arguments.device != "cpu"
tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
with open(arguments.rows, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=512)["input_ids"]
dataset = [{"input_ids": ids, "labels": row["label"]} for ids, row in zip(encoded, rows)]
model = transformers.AutoModelForSequenceClassification.from_pretrained(arguments.model)
ends, tokens = [], []


class Clock(transformers.TrainerCallback):
    def on_step_end(self, *_arguments, **_more):
        if on_gpu:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())


class Counting(transformers.Trainer):
    def compute_loss(self, model, inputs, *more, **named):
        tokens.append(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, *more, **named)


settings = {
    "per_device_train_batch_size": arguments.batch, "max_steps": arguments.steps, "learning_rate": 5e-5,
    "bf16": on_gpu, "use_cpu": not on_gpu, "report_to": [], "disable_tqdm": True, "logging_strategy": "no",
    "save_strategy": "no", "optim": "adamw_torch_fused" if on_gpu else "adamw_torch",
}
names = transformers.TrainingArguments.__init__.__code__.co_varnames
if "train_sampling_strategy" in names:
    settings["train_sampling_strategy"] = "group_by_length"
else:
    settings["group_by_length"] = True
with tempfile.TemporaryDirectory() as work:
    trainer = Counting(
        model=model, args=transformers.TrainingArguments(output_dir=work, **settings), train_dataset=dataset,
        data_collator=transformers.DataCollatorWithPadding(tokenizer), callbacks=[Clock()],
    )
    trainer.train()
skip = min(20, arguments.steps // 3)
counted = sum(int(count) for count in tokens[skip + 1:])
speed = counted / (ends[-1] - ends[skip])
setting = f"{'bf16' if on_gpu else 'float32'}, grouped by length, {model.config._attn_implementation} attention"
allocated = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
with open(arguments.out, "w", encoding="utf-8") as file:
    json.dump({"tokens_per_second": speed, "setting": setting, "allocated_mib": allocated}, file)
