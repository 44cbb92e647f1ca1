#!/usr/bin/env python3
"""Makes tests/fixtures/tensors: models whose tensors have every type that crosses over to a worker.

`boxes` has outputs of float16, float32, int32 for a batch of any size; `half` wants float16 and fixes its
batch to 2; `bytes` wants uint8 and gives int64. The weights are random; `expected.json` beside each model
has onnxruntime's answers for samples that both sides can make: value number i of sample n is
(7 i + 13 n + 5) mod 97, over 97 unless the type is uint8.

    env/bin/pip install onnx onnxruntime numpy
    env/bin/python scripts/tensor_models.py tests/fixtures/tensors
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
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/tensors")
SIDE, BOXES, LABELS, SAMPLES = 8, 5, 3, 3
RNG = np.random.default_rng(20260801)

HEAD = """\
# Made by scripts/tensor_models.py.
name = "{name}"
version = "1"
sha256 = "{sha256}"
title = "Tensors of every type (for tests)"
intended_use = "Tests of the gateway only. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.1840213357101927446650291833746510{uid}"

[applies_to]
level = "instance"
modality = ["OT"]

[[input]]
name = "image"
layout = "NCHW"
dtype = "{dtype}"
rows = {side}
columns = {side}
channels = 1
value = "stored"
fit = "stretch"
interpolation = "nearest"

[batching]
max_batch = 4
sizes = [2, 4]
max_delay = "20ms"

[output]
"""

DETECTION = """\
kind = "detection"
boxes = "boxes"
scores = "scores"
classes = "classes"
activation = "none"
format = "xyxy"
coordinates = "normalized"
max_boxes = 5
"""

CLASSIFICATION = """\
kind = "classification"
tensor = "scores"
activation = "none"
aggregate = "max"
"""

LABEL = """
[[output.labels]]
index = 0
label = "something"
code = {{ scheme = "SCT", value = "52988006", meaning = "Lesion" }}
threshold = 0.5
priority = "routine"
"""

node = helper.make_node


def weights(columns):
    return (RNG.normal(0, 1, (SIDE * SIDE, columns)) / SIDE).astype(np.float32)


def boxes():
    constants = {
        "w_boxes": weights(BOXES * 4),
        "w_scores": weights(BOXES),
        "w_classes": weights(BOXES * LABELS),
        "as_boxes": np.array([-1, BOXES, 4], np.int64),
        "as_classes": np.array([-1, BOXES, LABELS], np.int64),
    }
    nodes = [
        node("Flatten", ["image"], ["flat"]),
        node("MatMul", ["flat", "w_boxes"], ["b"]),
        node("Reshape", ["b", "as_boxes"], ["b3"]),
        node("Cast", ["b3"], ["boxes"], to=TensorProto.FLOAT16),
        node("MatMul", ["flat", "w_scores"], ["s"]),
        node("Sigmoid", ["s"], ["scores"]),
        node("MatMul", ["flat", "w_classes"], ["c"]),
        node("Reshape", ["c", "as_classes"], ["c3"]),
        node("ArgMax", ["c3"], ["c2"], axis=2, keepdims=0),
        node("Cast", ["c2"], ["classes"], to=TensorProto.INT32),
    ]
    outputs = [
        ("boxes", TensorProto.FLOAT16, ["N", BOXES, 4]),
        ("scores", TensorProto.FLOAT, ["N", BOXES]),
        ("classes", TensorProto.INT32, ["N", BOXES]),
    ]
    return nodes, constants, TensorProto.FLOAT, "N", outputs


def half():
    constants = {"w": weights(LABELS)}
    nodes = [
        node("Cast", ["image"], ["single"], to=TensorProto.FLOAT),
        node("Flatten", ["single"], ["flat"]),
        node("MatMul", ["flat", "w"], ["s"]),
        node("Sigmoid", ["s"], ["p"]),
        node("Cast", ["p"], ["scores"], to=TensorProto.FLOAT16),
    ]
    return nodes, constants, TensorProto.FLOAT16, 2, [("scores", TensorProto.FLOAT16, [2, LABELS])]


def whole():
    constants = {"axes": np.array([1, 2], np.int64)}
    nodes = [
        node("Cast", ["image"], ["wide"], to=TensorProto.INT64),
        node("ReduceSum", ["wide", "axes"], ["scores"], keepdims=0),
    ]
    return nodes, constants, TensorProto.UINT8, "N", [("scores", TensorProto.INT64, ["N", SIDE])]


MODELS = {
    "boxes": (boxes, DETECTION, "float32", np.float32, 1),
    "half": (half, CLASSIFICATION, "float16", np.float16, 2),
    "bytes": (whole, CLASSIFICATION, "uint8", np.uint8, 3),
}


def sample(number, dtype):
    values = (7 * np.arange(SIDE * SIDE) + 13 * number + 5) % 97
    values = values if dtype == np.uint8 else values / 97
    return values.astype(dtype).reshape(1, SIDE, SIDE)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for name, (make, output, dtype, kind, uid) in MODELS.items():
        nodes, constants, element, batch, outputs = make()
        model = helper.make_model(
            helper.make_graph(
                nodes,
                name,
                [helper.make_tensor_value_info("image", element, [batch, 1, SIDE, SIDE])],
                [helper.make_tensor_value_info(*each) for each in outputs],
                [numpy_helper.from_array(value, key) for key, value in constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", 18)],
            producer_name="tensor_models.py",
        )
        model.ir_version = 10
        onnx.checker.check_model(model, full_check=True)
        graph = model.SerializeToString(deterministic=True)
        folder = OUT / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.onnx").write_bytes(graph)
        manifest = HEAD.format(
            name=name, sha256=hashlib.sha256(graph).hexdigest(), uid=uid, dtype=dtype, side=SIDE
        )
        (folder / "model.toml").write_text(manifest + output + LABEL.format())
        session = onnxruntime.InferenceSession(graph)
        answers = []
        for number in range(SAMPLES):
            one = sample(number, kind)
            full = np.stack([one, np.zeros_like(one)][: 2 if batch == 2 else 1])
            results = session.run([each[0] for each in outputs], {"image": full})
            answers.append([
                {"shape": list(each.shape[1:]), "values": each[0].astype(float).ravel().tolist()}
                for each in results
            ])
        (folder / "expected.json").write_text(json.dumps(answers) + "\n")
        print(name, len(graph), "bytes")


if __name__ == "__main__":
    main()
