#!/usr/bin/env python3
"""Makes tests/fixtures/combinations: a model of three graphs that sees mirror images, and two models that build on
cxr-phantom.

- `three-folds`: each graph is a weighted sum of a small image, so that every mirror image and every graph says something
  else. `expected.json` has images, and what the nine answers become by mean, maximum and vote, computed with onnxruntime
  and numpy.
- `pneumothorax-risk`: scikit-learn's logistic regression on made-up patients, from what cxr-phantom says, age and sex.
- `pneumothorax-consensus`: the mean of cxr-phantom and pneumothorax-risk; it has no graph.
  The last two have a golden case for the patient of cxr-phantom's case both-cr-slope, had she been 64.

    env/bin/pip install numpy scikit-learn skl2onnx onnx onnxruntime pydicom
    env/bin/python scripts/golden_combinations.py tests/fixtures/combinations
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
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/combinations")
SIDE = 8
LABELS = ["a", "b"]
THRESHOLD = 0.5
AGE = 64

HEAD = """\
# Made by scripts/golden_combinations.py.
name = "{name}"
version = "1"
{sha256}title = "{name} (for tests)"
intended_use = "Tests of the gateway only. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.{uid}"
"""

FOLDS = """\
flips = ["horizontal", "vertical"]

[ensemble]
combine = "mean"
folds = [
    {{ file = "fold-2.onnx", sha256 = "{second}" }},
    {{ file = "fold-3.onnx", sha256 = "{third}" }},
]

[applies_to]
level = "instance"
modality = ["DX"]

[[input]]
name = "image"
layout = "NCHW"
dtype = "float32"
rows = 8
columns = 8
channels = 1
value = "presentation"
fit = "stretch"
interpolation = "bilinear-antialias"

[output]
kind = "classification"
tensor = "logits"
activation = "sigmoid"
aggregate = "max"
"""

RISK = """\

[applies_to]
level = "study"
modality = ["DX", "CR"]

[[input]]
name = "features"
layout = "NF"
dtype = "float32"

[[input.features]]
name = "opacity in the image"
model = { name = "cxr-phantom", label = "opacity" }

[[input.features]]
name = "pneumothorax in the image"
model = { name = "cxr-phantom", label = "pneumothorax" }

[[input.features]]
name = "age in years"
attribute = "PatientAge"

[[input.features]]
name = "sex"
attribute = "PatientSex"
values = { F = 0.0, M = 1.0, O = 0.5 }
missing = 0.5

[output]
kind = "classification"
tensor = "probabilities"
activation = "none"
aggregate = "max"
"""

CONSENSUS = """\

[applies_to]
level = "study"
modality = ["DX", "CR"]

[ensemble]
combine = "mean"
models = ["cxr-phantom", "pneumothorax-risk"]

[output]
kind = "classification"
activation = "none"
aggregate = "max"
"""

LABEL = """
[[output.labels]]
index = {index}
label = "{label}"
code = {{ scheme = "99PGWDEMO", value = "{label}", meaning = "{label}" }}
threshold = 0.5
priority = "urgent"
"""


def manifest(name, sha256, body, labels):
    digest = hashlib.sha256(name.encode()).hexdigest()
    line = f'sha256 = "{sha256}"\n' if sha256 else ""
    head = HEAD.format(name=name, sha256=line, uid=int(digest[:24], 16))
    labels = "".join(LABEL.format(index=index, label=label) for index, label in labels)
    (OUT / name / "model.toml").write_text(head + body + labels)


def serialized(model):
    """The same bytes every time."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    del model.opset_import[:]
    for domain, version in sorted(opsets.items()):
        model.opset_import.add(domain=domain, version=version)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def session(onnx_bytes):
    return onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])


def weighted_sum(random):
    weights = random.normal(size=(SIDE * SIDE, len(LABELS))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["row"]),
            helper.make_node("MatMul", ["row", "weights"], ["logits"]),
        ],
        "weighted-sum",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(LABELS)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return serialized(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def folds():
    random = np.random.default_rng(4)
    folder = OUT / "three-folds" / "1"
    folder.mkdir(parents=True)
    graphs = [weighted_sum(random) for _ in range(3)]
    for graph, file in zip(graphs, ["model.onnx", "fold-2.onnx", "fold-3.onnx"]):
        (folder / file).write_bytes(graph)
    first, second, third = (hashlib.sha256(graph).hexdigest() for graph in graphs)
    body = FOLDS.format(second=second, third=third)
    manifest("three-folds", first, body, list(enumerate(LABELS)))

    images = (random.normal(size=(6, SIDE, SIDE)) * 0.25).astype(np.float32)
    # Axes: graph, mirror image, image, label.
    views = [images, images[:, :, ::-1], images[:, ::-1, :]]
    logits = [[session(graph).run(None, {"image": view[:, None]})[0] for view in views] for graph in graphs]
    said = 1 / (1 + np.exp(-np.array(logits, np.float64)))
    by_graph = said.mean(axis=1)
    expected = {
        "images": images.tolist(),
        "mean": by_graph.mean(axis=0).tolist(),
        "max": by_graph.max(axis=0).tolist(),
        "vote": (by_graph >= THRESHOLD).mean(axis=0).tolist(),
        # Digest of what answers, as docs/models.md defines it.
        "sha256": hashlib.sha256("".join(f"{d}\n" for d in (first, second, third)).encode()).hexdigest(),
    }
    margin = np.abs(by_graph - THRESHOLD).min()
    print(f"three-folds: nearest to a vote that rounding could turn is {margin:.3f}")
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


def header_only(path, name, modality, sex):
    """A file with what the models read, and nothing else."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = f"2.25.{int(hashlib.sha256(name.encode()).hexdigest()[:24], 16)}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = dataset.SOPInstanceUID + ".1", dataset.SOPInstanceUID + ".2"
    dataset.Modality, dataset.PatientAge, dataset.PatientSex = modality, f"{AGE:03}Y", sex
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def golden_case(name, upstream, probability, modality, sex):
    folder = OUT / name / "1" / "golden" / "sixty-four"
    folder.mkdir(parents=True)
    expected = {
        "tolerance": 1e-4,
        "outcome": "finding" if probability >= THRESHOLD else "no-finding",
        "probabilities": {"pneumothorax": probability},
        "upstream": upstream,
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    header_only(folder / "header.dcm", name, modality, sex)


def chain():
    name = "pneumothorax-risk"
    random = np.random.default_rng(5)
    count = 400
    columns = [random.random(count), random.random(count), random.uniform(18, 95, count), random.choice([0, 0.5, 1], count)]
    rows = np.stack(columns, axis=1).astype(np.float32)
    score = 3 * rows[:, 1] - 1.5 + 0.02 * (rows[:, 2] - 55) + 0.6 * (rows[:, 3] - 0.5)
    classes = (random.random(count) < 1 / (1 + np.exp(-score))).astype(int)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, classes)
    model = to_onnx(
        estimator,
        initial_types=[("features", FloatTensorType([None, rows.shape[1]]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    model.graph.name = name
    onnx_bytes = serialized(model)
    (OUT / name / "1").mkdir(parents=True)
    (OUT / name / "1" / "model.onnx").write_bytes(onnx_bytes)
    manifest(name, hashlib.sha256(onnx_bytes).hexdigest(), RISK, [(1, "pneumothorax")])

    case = ROOT / "models/cxr-phantom/1.0.0/golden/both-cr-slope"
    image = json.loads((case / "expected.json").read_text())["probabilities"]
    header = pydicom.dcmread(case / "1.dcm", stop_before_pixels=True)
    sex = {"F": 0.0, "M": 1.0, "O": 0.5}[header.PatientSex]
    row = [[image["opacity"], image["pneumothorax"], AGE, sex]]
    risk = float(estimator.predict_proba(row)[0, 1])
    golden_case(name, {"cxr-phantom": image}, risk, header.Modality, header.PatientSex)

    upstream = {"cxr-phantom": image, name: {"pneumothorax": risk}}
    name = "pneumothorax-consensus"
    mean = (image["pneumothorax"] + risk) / 2
    golden_case(name, upstream, mean, header.Modality, header.PatientSex)
    manifest(name, None, CONSENSUS, [(0, "pneumothorax")])
    print(f"image {image['pneumothorax']:.4f}, risk {risk:.4f}, consensus {mean:.4f}")


def main():
    if OUT.exists():
        shutil.rmtree(OUT)
    folds()
    chain()


if __name__ == "__main__":
    main()
