"""From a structured report to a row of numbers."""

import numpy as np

from .manifests import Refused


def row(dataset, spec):
    """The NUM content items of a structured report as (features,) float32, in the manifest's order."""
    found = {}
    _collect_numbers(dataset, found)
    values = []
    for feature in spec["features"]:
        if "sr" not in feature:
            raise Refused(f"this reference takes features from structured reports only, not `{feature['name']}`")
        key = (feature["sr"]["scheme"], feature["sr"]["value"])
        numbers = found.get(key, [])
        if len(numbers) > 1:
            raise Refused(f"{key} occurs {len(numbers)} times")
        if not numbers and "missing" not in feature:
            raise Refused(f"{key} is missing")
        values.append(numbers[0] if numbers else feature["missing"])
    return np.array(values, np.float32)


def _collect_numbers(item, found):
    """Walks a content tree (PS3.3 C.17.3) and keeps each NUM by the code of its concept name."""
    if item.get("ValueType") == "NUM" and item.get("MeasuredValueSequence"):
        name = item.ConceptNameCodeSequence[0]
        key = (str(name.CodingSchemeDesignator), str(name.CodeValue))
        found.setdefault(key, []).append(float(item.MeasuredValueSequence[0].NumericValue))
    for child in item.get("ContentSequence", []):
        _collect_numbers(child, found)
