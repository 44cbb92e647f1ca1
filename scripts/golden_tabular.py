#!/usr/bin/env python3
"""Makes tests/fixtures/tabular: small scikit-learn models as ai.onnx.ml, with rows and what scikit-learn says of them.

One model per kind that hospitals bring: random forest, support vectors, gradient boosting, logistic regression, alone
and behind a StandardScaler, for classes (the breast-cancer table) and for quantities (the diabetes table), both of
which scikit-learn ships. `rows.json` holds test rows, what scikit-learn itself answers in double precision, and what
onnxruntime answers; the gateway must agree with the first. Two of the models have the first row as a golden case: a
structured report with the measurements, and what scikit-learn says of it.

    env/bin/pip install numpy scikit-learn skl2onnx onnx onnxruntime pydicom
    env/bin/python scripts/golden_tabular.py tests/fixtures/tabular
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime
import pydicom
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/tabular")
# The ten means of the breast-cancer table; the diabetes table has ten columns.
COLUMNS = 10
# Operating point of the quantity.
THRESHOLD = 120.0
# Models with a golden case.
WITH_CASE = ["linear", "svc-scaled"]
# Rows per model; a batch of all of them is run, and each by itself.
ROWS = 24

MANIFEST = """\
# Made by scripts/golden_tabular.py.
name = "{name}"
version = "1"
sha256 = "{sha256}"
title = "{title} (for tests)"
intended_use = "Tests of the gateway on public tables only. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.{uid}"

[applies_to]
level = "study"
modality = ["SR"]

[[input]]
name = "features"
layout = "NF"
dtype = "float32"
{features}
[output]
kind = "{kind}"
tensor = "{tensor}"
{output}aggregate = "max"

{labels}
[batching]
max_batch = {rows}
max_delay = "100ms"
"""


def classifiers():
    """Name and unfitted estimator; names say what they are.

    Not among them, because skl2onnx 1.20 does not export them: HistGradientBoosting (it stops), and a
    CalibratedClassifierCV around a pipeline (it exports another function; the check below catches it).
    """
    yield "forest-classifier", RandomForestClassifier(n_estimators=25, max_depth=5, random_state=1)
    yield "boosting-classifier", GradientBoostingClassifier(n_estimators=25, max_depth=2, random_state=1)
    yield "logistic", make_pipeline(StandardScaler(), LogisticRegression())
    yield "svc-scaled", make_pipeline(StandardScaler(), SVC(probability=True, random_state=1))
    yield "svc", SVC(probability=True, random_state=1)


def regressors():
    yield "forest-regressor", RandomForestRegressor(n_estimators=15, max_depth=5, random_state=1)
    yield "boosting-regressor", GradientBoostingRegressor(n_estimators=25, max_depth=2, random_state=1)
    yield "svr-scaled", make_pipeline(StandardScaler(), SVR(C=50.0))
    yield "linear", make_pipeline(StandardScaler(), LinearRegression())


def tidy(model, name):
    """The same bytes every time: names of graph and batch, domains listed once."""
    model.graph.name = name
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    del model.opset_import[:]
    for domain, version in sorted(opsets.items()):
        model.opset_import.add(domain=domain, version=version)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def export(name, estimator, classifier):
    options = {"zipmap": False} if classifier else None
    model = to_onnx(
        estimator,
        initial_types=[("features", FloatTensorType([None, COLUMNS]))],
        options=options,
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    return tidy(model, name)


def single_column(pipeline):
    """The logistic pipeline as a network writes it: one column, the probability of the second class."""
    scaler, logistic = pipeline[0], pipeline[-1]
    weights = (logistic.coef_[0] / scaler.scale_).astype(np.float32)
    bias = float(logistic.intercept_[0] - (logistic.coef_[0] * scaler.mean_ / scaler.scale_).sum())
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["score"]),
            helper.make_node("Add", ["score", "bias"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        "single-column",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", COLUMNS])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(weights.reshape(COLUMNS, 1), "weights"),
            numpy_helper.from_array(np.array([bias], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return tidy(model, "single-column")


def label(index, name, extra):
    return (
        f'[[output.labels]]\nindex = {index}\nlabel = "{name}"\n'
        f'code = {{ scheme = "99PGWDEMO", value = "{name[:16]}", meaning = "{name}" }}\n{extra}priority = "routine"\n'
    )


def write(name, onnx_bytes, tensor, columns, labels, kind, rows, expected):
    """A model's folder. `expected` is what scikit-learn says: a list of values per row, one per label."""
    folder = OUT / name
    (folder / "1").mkdir(parents=True)
    path = folder / "1" / "model.onnx"
    path.write_bytes(onnx_bytes)
    code = 'sr = {{ scheme = "99PGWDEMO", value = "{}" }}'
    features = "".join(f'[[input.features]]\nname = "{c}"\n{code.format(f"column-{i}")}\n' for i, c in enumerate(columns))
    sha256 = hashlib.sha256(onnx_bytes).hexdigest()
    classification = kind == "classification"
    (folder / "model.toml").write_text(
        MANIFEST.format(
            name=name,
            sha256=sha256,
            title=name,
            uid=int(sha256[:24], 16),
            features=features,
            kind=kind,
            tensor=tensor,
            output='activation = "none"\n' if classification else "",
            labels="\n".join(labels),
            rows=ROWS,
        )
    )
    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    answer = session.run([tensor], {"features": rows})[0].reshape(ROWS, -1)
    used = answer[:, -expected.shape[1] :]
    # In double precision against single: relative for quantities.
    gap = (np.abs(used - expected) / np.maximum(1.0, np.abs(expected))).max()
    print(f"{name:26} {path.stat().st_size:7} bytes, onnxruntime is {gap:.1e} off scikit-learn")
    if gap > 1e-5:
        raise SystemExit(f"{name}: the export is not the estimator")
    golden = {
        "columns": columns,
        "rows": [[float(value) for value in row] for row in rows],
        "scikit-learn": expected.tolist(),
        "onnxruntime": used.astype(float).tolist(),
    }
    (folder / "1" / "rows.json").write_text(json.dumps(golden, indent=None) + "\n")
    if name in WITH_CASE:
        names = [line.split('"')[1] for block in labels for line in block.splitlines() if line.startswith("label")]
        case = folder / "1" / "golden" / "first-row"
        case.mkdir(parents=True)
        report(case / "report.dcm", name, columns, rows[0])
        numbers = dict(zip(names, expected[0].tolist()))
        present = expected[0].max() >= (0.5 if classification else THRESHOLD)
        text = {
            "tolerance": 1e-5 if classification else 1e-3,
            "outcome": "finding" if present else "no-finding",
            "probabilities" if classification else "quantities": numbers,
        }
        (case / "expected.json").write_text(json.dumps(text, indent=2) + "\n")


def code(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def number(index, name, value):
    """A NUM content item (PS3.3 C.18.1)."""
    item, measured = Dataset(), Dataset()
    measured.NumericValue = format_number_as_ds(float(value))
    measured.MeasurementUnitsCodeSequence = code("1", "UCUM", "no units")
    item.RelationshipType, item.ValueType = "CONTAINS", "NUM"
    item.ConceptNameCodeSequence = code(f"column-{index}", "99PGWDEMO", name)
    item.MeasuredValueSequence = [measured]
    return item


def report(path, name, columns, row):
    """A Comprehensive SR document with the row's numbers."""
    root = f"2.25.{int(hashlib.sha256(name.encode()).hexdigest()[:24], 16)}"
    dataset = Dataset()
    dataset.SOPClassUID = pydicom.uid.ComprehensiveSRStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{root}.1", f"{root}.2", f"{root}.3"
    dataset.Modality, dataset.ValueType, dataset.ContinuityOfContent = "SR", "CONTAINER", "SEPARATE"
    dataset.PatientID, dataset.PatientName = "INVENTED-1", "INVENTED^ROW"
    dataset.ConceptNameCodeSequence = code("126000", "DCM", "Imaging Measurement Report")
    dataset.ContentSequence = [number(index, *column) for index, column in enumerate(zip(columns, row))]
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def main():
    if OUT.exists():
        shutil.rmtree(OUT)
    OUT.mkdir(parents=True)
    table = load_breast_cancer()
    # What the models see is single precision, in training too, so that no row sits between two thresholds.
    data = table.data[:, :COLUMNS].astype(np.float32)
    train, test, classes, _ = train_test_split(data, table.target, test_size=1 / 3, stratify=table.target, random_state=1)
    rows, names = test[:ROWS], [str(name) for name in table.feature_names[:COLUMNS]]
    malignant, benign = "malignant", "benign"
    half = "threshold = 0.5\n"
    for name, estimator in classifiers():
        estimator.fit(train, classes)
        both = [label(0, malignant, half), label(1, benign, half)]
        expected = estimator.predict_proba(rows.astype(np.float64))
        write(name, export(name, estimator, True), "probabilities", names, both, "classification", rows, expected)
        if name == "logistic":
            one, second = [label(0, benign, half)], expected[:, 1:]
            write("single-column", single_column(estimator), "probability", names, one, "classification", rows, second)

    table = load_diabetes(scaled=False)
    data = table.data.astype(np.float32)
    train, test, values, _ = train_test_split(data, table.target, test_size=1 / 3, random_state=1)
    rows, names = test[:ROWS], [str(name) for name in table.feature_names]
    quantity = [label(0, "progression", f'unit = "{{score}}"\nrange = [0.0, 400.0]\nthreshold = {THRESHOLD}\n')]
    for name, estimator in regressors():
        estimator.fit(train, values)
        expected = estimator.predict(rows.astype(np.float64)).reshape(-1, 1)
        write(name, export(name, estimator, False), "variable", names, quantity, "regression", rows, expected)
    total = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print(f"{total} bytes in all")


if __name__ == "__main__":
    main()
