"""Writes `golden.json` beside it: what Captum and transformers say about the tiny classifiers of `../hf/families`.

    .cache/peers/bin/python -m pip install --target captum-files --no-deps captum matplotlib cycler kiwisolver \
        contourpy pillow pyparsing python-dateutil six fonttools
    PYTHONPATH=captum-files .cache/peers/bin/python tests/golden/explain/generate.py

Attention is that of `attn_implementation="eager"`, which is what BertViz draws. Attributions are those of Captum:
LayerIntegratedGradients over the word embeddings, InputXGradient and Occlusion with the word embeddings as input,
LayerConductance through the output of every layer. The baseline has the padding token in place of every token of the
text; special tokens stay. Captum's conductance is a sum over left ends, so that it needs very many steps to be near the
integral. Everything is computed in 64-bit floats.
"""

import json
from pathlib import Path

import captum
import captum.attr
import torch
import transformers

HERE = Path(__file__).resolve().parent
FAMILIES = HERE.parent / "hf" / "families"
STEPS, CONDUCTANCE_STEPS = 50, 20_000


class Explained:
    """A model, one sequence, its baseline and the class to explain."""

    def __init__(self, model, ids, segments, ordinary, pad, target=None):
        self.model, self.family = model, model.config.model_type
        self.encoder = getattr(model, model.base_model_prefix)
        self.words = self.encoder.embeddings.word_embeddings
        self.ids = torch.tensor([ids])
        self.segments = torch.tensor([segments])
        self.ordinary = torch.tensor(ordinary)
        self.baseline_ids = torch.where(self.ordinary, torch.tensor(pad), self.ids)
        with torch.no_grad():
            self.embedded, self.baseline = self.words(self.ids), self.words(self.baseline_ids)
            self.output = model(**self.inputs(self.ids), output_attentions=True)
        self.target = self.output.logits.argmax().item() if target is None else target

    def inputs(self, ids):
        ids = ids.expand(-1, -1)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.family == "bert":
            inputs["token_type_ids"] = self.segments.expand_as(ids)
        return inputs

    def of_ids(self, ids):
        return self.model(**self.inputs(ids)).logits

    def of_embedded(self, embedded):
        """Logits from word embeddings: positions and segments are those of the sequence."""
        hook = self.words.register_forward_hook(lambda *_: embedded)
        try:
            return self.of_ids(self.ids.expand(len(embedded), -1))
        finally:
            hook.remove()

    def layers(self):
        stack = self.encoder.transformer if self.family == "distilbert" else self.encoder.encoder
        return list(stack.layer)

    def integrated_gradients(self, steps=STEPS):
        found = captum.attr.LayerIntegratedGradients(self.of_ids, self.words).attribute(
            self.ids, self.baseline_ids, target=self.target, n_steps=steps, method="gausslegendre")
        return found.sum(-1)[0].tolist()

    def gradient_times_input(self):
        embedded = self.embedded.clone().requires_grad_()
        found = captum.attr.InputXGradient(self.of_embedded).attribute(embedded, target=self.target)
        return found.sum(-1)[0].tolist()

    def occlusion(self):
        window = (1, self.embedded.shape[-1])
        found = captum.attr.Occlusion(self.of_embedded).attribute(
            self.embedded, sliding_window_shapes=window, baselines=self.baseline, target=self.target)
        return found[0, :, 0].tolist()

    def conductance(self, steps=CONDUCTANCE_STEPS):
        """Per layer, per token; and the gradient goes to embeddings, which are the input of the way."""
        def one(layer):
            found = captum.attr.LayerConductance(self.of_embedded, layer).attribute(
                self.embedded, self.baseline, target=self.target, n_steps=steps, method="riemann_trapezoid")
            found = found[0] if isinstance(found, tuple) else found
            return found.sum(-1)[0].tolist()
        return [one(layer) for layer in self.layers()]

    def attentions(self):
        return [attention[0] for attention in self.output.attentions]

    def rollout(self):
        """The row of the first token after each layer."""
        rolled, rows = torch.eye(self.ids.shape[1], dtype=torch.float64), []
        for attention in self.attentions():
            rolled = (0.5 * attention.mean(0) + 0.5 * torch.eye(len(rolled))) @ rolled
            rows.append(rolled[0].tolist())
        return rows

    def heads(self, separators):
        """Entropy, mean distance, share on the first token and on separators, in the mean over queries."""
        length = self.ids.shape[1]
        apart = (torch.arange(length)[:, None] - torch.arange(length)[None, :]).abs()
        def one(head):
            entropy = torch.distributions.Categorical(head).entropy().mean()
            distance = (head * apart).sum(-1).mean()
            return [x.item() for x in (entropy, distance, head[:, 0].mean(), head[:, separators].sum(-1).mean())]
        return [[one(head) for head in attention] for attention in self.attentions()]


def explained_cases(family, cases):
    model = getattr(transformers, "AutoModelForSequenceClassification").from_pretrained(
        FAMILIES / f"{family}-classification", attn_implementation="eager").double().eval()
    first, pad, last = (0, 1, 2) if family == "roberta" else (2, 0, 3)
    chosen = [("single", 0), ("padded", 2), ("pairs", 1)]
    for name, index in chosen:
        ids = cases[name]["tokens"][index]
        segments = cases[name]["segments"][index] if family == "bert" else [0] * len(ids)
        ordinary = [place > 0 and token != last for place, token in enumerate(ids)]
        subject = Explained(model, ids, segments, ordinary, pad)
        separators = [place for place, token in enumerate(ids) if token == last]
        yield {
            "tokens": ids, "first_segment": segments.count(0), "ordinary": ordinary, "class": subject.target,
            "separators": separators, "logits": subject.output.logits[0].tolist(),
            "attentions": [attention.tolist() for attention in subject.attentions()],
            "rollout": subject.rollout(), "heads": subject.heads(separators),
            "integrated_gradients": subject.integrated_gradients(),
            "gradient_times_input": subject.gradient_times_input(),
            "occlusion": subject.occlusion(), "conductance": subject.conductance(),
        }


def main():
    torch.set_num_threads(1)
    cases = json.loads((FAMILIES / "cases.json").read_text())
    golden = {
        family: {"pad": 1 if family == "roberta" else 0, "cases": list(explained_cases(family, cases[family]["cases"]))}
        for family in ("bert", "distilbert", "roberta")
    }
    golden["steps"] = STEPS
    golden["versions"] = {
        "torch": torch.__version__, "transformers": transformers.__version__, "captum": captum.__version__}
    (HERE / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
