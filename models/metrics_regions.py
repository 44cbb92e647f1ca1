"""Test metrics of a segmenter of lesions with 95 % confidence intervals, for the model cards.

Intervals are percentile bootstraps over volumes. A lesion is found when at least a quarter of its voxels are in the mask.
A part of the mask is wrong when it holds no voxel of a lesion and is at least as large as a finding must be.
"""

import numpy as np

from reference.regions import components

DRAWS, SEED = 1000, 7


def compared(mask, lesions, volumes_ml, voxel_ml, least_ml):
    """Counts of one volume: `lesions` are the true masks, `volumes_ml` their true volumes."""
    truth = np.any(lesions, 0) if lesions else np.zeros_like(mask)
    parts, count = components(mask)
    right = set(np.unique(parts[truth])) - {0}
    wrong = [
        number
        for number in range(1, count + 1)
        if number not in right and (parts == number).sum() * voxel_ml >= least_ml
    ]
    found = [bool((mask & lesion).sum() >= 0.25 * lesion.sum()) for lesion in lesions]
    return {
        "dice": float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())) if lesions else None,
        "error_ml": float(mask.sum() * voxel_ml - sum(volumes_ml)),
        "true_ml": float(sum(volumes_ml)),
        "lesions": len(lesions),
        "found": sum(found),
        "wrong": len(wrong),
        "called": bool(mask.sum() * voxel_ml >= least_ml),
    }


def report(volumes):
    """What metrics.json says."""
    rng = np.random.default_rng(SEED)
    drawn = [rng.integers(0, len(volumes), len(volumes)) for _ in range(DRAWS)]

    def measured(measure):
        values = [measure([volumes[k] for k in which]) for which in drawn]
        interval = [round(float(value), 4) for value in np.percentile(values, [2.5, 97.5])]
        return {"value": round(measure(volumes), 4), "ci95": interval}

    def ill(these):
        return [one for one in these if one["lesions"]]

    def well(these):
        return [one for one in these if not one["lesions"]]

    return {
        "volumes": len(volumes),
        "volumes_without": len(well(volumes)),
        "lesions": sum(one["lesions"] for one in volumes),
        "dice_mean": measured(lambda these: float(np.mean([one["dice"] for one in ill(these)]))),
        "volume_error_ml_mean": measured(lambda these: float(np.mean([one["error_ml"] for one in ill(these)]))),
        "volume_error_ml_mean_absolute": measured(
            lambda these: float(np.mean([abs(one["error_ml"]) for one in ill(these)]))
        ),
        "volume_error_percent_mean_absolute": measured(
            lambda these: float(np.mean([100 * abs(one["error_ml"]) / one["true_ml"] for one in ill(these)]))
        ),
        "lesion_sensitivity": measured(
            lambda these: sum(one["found"] for one in these) / sum(one["lesions"] for one in these)
        ),
        "wrong_parts_per_volume": measured(lambda these: float(np.mean([one["wrong"] for one in these]))),
        "volume_sensitivity": measured(lambda these: float(np.mean([one["called"] for one in ill(these)]))),
        "volume_specificity": measured(lambda these: float(np.mean([not one["called"] for one in well(these)]))),
    }
