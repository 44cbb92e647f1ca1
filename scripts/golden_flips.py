#!/usr/bin/env python3
"""Writes tests/fixtures/flips.json: numpy.flip of numpy.arange(24) in every layout that models have.

    env/bin/pip install numpy
    env/bin/python scripts/golden_flips.py tests/fixtures/flips.json
"""

import json
import pathlib
import sys

import numpy as np

# Shape of a sample, and the axes of depth, rows and columns by name: those of PyTorch and TensorFlow.
LAYOUTS = {
    "NCHW": ((2, 3, 4), "CHW"),
    "NHWC": ((3, 4, 2), "HWC"),
    "NCDHW": ((1, 2, 3, 4), "CDHW"),
    "NDHWC": ((2, 3, 4, 1), "DHWC"),
}
AXES = {"horizontal": "W", "vertical": "H", "depth": "D"}


def main():
    cases = []
    for layout, (shape, names) in LAYOUTS.items():
        for flip, axis in AXES.items():
            if axis in names:
                flipped = np.flip(np.arange(24).reshape(shape), names.index(axis))
                cases.append({"layout": layout, "flip": flip, "shape": shape, "flipped": flipped.ravel().tolist()})
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    pathlib.Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
