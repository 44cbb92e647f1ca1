"""Writes tests/fixtures/evaluation: figures of labelled scores by scikit-learn, SciPy and NumPy.

    python scripts/golden_evaluation.py

Needs scikit-learn (see scripts/requirements-train.txt). Point estimates are scikit-learn's. The bootstrap draws the same
cases as the gateway, because its generator (SplitMix64) is written down in its documentation and once more here; the
interval's ends are numpy.percentile's. SciPy's own bootstrap, with other draws, is kept beside them for comparison.

figures.json has drawn scores. phantoms.csv labels the golden studies of cxr-phantom, and phantoms.json has their figures,
computed from the probabilities that models/golden.py wrote into expected.json.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import scipy.stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests/fixtures/evaluation"
GOLDEN = ROOT / "models/cxr-phantom/1.0.0/golden"
BINS, DRAWS, SEED = 15, 300, 20260102
MASK = 2**64 - 1


class Generator:
    """SplitMix64 (Steele, Lea and Flood, 2014); an index is the upper half of the product with 2**64 values."""

    def __init__(self, seed):
        self.state = seed

    def below(self, count):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        mixed = self.state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        return ((mixed ^ (mixed >> 31)) * count) >> 64

    def indices(self, count):
        return np.array([self.below(count) for _ in range(count)], int)


def ece(truth, scores):
    """Expected calibration error from scikit-learn's reliability diagram and the counts of its bins."""
    fraction, mean = calibration_curve(truth, scores, n_bins=BINS, strategy="uniform")
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], scores), minlength=BINS)
    return float(np.sum(counts[counts > 0] * np.abs(fraction - mean)) / len(scores))


def figures(truth, scores, threshold):
    """Every figure; None where it is not defined."""
    called = (scores >= threshold).astype(int)
    tn, fp, fn, tp = metrics.confusion_matrix(truth, called, labels=[0, 1]).ravel()
    two = len(np.unique(truth)) == 2
    return {
        "accuracy": metrics.accuracy_score(truth, called),
        "precision": metrics.precision_score(truth, called) if tp + fp else None,
        "recall": metrics.recall_score(truth, called) if tp + fn else None,
        "specificity": metrics.recall_score(truth, called, pos_label=0) if tn + fp else None,
        "npv": metrics.precision_score(truth, called, pos_label=0) if tn + fn else None,
        "f1": metrics.f1_score(truth, called) if tp + fp + fn else None,
        "auc": metrics.roc_auc_score(truth, scores) if two else None,
        "brier": metrics.brier_score_loss(truth, scores, pos_label=1) if two else float(np.mean((scores - truth) ** 2)),
        "ece": ece(truth, scores),
    }


def ends(drawn):
    """The 95 % interval of the draws that are defined; None when more than one in twenty is not."""
    defined = [value for value in drawn if value is not None]
    if len(defined) < 0.95 * len(drawn):
        return None
    return [float(end) for end in np.percentile(defined, [2.5, 97.5])]


def bootstrap(truth, scores, threshold):
    """Intervals with the gateway's draws: all cases; then positives and negatives for the AUC."""
    generator, drawn = Generator(SEED), {}
    positives, negatives = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    for _ in range(DRAWS):
        chosen = generator.indices(len(truth))
        values = figures(truth[chosen], scores[chosen], threshold)
        chosen = np.r_[positives[generator.indices(len(positives))], negatives[generator.indices(len(negatives))]]
        chosen = chosen.astype(int)
        both = len(positives) and len(negatives)
        values["auc"] = metrics.roc_auc_score(truth[chosen], scores[chosen]) if both else None
        for name, value in values.items():
            drawn.setdefault(name, []).append(value)
    return {name: ends(values) for name, values in drawn.items()}


def by_scipy(truth, scores, threshold):
    """SciPy's percentile intervals of accuracy and AUC, with its own draws."""
    if len(truth) < 2:
        return {}
    right = ((scores >= threshold) == (truth == 1)).astype(float)
    accuracy = scipy.stats.bootstrap((right,), np.mean, method="percentile", n_resamples=5000, rng=1)
    found = {"accuracy": [float(end) for end in accuracy.confidence_interval]}
    hits, misses = scores[truth == 1], scores[truth == 0]
    if len(hits) > 1 and len(misses) > 1:

        def auc(hit, miss):
            return metrics.roc_auc_score(np.r_[np.ones(len(hit)), np.zeros(len(miss))], np.r_[hit, miss])

        interval = scipy.stats.bootstrap((hits, misses), auc, method="percentile", n_resamples=5000, vectorized=False, rng=1)
        found["auc"] = [float(end) for end in interval.confidence_interval]
    return found


def label_case(name, truth, scores, threshold=0.5):
    """One vector of scores with everything about it."""
    truth, scores = np.asarray(truth, int), np.asarray(scores, float)
    two = len(np.unique(truth)) == 2
    rates = metrics.roc_curve(truth, scores) if two else None
    return {
        "name": name,
        "truth": truth.tolist(),
        "scores": scores.tolist(),
        "threshold": threshold,
        "confusion": metrics.confusion_matrix(truth, scores >= threshold, labels=[0, 1]).ravel().tolist(),
        "figures": figures(truth, scores, threshold),
        "intervals": bootstrap(truth, scores, threshold),
        "scipy": by_scipy(truth, scores, threshold),
        "roc": np.stack(rates[:2], axis=1).tolist() if two else [],
    }


def quantity(predicted, actual):
    """MAE, RMSE, bias and limits of agreement."""
    difference = predicted - actual
    bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)
    return {
        "mae": metrics.mean_absolute_error(actual, predicted),
        "rmse": metrics.root_mean_squared_error(actual, predicted),
        "bias": bias,
        "limit_low": bias - spread,
        "limit_high": bias + spread,
    }


def quantity_case(name, predicted, actual):
    """One vector of quantities with everything about it."""
    generator, drawn = Generator(SEED), {}
    for _ in range(DRAWS):
        chosen = generator.indices(len(actual))
        for key, value in quantity(predicted[chosen], actual[chosen]).items():
            drawn.setdefault(key, []).append(value)
    return {
        "name": name,
        "predicted": predicted.tolist(),
        "actual": actual.tolist(),
        "figures": quantity(predicted, actual),
        "intervals": {key: ends(values) for key, values in drawn.items()},
    }


# Golden studies of cxr-phantom, what is said to be true of them (opacity, pneumothorax), and a site. Three of these are
# not what was drawn, so that there are errors to count. One study has two files and two rows.
PHANTOMS = {
    "both-cr-slope/1.dcm": (1, 1, "north"),
    "jpeg-2000/1.dcm": (1, 0, "south"),
    "jpeg-ls/1.dcm": (0, 0, "north"),
    "monochrome1/1.dcm": (0, 1, "south"),
    "normal/1.dcm": (0, 1, "north"),
    "opacity/1.dcm": (0, 0, "north"),
    "pneumothorax/1.dcm": (0, 1, "south"),
    "rle/1.dcm": (1, "", "south"),
    "two-views/1.dcm": (1, 0, "north"),
    "two-views/2.dcm": (1, 0, "north"),
}


def phantoms():
    """Writes the labels of the golden studies and their figures."""
    with (TARGET / "phantoms.csv").open("w", newline="") as file:
        rows = [[name, *truth] for name, truth in PHANTOMS.items()]
        csv.writer(file, lineterminator="\n").writerows([["file", "opacity", "pneumothorax", "site"], *rows])
    studies = {}
    for name, (opacity, pneumothorax, site) in PHANTOMS.items():
        given = json.loads((GOLDEN / name).with_name("expected.json").read_text())["probabilities"]
        uid = str(pydicom.dcmread(GOLDEN / name, stop_before_pixels=True).StudyInstanceUID)
        studies[uid] = ({"opacity": opacity, "pneumothorax": pneumothorax}, given, site)
    report = {"draws": DRAWS, "seed": SEED, "all": {}, "site": {}}
    for label in ("opacity", "pneumothorax"):
        # The gateway draws from the studies in order of their UID.
        known = [(truth[label], given[label], site) for _, (truth, given, site) in sorted(studies.items()) if truth[label] != ""]
        for site in (None, "north", "south"):
            chosen = [(truth, score) for truth, score, where in known if site in (None, where)]
            case = label_case(label, *zip(*chosen))
            found = {key: case[key] for key in ("confusion", "figures", "intervals")}
            (report["site"].setdefault(site, {}) if site else report["all"])[label] = found
    (TARGET / "phantoms.json").write_text(json.dumps(report, indent=1) + "\n")


def main():
    """Draws the vectors and writes the files."""
    rng = np.random.default_rng(5)
    truth = (rng.random(160) < 0.35).astype(int)
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1.2, 160) + 2.2 * truth - 1)))
    ages = rng.uniform(20, 90, 80)
    cases = [
        label_case("ordinary", truth, scores),
        label_case("another operating point", truth, scores, 0.3),
        label_case("ties", truth, np.round(scores, 1)),
        label_case("on the edges of the bins", truth, np.linspace(0, 1, 16)[rng.integers(0, 16, 160)]),
        label_case("upside down", truth, 1 - scores),
        label_case("seldom", np.r_[1, np.zeros(59, int)], rng.random(60)),
        label_case("nobody has it", np.zeros(20, int), rng.random(20)),
        label_case("everybody has it", np.ones(20, int), rng.random(20)),
        label_case("nobody is called", [0, 1, 0, 1, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.0, 0.1]),
        label_case("one study", [1], [0.75]),
    ]
    quantities = [quantity_case("ages", ages + rng.normal(1.5, 4, 80), ages)]
    report = {"bins": BINS, "draws": DRAWS, "seed": SEED, "labels": cases, "quantities": quantities}
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "figures.json").write_text(json.dumps(report) + "\n")
    phantoms()
    print(f"{TARGET}: {len(cases)} labels, {len(quantities)} quantities")


if __name__ == "__main__":
    main()
