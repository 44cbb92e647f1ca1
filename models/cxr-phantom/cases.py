"""Writes the golden studies of cxr-phantom: drawn phantoms as DX and CR images, in the forms that must not matter.

    python models/cxr-phantom/cases.py && python models/golden.py write cxr-phantom

One study carries the finding its name says; the others repeat the task in another photometric interpretation, another
SOP class with a slope, other transfer syntaxes, another shape, and as a study of two views.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import casefile  # noqa: E402
import phantom  # noqa: E402
from reference import manifests  # noqa: E402

MODEL = "cxr-phantom"
# A series of phantoms that is neither trained nor tested on.
SEED = 404


@dataclass
class Case:
    """One image of a golden study. `index` chooses the phantom within the series SEED."""

    study: str
    index: int
    labels: tuple
    rows: int = 240
    columns: int = 240
    view: str = "PA"
    instance: int = 1
    sop_class: str = DigitalXRayImageStorageForPresentation
    photometric: str = "MONOCHROME2"
    transfer_syntax: str = ExplicitVRLittleEndian
    slope: float = 1.0
    intercept: float = 0.0


CASES = (
    Case("normal", 1, (False, False)),
    Case("opacity", 2, (True, False)),
    Case("pneumothorax", 3, (False, True), view="AP"),
    Case("both-cr-slope", 4, (True, True), 272, 224, sop_class=ComputedRadiographyImageStorage, slope=0.5, intercept=-64),
    Case("monochrome1", 15, (False, True), photometric="MONOCHROME1"),
    Case("rle", 6, (True, False), transfer_syntax=RLELossless),
    Case("jpeg-ls", 7, (False, False), 224, 248, transfer_syntax=JPEGLSLossless),
    Case("jpeg-2000", 8, (True, True), transfer_syntax=JPEG2000Lossless),
    Case("two-views", 9, (False, False), 200, 200, transfer_syntax=ImplicitVRLittleEndian),
    Case("two-views", 10, (True, False), 200, 208, view="AP", instance=2, photometric="MONOCHROME1"),
)


def image(case):
    """The DICOM data set of one case."""
    drawn = phantom.draw(SEED, case.index, case.labels, case.rows, case.columns)
    top = 2**phantom.BITS_STORED - 1
    stored, center = drawn.stored, drawn.window_center
    if case.photometric == "MONOCHROME1":
        stored, center = top - stored, top - center

    cr = case.sop_class == ComputedRadiographyImageStorage
    dataset = casefile.new(MODEL, case.study, case.instance, case.sop_class, "CR" if cr else "DX")
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = case.view
    dataset.PatientOrientation = ["L", "F"]
    if not cr:
        _digital_x_ray(dataset, case)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = case.photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, phantom.BITS_STORED, phantom.BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = case.slope, case.intercept, "US"
    # The window applies to values after the rescale, so it moves with them.
    dataset.WindowCenter = round(center * case.slope + case.intercept, 1)
    dataset.WindowWidth = round(drawn.window_width * case.slope, 1)
    dataset.PixelData = np.ascontiguousarray(stored, dtype="<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return _encode(dataset, case, stored)


def _digital_x_ray(dataset, case):
    """What the DX Image and DX Anatomy Imaged modules ask for (PS3.3 C.8.11.2, C.8.11.3)."""
    inverse = case.photometric == "MONOCHROME1"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = casefile.code("816094009", "SCT", "Chest")
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1 if inverse else 1
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    dataset.DetectorType = ""
    dataset.ImagerPixelSpacing = [1.6, 1.6]
    dataset.PositionerType = "NONE"
    dataset.AcquisitionContextSequence = []
    view = {"PA": ("272479007", "postero-anterior"), "AP": ("399348003", "antero-posterior")}[case.view]
    dataset.ViewCodeSequence = casefile.code(view[0], "SCT", view[1])
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []


def _encode(dataset, case, stored):
    """Sets the transfer syntax, compressing without loss where it says so, and proves that nothing was lost."""
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
        casefile.save(image(case), folder / case.study / f"{case.instance}.dcm")


if __name__ == "__main__":
    main()
