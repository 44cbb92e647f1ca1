"""From numbers to probabilities: activation, suppression, and from several samples to one number."""

import numpy as np

from .manifests import Refused


def activate(raw, kind, axis):
    """Probabilities of raw float64 values; `softmax` along `axis`."""
    if kind == "sigmoid":
        return 1 / (1 + np.exp(-raw))
    if kind == "softmax":
        raw = np.exp(raw - raw.max(axis, keepdims=True))
        return raw / raw.sum(axis, keepdims=True)
    return raw


def suppress(boxes, scores, most):
    """Indices of the boxes that non-maximum suppression leaves, most probable first, as torchvision.ops.nms does it.

    A box goes when its intersection over union with a better one that stays is above `most`.
    """
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[1:][overlap(boxes[left[0]], boxes[left[1:]]) <= most]
    return np.array(kept, int)


def overlap(one, others):
    """Intersection over union of a box left, top, right, bottom with each of (n, 4) others; 0 where both are empty."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    both = np.prod(np.maximum(sides, 0), 1)
    either = np.prod(one[2:] - one[:2]) + np.prod(others[:, 2:] - others[:, :2], 1) - both
    return np.divide(both, either, out=np.zeros(len(others)), where=either > 0)


def combine(values, output):
    """One number from those of several samples, by the manifest's aggregate (not `each`, which keeps all)."""
    falling = sorted(values, reverse=True)
    kind = output.get("aggregate", "max")
    if kind in ("max", "each"):
        return falling[0]
    if kind == "mean":
        return sum(values) / len(values)
    if kind == "mean-top-k":
        top = falling[: output["top_k"]]
        return sum(top) / len(top)
    # any: the at_least-th highest, which says whether that many are at or above a threshold.
    if len(falling) < output["at_least"]:
        raise Refused(f"{len(falling)} images cannot have what {output['at_least']} must")
    return falling[output["at_least"] - 1]
