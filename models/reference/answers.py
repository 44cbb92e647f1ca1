"""What a study's expected.json says: one function per kind of `[output]`."""

import numpy as np
from scipy.ndimage import map_coordinates

from . import outputs, regions, volumes
from .manifests import Refused
from .samples import FLIPS

# How far another program may be off. Masks are equal: golden cases have no voxel near the threshold (`margin`).
TOLERANCES = {
    "probability": 1e-4,
    "quantity": 1e-4,
    "box": 0.05,
    "volume_ml": 1e-4,
    "area_mm2": 1e-2,
    "diameter_mm": 1e-3,
}


def rounded(value):
    """Digits worth keeping."""
    return round(float(value), 7)


def classification(manifest, samples):
    """Probabilities per sample and for the study."""
    output = manifest["output"]

    def of(raw):
        return outputs.activate(raw, output["activation"], -1).ravel()

    each = [np.mean([of(given[output["tensor"]]) for _, given in sample.answers], 0) for sample in samples]
    study = {
        label["label"]: outputs.combine([one[label["index"]] for one in each], output) for label in output["labels"]
    }
    return {
        "outcome": _outcome(any(study[label["label"]] >= label["threshold"] for label in output["labels"])),
        "probabilities": {label: rounded(value) for label, value in study.items()},
        "instances": [
            sample.source
            | {"probabilities": {label["label"]: rounded(one[label["index"]]) for label in output["labels"]}}
            for sample, one in zip(samples, each)
        ],
    }


def regression(manifest, samples):
    """Quantities per sample and for the study."""
    output = manifest["output"]
    each = [np.mean([given[output["tensor"]].ravel() for _, given in sample.answers], 0) for sample in samples]
    study = {
        label["label"]: outputs.combine([one[label["index"]] for one in each], output) for label in output["labels"]
    }
    for label in output["labels"]:
        low, high = label.get("range", (-np.inf, np.inf))
        if not low <= study[label["label"]] <= high:
            raise Refused(f"{label['label']} is {study[label['label']]}, which the manifest calls implausible")
    present = [
        label for label in output["labels"] if "threshold" in label and study[label["label"]] >= label["threshold"]
    ]
    return {
        "outcome": _outcome(present),
        "quantities": {label: rounded(value) for label, value in study.items()},
        "instances": [
            sample.source | {"quantities": {label["label"]: rounded(one[label["index"]]) for label in output["labels"]}}
            for sample, one in zip(samples, each)
        ],
    }


def detection(manifest, samples):
    """Boxes in the pixels of their images, the most probable first; and the highest probability of every label."""
    output, spec = manifest["output"], manifest["input"][0]
    side = np.array((spec["columns"], spec["rows"]), np.float64)
    highest = {label["label"]: 0.0 for label in output["labels"]}
    found, margin = [], 1.0
    for sample in samples:
        candidates = [_candidates(flip, given, output, side) for flip, given in sample.answers]
        boxes = np.concatenate([boxes for boxes, _ in candidates])
        scores = np.concatenate([scores for _, scores in candidates])
        # A box that has no area in the picture, in the padding for example, is none.
        seen = sample.place.to_source(boxes)
        seen = (seen[:, 2] > seen[:, 0]) & (seen[:, 3] > seen[:, 1])
        boxes, scores = boxes[seen], scores[seen]
        in_picture = []
        for label in output["labels"]:
            of_label = scores[:, label["index"]]
            highest[label["label"]] = max(highest[label["label"]], float(of_label.max(initial=0.0)))
            margin = min(margin, float(np.abs(of_label - label["threshold"]).min(initial=1.0)))
            kept = np.flatnonzero(of_label >= label["threshold"])
            if "nms" in output:
                kept = kept[outputs.suppress(boxes[kept], of_label[kept], output["nms"]["iou"])]
            ranked = sorted(zip(of_label[kept], sample.place.to_source(boxes[kept])), key=lambda one: -one[0])
            in_picture += [
                (float(probability), label["label"], box, rank) for rank, (probability, box) in enumerate(ranked)
            ]
        in_picture.sort(key=lambda one: -one[0])
        # At most so many, but the best of every label stays.
        kept = [one for place, one in enumerate(in_picture) if place < output["max_boxes"] or one[3] == 0]
        found += [(*one[:3], sample.source) for one in kept]
    found.sort(key=lambda one: -one[0])
    return {
        "outcome": _outcome(found),
        "probabilities": {label: rounded(value) for label, value in highest.items()},
        "boxes": [
            source
            | {"label": label, "box": [round(float(edge), 4) for edge in box], "probability": rounded(probability)}
            for probability, label, box, source in found
        ],
        # How near the nearest score is to its threshold.
        "margin": rounded(margin),
        "tolerances": {key: TOLERANCES[key] for key in ("probability", "box")},
    }


def _candidates(flip, given, output, side):
    """Boxes (n, 4) left, top, right, bottom in the tensor as it was before a flip, and probabilities (n, labels)."""
    boxes, scores = given[output["boxes"]].copy(), given[output["scores"]]
    if output["coordinates"] == "normalized":
        boxes = boxes * np.tile(side, 2)
    if output["format"] == "xywh":
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    elif output["format"] == "cxcywh":
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    if flip is not None:
        low, high, length = {"horizontal": (0, 2, side[0]), "vertical": (1, 3, side[1])}[flip]
        boxes[:, [low, high]] = length - boxes[:, [high, low]]
    scores = outputs.activate(scores if scores.ndim == 2 else scores[:, np.newaxis], output["activation"], -1)
    if "classes" in output:
        classes = given[output["classes"]].astype(int)
        spread = np.zeros(
            (len(boxes), max(classes.max(initial=0), *(label["index"] for label in output["labels"])) + 1)
        )
        spread[np.arange(len(boxes)), classes] = scores[:, 0]
        scores = spread
    return boxes, scores


def segmentation(manifest, samples):
    """What is measured of every label on the grid of its source; every sample is a unit of its own."""
    output = manifest["output"]
    present, probabilities, units = False, {}, []
    for sample in samples:
        each = [
            np.flip(given[output["tensor"]], FLIPS[flip]) if flip else given[output["tensor"]]
            for flip, given in sample.answers
        ]
        each = np.mean([outputs.activate(raw, output["activation"], 0) for raw in each], 0)
        measured = {}
        for label in output["labels"]:
            one = _measured(sample, each[label["index"]], label["threshold"])
            large = one["voxels"] >= label.get("min_pixels", 1)
            for key, least in (("volume_ml", "min_volume_ml"), ("area_mm2", "min_area_mm2")):
                large = large and (least not in label or one.get(key, 0.0) >= label[least])
            present = present or large
            probabilities[label["label"]] = max(probabilities.get(label["label"], 0.0), rounded(one.pop("probability")))
            measured[label["label"]] = {
                key: rounded(value) if isinstance(value, float) else value for key, value in one.items()
            }
        units.append(sample.source | {"regions": measured})
    return {
        "outcome": _outcome(present),
        "probabilities": probabilities,
        "regions": units[0]["regions"] if len(units) == 1 else None,
        "instances": units,
        "tolerances": {key: TOLERANCES[key] for key in ("probability", "volume_ml", "area_mm2", "diameter_mm")},
    }


def _measured(sample, probabilities, threshold):
    if sample.picture is not None:
        across, down, distance = sample.picture.GetSpacing()
        moved = volumes.to_source(probabilities, sample.where, sample.picture)
        return regions.measured(moved, threshold, (down, across), distance)
    place = sample.place
    x = (np.arange(place.columns) + 0.5 - place.offset[0]) / place.scale[0] - 0.5
    y = (np.arange(place.rows) + 0.5 - place.offset[1]) / place.scale[1] - 0.5
    # Within half a pixel beyond the last centre the last value is repeated, farther out it is 0.
    inside = [
        (axis >= -0.5) & (axis < size - 0.5)
        for axis, size in ((y, probabilities.shape[0]), (x, probabilities.shape[1]))
    ]
    moved = map_coordinates(probabilities, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    moved = np.where(inside[0][:, None] & inside[1], moved, 0.0)[np.newaxis]
    one = regions.measured(moved, threshold, sample.spacing or (1.0, 1.0), 1.0)
    area = one.pop("volume_ml") * 1000
    if sample.spacing is None:
        one.pop("diameter_mm")
        return one
    return one | {"area_mm2": area}


def _outcome(present):
    return "finding" if present else "no-finding"


KINDS = {
    "classification": classification,
    "regression": regression,
    "detection": detection,
    "segmentation": segmentation,
}
