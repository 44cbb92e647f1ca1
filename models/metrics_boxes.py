"""Test metrics of a detector with 95 % confidence intervals, for the model cards.

`found` is per picture a pair of boxes (n, 4) and probabilities (n,), `truths` per picture the boxes (m, 4). A box found is
right when its intersection over union with a true box, which no more probable box has taken, is at least `least`.
Intervals are percentile bootstraps over pictures.
"""

import numpy as np

from reference.outputs import overlap

DRAWS, SEED = 1000, 7


def matched(found, truths, least):
    """Per picture: probabilities, and for each whether the box is right; and the number of true boxes."""
    pictures = []
    for (boxes, scores), real in zip(found, truths):
        free, right = list(range(len(real))), np.zeros(len(scores), bool)
        for which in np.argsort(-scores, kind="stable"):
            if free and (over := overlap(boxes[which], real[free])).max() >= least:
                right[which] = True
                free.pop(int(over.argmax()))
        pictures.append((np.asarray(scores), right, len(real)))
    return pictures


def _pooled(pictures):
    scores = np.concatenate([picture[0] for picture in pictures])
    right = np.concatenate([picture[1] for picture in pictures])
    order = np.argsort(-scores, kind="stable")
    return scores[order], right[order], sum(picture[2] for picture in pictures)


def _average_precision(pictures):
    """Area under precision against recall, with precision made monotonous (PASCAL VOC since 2010)."""
    _, right, real = _pooled(pictures)
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * right).sum() / real) if len(right) and real else 0.0


def average_precision(found, truths, least):
    """Average precision at an overlap of `least`."""
    return _average_precision(matched(found, truths, least))


def _sensitivity_at(pictures, false):
    """Sensitivity where at most `false` wrong boxes per picture are found, the best such threshold."""
    scores, right, real = _pooled(pictures)
    wrong = np.cumsum(~right) / len(pictures)
    allowed = np.flatnonzero(wrong <= false)
    return float(right[: allowed[-1] + 1].sum() / real) if len(allowed) else 0.0


def threshold_at(found, truths, false, least=0.5):
    """The lowest probability at which at most `false` wrong boxes per picture are found."""
    scores, right, _ = _pooled(matched(found, truths, least))
    allowed = np.flatnonzero(np.cumsum(~right) / len(found) <= false)
    return float(scores[allowed[-1]]) if len(allowed) else 1.0


def interval(pictures, measure):
    """Percentile bootstrap over pictures."""
    rng = np.random.default_rng(SEED)
    drawn = [measure([pictures[k] for k in rng.integers(0, len(pictures), len(pictures))]) for _ in range(DRAWS)]
    return [round(float(value), 4) for value in np.percentile(drawn, [2.5, 97.5])]


def report(found, truths, threshold):
    """What metrics.json says."""

    def measured(pictures, measure):
        return {"value": round(measure(pictures), 4), "ci95": interval(pictures, measure)}

    loose, strict = matched(found, truths, 0.3), matched(found, truths, 0.5)
    rates = (0.05, 0.1, 0.25, 0.5, 1.0)

    def called(pictures):
        return sum(int((right & (scores >= threshold)).sum()) for scores, right, _ in pictures)

    def wrong(pictures):
        return sum(int((~right & (scores >= threshold)).sum()) for scores, right, _ in pictures) / len(pictures)

    def sensitivity(pictures):
        return called(pictures) / max(sum(real for _, _, real in pictures), 1)

    return {
        "pictures": len(truths),
        "pictures_without": sum(len(real) == 0 for real in truths),
        "masses": sum(len(real) for real in truths),
        "threshold": threshold,
        "ap_iou_0.3": measured(loose, _average_precision),
        "ap_iou_0.5": measured(strict, _average_precision),
        "at_threshold_iou_0.5": {
            "sensitivity": measured(strict, sensitivity),
            "false_boxes_per_picture": measured(strict, wrong),
        },
        "froc_iou_0.5": [
            {
                "false_boxes_per_picture": rate,
                "sensitivity": measured(strict, lambda p, rate=rate: _sensitivity_at(p, rate)),
            }
            for rate in rates
        ],
    }
