#!/usr/bin/env python3
"""Makes tests/fixtures/versions/cxr-phantom/1.1.0: a later version of cxr-phantom, as its author would deliver one.

The graph is that of 1.0.0 with a quarter added to each logit, so it gives other probabilities and the same findings.
Expected probabilities come from onnxruntime and models/golden.py, never from the gateway.

    env/bin/pip install numpy onnx onnxruntime pillow pydicom pylibjpeg pylibjpeg-openjpeg pyjpegls
    env/bin/python scripts/next_version.py
"""

import hashlib
import json
import pathlib
import re
import shutil
import sys
import tomllib

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models"))
import golden  # noqa: E402

BEFORE = ROOT / "models/cxr-phantom"
OUT = ROOT / "tests/fixtures/versions/cxr-phantom/1.1.0"
CASES = ["jpeg-2000", "jpeg-ls"]
SHIFT = 0.25


def graph():
    """The graph of 1.0.0 with one more node at its end."""
    model = onnx.load(BEFORE / "1.0.0/model.onnx")
    name = model.graph.output[0].name
    (last,) = [node for node in model.graph.node if name in node.output]
    last.output[list(last.output).index(name)] = f"{name}_before"
    model.graph.initializer.append(numpy_helper.from_array(np.array([SHIFT], np.float32), "shift"))
    model.graph.node.append(helper.make_node("Add", [f"{name}_before", "shift"], [name], "shift_logits"))
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    content = graph()
    (OUT / "model.onnx").write_bytes(content)
    text = (BEFORE / "model.toml").read_text()
    for key, value in {
        "version": "1.1.0",
        "sha256": hashlib.sha256(content).hexdigest(),
        "device_uid": "2.25.190532845270661023389764251580912284407",
    }.items():
        text, count = re.subn(rf'(?m)^{key} = "[^"]*"', f'{key} = "{value}"', text)
        assert count == 1, key
    (OUT / "model.toml").write_text(text)
    manifest = tomllib.loads(text)
    session = golden.onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for name in CASES:
        case = OUT / "golden" / name
        shutil.copytree(BEFORE / "1.0.0/golden" / name, case)
        expected = golden.expected(session, manifest, case)
        (case / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
        print(name, expected["probabilities"])


if __name__ == "__main__":
    main()
