"""Writes the golden studies of wdbc-forest: Comprehensive SR documents with the 30 measurements of a held-out row.

    python models/wdbc-forest/cases.py && python models/golden.py write wdbc-forest

The measurements sit two levels deep, and the second report also holds a number of the same code value under another
coding scheme: a reader must look at both halves of a code.
"""

import sys
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage
from pydicom.valuerep import format_number_as_ds

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import casefile  # noqa: E402
import train  # noqa: E402
from reference import manifests  # noqa: E402

MODEL = "wdbc-forest"
SCHEME = "99PGWDEMO"


def report(case, features, row, decoy):
    """The SR data set (PS3.3 A.35.3) of one row of the table."""
    dataset = casefile.new(MODEL, case, 1, ComprehensiveSRStorage, "SR")
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.CodingSchemeIdentificationSequence = [_scheme(SCHEME)] + ([_scheme("99OTHER")] if decoy else [])
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = casefile.code("126000", "DCM", "Imaging Measurement Report")
    dataset.ContinuityOfContent = "SEPARATE"
    groups = {}
    for feature, value in zip(features, row):
        number = _number(feature["sr"]["scheme"], feature["sr"]["value"], feature["name"], value)
        groups.setdefault(_statistic(feature["name"]), []).append(number)
    if decoy:
        first = features[0]
        groups["mean"].insert(0, _number("99OTHER", first["sr"]["value"], first["name"], 1.0))
    dataset.ContentSequence = [_container(statistic, numbers) for statistic, numbers in groups.items()]
    return dataset


def _statistic(name):
    """Which of the three statistics a feature of the table is."""
    return "mean" if name.startswith("mean ") else "error" if name.endswith(" error") else "worst"


def _scheme(designator):
    item = Dataset()
    item.CodingSchemeDesignator = designator
    item.CodingSchemeName = "Private demonstration codes of pacs-gateway"
    return item


def _container(statistic, numbers):
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    item.ConceptNameCodeSequence = casefile.code(f"nuclei-{statistic}", SCHEME, f"Cell nuclei, {statistic}")
    item.ContentSequence = numbers
    return item


def _number(scheme, value, meaning, number):
    item, measured = Dataset(), Dataset()
    measured.NumericValue = format_number_as_ds(float(number))
    # The table gives no units that could be stated honestly.
    measured.MeasurementUnitsCodeSequence = casefile.code("1", "UCUM", "no units")
    item.RelationshipType, item.ValueType = "CONTAINS", "NUM"
    item.ConceptNameCodeSequence = casefile.code(value, scheme, meaning)
    item.MeasuredValueSequence = [measured]
    return item


def main():
    """Writes both reports below 1.0.0/golden/."""
    manifest, onnx = manifests.load(MODEL)
    features = manifest["input"][0]["features"]
    _, rows, _, classes = train.split()
    session = manifests.session(onnx)
    scores = session.run(["probabilities"], {"features": rows.astype(np.float32)})[0][:, train.MALIGNANT]
    for case, wanted in (("malignant", classes == train.MALIGNANT), ("benign", classes != train.MALIGNANT)):
        # Clear and called right, yet not at the very end of the scale, where any error would be rounded away.
        target = 0.93 if case == "malignant" else 0.07
        chosen = int(np.argmin(np.where(wanted, np.abs(scores - target), 9)))
        dataset = report(case, features, rows[chosen], decoy=case == "benign")
        casefile.save(dataset, onnx.parent / "golden" / case / "1.dcm")


if __name__ == "__main__":
    main()
