"""Test metrics of a binary finding with 95 % confidence intervals, for the model cards."""

import numpy as np
from scipy.stats import rankdata


def auc(scores, positive):
    """Area under the ROC curve by the rank sum; ties count half."""
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    hits, misses = positive.sum(), (~positive).sum()
    return float((rankdata(scores)[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def auc_interval(scores, positive, draws=2000, seed=7):
    """Percentile bootstrap of the AUC, resampled within positives and negatives."""
    rng = np.random.default_rng(seed)
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    hits, misses = scores[positive], scores[~positive]
    truth = np.r_[np.ones(len(hits), bool), np.zeros(len(misses), bool)]
    drawn = [auc(np.r_[rng.choice(hits, len(hits)), rng.choice(misses, len(misses))], truth) for _ in range(draws)]
    return [float(value) for value in np.percentile(drawn, [2.5, 97.5])]


def wilson(successes, trials):
    """Wilson's 95 % score interval of a proportion."""
    if trials == 0:
        return [0.0, 1.0]
    z, part = 1.959964, successes / trials
    middle = part + z * z / (2 * trials)
    half = z * np.sqrt(part * (1 - part) / trials + z * z / (4 * trials * trials))
    return [float((middle - half) / (1 + z * z / trials)), float((middle + half) / (1 + z * z / trials))]


def binary(scores, positive, threshold):
    """AUC, sensitivity and specificity at `threshold` (score >= threshold is a call), with intervals and counts."""
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    called = scores >= threshold
    hits, calls_right = int(positive.sum()), int((called & positive).sum())
    misses, rests_right = int((~positive).sum()), int((~called & ~positive).sum())

    def rounded(value, interval):
        return {"value": round(value, 4), "ci95": [round(bound, 4) for bound in interval]}

    return {
        "positives": hits,
        "negatives": misses,
        "threshold": threshold,
        "auc": rounded(auc(scores, positive), auc_interval(scores, positive)),
        "sensitivity": rounded(calls_right / hits, wilson(calls_right, hits)),
        "specificity": rounded(rests_right / misses, wilson(rests_right, misses)),
    }
