"""The reference for the models' golden cases: from DICOM files and a manifest to findings, in Python.

It reads `model.toml` and follows it with the package beside it, `reference`, which is written with pydicom, numpy, Pillow,
scipy, SimpleITK and onnxruntime and shares nothing with the gateway: where the two agree, two independent readings of the
manifest agree.

    python models/golden.py seal  [MODEL...]   write the sha256 of model.onnx into model.toml
    python models/golden.py write [MODEL...]   compute expected.json of every golden case
    python models/golden.py check [MODEL...]   compute again and compare with expected.json
"""

import hashlib
import json
import re
import sys

import pydicom
from reference import answers, manifests, samples


def expected(session, manifest, case):
    """The content of expected.json for one case folder."""
    files = [(path.name, pydicom.dcmread(path)) for path in sorted(case.glob("*.dcm"))]
    ran = samples.run(session, manifest, samples.of_study(files, manifest["input"][0]))
    kind = manifest["output"]["kind"]
    return {"kind": kind, "tolerance": answers.TOLERANCES["probability"]} | answers.KINDS[kind](manifest, ran)


def seal(name):
    """Writes the sha256 of the ONNX file into the manifest."""
    _, onnx = manifests.load(name)
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    path = manifests.MODELS / name / "model.toml"
    text, count = re.subn(r'(?m)^sha256 = "[^"]*"', f'sha256 = "{digest}"', path.read_text())
    if count != 1:
        raise SystemExit(f"{path}: expected one sha256 key, found {count}")
    path.write_text(text)
    print(f"{name}: {digest}")


def summary(now):
    """The numbers of a case on one line."""
    shown = [now["outcome"]]
    shown += [f"{label} {value:.4f}" for label, value in (now.get("probabilities") or now.get("quantities")).items()]
    if "boxes" in now:
        shown.append(f"{len(now['boxes'])} boxes")
    for label, region in (now.get("regions") or {}).items():
        shown.append(
            f"{label} {region.get('volume_ml', region.get('area_mm2'))}, {region['voxels']} voxels, margin {region['margin']:.1e}"
        )
    return "; ".join(shown)


def differences(then, now, tolerances, path=""):
    """Where two expectations differ by more than is allowed: a line each."""
    key = path.rsplit("/", 1)[-1]
    if isinstance(now, dict):
        if not isinstance(then, dict) or then.keys() != now.keys():
            return [f"{path}: other keys"]
        return [line for name in now for line in differences(then[name], now[name], tolerances, f"{path}/{name}")]
    if isinstance(now, list):
        if not isinstance(then, list) or len(then) != len(now):
            return [f"{path}: another number of entries"]
        # The entries of a box are edges and go by the name of the list.
        return [line for one, other in zip(then, now) for line in differences(one, other, tolerances, path)]
    if isinstance(now, float) and key != "margin":
        allowed = next((value for name, value in tolerances.items() if name == key), tolerances["probability"])
        return [] if abs(then - now) <= allowed else [f"{path}: {then} and {now}"]
    return [] if then == now or key == "margin" else [f"{path}: {then} and {now}"]


def main(arguments):
    """Runs one of the three commands over the models named, or over all."""
    command, *names = arguments or [""]
    names = names or sorted(path.parent.name for path in manifests.MODELS.glob("*/model.toml"))
    if command not in ("seal", "write", "check"):
        raise SystemExit(__doc__)
    failures = 0
    for name in names:
        if command == "seal":
            seal(name)
            continue
        manifest, onnx = manifests.load(name)
        if hashlib.sha256(onnx.read_bytes()).hexdigest() != manifest["sha256"]:
            raise SystemExit(f"{name}: model.onnx is not the file whose sha256 the manifest names")
        session = manifests.session(onnx)
        for case in sorted(path for path in (onnx.parent / "golden").iterdir() if path.is_dir()):
            now = expected(session, manifest, case)
            if command == "write":
                (case / "expected.json").write_text(json.dumps(now, indent=2) + "\n")
                print(f"{name}/{case.name}: {summary(now)}")
                continue
            found = differences(json.loads((case / "expected.json").read_text()), now, answers.TOLERANCES)
            failures += len(found) > 0
            print(f"{'DIFF' if found else 'ok  '} {name}/{case.name}: {summary(now)}", *found, sep="\n     ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
