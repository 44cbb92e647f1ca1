#!/usr/bin/env python3
"""Makes tests/fixtures/misbehaving: models that behave until they see a marked image.

An image is marked by a stored value of 4000 or more. Then, by what the graph does with the data,
`hangs` counts for years, `eats-memory` fills 16 GiB, and `crashes` divides the lowest integer by -1,
which ends the process by SIGFPE on x86-64. `slow` never misbehaves and takes its time over every image. On an image
without the mark each answers with the mean of the image over 4096.

    env/bin/pip install onnx onnxruntime numpy
    env/bin/python scripts/misbehaving_models.py tests/fixtures/misbehaving
"""

import hashlib
import os
import pathlib
import shutil
import sys
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/misbehaving")
SIDE, MARK = 8, 4000.0
# Modality each applies to, and the last digits of its device UID.
MODELS = {"hangs": ("MR", 1), "eats-memory": ("MG", 2), "crashes": ("XA", 3), "slow": ("CT", 4)}

MANIFEST = """\
# Made by scripts/misbehaving_models.py, which says what the graph does.
name = "{name}"
version = "1"
sha256 = "{sha256}"
title = "Misbehaves on purpose (for tests)"
intended_use = "Tests of the gateway only. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.20951713580249071164392846701953817{uid}"

[applies_to]
level = "instance"
modality = ["{modality}"]

[[input]]
name = "image"
layout = "NCHW"
dtype = "float32"
rows = {side}
columns = {side}
channels = 1
value = "stored"
fit = "stretch"
interpolation = "nearest"

[output]
kind = "classification"
tensor = "scores"
activation = "none"
aggregate = "max"

[[output.labels]]
index = 0
label = "bright"
code = {{ scheme = "SCT", value = "255371004", meaning = "Bright" }}
threshold = 0.99
priority = "routine"

[batching]
max_batch = 4
max_delay = "5ms"
"""

node = helper.make_node


def counting():
    """A loop's body: halves what it carries."""
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [
            node("Identity", ["go_on"], ["still"]),
            node("Mul", ["carried", "half"], ["next"]),
        ],
        "halve",
        [
            value("number", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, [1]),
        ],
        [value("still", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([0.5], np.float32), "half")],
    )


def graph(name):
    """Mean of the image, plus something that is zero and depends on how the model misbehaves."""
    constants = {
        "axes": np.array([2, 3], np.int64),
        "range": np.array(4096.0, np.float32),
        "mark": np.array(MARK, np.float32),
        "true": np.array(True),
        "small": np.array([1e-30], np.float32),
        "one": np.array([1], np.int64),
    }
    nodes = [
        node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        node("Div", ["mean", "range"], ["share"]),
        node("ReduceMax", ["image"], ["most"], keepdims=0),
        node("GreaterOrEqual", ["most", "mark"], ["marked"]),
    ]
    if name in ("hangs", "slow"):
        # An iteration takes about half a microsecond: a hundred years, or some milliseconds per image.
        often = 2**62 if name == "hangs" else SLOW
        constants |= {"often": np.array([often], np.int64)}
        if name == "hangs":
            nodes.append(node("Where", ["marked", "often", "one"], ["trips"]))
        else:
            nodes += [
                node("Shape", ["image"], ["batch"], start=0, end=1),
                node("Mul", ["batch", "often"], ["trips"]),
            ]
        nodes += [
            node("Squeeze", ["trips"], ["count"]),
            node("Loop", ["count", "true", "small"], ["zero"], body=counting()),
        ]
    elif name == "eats-memory":
        constants |= {"much": np.array([4 << 30], np.int64)}
        nodes += [
            node("Where", ["marked", "much", "one"], ["length"]),
            node("ConstantOfShape", ["length"], ["filled"]),
            node("ReduceMax", ["filled"], ["zero"], keepdims=0),
        ]
    else:
        constants |= {
            "lowest": np.array([-(2**31)], np.int32),
            "minus_one": np.array([-1], np.int32),
            "seven": np.array([7], np.int32),
            "nothing": np.array(0.0, np.float32),
        }
        nodes += [
            node("Where", ["marked", "minus_one", "seven"], ["divisor"]),
            node("Div", ["lowest", "divisor"], ["quotient"]),
            node("Cast", ["quotient"], ["number"], to=TensorProto.FLOAT),
            node("Mul", ["number", "nothing"], ["zero"]),
        ]
    nodes.append(node("Add", ["share", "zero"], ["scores"]))
    used = {name for item in nodes for name in item.input}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 1])],
            [numpy_helper.from_array(value, key) for key, value in constants.items() if key in used],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        producer_name="misbehaving_models.py",
    )
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model


# Iterations per image of `slow`.
SLOW = 40_000


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for name, (modality, uid) in MODELS.items():
        model = graph(name).SerializeToString(deterministic=True)
        (OUT / name / "1").mkdir(parents=True)
        (OUT / name / "1" / "model.onnx").write_bytes(model)
        text = MANIFEST.format(
            name=name, sha256=hashlib.sha256(model).hexdigest(), uid=uid, modality=modality, side=SIDE
        )
        (OUT / name / "model.toml").write_text(text)
        session = onnxruntime.InferenceSession(model)
        image = np.random.default_rng(1).uniform(0, 3900, (3, 1, SIDE, SIDE)).astype(np.float32)
        started = time.perf_counter()
        scores = session.run(["scores"], {"image": image})[0]
        took = time.perf_counter() - started
        np.testing.assert_allclose(scores[:, 0], image.mean(axis=(1, 2, 3)) / 4096, atol=1e-6)
        print(f"{name}: {len(model)} bytes, {took * 1e3:.1f} ms for 3 images")


if __name__ == "__main__":
    main()
