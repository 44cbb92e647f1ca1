#!/usr/bin/env python3
"""Makes tests/fixtures/explanation: what the pictures that explain findings must show, without the gateway.

- occlusion.json: the heat of cxr-phantom on a golden study, by NumPy and onnxruntime, and where the opacities of two
  golden studies were drawn (the drawing program is asked; no model).
- models/cam: a small convolutional network whose class activation map is computed in its graph, with a study, and
  cam.json: that map over the image, resampled by Pillow.

    env/bin/pip install -r scripts/requirements-train.txt
    env/bin/python scripts/golden_explanation.py
"""

import hashlib
import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime
import pydicom
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydicom.uid import DigitalXRayImageStorageForPresentation

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/fixtures/explanation"
sys.path[:0] = [str(ROOT / "models"), str(ROOT / "models/cxr-phantom")]
import casefile  # noqa: E402
import cases  # noqa: E402
import golden  # noqa: E402
import phantom  # noqa: E402

STUDY = "rle"
# Golden studies with an opacity, in one place.
PLACES = ("rle", "both-cr-slope")
# Every so many pixels of the heat are kept.
STEP = 4
CAM = OUT / "models/cam"
ROWS, COLUMNS = 32, 48

CAM_MANIFEST = """\
# Made by scripts/golden_explanation.py, which says what the graph computes.
name = "cam"
version = "1"
sha256 = "{sha256}"
title = "A network with class activation maps (random weights, for tests)"
intended_use = "Tests of the gateway on synthetic images only. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.190837465564738291045566377281900135422"

[applies_to]
level = "instance"
modality = ["DX"]

[[input]]
name = "image"
layout = "NCHW"
dtype = "float32"
rows = {rows}
columns = {columns}
channels = 1
value = "presentation"
fit = "stretch"
interpolation = "bilinear-antialias"
mean = [0.5]
std = [0.25]

[output]
kind = "classification"
tensor = "logits"
activation = "sigmoid"
aggregate = "max"

[[output.labels]]
index = 0
label = "first"
code = {{ scheme = "99TEST", value = "first", meaning = "First" }}
threshold = 0.0
priority = "routine"

[[output.labels]]
index = 1
label = "second"
code = {{ scheme = "99TEST", value = "second", meaning = "Second" }}
threshold = 0.0
priority = "routine"

[explanation]
method = "activation-map"
tensor = "maps"
"""


def starts(size, patch, stride):
    """Where squares begin along a side: every `stride`, and one that ends at the edge."""
    return [*range(0, size - patch, stride), size - patch]


def log_odds(logits):
    """Of sigmoid probabilities in double precision, which is where the logits were."""
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return np.log(probabilities / (1 - probabilities))


def occlusion():
    """The heat for each label of the model, and the losses it is the mean of."""
    manifest, path = golden.load_manifest("cxr-phantom")
    spec, output = manifest["input"][0], manifest["output"]
    patch, stride = manifest["explanation"]["patch"], manifest["explanation"]["stride"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def ask(batch):
        return log_odds(session.run([output["tensor"]], {spec["name"]: batch})[0])

    tensor = golden.image_tensor(pydicom.dcmread(path.parent / "golden" / STUDY / "1.dcm"), spec)
    before = ask(tensor)[0]
    squares = [(y, x) for y in starts(spec["rows"], patch, stride) for x in starts(spec["columns"], patch, stride)]
    losses = np.zeros((len(squares), before.size))
    heat = np.zeros((before.size, spec["rows"], spec["columns"]))
    times = np.zeros((spec["rows"], spec["columns"]))
    for number, (y, x) in enumerate(squares):
        covered = tensor.copy()
        covered[:, :, y : y + patch, x : x + patch] = tensor.mean(dtype=np.float64)
        losses[number] = before - ask(covered)[0]
        heat[:, y : y + patch, x : x + patch] += losses[number][:, None, None]
        times[y : y + patch, x : x + patch] += 1
    heat /= times
    return {
        "model": "cxr-phantom",
        "study": STUDY,
        "squares": squares,
        "step": STEP,
        "labels": {
            label["label"]: {
                "losses": [round(float(v), 6) for v in losses[:, label["index"]]],
                "heat": [round(float(v), 6) for v in heat[label["index"], ::STEP, ::STEP].ravel()],
            }
            for label in output["labels"]
        },
        "places": {study: place(study) for study in PLACES},
    }


def place(study):
    """Left, top, right, bottom of what was drawn as an opacity, in pixels of the image."""
    case = next(case for case in cases.CASES if case.study == study)
    drawn, original = [], phantom._opacity

    def recorded(*arguments):
        drawn.append(original(*arguments))
        return drawn[-1]

    phantom._opacity = recorded
    phantom.draw(cases.SEED, case.index, case.labels, case.rows, case.columns)
    phantom._opacity = original
    (thickness,) = drawn
    rows, columns = np.nonzero(thickness > thickness.max() / 4)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def cam_graph():
    """Two convolutions, global average pooling, one weight per feature and label; the maps are the features so weighted."""
    rng = np.random.default_rng(20240501)
    labels, width = 2, 8
    weights = rng.normal(0, 1, (labels, width)).astype(np.float32)
    constants = {
        "first": rng.normal(0, 0.5, (width, 1, 3, 3)).astype(np.float32),
        "second": rng.normal(0, 0.3, (width, width, 3, 3)).astype(np.float32),
        "weights": weights.T.copy(),
        "mapping": weights.reshape(labels, width, 1, 1),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "first"], ["a"], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "second"], ["c"], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c"], ["features"]),
        node("GlobalAveragePool", ["features"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("MatMul", ["flat", "weights"], ["logits"]),
        node("Conv", ["features", "mapping"], ["maps"]),
    ]
    info = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "cam",
            [info("image", TensorProto.FLOAT, ["N", 1, ROWS, COLUMNS])],
            [
                info("logits", TensorProto.FLOAT, ["N", labels]),
                info("maps", TensorProto.FLOAT, ["N", labels, ROWS // 4, COLUMNS // 4]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        producer_name="golden_explanation.py",
    )
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def cam_image(rows=80, columns=120):
    """A slope with three blobs, as a DX image."""
    y, x = np.mgrid[0:rows, 0:columns]
    picture = x / columns * 1200 + y / rows * 500
    for cy, cx, size in ((20, 30, 9), (55, 85, 14), (30, 100, 6)):
        picture = picture + 1800 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    stored = np.clip(np.rint(picture), 0, 4095).astype("<u2")
    dataset = casefile.new("cam", "blobs", 1, DigitalXRayImageStorageForPresentation, "DX")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def cam():
    """The model, its study, and each label's map over the image."""
    shutil.rmtree(CAM, ignore_errors=True)
    study = CAM / "1/golden/blobs"
    study.mkdir(parents=True)
    graph = cam_graph()
    (CAM / "1/model.onnx").write_bytes(graph)
    text = CAM_MANIFEST.format(sha256=hashlib.sha256(graph).hexdigest(), rows=ROWS, columns=COLUMNS)
    (CAM / "model.toml").write_text(text)
    casefile.save(cam_image(), study / "1.dcm")
    manifest = tomllib.loads(text)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    expected = golden.expected(session, manifest, study)
    (study / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")

    dataset = pydicom.dcmread(study / "1.dcm")
    tensor = golden.image_tensor(dataset, manifest["input"][0])
    (maps,) = session.run(["maps"], {"image": tensor})
    found = {}
    for label in manifest["output"]["labels"]:
        heat = np.maximum(maps[0, label["index"]], 0)
        heat = Image.fromarray(heat / heat.max())
        over = np.asarray(heat.resize((dataset.Columns, dataset.Rows), Image.Resampling.BILINEAR))
        found[label["label"]] = [round(float(v), 6) for v in over[::STEP, ::STEP].ravel()]
    return {"rows": dataset.Rows, "columns": dataset.Columns, "step": STEP, "labels": found}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, content in (("occlusion", occlusion()), ("cam", cam())):
        text = json.dumps(content, separators=(",", ":")).replace('},"', '},\n"').replace('],"', '],\n"')
        (OUT / f"{name}.json").write_text(text + "\n")
        print(name, {label: len(values) for label, values in content["labels"].items()}, content.get("places"))


if __name__ == "__main__":
    main()
