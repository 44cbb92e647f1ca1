#!/usr/bin/env python3
"""Makes tests/fixtures/roles/ct-enhancement: a model of three inputs whose answer can be told without it.

It wants the CT before and after contrast as volumes and the scout as an image. Its outputs are: how much
brighter the volume has become in its superior half, and whether the left half of the scout is brighter than
the right. Inputs that are swapped change the answer. Expected probabilities come from onnxruntime on tensors
that SimpleITK and NumPy make (scripts/golden_volumes.py), never from the gateway.

    env/bin/pip install pydicom numpy SimpleITK onnx onnxruntime
    env/bin/python scripts/golden_role_model.py tests/fixtures/roles/ct-enhancement
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys
import tomllib

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import golden_volumes as volumes

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/roles/ct-enhancement")
PLANES, ROWS, COLUMNS, SIDE = 6, 12, 12, 16
LABELS = ["enhancement", "left-scout"]

VOLUME = """\
layout = "NCDHW"
dtype = "float32"
depth = 6
rows = 12
columns = 12
channels = 1
value = "modality"
pad = -1000.0
scale = 0.001
[input.volume]
orientation = "SPL"
spacing_mm = [4.0, 3.0, 3.0]
interpolation = "linear"
fit = "crop-pad"
"""

MANIFEST = """\
# Made by scripts/golden_role_model.py, which says what the graph computes.
name = "ct-enhancement"
version = "1"
sha256 = "{sha256}"
title = "Enhancement between two CT series (synthetic, for tests)"
intended_use = "Tests of the gateway on synthetic volumes only. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.120367152013374283510284462197305816417"

[applies_to]
level = "study"
modality = ["CT"]

# Another order than the graph's.
[[input]]
name = "post"
role = "post-contrast"
where = [
  {{ attribute = "ImageType", equals = "AXIAL" }},
  {{ attribute = "ContrastBolusAgent", present = true }},
]
{volume}
[[input]]
name = "scout"
role = "scout"
where = [{{ attribute = "ImageType", equals = "LOCALIZER" }}]
layout = "NHWC"
dtype = "float32"
rows = 16
columns = 16
channels = 1
value = "modality"
fit = "stretch"
interpolation = "nearest"
scale = 0.001

[[input]]
name = "pre"
role = "pre-contrast"
where = [
  {{ attribute = "ImageType", equals = "AXIAL" }},
  {{ attribute = "ContrastBolusAgent", present = false }},
]
{volume}
[output]
kind = "classification"
tensor = "scores"
activation = "sigmoid"
aggregate = "max"

[[output.labels]]
index = 0
label = "enhancement"
code = {{ scheme = "SCT", value = "52988006", meaning = "Lesion" }}
threshold = 0.5
priority = "urgent"

[[output.labels]]
index = 1
label = "left-scout"
code = {{ scheme = "SCT", value = "7771000", meaning = "Left" }}
threshold = 0.5
priority = "routine"
"""


def graph():
    superior = (np.arange(PLANES) >= PLANES // 2).astype(np.float32) * 2
    side = np.where(np.arange(SIDE) < SIDE // 2, 1, -1).astype(np.float32)
    constants = {
        "superior": superior.reshape(1, 1, PLANES, 1, 1),
        "side": side.reshape(1, 1, SIDE, 1),
        "axes": np.array([2, 3, 4], np.int64),
        "plane_axes": np.array([1, 2], np.int64),
        "much": np.array(60.0, np.float32),
        "little": np.array(1.5, np.float32),
        "steep": np.array(20.0, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Sub", ["post", "pre"], ["change"]),
        node("Mul", ["change", "superior"], ["upper"]),
        node("ReduceMean", ["upper", "axes"], ["mean"], keepdims=0),
        node("Mul", ["mean", "much"], ["scaled"]),
        node("Sub", ["scaled", "little"], ["enhancement"]),
        node("Mul", ["scout", "side"], ["halves"]),
        node("ReduceMean", ["halves", "plane_axes"], ["lean"], keepdims=0),
        node("Mul", ["lean", "steep"], ["left"]),
        node("Concat", ["enhancement", "left"], ["scores"], axis=1),
    ]
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "ct-enhancement",
            [
                value("pre", TensorProto.FLOAT, ["N", 1, PLANES, ROWS, COLUMNS]),
                value("post", TensorProto.FLOAT, ["N", 1, PLANES, ROWS, COLUMNS]),
                value("scout", TensorProto.FLOAT, ["N", SIDE, SIDE, 1]),
            ],
            [value("scores", TensorProto.FLOAT, ["N", 2])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        producer_name="golden_role_model.py",
    )
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model


def case(name, spec, enhanced, left):
    """Files of a study, and the tensors that SimpleITK and NumPy make of them."""
    spacing, shape, origin, axes = (3.5, 2.5, 2.5), (7, 14, 14), (-16.0, -16.0, -10.0), volumes.AXIAL
    places = volumes.positions(origin, axes, spacing[0], shape[0])
    z, y, x = np.mgrid[0 : shape[0], 0 : shape[1], 0 : shape[2]]
    before = np.round(40 + volumes.RNG.normal(0, 8, shape)).astype(np.int16)
    ball = (z - 4.5) ** 2 * 2 + (y - 6) ** 2 + (x - 8) ** 2 < 14
    after = before + np.where(ball, enhanced, 0).astype(np.int16)
    volumes.series(f"{name}/pre", before, places, axes, spacing[1:])
    volumes.series(f"{name}/post", after, places, axes, spacing[1:], ContrastBolusAgent="Invented")
    scout = np.round(100 + volumes.RNG.normal(0, 5, (SIDE, SIDE))).astype(np.int16)
    scout[:, : SIDE // 2] += np.int16(left)
    ds = volumes.base(volumes.CT, "CT", volumes.SERIES.setdefault(f"{name}/scout", f"1{len(volumes.SERIES):02}"))
    localizer = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    volumes.single(ds, scout, [0, 0, 0], volumes.CORONAL, [1.0, 1.0], ImageType=localizer)
    volumes.save(ds, volumes.OUT / name / "scout" / "0.dcm")
    tensors = {
        "post": volumes.reference(volumes.read(f"{name}/post"), spec["post"])[None],
        "pre": volumes.reference(volumes.read(f"{name}/pre"), spec["pre"])[None],
        "scout": (scout.astype(np.float32) * np.float32(0.001)).reshape(1, SIDE, SIDE, 1),
    }
    # A golden case is one folder.
    for file in sorted((volumes.OUT / name).glob("*/*.dcm")):
        file.rename(volumes.OUT / name / f"{file.parent.name}-{file.name}")
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
    return tensors


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "1").mkdir(parents=True)
    model = graph().SerializeToString(deterministic=True)
    (OUT / "1" / "model.onnx").write_bytes(model)
    text = MANIFEST.format(sha256=hashlib.sha256(model).hexdigest(), volume=VOLUME)
    (OUT / "model.toml").write_text(text)
    spec = {table["name"]: table for table in tomllib.loads(text)["input"]}
    session = onnxruntime.InferenceSession(model)
    volumes.OUT = OUT / "1" / "golden"
    for number, (name, enhanced, left) in enumerate([("enhancing", 300, -30), ("still", 0, 40), ("fading", -300, -40)], 1):
        volumes.STUDY = f"{volumes.ROOT}6.{number}"
        (scores,) = session.run(["scores"], case(name, spec, enhanced, left))
        found = {label: round(float(1 / (1 + np.exp(-score))), 7) for label, score in zip(LABELS, scores[0])}
        outcome = "finding" if max(found.values()) >= 0.5 else "no-finding"
        expected = {"tolerance": 1e-4, "outcome": outcome, "probabilities": found}
        (volumes.OUT / name / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
        print(name, outcome, found)


if __name__ == "__main__":
    main()
