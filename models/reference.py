"""Writes the `[[reference]]` tables of a shipped model: how its scores were distributed over its test set.

    python models/reference.py [cxr-phantom] [wdbc-forest]

The scores are those of the committed model.onnx on the series that train.py tests with, never trained on: 2000 drawn
phantoms, 190 rows of the table. The bins are the deciles of the scores, so that each counts about the same. The gateway
compares the scores it sees with them (docs/models.md, "Monitoring"). Needs scripts/requirements-train.txt.
"""

import importlib.util
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import golden  # noqa: E402

MARK = "# Scores on the test set, by models/reference.py."


def training(name):
    """The model's train.py as a module."""
    spec = importlib.util.spec_from_file_location("train", HERE / name / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    return module


def scores(name):
    """(label, scores of the test set) for each label of a model."""
    manifest, onnx = golden.load_manifest(name)
    train = training(name)
    session = golden.onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    entry, output = manifest["input"][0]["name"], manifest["output"]
    if name == "cxr-phantom":
        with Pool(2) as pool:
            pictures, _ = train.series(pool, train.TEST, manifest["input"][0], None)
        pictures = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        parts = [pictures[start : start + 50] for start in range(0, len(pictures), 50)]
    else:
        parts = [train.split()[1].astype(np.float32)]
    values = np.concatenate([session.run([output["tensor"]], {entry: part})[0] for part in parts]).astype(np.float64)
    if output["activation"] == "sigmoid":
        values = 1 / (1 + np.exp(-values))
    return [(label["label"], values[:, label["index"]]) for label in output["labels"]]


def table(label, values):
    """One `[[reference]]`: deciles, rounded, and the fraction of scores in each bin; an edge belongs to the bin above."""
    edges = np.unique(np.round(np.quantile(values, np.arange(1, 10) / 10), 4))
    # Rounding can push an edge past the scores, and a bin without one would be a bin for nobody.
    edges = edges[(edges > values.min()) & (edges <= values.max())]
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    fractions = [round(float(part), 4) for part in counts / len(values)]
    return f'[[reference]]\nlabel = "{label}"\nedges = {edges.tolist()}\nfractions = {fractions}\n'


def main(names):
    """Replaces the end of each model.toml, from the mark on."""
    for name in names or ["cxr-phantom", "wdbc-forest"]:
        path = HERE / name / "model.toml"
        found = scores(name)
        text = path.read_text().split(MARK)[0].rstrip()
        tables = "\n".join(table(label, values) for label, values in found)
        path.write_text(f"{text}\n\n{MARK}\n# Studies: {len(found[0][1])}.\n{tables}")
        print(f"{name}: {len(found[0][1])} scores\n{tables}")


if __name__ == "__main__":
    main(sys.argv[1:])
