"""Trains the wdbc-forest classifier on the breast-cancer table that ships with scikit-learn, and exports it.

    python models/wdbc-forest/train.py

Writes 1.0.0/model.onnx and 1.0.0/metrics.json, after a check that model.toml lists the table's features in order.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402
import metrics  # noqa: E402
from reference import manifests  # noqa: E402

# In scikit-learn's table class 0 is malignant and class 1 benign, so column 0 of the probabilities is malignant.
MALIGNANT = 0


def split():
    """(train rows, test rows, train classes, test classes): one third is held out, stratified, by a fixed seed."""
    table = load_breast_cancer()
    return train_test_split(table.data, table.target, test_size=1 / 3, stratify=table.target, random_state=11)


def forest():
    """The classifier; two samples a leaf keep its probabilities off the extremes and the file small."""
    return RandomForestClassifier(n_estimators=200, min_samples_leaf=2, random_state=11, n_jobs=1)


def tidy(model):
    """Names the graph and the batch dimension, and drops the domain that the exporter lists twice."""
    # Without a fixed name each export would differ, and with it the sha256.
    model.graph.name = "wdbc-forest"
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    del model.opset_import[:]
    for domain, version in sorted(opsets.items()):
        model.opset_import.add(domain=domain, version=version)
    onnx.checker.check_model(model, full_check=True)


def main():
    """Trains, exports, measures the exported graph with onnxruntime, seals the manifest."""
    manifest, path = manifests.load("wdbc-forest")
    names = [feature["name"] for feature in manifest["input"][0]["features"]]
    if names != list(load_breast_cancer().feature_names):
        raise SystemExit("the features of model.toml are not those of the table, in its order")

    train_rows, test_rows, train_classes, test_classes = split()
    classifier = forest().fit(train_rows, train_classes)
    model = to_onnx(
        classifier,
        initial_types=[("features", FloatTensorType([None, len(names)]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    tidy(model)
    model.doc_string = "Demonstration on a public table. Not a medical device."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))

    session = manifests.session(path)
    scores = session.run(["probabilities"], {"features": test_rows.astype(np.float32)})[0][:, MALIGNANT]
    gap = np.abs(scores - classifier.predict_proba(test_rows)[:, MALIGNANT]).max()
    label = manifest["output"]["labels"][0]
    report = {label["label"]: metrics.binary(scores, test_classes == MALIGNANT, label["threshold"])}

    table = load_breast_cancer()
    folds = StratifiedKFold(10, shuffle=True, random_state=11)
    crossed = cross_val_predict(forest(), table.data, table.target, cv=folds, method="predict_proba")[:, MALIGNANT]
    report[f"{label['label']}, ten-fold"] = metrics.binary(crossed, table.target == MALIGNANT, label["threshold"])
    (path.parent / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    golden.seal("wdbc-forest")
    print(f"{path.stat().st_size} bytes; onnxruntime and scikit-learn differ by at most {gap:.1e}")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
