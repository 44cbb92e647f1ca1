"""The reference for the models' golden cases: from DICOM files and a manifest to probabilities, in Python.

It reads `model.toml` and follows it with pydicom, numpy, Pillow and onnxruntime; it shares nothing with the gateway,
so where the two agree, two independent readings of the manifest agree.

    python models/golden.py seal  [MODEL...]   write the sha256 of model.onnx into model.toml
    python models/golden.py write [MODEL...]   compute expected.json of every golden case
    python models/golden.py check [MODEL...]   compute again and compare with expected.json
"""

import hashlib
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

# Some releases of ONNX Runtime report usage unless told not to; this must be set before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime  # noqa: E402

MODELS = Path(__file__).resolve().parent
TOLERANCE = 1e-4


class Refused(Exception):
    """The input or the manifest asks for something this reference does not do, or the input lacks something."""


def load_manifest(name):
    """The manifest of model `name` and the path of the ONNX file it speaks of."""
    manifest = tomllib.loads((MODELS / name / "model.toml").read_text())
    return manifest, MODELS / name / manifest["version"] / "model.onnx"


def window_linear(values, center, width):
    """VOI LUT Function LINEAR, PS3.3 C.11.2.1.2.1, with an output range of 0 to 1."""
    values = np.asarray(values, np.float64)
    if width < 1:
        raise Refused(f"window width {width} is below 1")
    low = center - 0.5 - (width - 1) / 2
    high = center - 0.5 + (width - 1) / 2
    # At width 1 the ramp is empty and only the two ends are left.
    ramp = (values - (center - 0.5)) / max(width - 1, np.finfo(np.float64).tiny) + 0.5
    return np.where(values <= low, 0.0, np.where(values > high, 1.0, ramp))


def resize(picture, spec):
    """Resizes (rows, columns) float values by the manifest's rule."""
    if spec.get("fit", "stretch") != "stretch" or spec.get("interpolation") != "bilinear-antialias":
        raise Refused("this reference resizes by stretch and bilinear-antialias only")
    size = (spec["columns"], spec["rows"])
    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32)


def normalise(picture, spec):
    """(x * scale - mean) / std for one channel, as float32."""
    scaled = picture.astype(np.float32) * np.float32(spec.get("scale", 1.0))
    return (scaled - np.float32(spec["mean"][0])) / np.float32(spec["std"][0])


def image_tensor(dataset, spec):
    """One single-frame grey image to a (1, 1, rows, columns) tensor."""
    if spec["layout"] != "NCHW" or spec["dtype"] != "float32" or spec["channels"] != 1:
        raise Refused("this reference makes float32 NCHW tensors of one channel only")
    values = dataset.pixel_array.astype(np.float64)
    if values.ndim != 2:
        raise Refused("not a single-frame grey image")
    if spec["value"] in ("modality", "voi", "presentation"):
        if "ModalityLUTSequence" in dataset:
            raise Refused("this reference has no modality LUT")
        values = values * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    if spec["value"] in ("voi", "presentation"):
        if "WindowCenter" not in dataset or dataset.get("VOILUTFunction", "LINEAR") != "LINEAR":
            raise Refused("this reference needs a LINEAR window in the file")
        center, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
        values = window_linear(values, center, width)
    if spec["value"] == "presentation" and dataset.PhotometricInterpretation == "MONOCHROME1":
        values = 1.0 - values
    return normalise(resize(values, spec), spec)[np.newaxis, np.newaxis]


def _first(value):
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


def feature_tensor(dataset, spec):
    """The NUM content items of a structured report to a (1, features) tensor, in the manifest's order."""
    found = {}
    _collect_numbers(dataset, found)
    row = []
    for feature in spec["features"]:
        key = (feature["sr"]["scheme"], feature["sr"]["value"])
        values = found.get(key, [])
        if len(values) > 1:
            raise Refused(f"{key} occurs {len(values)} times")
        if not values and "missing" not in feature:
            raise Refused(f"{key} is missing")
        row.append(values[0] if values else feature["missing"])
    return np.array([row], np.float32)


def _collect_numbers(item, found):
    """Walks a content tree (PS3.3 C.17.3) and keeps each NUM by the code of its concept name."""
    if item.get("ValueType") == "NUM" and item.get("MeasuredValueSequence"):
        name = item.ConceptNameCodeSequence[0]
        key = (str(name.CodingSchemeDesignator), str(name.CodeValue))
        found.setdefault(key, []).append(float(item.MeasuredValueSequence[0].NumericValue))
    for child in item.get("ContentSequence", []):
        _collect_numbers(child, found)


def probabilities(session, manifest, files):
    """Probabilities per label for each file, then for the study by the manifest's rule of aggregation."""
    spec, output = manifest["input"][0], manifest["output"]
    each = []
    for path in files:
        dataset = pydicom.dcmread(path)
        tensor = feature_tensor(dataset, spec) if spec["layout"] == "NF" else image_tensor(dataset, spec)
        raw = session.run([output["tensor"]], {spec["name"]: tensor})[0][0].astype(np.float64)
        if output["activation"] == "sigmoid":
            raw = 1 / (1 + np.exp(-raw))
        elif output["activation"] == "softmax":
            raw = np.exp(raw - raw.max())
            raw = raw / raw.sum()
        each.append({label["label"]: float(raw[label["index"]]) for label in output["labels"]})
    combine = {"max": max, "mean": lambda values: sum(values) / len(values)}[output.get("aggregate", "max")]
    return each, {label: combine([values[label] for values in each]) for label in each[0]}


def expected(session, manifest, case):
    """The content of expected.json for one case folder."""
    files = sorted(case.glob("*.dcm"))
    each, study = probabilities(session, manifest, files)
    present = any(study[label["label"]] >= label["threshold"] for label in manifest["output"]["labels"])
    return {
        "tolerance": TOLERANCE,
        "outcome": "finding" if present else "no-finding",
        "probabilities": {label: round(value, 7) for label, value in study.items()},
        "instances": [
            {"file": path.name, "probabilities": {label: round(value, 7) for label, value in values.items()}}
            for path, values in zip(files, each)
        ],
    }


def seal(name):
    """Writes the sha256 of the ONNX file into the manifest."""
    _, onnx = load_manifest(name)
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    path = MODELS / name / "model.toml"
    text, count = re.subn(r'(?m)^sha256 = "[^"]*"', f'sha256 = "{digest}"', path.read_text())
    if count != 1:
        raise SystemExit(f"{path}: expected one sha256 key, found {count}")
    path.write_text(text)
    print(f"{name}: {digest}")


def differs(name, case, now):
    """True when expected.json of a case is not what the reference computes now; prints the comparison."""
    then = json.loads((case / "expected.json").read_text())
    worst = max(abs(then["probabilities"][label] - value) for label, value in now["probabilities"].items())
    same = worst <= then["tolerance"] and then["outcome"] == now["outcome"]
    print(f"{'ok  ' if same else 'DIFF'} {name}/{case.name}: {now['outcome']} {now['probabilities']}, off by {worst:.1e}")
    return not same


def main(arguments):
    """Runs one of the three commands over the models named, or over all."""
    command, *names = arguments or [""]
    names = names or sorted(path.parent.name for path in MODELS.glob("*/model.toml"))
    if command not in ("seal", "write", "check"):
        raise SystemExit(__doc__)
    failures = 0
    for name in names:
        if command == "seal":
            seal(name)
            continue
        manifest, onnx = load_manifest(name)
        if hashlib.sha256(onnx.read_bytes()).hexdigest() != manifest["sha256"]:
            raise SystemExit(f"{name}: model.onnx is not the file whose sha256 the manifest names")
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        for case in sorted(path for path in (onnx.parent / "golden").iterdir() if path.is_dir()):
            now = expected(session, manifest, case)
            if command == "write":
                (case / "expected.json").write_text(json.dumps(now, indent=2) + "\n")
                print(f"{name}/{case.name}: {now['outcome']} {now['probabilities']}")
            else:
                failures += differs(name, case, now)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
