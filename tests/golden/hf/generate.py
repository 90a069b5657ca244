"""Writes the golden files beside it: a tiny random BERT and what transformers computes with it.

    .cache/parity/bin/python tests/golden/hf/generate.py

The model is a complete Hugging Face directory (`tiny/`). `golden.json` holds token ids, logits,
losses and gradient norms; `gradients.safetensors` the gradients of one padded batch; and
`trained*.safetensors` the weights after a few steps of AdamW. Run on one thread in 32-bit floats;
another build of PyTorch changes last digits, which is why the tests compare at 1e-5.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
CLASSES = 3
STEPS = 5
PEAK, WARMUP, TOTAL = 2e-3, 1, 10
BETAS, DECAY, CLIP = (0.9, 0.999), 0.01, 1.0
# Larger than usual. The gradient of a key's bias is zero but for rounding, and AdamW would turn
# that noise into steps as large as any: with a small epsilon nothing could be compared.
EPSILON = 1e-5


def make_model():
    config = transformers.BertConfig(
        vocab_size=83, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=24, type_vocab_size=2, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, num_labels=CLASSES,
        id2label={0: "bad", 1: "so-so", 2: "good"}, label2id={"bad": 0, "so-so": 1, "good": 2},
    )
    config._attn_implementation = "eager"
    model = transformers.BertForSequenceClassification(config)
    generator = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            # LayerNorm scales around 1, so that neither scale nor shift can be left out unnoticed.
            parameter.copy_(noise + 1 if name.endswith("LayerNorm.weight") else noise)
    return model


def make_examples():
    generator = torch.Generator().manual_seed(21)
    draw = lambda low, high, n: torch.randint(low, high, (n,), generator=generator).tolist()
    lengths = [5, 9, 24, 12, 7, 16]
    tokens = [[1] + draw(3, 83, length - 2) + [2] for length in lengths]
    return tokens, draw(0, CLASSES, len(lengths))


def forward(model, tokens, labels):
    longest = max(map(len, tokens))
    ids = torch.tensor([t + [0] * (longest - len(t)) for t in tokens])
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in tokens])
    return model(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels))


def train(model, tokens, labels):
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = lambda name: name.endswith(".bias") or "LayerNorm" in name
    groups = [
        {"params": [p for name, p in named if not plain(name)], "weight_decay": DECAY},
        {"params": [p for name, p in named if plain(name)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=BETAS, eps=EPSILON)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, TOTAL)
    losses, norms, rates = [], [], []
    for _ in range(STEPS):
        rates.append(schedule.get_last_lr()[0])
        loss = forward(model, tokens, labels).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP).item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    trained = {name: p.detach().clone() for name, p in named}
    return {"losses": losses, "grad_norms": norms, "learning_rates": rates}, trained


def main():
    torch.set_num_threads(1)
    tokens, labels = make_examples()
    model = make_model().eval()
    model.save_pretrained(HERE / "tiny", safe_serialization=True)

    golden = {"tokens": tokens, "labels": labels, "batches": []}
    for members in ([0, 1, 2, 3, 4, 5], [2], [1, 1, 1]):
        result = forward(model, [tokens[i] for i in members], [labels[i] for i in members])
        golden["batches"].append(
            {"members": members, "logits": result.logits.tolist(), "loss": result.loss.item()}
        )

    forward(model, tokens, labels).loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    save_file(gradients, HERE / "gradients.safetensors", {"format": "pt"})

    golden["training"] = {"total_steps": TOTAL, "warmup_ratio": WARMUP / TOTAL, "peak": PEAK,
                          "betas": BETAS, "epsilon": EPSILON, "weight_decay": DECAY, "max_grad_norm": CLIP}
    for name, frozen in (("trained", []), ("trained_frozen", ["bert.embeddings.", "bert.encoder.layer.0."])):
        model = transformers.BertForSequenceClassification.from_pretrained(
            HERE / "tiny", attn_implementation="eager").eval()
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(map(parameter_name.startswith, frozen)))
        golden[name], trained = train(model, tokens, labels)
        save_file(trained, HERE / f"{name}.safetensors", {"format": "pt"})

    golden["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
