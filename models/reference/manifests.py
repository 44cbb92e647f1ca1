"""Manifests, and the ONNX files they speak of."""

import os
import tomllib
from pathlib import Path

# Some releases of ONNX Runtime report usage unless told not to; this must be set before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime  # noqa: E402

MODELS = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """The input or the manifest asks for something this reference does not do, or the input lacks something."""


def load(name):
    """The manifest of model `name` and the path of the ONNX file it speaks of."""
    manifest = tomllib.loads((MODELS / name / "model.toml").read_text())
    return manifest, MODELS / name / manifest["version"] / "model.onnx"


def session(onnx):
    """A session on the CPU."""
    return onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
