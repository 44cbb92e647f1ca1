"""Writes the golden series of nodule-volume: phantoms of a series that is neither trained nor tested on.

    python models/nodule-volume/cases.py && python models/golden.py write nodule-volume

Planes are acquired along three ways, with three spacings, and their file names say nothing about where they are.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import casefile  # noqa: E402
import phantom  # noqa: E402
from reference import manifests  # noqa: E402

MODEL = "nodule-volume"
# A series of phantoms that is neither trained nor tested on.
SEED = 404
# Row and column directions of sections seen from the head: their normal points to the feet.
FROM_ABOVE = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@dataclass
class Case:
    """One golden study of one series. `index` chooses the phantom within the series SEED."""

    study: str
    index: int
    nodules: int
    size: tuple  # planes, rows, columns
    spacing: tuple
    middle: tuple
    axes: tuple = phantom.AXIAL
    transfer_syntax: str = ExplicitVRLittleEndian


CASES = (
    Case("jpeg-ls", 1, 1, (30, 80, 88), (2.5, 1.6, 1.6), (3.2, -2.5, 4.1), transfer_syntax=JPEGLSLossless),
    Case("rle", 2, 2, (24, 76, 84), (3.3, 1.75, 1.65), (-4.0, 1.5, -3.0), FROM_ABOVE, RLELossless),
    Case("jpeg-2000", 5, 1, (46, 42, 84), (2.4, 2.1, 1.7), (1.0, 0.0, 2.0), phantom.CORONAL, JPEG2000Lossless),
    Case("normal", 4, 0, (22, 62, 70), (3.6, 2.0, 2.1), (0.0, 2.0, 0.0)),
)


def series(case):
    """The data sets of one case, plane by plane along their normal."""
    grid = phantom.centred(case.size, case.spacing, case.middle, case.axes)
    drawn = phantom.draw(SEED, case.index, case.nodules, grid)
    print(f"{case.study}: nodules of {', '.join(f'{nodule.volume_ml:.3f}' for nodule in drawn.nodules) or 'no'} ml")
    normal = grid.directions[0]
    # The file with the first name is not the first plane, and two neighbours are rarely neighbours.
    order = np.random.default_rng([SEED, case.index, 1]).permutation(case.size[0])
    for number, plane in enumerate(order.tolist(), 1):
        yield number, image(case, grid, drawn.values[plane], grid.origin + plane * grid.spacing[0] * normal, number)


def image(case, grid, values, place, number):
    """The DICOM data set of one plane."""
    dataset = casefile.new(MODEL, case.study, number, CTImageStorage, "CT")
    # All planes are of one series.
    dataset.SeriesInstanceUID = casefile.uid(MODEL, case.study, "series", "1")
    dataset.SeriesNumber = 1
    dataset.FrameOfReferenceUID = casefile.uid(MODEL, case.study, "frame")
    dataset.PositionReferenceIndicator = ""
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "LUNG"
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = 1
    dataset.KVP = "120"
    dataset.ImagePositionPatient = [f"{value:.10g}" for value in np.round(place, 3)]
    dataset.ImageOrientationPatient = [f"{value:g}" for value in (*grid.row, *grid.column)]
    dataset.PixelSpacing = [f"{value:g}" for value in grid.spacing[1:]]
    dataset.SliceThickness = f"{grid.spacing[0]:g}"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    stored = np.ascontiguousarray(values.astype(np.int32) + 1024, dtype="<u2")
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if case.transfer_syntax.is_compressed:
        dataset.compress(case.transfer_syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = case.transfer_syntax
    if not np.array_equal(dataset.pixel_array, stored):
        raise SystemExit(f"{case.study}: the pixels did not survive {case.transfer_syntax.name}")
    return dataset


def main():
    """Writes all cases below 1.0.0/golden/."""
    folder = manifests.load(MODEL)[1].parent / "golden"
    for case in CASES:
        size = 0
        for number, dataset in series(case):
            path = folder / case.study / f"{number:02}.dcm"
            casefile.save(dataset, path)
            size += path.stat().st_size
        print(f"{case.study}: {size} bytes")


if __name__ == "__main__":
    main()
