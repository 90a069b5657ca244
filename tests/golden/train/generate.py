"""Writes the golden files beside it: what torch and transformers do to a trial.

    PYTHON tests/golden/train/generate.py

where PYTHON has torch 2.11 and transformers 5 (`tests/parity/run.sh` installs such an environment).

* `schedules.json`: learning rates by `transformers.optimization`; the slanted triangle, which it does
  not have, is formula 3 of Howard, Ruder 2018.
* `adamw.json`: 20 steps of `torch.optim.AdamW` after `clip_grad_norm_`, with two groups of unlike
  weight decay and learning rate, and parameters that join late: parameters, norms, final moments.
* `losses.json`: `torch.nn.functional.cross_entropy` with class weights and label smoothing, and the
  gradient of the logits.
* `ema.json`: `torch.optim.swa_utils` over a few steps.
* `names.json`: every parameter of the three families' models with their heads, and which of them
  `Trainer` decays.
"""

import json
import math
from pathlib import Path

import torch
import transformers
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import optimization

HERE = Path(__file__).resolve().parent


def rates(scheduler, peak, total, **options):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=peak)
    schedule = scheduler(optimizer, **options)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def slanted(peak, warmup, total, ratio):
    found = []
    for t in range(total):
        p = t / warmup if t < warmup else 1 - (t - warmup) / (warmup * (total / warmup - 1))
        found.append(peak * (1 + p * (ratio - 1)) / ratio)
    return found


def schedules():
    for peak, warmup, total in [(2e-5, 0, 10), (1e-4, 3, 17), (5e-5, 20, 100), (3e-4, 7, 8)]:
        both = {"num_warmup_steps": warmup, "num_training_steps": total}
        case = lambda shape, rates: {
            "shape": shape,
            "peak": peak,
            "warmup_steps": warmup,
            "total_steps": total,
            "rates": rates,
        }
        yield case("linear", rates(optimization.get_linear_schedule_with_warmup, peak, total, **both))
        constant = optimization.get_constant_schedule_with_warmup
        yield case("constant", rates(constant, peak, total, num_warmup_steps=warmup))
        for cycles in [0.5, 1.5]:
            cosine = rates(
                optimization.get_cosine_schedule_with_warmup, peak, total, num_cycles=cycles, **both
            )
            yield case({"cosine": {"cycles": cycles}}, cosine)
        for power, end in [(1.0, 1e-7), (2.0, 0.0), (0.5, 1e-6)]:
            polynomial = optimization.get_polynomial_decay_schedule_with_warmup
            found = rates(polynomial, peak, total, power=power, lr_end=end, **both)
            yield case({"polynomial": {"power": power, "end_learning_rate": end}}, found)
        if warmup:
            found = slanted(peak, warmup, total, 32)
            yield case({"slanted_triangular": {"ratio": 32.0}}, found)


SHAPES = {"a.weight": [3, 4], "a.bias": [4], "LayerNorm.weight": [4], "b.weight": [2, 3]}


def adamw(max_norm, epsilon, betas, decay, late):
    torch.manual_seed(5)
    parameters = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in SHAPES.items()}
    start = {name: value.detach().flatten().tolist() for name, value in parameters.items()}
    peak = 1e-2
    rates = {"a.weight": 1.0, "a.bias": 1.0, "LayerNorm.weight": 1.0, "b.weight": 0.5}
    decays = {name: decay if name.endswith("weight") and "Norm" not in name else 0.0 for name in SHAPES}
    groups = [
        {"params": [value], "weight_decay": decays[name], "lr": peak * rates[name]}
        for name, value in parameters.items()
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=betas, eps=epsilon)
    steps = []
    for step in range(20):
        gradients = {}
        for name, value in parameters.items():
            # `b.weight` is unfrozen late: until then it has no gradient.
            active = name != "b.weight" or step >= late
            gradient = torch.randn(value.shape) * (3.0 if step % 3 else 0.05)
            value.grad = gradient.clone() if active else None
            if active:
                gradients[name] = gradient.flatten().tolist()
        present = [value for value in parameters.values() if value.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(present, max_norm if max_norm else math.inf)
        optimizer.step()
        steps.append({"gradients": gradients, "norm": norm.item()})
    state = {name: optimizer.state[value] for name, value in parameters.items()}
    flat = lambda tensor: tensor.detach().flatten().tolist()
    return {
        "max_norm": max_norm,
        "epsilon": epsilon,
        "betas": betas,
        "weight_decay": decay,
        "learning_rate": peak,
        "rates": rates,
        "late": late,
        "shapes": SHAPES,
        "start": start,
        "steps": steps,
        "parameters": {name: flat(value) for name, value in parameters.items()},
        "first_moments": {name: flat(s["exp_avg"]) for name, s in state.items()},
        "second_moments": {name: flat(s["exp_avg_sq"]) for name, s in state.items()},
    }


def losses():
    torch.manual_seed(6)
    for weights in [None, [1.0, 2.5, 0.3]]:
        for smoothing in [0.0, 0.1, 0.4]:
            logits = (2 * torch.randn(7, 3)).requires_grad_()
            labels = torch.tensor([0, 2, 1, 1, 0, 2, 2])
            weight = None if weights is None else torch.tensor(weights)
            loss = functional.cross_entropy(logits, labels, weight, label_smoothing=smoothing)
            loss.backward()
            yield {
                "logits": logits.tolist(),
                "labels": labels.tolist(),
                "weights": weights,
                "smoothing": smoothing,
                "loss": loss.item(),
                "gradient": logits.grad.tolist(),
            }


def ema(decay):
    torch.manual_seed(8)
    model = torch.nn.Linear(3, 2)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    flat = lambda module: torch.cat([p.detach().flatten() for p in module.parameters()]).tolist()
    steps = []
    for _ in range(12):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape))
        average.update_parameters(model)
        steps.append({"weights": flat(model), "average": flat(average.module)})
    return {"decay": decay, "steps": steps}


def names():
    tiny = {"vocab_size": 20, "max_position_embeddings": 12}
    bert = {
        "hidden_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        **tiny,
    }
    distil = transformers.DistilBertConfig(dim=8, n_layers=3, n_heads=2, hidden_dim=8, **tiny)
    for family, config, kinds in [
        ("bert", transformers.BertConfig(**bert), ["SequenceClassification", "ForPreTraining"]),
        ("roberta", transformers.RobertaConfig(**bert), ["SequenceClassification", "MaskedLM"]),
        ("distilbert", distil, ["SequenceClassification", "MaskedLM"]),
    ]:
        for kind in kinds:
            prefix = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}[family]
            kind = kind if kind.startswith("For") else "For" + kind
            model = getattr(transformers, prefix + kind)(config)
            arguments = transformers.TrainingArguments(output_dir="/tmp/none", report_to=[], use_cpu=True)
            trainer = transformers.Trainer(model=model, args=arguments)
            decaying = set(trainer.get_decay_parameter_names(model))
            for name, _ in model.named_parameters():
                yield {"family": family, "layers": 3, "name": name, "decays": name in decaying}


def write(name, golden):
    golden = {"torch": torch.__version__, "transformers": transformers.__version__, **golden}
    text = json.dumps(golden).replace("}, {", "},\n{")
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def main():
    write("schedules.json", {"cases": list(schedules())})
    cases = [
        adamw(1.0, 1e-8, (0.9, 0.999), 0.01, 0),
        adamw(0.5, 1e-6, (0.8, 0.95), 0.3, 6),
        adamw(0.0, 1e-3, (0.0, 0.9), 0.0, 11),
    ]
    write("adamw.json", {"cases": cases})
    write("losses.json", {"cases": list(losses())})
    write("ema.json", {"cases": [ema(0.9), ema(0.999), ema(0.0)]})
    write("names.json", {"parameters": list(names())})


if __name__ == "__main__":
    main()
