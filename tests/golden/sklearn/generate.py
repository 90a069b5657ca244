"""Writes the golden file beside it: what scikit-learn prints for given confusion counts.

    .cache/python/bin/python tests/golden/sklearn/generate.py

`reports.json` is a list of cases: name, labels, confusion counts (`confusion[truth][prediction]`)
and the text of `sklearn.metrics.classification_report` for predictions with exactly those counts,
every class listed, `zero_division=0`. The fixed cases are those where rounding and layout can go
wrong; the others are drawn with a fixed seed.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import classification_report

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


def report(labels, confusion):
    cells = [(t, p) for t, row in enumerate(confusion) for p, count in enumerate(row) for _ in range(count)]
    truth, prediction = map(list, zip(*cells))
    numbers = list(range(len(labels)))
    return classification_report(truth, prediction, labels=numbers, target_names=labels, zero_division=0)


def main():
    cases = [
        {"name": name, "labels": labels, "confusion": confusion, "report": report(labels, confusion)}
        for name, labels, confusion in [*fixed_cases(), *drawn_cases()]
    ]
    golden = {"scikit-learn": sklearn.__version__, "cases": cases}
    text = json.dumps(golden, indent=1, ensure_ascii=False)
    (HERE / "reports.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
