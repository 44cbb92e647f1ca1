"""Writes the golden DICOM files of lesion-detector: phantoms of a series that is neither trained nor tested on.

    python models/lesion-detector/cases.py && python models/golden.py write lesion-detector

No picture has the size of the tensor: they lie across, upright and square, smaller and larger, so that a box is only right
when the letterbox has been taken off again.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
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

MODEL = "lesion-detector"
# A series of phantoms that is neither trained nor tested on.
SEED = 404


@dataclass
class Case:
    """One image of a golden study. `index` chooses the phantom within the series SEED, `masses` how many it tries to place."""

    study: str
    index: int
    masses: int
    rows: int
    columns: int
    instance: int = 1
    laterality: str = "L"
    photometric: str = "MONOCHROME2"
    transfer_syntax: str = ExplicitVRLittleEndian


CASES = (
    Case("normal", 1, 0, 190, 160),
    Case("one-mass-upright", 2, 1, 210, 150),
    Case("jpeg-ls", 3, 3, 180, 300, transfer_syntax=JPEGLSLossless),
    Case("rle", 4, 2, 170, 170, photometric="MONOCHROME1", transfer_syntax=RLELossless),
    Case("jpeg-2000", 5, 2, 330, 240, laterality="R", transfer_syntax=JPEG2000Lossless),
    Case("two-views", 6, 0, 150, 180, transfer_syntax=ImplicitVRLittleEndian),
    Case("two-views", 7, 1, 180, 150, instance=2, laterality="R"),
)


def image(case):
    """The DICOM data set of one case."""
    drawn = phantom.draw(SEED, case.index, case.masses, case.rows, case.columns)
    top = 2**phantom.BITS_STORED - 1
    inverse = case.photometric == "MONOCHROME1"
    stored = top - drawn.stored if inverse else drawn.stored

    dataset = casefile.new(MODEL, case.study, case.instance, DigitalMammographyXRayImageStorageForPresentation, "MG")
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.BodyPartExamined = "BREAST"
    dataset.ImageLaterality = case.laterality
    dataset.PatientOrientation = ["A", "R" if case.laterality == "L" else "L"]
    _mammogram(dataset, inverse)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = case.photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, phantom.BITS_STORED, phantom.BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "US"
    # Not the manifest's window: that one must win.
    dataset.WindowCenter, dataset.WindowWidth = 1800, 1200
    dataset.PixelData = np.ascontiguousarray(stored, dtype="<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if case.transfer_syntax.is_compressed:
        dataset.compress(case.transfer_syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = case.transfer_syntax
    if not np.array_equal(dataset.pixel_array, stored):
        raise SystemExit(f"{case.study}: the pixels did not survive {case.transfer_syntax.name}")
    return dataset


def _mammogram(dataset, inverse):
    """What the DX Image, DX Anatomy Imaged and Mammography Image modules ask for (PS3.3 C.8.11.2, C.8.11.3, C.8.11.7)."""
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.AnatomicRegionSequence = casefile.code("76752008", "SCT", "Breast")
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1 if inverse else 1
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    dataset.DetectorType = ""
    dataset.ImagerPixelSpacing = [0.5, 0.5]
    dataset.PositionerType = "MAMMOGRAPHIC"
    dataset.OrganExposed = "BREAST"
    dataset.QualityControlImage = "YES"
    dataset.BreastImplantPresent = "NO"
    dataset.AcquisitionContextSequence = []
    dataset.ViewPosition = "CC"
    dataset.ViewCodeSequence = casefile.code("399162004", "SCT", "cranio-caudal")
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []


def main():
    """Writes all cases below 1.0.0/golden/."""
    folder = manifests.load(MODEL)[1].parent / "golden"
    for case in CASES:
        casefile.save(image(case), folder / case.study / f"{case.instance}.dcm")


if __name__ == "__main__":
    main()
