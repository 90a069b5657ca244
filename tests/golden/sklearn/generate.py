"""Writes the golden files beside it: what scikit-learn says about given counts and scores.

    .cache/python/bin/python tests/golden/sklearn/generate.py

`reports.json` is a list of cases: name, labels, confusion counts (`confusion[truth][prediction]`)
and the text of `sklearn.metrics.classification_report` for predictions with exactly those counts,
every class listed, `zero_division=0`. The fixed cases are those where rounding and layout can go
wrong; the others are drawn with a fixed seed.

`scores.json` has, for the same counts, the figures of `sklearn.metrics` (`null` where undefined) and
for some of them intervals of accuracy (Wilson) and macro F1 (bootstrap); `areas` are labels, probabilities and
`roc_auc_score`, with ties; `weights` are `compute_class_weight("balanced")` of class counts.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import sklearn
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    cohen_kappa_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.utils.class_weight import compute_class_weight

HERE = Path(__file__).resolve().parent


def fixed_cases():
    yield "two classes", ["negative", "positive"], [[437, 63], [71, 429]]
    yield "a class without examples", ["a", "b", "c"], [[3, 1, 0], [0, 0, 0], [2, 0, 5]]
    yield "a class never predicted", ["a", "b"], [[5, 0], [3, 0]]
    yield "everything wrong", ["a", "b"], [[0, 4], [4, 0]]
    yield "halves in the third digit", ["a", "b"], [[1, 7], [1, 7]]
    yield "five eighths", ["a", "b", "c", "d"], [[5, 1, 1, 1], [3, 5, 0, 0], [0, 3, 5, 0], [0, 0, 2, 6]]
    yield "long names", ["a name that is longer than the averages", "b"], [[10, 2], [3, 12]]
    yield "names that are not ASCII", ["schön", "日本"], [[10, 2], [3, 12]]
    yield "large counts", ["0", "1"], [[1_000_000, 234_567], [89_012, 3_456_789]]
    yield "one example", ["a", "b"], [[1, 0], [0, 0]]


def drawn_cases():
    draws = np.random.default_rng(20)
    for number in range(60):
        classes = int(draws.integers(2, 8))
        confusion = draws.integers(0, int(draws.integers(2, 60)), (classes, classes))
        confusion[0, 0] += 1
        yield f"drawn {number}", [f"class {c}" for c in range(classes)], confusion.tolist()


def examples(confusion):
    cells = [(t, p) for t, row in enumerate(confusion) for p, count in enumerate(row) for _ in range(count)]
    truth, prediction = map(list, zip(*cells))
    return truth, prediction


def report(labels, confusion):
    truth, prediction = examples(confusion)
    numbers = list(range(len(labels)))
    return classification_report(truth, prediction, labels=numbers, target_names=labels, zero_division=0)


def scores(confusion):
    truth, prediction = map(np.array, examples(confusion))
    numbers = list(range(len(confusion)))
    options = {"labels": numbers, "zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kappa = float(cohen_kappa_score(truth, prediction, labels=numbers, weights="quadratic"))
    return {
        "accuracy": accuracy_score(truth, prediction),
        "macro_f1": f1_score(truth, prediction, average="macro", **options),
        "weighted_f1": f1_score(truth, prediction, average="weighted", **options),
        "micro_f1": f1_score(truth, prediction, average="micro", **options),
        "macro_precision": precision_score(truth, prediction, average="macro", **options),
        "macro_recall": recall_score(truth, prediction, average="macro", **options),
        "mcc": matthews_corrcoef(truth, prediction),
        "off_by_one_accuracy": float(np.mean(np.abs(truth - prediction) <= 1)),
        "mean_absolute_error": mean_absolute_error(truth, prediction),
        "quadratic_kappa": None if np.isnan(kappa) else kappa,
    }


def intervals(confusion, resamples=4000):
    """Of the accuracy, which is a share, Wilson's by scipy; of the macro F1 a percentile bootstrap by numpy's
    multinomial draws over the cells."""
    cells = np.array(confusion, float)
    draws = np.random.default_rng(7).multinomial(int(cells.sum()), (cells / cells.sum()).ravel(), resamples)
    draws = draws.reshape(resamples, *cells.shape).astype(float)
    right = np.einsum("rii->ri", draws)
    both = draws.sum(1) + draws.sum(2)
    f1 = np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0)
    ends = lambda values: np.quantile(values, [0.025, 0.975]).tolist()
    share = binomtest(int(np.trace(cells)), int(cells.sum())).proportion_ci(method="wilson")
    return {"accuracy": [share.low, share.high], "macro_f1": ends(f1.mean(1))}


def areas():
    draws = np.random.default_rng(21)
    for number in range(24):
        classes = int(draws.integers(2, 6))
        count = int(draws.integers(3 * classes, 60))
        labels = np.concatenate([np.arange(classes), draws.integers(0, classes, count - classes)])
        logits = draws.normal(0, 2, (count, classes))
        logits[np.arange(count), labels] += 1
        if number % 2:
            logits = np.round(logits)  # ties
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        if classes == 2:
            area = roc_auc_score(labels, probabilities[:, 1])
        else:
            area = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        yield {"labels": labels.tolist(), "probabilities": probabilities.tolist(), "auc": area}


def weights():
    draws = np.random.default_rng(22)
    for classes in [2, 2, 3, 5]:
        counts = draws.integers(1, 50, classes)
        labels = np.repeat(np.arange(classes), counts)
        balanced = compute_class_weight("balanced", classes=np.arange(classes), y=labels)
        yield {"counts": counts.tolist(), "balanced": balanced.tolist()}


def write(name, golden):
    golden = {"scikit-learn": sklearn.__version__, **golden}
    text = json.dumps(golden, indent=None if name == "scores.json" else 1, ensure_ascii=False)
    (HERE / name).write_text(text.replace('}, {', '},\n{') + "\n", encoding="utf-8")


def main():
    drawn = [*fixed_cases(), *drawn_cases()]
    cases = [
        {"name": name, "labels": labels, "confusion": confusion, "report": report(labels, confusion)}
        for name, labels, confusion in drawn
    ]
    write("reports.json", {"cases": cases})
    cases = [
        {"name": name, "confusion": confusion, "scores": scores(confusion)} for name, _, confusion in drawn
    ]
    sure = [{"confusion": case["confusion"], **intervals(case["confusion"])} for case in cases[:1] + cases[10:25]]
    write(
        "scores.json",
        {"cases": cases, "intervals": sure, "areas": list(areas()), "weights": list(weights())},
    )


if __name__ == "__main__":
    main()
