"""Writes `curves.json` beside it: what scikit-learn and scipy say about given probabilities.

    .cache/python/bin/python tests/golden/sklearn/curves.py

`classes` are labels and scores of one class against the rest (every second case with ties): the points of `roc_curve`
and `precision_recall_curve`, highest threshold first, their `auc` and `average_precision_score`. `calibrations` are
labels and probabilities: `calibration_curve` of "the prediction is right" over the probability of the predicted class
in ten bins of equal width, the expected calibration error by numpy, and `brier_score_loss`. `shares` are Wilson
intervals and `disagreements` the two-sided exact tests of McNemar, both by `scipy.stats.binomtest`; `differences` are
percentile bootstrap intervals of the difference of two accuracies, by numpy. Needs scipy besides scikit-learn.
"""

import json
from pathlib import Path

import numpy as np
import scipy
import sklearn
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    auc,
    average_precision_score,
    brier_score_loss,
    precision_recall_curve,
    roc_curve,
)

HERE = Path(__file__).resolve().parent
BINS = 10


def classes():
    draws = np.random.default_rng(31)
    for number in range(20):
        count = int(draws.integers(4, 60))
        truth = np.concatenate([[0, 1], draws.integers(0, 2, count - 2)])
        scores = 1 / (1 + np.exp(-draws.normal(truth, 1.5)))
        if number % 2:
            scores = np.round(scores, 1)  # ties
        wrong, right, _ = roc_curve(truth, scores, drop_intermediate=False)
        precision, recall, _ = precision_recall_curve(truth, scores)
        yield {
            "truth": truth.tolist(),
            "scores": scores.tolist(),
            "roc": np.column_stack([wrong, right]).tolist(),
            "auc": auc(wrong, right),
            "precision_recall": np.column_stack([recall, precision])[::-1].tolist(),
            "average_precision": average_precision_score(truth, scores),
        }


def calibrations():
    draws = np.random.default_rng(32)
    for number in range(16):
        width = 2 if number % 2 else int(draws.integers(3, 6))
        count = int(draws.integers(5, 80))
        truth = np.concatenate([np.arange(width), draws.integers(0, width, count)])
        logits = draws.normal(0, 2, (len(truth), width))
        logits[np.arange(len(truth)), truth] += 1
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        if width == 2 and number % 4 == 1:
            p[:, 1] = np.round(p[:, 1], 1)  # on the edges of bins
            p[:, 0] = 1 - p[:, 1]
        confidence, is_right = p.max(1), p.argmax(1) == truth
        accuracies, confidences = calibration_curve(is_right, confidence, n_bins=BINS, strategy="uniform")
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
        counts = np.bincount(bins, minlength=BINS)
        counts = counts[counts > 0]
        brier = brier_score_loss(truth, p[:, 1]) if width == 2 else brier_score_loss(truth, p, labels=range(width))
        yield {
            "truth": truth.tolist(),
            "probabilities": p.tolist(),
            "counts": counts.tolist(),
            "confidences": confidences.tolist(),
            "accuracies": accuracies.tolist(),
            "expected_error": float((counts * np.abs(accuracies - confidences)).sum() / counts.sum()),
            "brier": brier,
        }


def shares():
    for part, whole in [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (87, 100), (4999, 5000), (123456, 200000)]:
        found = binomtest(part, whole).proportion_ci(method="wilson")
        yield {"part": part, "whole": whole, "low": found.low, "high": found.high}


def disagreements():
    pairs = [(0, 0), (0, 1), (0, 5), (5, 5), (3, 9), (25, 40), (121, 59), (1000, 1101), (10000, 10300), (0, 1200)]
    for b, c in pairs:
        yield {"b": b, "c": c, "p_value": 1.0 if b == c == 0 else float(binomtest(b, b + c).pvalue)}


def differences(resamples=20000):
    for both, first, second, neither in [(80, 10, 5, 5), (400, 40, 60, 20), (900, 0, 12, 88), (10, 3, 3, 4)]:
        cells = np.array([both, first, second, neither])
        draws = np.random.default_rng(33).multinomial(cells.sum(), cells / cells.sum(), resamples)
        low, high = np.quantile((draws[:, 1] - draws[:, 2]) / cells.sum(), [0.025, 0.975])
        yield {"cells": cells.tolist(), "low": low, "high": high}


def main():
    golden = {
        "scikit-learn": sklearn.__version__,
        "scipy": scipy.__version__,
        "classes": list(classes()),
        "calibrations": list(calibrations()),
        "shares": list(shares()),
        "disagreements": list(disagreements()),
        "differences": list(differences()),
    }
    text = json.dumps(golden).replace("}, {", "},\n{")
    (HERE / "curves.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
