#!/usr/bin/env python3
"""Makes tests/fixtures/models/ct-volume: a model of volumes whose answer can be told without it.

The graph smooths a volume with a 3 x 3 x 3 box and takes the soft share of voxels above 300 HU. Its three
outputs are: is there much of it, and how much of that lies in the superior half and in the left half of the
tensor. So an axis that is swapped or flipped changes the answer. Expected probabilities come from
onnxruntime on tensors that SimpleITK makes (scripts/golden_volumes.py), never from the gateway.

    env/bin/pip install pydicom numpy SimpleITK onnx onnxruntime
    env/bin/python scripts/golden_volume_model.py tests/fixtures/models/ct-volume
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

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/models/ct-volume")
DEPTH, ROWS, COLUMNS = 16, 24, 24
LABELS = ["dense", "dense-superior", "dense-left"]

MANIFEST = """\
# Made by scripts/golden_volume_model.py, which says what the graph computes.
name = "ct-volume"
version = "1"
sha256 = "{sha256}"
title = "Dense voxels of a CT volume (synthetic, for tests)"
intended_use = "Tests of the gateway on synthetic volumes only. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.83519713190429117052446781206217459126"

[applies_to]
level = "series"
modality = ["CT"]
sop_class = ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"]

[[input]]
name = "volume"
layout = "NCDHW"
dtype = "float32"
depth = 16
rows = 24
columns = 24
channels = 1
value = "modality"
pad = -1024.0
scale = 0.001

[input.volume]
orientation = "SPL"
spacing_mm = [4.0, 3.0, 3.0]
interpolation = "linear"
fit = "crop-pad"
max_gap_mm = 5.0

[output]
kind = "classification"
tensor = "scores"
activation = "none"
aggregate = "max"

[[output.labels]]
index = 0
label = "dense"
code = {{ scheme = "SCT", value = "52988006", meaning = "Lesion" }}
threshold = 0.5
priority = "urgent"

[[output.labels]]
index = 1
label = "dense-superior"
code = {{ scheme = "SCT", value = "261183002", meaning = "Upper" }}
threshold = 0.5
priority = "routine"

[[output.labels]]
index = 2
label = "dense-left"
code = {{ scheme = "SCT", value = "7771000", meaning = "Left" }}
threshold = 0.5
priority = "routine"
"""


def graph():
    constants = {
        "box": np.full((1, 1, 3, 3, 3), 1 / 27, np.float32),
        "threshold": np.array(0.3, np.float32),
        "sharpness": np.array(20.0, np.float32),
        "much": np.array(50.0, np.float32),
        "zero": np.array(0.0, np.float32),
        "one": np.array(1.0, np.float32),
        "little": np.array(1e-6, np.float32),
        "axes": np.array([2, 3, 4], np.int64),
        "superior": (np.arange(DEPTH) >= DEPTH // 2).astype(np.float32).reshape(1, 1, DEPTH, 1, 1),
        "left": (np.arange(COLUMNS) >= COLUMNS // 2).astype(np.float32).reshape(1, 1, 1, 1, COLUMNS),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["volume", "box"], ["smooth"], pads=[1] * 6),
        node("Sub", ["smooth", "threshold"], ["above"]),
        node("Mul", ["above", "sharpness"], ["steep"]),
        node("Sigmoid", ["steep"], ["soft"]),
        node("ReduceMean", ["soft", "axes"], ["share"], keepdims=0),
        node("Mul", ["share", "much"], ["amount"]),
        node("Clip", ["amount", "zero", "one"], ["dense"]),
        node("Max", ["share", "little"], ["whole"]),
    ]
    for side in ["superior", "left"]:
        nodes += [
            node("Mul", ["soft", side], [f"{side}_soft"]),
            node("ReduceMean", [f"{side}_soft", "axes"], [f"{side}_share"], keepdims=0),
            node("Div", [f"{side}_share", "whole"], [f"{side}_part"]),
            node("Mul", ["dense", f"{side}_part"], [f"dense_{side}"]),
        ]
    nodes.append(node("Concat", ["dense", "dense_superior", "dense_left"], ["scores"], axis=1))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "ct-volume",
            [helper.make_tensor_value_info("volume", TensorProto.FLOAT, ["N", 1, DEPTH, ROWS, COLUMNS])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        producer_name="golden_volume_model.py",
    )
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model


def body(shape, spacing, origin, axes, ball):
    """Water in air with a dense ball, sampled at the voxels' places in the patient."""
    planes, rows, columns = shape
    z, y, x = np.mgrid[0:planes, 0:rows, 0:columns]
    row, column = np.array(axes, float)
    place = np.array(origin) + x[..., None] * spacing[2] * row + y[..., None] * spacing[1] * column
    place = place + z[..., None] * spacing[0] * volumes.normal(axes)
    values = np.where(np.linalg.norm(place / [34, 34, 60], axis=-1) < 1, 20.0, -1000.0)
    if ball:
        values = np.where(np.linalg.norm(place - ball, axis=-1) < 14, 900.0, values)
    return np.round(values + volumes.RNG.normal(0, 8, values.shape)).astype(np.int16)


def cases():
    """Folders of files, with the image that SimpleITK reads or is given."""
    spacing, shape = (4.0, 3.5, 3.5), (14, 20, 20)
    origin, axes = (-33.0, -33.0, -26.0), volumes.AXIAL
    for name, ball in [("axial-superior-left", (12, 0, 14)), ("axial-clear", None)]:
        block = body(shape, spacing, origin, axes, ball)
        places = volumes.positions(origin, axes, spacing[0], shape[0])
        volumes.series(name, block, places, axes, spacing[1:])
        yield name, volumes.read(name)
    spacing, shape = (3.5, 3.0, 3.0), (18, 20, 22)
    origin, axes = (30.0, -31.5, 28.0), volumes.SAGITTAL
    block = body(shape, spacing, origin, axes, (-12, 4, -14))
    places = volumes.positions(origin, axes, spacing[0], shape[0])
    volumes.series("sagittal-inferior-right", block, places, axes, spacing[1:])
    yield "sagittal-inferior-right", volumes.read("sagittal-inferior-right")
    spacing, shape = (4.5, 3.0, 3.0), (12, 22, 22)
    origin, axes = (-31.5, -31.5, -25.0), volumes.AXIAL
    block = body(shape, spacing, origin, axes, (12, 0, -12))
    places = volumes.positions(origin, axes, spacing[0], shape[0])
    order = volumes.RNG.permutation(shape[0])
    ds = volumes.base(volumes.ENHANCED_CT, "CT", "90")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    transform = {"RescaleIntercept": "-1024", "RescaleSlope": "1", "RescaleType": "HU"}
    shared = volumes.groups(axes=axes, spacing=spacing[1:], PixelValueTransformationSequence=transform)
    ds.SharedFunctionalGroupsSequence = volumes.Sequence([shared])
    frames = [volumes.groups(places[k], FrameContentSequence={"StackID": "1"}) for k in order]
    ds.PerFrameFunctionalGroupsSequence = volumes.Sequence(frames)
    volumes.pixels(ds, block[order] + 1024)
    volumes.save(ds, volumes.OUT / "enhanced-inferior-left" / "0.dcm")
    yield "enhanced-inferior-left", volumes.image(block, origin, axes, spacing[1:], spacing[0])


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "1").mkdir(parents=True)
    model = graph().SerializeToString(deterministic=True)
    (OUT / "1" / "model.onnx").write_bytes(model)
    text = MANIFEST.format(sha256=hashlib.sha256(model).hexdigest())
    (OUT / "model.toml").write_text(text)
    spec = tomllib.loads(text)["input"][0]
    session = onnxruntime.InferenceSession(model)
    volumes.OUT = OUT / "1" / "golden"
    volumes.STUDY = volumes.ROOT + "5.0"
    made = cases()
    for number in range(1, 100):
        volumes.STUDY = f"{volumes.ROOT}5.{number}"
        name, picture = next(made, (None, None))
        if name is None:
            break
        tensor = volumes.reference(picture, spec)[None]
        (scores,) = session.run(["scores"], {"volume": tensor})
        found = {label: round(float(score), 7) for label, score in zip(LABELS, scores[0])}
        outcome = "finding" if max(found.values()) >= 0.5 else "no-finding"
        expected = {"tolerance": 1e-4, "outcome": outcome, "probabilities": found}
        (volumes.OUT / name / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
        print(name, outcome, found)


if __name__ == "__main__":
    main()
