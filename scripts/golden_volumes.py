#!/usr/bin/env python3
"""Makes tests/fixtures/volumes: small series, and the tensors that independent code makes of them.

The files are written by pydicom. Series of single-frame files are read by GDCM through SimpleITK,
multi-frame files are given to SimpleITK with the geometry they were made with; orientation and
resampling are SimpleITK's, crop and pad NumPy's. Nothing comes from the gateway. Run it in a
throw-away environment when a case is added; the result is committed:

    python3 -m venv env && env/bin/pip install pydicom numpy SimpleITK
    env/bin/python scripts/golden_volumes.py tests/fixtures/volumes

manifest.json lists the cases. Each has a folder of files, the `[[input]]` table of a manifest, and
either `tensors` (raw little endian float32) or the `refusal` with its code and figure.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/volumes")
ROOT = "1.2.826.0.1.3680043.10.1465.8."
RNG = np.random.default_rng(20240301)
STUDY = ROOT + "2"
CASES = []
SERIES = {}
MADE = 0

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
RT_DOSE, CAPTURE = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.7"

AXIAL = ([1, 0, 0], [0, 1, 0])
SAGITTAL = ([0, 1, 0], [0, 0, -1])
CORONAL = ([1, 0, 0], [0, 0, -1])


def scene(planes, rows, columns, low=-1000, high=1500):
    """A smooth block with an edge, different along every axis and at every corner."""
    z, y, x = np.mgrid[0:planes, 0:rows, 0:columns]
    value = 0.5 + 0.25 * np.sin(x / 3.0) * np.cos(y / 4.0 + z / 5.0) + 0.02 * z - 0.01 * y
    value += 0.2 * (x > columns // 3) * (y > rows // 2)
    value = np.clip(value + RNG.normal(0, 0.02, value.shape), 0, 1)
    return np.round(low + value * (high - low)).astype(np.int16)


def base(sop_class, modality, uid_series):
    global MADE
    MADE += 1
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = ROOT + "0"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}1.{MADE}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, ROOT + "3." + uid_series
    ds.FrameOfReferenceUID = ROOT + "4"
    ds.PatientName, ds.PatientID, ds.Modality = "PHANTOM", "PHANTOM", modality
    return ds


def pixels(ds, values, bits=16, signed=1):
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape[-2:]
    if values.ndim == 3:
        ds.NumberOfFrames = values.shape[0]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, signed
    kind = {(16, 1): "<i2", (16, 0): "<u2", (32, 0): "<u4"}[bits, signed]
    ds.PixelData = values.astype(kind).tobytes()
    ds["PixelData"].VR = "OW"


def save(ds, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def normal(axes):
    return np.cross(*np.array(axes, float))


def positions(origin, axes, distance, count):
    return [np.array(origin, float) + k * distance * normal(axes) for k in range(count)]


def decimal(values):
    """As decimal strings of at most 16 characters."""
    return [f"{value:.10g}"[:16] for value in np.ravel(values)]


def single(ds, values, position, axes, spacing, number=1, slope=1, intercept=0, **extra):
    ds.ImageType = extra.pop("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"])
    ds.InstanceNumber = number
    ds.ImagePositionPatient = decimal(position)
    ds.ImageOrientationPatient = decimal(axes)
    ds.PixelSpacing = decimal(spacing)
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    for keyword, value in extra.items():
        setattr(ds, keyword, value)
    pixels(ds, values)


def series(name, block, places, axes, spacing, modality="CT", order=None, each=None, **common):
    """One file per plane, named in an order that has nothing to do with the position."""
    count = len(block)
    for file, plane in enumerate(order or RNG.permutation(count).tolist()):
        ds = base(CT if modality == "CT" else MR, modality, SERIES.setdefault(name, f"1{len(SERIES):02}"))
        extra = dict(common) | (each(plane) if each else {})
        single(ds, block[plane], places[plane], axes, spacing, number=count - plane, **extra)
        for keyword in [key for key, value in extra.items() if value is None]:
            delattr(ds, keyword)
        save(ds, OUT / name / f"{file:02}.dcm")
    return name


def image(block, origin, axes, spacing, distance):
    """What SimpleITK needs to know of a block whose geometry we have made up ourselves."""
    result = sitk.GetImageFromArray(block.astype(np.float32))
    result.SetOrigin([float(v) for v in origin])
    result.SetSpacing([float(spacing[1]), float(spacing[0]), float(distance)])
    row, column = np.array(axes, float)
    result.SetDirection(np.stack([row, column, normal(axes)], 1).ravel().tolist())
    return result


def read(name):
    """A series as GDCM reads and orders it, in modality values."""
    reader = sitk.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(OUT / name))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(OUT / name), uid))
    return sitk.Cast(reader.Execute(), sitk.sitkFloat32)


def crop_pad(array, size, pad):
    out = np.full(size, pad, np.float32)
    source, target = [], []
    for have, want in zip(array.shape, size):
        first = max(have // 2 - want // 2, 0) if have > want else 0
        at = (want - have) // 2 if have < want else 0
        count = min(have, want)
        source.append(slice(first, first + count))
        target.append(slice(at, at + count))
    out[tuple(target)] = array[tuple(source)]
    return out


def reference(picture, spec):
    """The tensor of a volume, by the manifest's words."""
    volume = spec["volume"]
    size = [spec["depth"], spec["rows"], spec["columns"]]
    pad = spec.get("pad", 0.0)
    values = sitk.GetArrayFromImage(picture)
    if window := spec.get("window"):
        values = np.clip((values - window["center"]) / window["width"] + 0.5, 0, 1)
    moved = sitk.GetImageFromArray(values.astype(np.float32))
    moved.CopyInformation(picture)
    if code := volume.get("orientation"):
        moved = sitk.DICOMOrient(moved, code[::-1])
    method = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}[volume["interpolation"]]
    have, old = np.array(moved.GetSize()), np.array(moved.GetSpacing())
    direction = np.array(moved.GetDirection()).reshape(3, 3)
    if volume["fit"] == "stretch":
        wanted = np.array(size[::-1])
        new = have * old / wanted
        origin = np.array(moved.GetOrigin()) + direction @ ((new - old) / 2)
    elif spacing := volume.get("spacing_mm"):
        new = np.array(spacing[::-1], float)
        wanted = np.maximum(np.floor(have * old / new + 0.5 + 1e-6), 1)
        origin = np.array(moved.GetOrigin())
    else:
        new = None
    if new is not None:
        moved = sitk.Resample(
            moved,
            [int(n) for n in wanted],
            sitk.Transform(),
            method,
            origin.tolist(),
            new.tolist(),
            moved.GetDirection(),
            pad,
        )
    out = crop_pad(sitk.GetArrayFromImage(moved), size, pad)
    out = out * np.float32(spec.get("scale", 1.0))
    out = (out - np.float32(spec.get("mean", [0.0])[0])) / np.float32(spec.get("std", [1.0])[0])
    if spec["dtype"] == "uint8":
        out = np.clip(np.floor(out + 0.5), 0, 255)
    if spec["dtype"] == "float16":
        out = out.astype(np.float16)
    shape = [*size, 1] if spec["layout"] == "NDHWC" else [1, *size]
    return out.astype(np.float32).reshape(shape)


def spec(depth, rows, columns, fit="crop-pad", interpolation="linear", **keys):
    table = {"fit": fit, "interpolation": interpolation}
    top = {"name": "volume", "layout": "NCDHW", "dtype": "float32", "channels": 1, "value": "modality"}
    for key, value in keys.items():
        (top if key in TOP else table)[key] = value
    return top | {"depth": depth, "rows": rows, "columns": columns, "volume": table}


TOP = {"layout", "dtype", "value", "window", "pad", "scale", "mean", "std"}


def accept(name, folder, wanted, *pictures):
    """A case with a tensor for each of `pictures`; without one the folder is read by GDCM."""
    tensors = []
    for index, picture in enumerate(pictures or [read(folder)]):
        array = reference(picture, wanted)
        file = f"{name}_{index}.f32"
        array.astype("<f4").tofile(OUT / file)
        tensors.append({"file": file, "shape": list(array.shape)})
    CASES.append({"name": name, "folder": folder, "input": wanted, "tensors": tensors})


def refuse(name, folder, wanted, code, text):
    CASES.append({"name": name, "folder": folder, "input": wanted, "refusal": {"code": code, "text": text}})


def single_frame_series():
    block = scene(8, 18, 22)
    series("axial", block, positions([-8.1, -5.5, 40.25], AXIAL, 2.5, 8), AXIAL, [0.8, 0.7], intercept=-24, slope=2)
    plain = spec(8, 18, 22)
    accept("as_acquired", "axial", plain)
    accept("crop_and_pad", "axial", spec(11, 13, 25, pad=-1024.0))
    accept("crop_odd", "axial", spec(5, 11, 9))
    accept("lps", "axial", spec(8, 18, 22, orientation="SPL"))
    accept("ras", "axial", spec(22, 18, 8, orientation="RAS", layout="NDHWC"))
    accept("finer", "axial", spec(20, 26, 30, spacing_mm=[1.0, 0.55, 0.5], pad=-2000.0))
    accept("coarser", "axial", spec(4, 8, 8, spacing_mm=[5.5, 1.9, 2.2], pad=-2000.0))
    accept("nearest", "axial", spec(14, 20, 24, interpolation="nearest", spacing_mm=[1.3, 0.9, 0.61]))
    accept("flipped_and_resampled", "axial", spec(8, 16, 16, orientation="IAR", spacing_mm=[3.3, 1.1, 1.1]))
    accept("stretch", "axial", spec(5, 24, 16, fit="stretch"))
    accept("stretch_nearest", "axial", spec(11, 13, 30, fit="stretch", interpolation="nearest"))
    window = {"center": 40.0, "width": 400.0}
    accept("windowed", "axial", spec(8, 12, 12, value="voi", window=window, spacing_mm=[2.0, 1.3, 1.3], mean=[0.4], std=[0.25]))
    # No value of this window lies between two bytes, where single precision would decide.
    narrow = {"center": 40.3, "width": 397.0}
    accept("bytes", "axial", spec(8, 12, 12, value="voi", window=narrow, scale=255.0, dtype="uint8"))
    accept("halves", "axial", spec(8, 12, 12, scale=0.001, dtype="float16"))
    refuse("gap_over_the_limit", "axial", spec(8, 18, 22, max_gap_mm=1.25), "slice-gap", "2.5 mm > 1.25 mm")
    refuse("too_few", "axial", spec(8, 18, 22, min_planes=9), "too-few-planes", "8 < 9")

    block = scene(7, 16, 20, 0, 900)
    series("sagittal", block, positions([30.0, -40.5, 22.125], SAGITTAL, 3.0, 7), SAGITTAL, [1.1, 0.9], "MR")
    accept("sagittal_as_acquired", "sagittal", spec(7, 16, 20))
    accept("sagittal_to_axial", "sagittal", spec(16, 20, 7, orientation="SPL"))
    accept("sagittal_resampled", "sagittal", spec(14, 14, 14, orientation="RAS", spacing_mm=[1.5, 1.5, 1.5]))

    block = scene(6, 16, 18, 0, 900)
    series("coronal", block, positions([-20.0, 11.0, 55.0], CORONAL, 4.0, 6), CORONAL, [1.0, 1.0], "MR", order=[5, 4, 3, 2, 1, 0])
    accept("coronal_to_axial", "coronal", spec(16, 6, 18, orientation="SPL"))

    angle = np.radians(20)
    axes = ([np.cos(angle), np.sin(angle), 0], [-np.sin(angle) * np.cos(0.3), np.cos(angle) * np.cos(0.3), np.sin(0.3)])
    block = scene(6, 16, 16)
    series("oblique", block, positions([3.25, -17.0, 9.5], axes, 2.0, 6), axes, [0.9, 0.9])
    accept("oblique_ras", "oblique", spec(10, 12, 12, orientation="RAS", spacing_mm=[1.4, 1.4, 1.4], pad=-1000.0))
    refuse("too_oblique", "oblique", spec(6, 16, 16, max_oblique_degrees=15.0), "oblique", " degrees > 15.0 degrees")

    # Spacings as scanners write them, and positions rounded to a thousandth.
    block = scene(9, 16, 16)
    places = [np.round(place, 3) for place in positions([-1.2345, 7.5, -301.7], AXIAL, 0.7123456, 9)]
    series("rounded", block, places, AXIAL, [0.6640625, 0.6640625])
    accept("rounded_positions", "rounded", spec(13, 12, 12, spacing_mm=[0.5, 1.0, 1.0]))
    # SimpleITK takes the planes as evenly spaced, the gateway takes values where the planes are.
    CASES[-1]["tolerance"] = 1e-3


def uneven():
    """Planes as uneven as the default tolerance allows: NumPy takes values where the planes are."""
    heights = np.array([0.0, 1.0, 2.04, 3.0, 4.03, 5.0])
    block = scene(6, 8, 10)
    series("uneven", block, [np.array([0, 0, 7.0 + height]) for height in heights], AXIAL, [1.0, 1.0])
    for code in ["SPL", "IPL"]:
        wanted = spec(9, 8, 10, orientation=code, spacing_mm=[0.7, 1.0, 1.0], pad=-3000.0)
        columns = block[::-1] if code == "IPL" else block
        places = heights[-1] - heights[::-1] if code == "IPL" else heights
        steps = 0.7 * np.arange(9)
        array = np.apply_along_axis(lambda column: np.interp(steps, places, column), 0, columns.astype(float))
        array[steps > 5.5] = -3000.0
        name = f"uneven_{code.lower()}"
        array.astype("<f4").tofile(OUT / f"{name}.f32")
        tensors = [{"file": f"{name}.f32", "shape": [1, 9, 8, 10]}]
        CASES.append({"name": name, "folder": "uneven", "input": wanted, "tensors": tensors})


def several_volumes():
    blocks = [scene(5, 12, 14, 0, 900) for _ in range(2)]
    places = positions([0.0, 0.0, 0.0], AXIAL, 3.0, 5)
    geometry = ([0.0, 0.0, 0.0], AXIAL, [1.0, 1.0], 3.0)

    def echoes(plane):
        return {"EchoNumbers": plane // 5 + 1, "EchoTime": [4.76, 12.4][plane // 5]}

    both = np.concatenate(blocks)
    series("echoes", both, places * 2, AXIAL, [1.0, 1.0], "MR", each=echoes)
    pictures = [image(block, *geometry) for block in blocks]
    accept("each_echo", "echoes", spec(5, 12, 14, several="each"), *pictures)
    refuse("echoes_refused", "echoes", spec(5, 12, 14), "several-volumes", "2 volumes, of 5, 5 planes")
    refuse("largest_of_equals", "echoes", spec(5, 12, 14, several="largest"), "several-volumes", "2 volumes")

    # A repetition that only Acquisition Number tells, which is no reason to split elsewhere.
    series("repeated", both, places * 2, AXIAL, [1.0, 1.0], "CT", each=lambda plane: {"AcquisitionNumber": plane // 5 + 3})
    accept("each_acquisition", "repeated", spec(5, 12, 14, several="each"), *pictures)
    series("acquisitions", blocks[0], places, AXIAL, [1.0, 1.0], "CT", each=lambda plane: {"AcquisitionNumber": plane})
    accept("one_of_many_acquisitions", "acquisitions", spec(5, 12, 14))

    # A localizer and a second, smaller stack of another orientation.
    series("with_localizer", blocks[0], places, AXIAL, [1.0, 1.0], "MR", FrameOfReferenceUID=ROOT + "4")
    ds = base(MR, "MR", "9")
    single(ds, scene(1, 12, 14, 0, 900)[0], [0, 0, 0], SAGITTAL, [1.0, 1.0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save(ds, OUT / "with_localizer" / "05.dcm")
    accept("localizer_left_out", "with_localizer", spec(5, 12, 14), pictures[0])
    shutil.copytree(OUT / "with_localizer", OUT / "two_stacks")
    for number in range(2):
        ds = base(MR, "MR", "9")
        single(ds, scene(1, 12, 14, 0, 900)[0], [4.0 * number, 0, 0], SAGITTAL, [1.0, 1.0])
        save(ds, OUT / "two_stacks" / f"{6 + number:02}.dcm")
    accept("the_largest", "two_stacks", spec(5, 12, 14, several="largest"), pictures[0])
    refuse("two_orientations", "two_stacks", spec(5, 12, 14), "several-volumes", "2 volumes")


def groups(position=None, axes=None, spacing=None, **macros):
    item = Dataset()
    if position is not None:
        item.PlanePositionSequence = Sequence([Dataset()])
        item.PlanePositionSequence[0].ImagePositionPatient = decimal(position)
    if axes is not None:
        item.PlaneOrientationSequence = Sequence([Dataset()])
        item.PlaneOrientationSequence[0].ImageOrientationPatient = decimal(axes)
    if spacing is not None:
        item.PixelMeasuresSequence = Sequence([Dataset()])
        item.PixelMeasuresSequence[0].PixelSpacing = decimal(spacing)
    for sequence, values in macros.items():
        inner = Dataset()
        for keyword, value in values.items():
            setattr(inner, keyword, value)
        setattr(item, sequence, Sequence([inner]))
    return item


def multi_frame():
    block = scene(7, 14, 16)
    places = positions([-5.0, 2.5, 100.0], AXIAL, 1.5, 7)
    order = [3, 0, 6, 2, 5, 1, 4]
    ds = base(ENHANCED_CT, "CT", "20")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    transform = {"RescaleIntercept": "-1000", "RescaleSlope": "0.5", "RescaleType": "HU"}
    ds.SharedFunctionalGroupsSequence = Sequence(
        [groups(axes=AXIAL, spacing=[0.75, 0.75], PixelValueTransformationSequence=transform)]
    )
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        [groups(places[k], FrameContentSequence={"StackID": "1", "InStackPositionNumber": k + 1}) for k in order]
    )
    pixels(ds, block[order])
    save(ds, OUT / "enhanced_ct" / "0.dcm")
    picture = image(block * 0.5 - 1000, places[0], AXIAL, [0.75, 0.75], 1.5)
    accept("enhanced_ct", "enhanced_ct", spec(7, 14, 16), picture)
    accept("enhanced_ct_resampled", "enhanced_ct", spec(12, 12, 12, orientation="SPL", spacing_mm=[1, 1, 1]), picture)
    broken = ds
    del broken.PerFrameFunctionalGroupsSequence[6]
    save(broken, OUT / "enhanced_short" / "0.dcm")
    refuse("a_frame_without_groups", "enhanced_short", spec(7, 14, 16), "geometry-invalid", "6 of 7 frames")

    # Two echoes and two slope pairs; frames alternate, geometry is per frame.
    blocks = [scene(4, 12, 12, 0, 800) for _ in range(2)]
    places = positions([10.0, -30.0, 15.0], SAGITTAL, 5.0, 4)
    ds = base(ENHANCED_MR, "MR", "21")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    ds.SharedFunctionalGroupsSequence = Sequence([groups(spacing=[1.0, 1.0])])
    frames, stored = [], []
    for k in range(4):
        for echo in range(2):
            frames.append(
                groups(
                    places[k],
                    SAGITTAL,
                    PixelValueTransformationSequence={"RescaleIntercept": "0", "RescaleSlope": str(1 + echo), "RescaleType": "US"},
                    MREchoSequence={"EffectiveEchoTime": 4.5 + 7 * echo},
                    FrameContentSequence={"StackID": "1", "InStackPositionNumber": k + 1},
                )
            )
            stored.append(blocks[echo][k])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    pixels(ds, np.stack(stored), signed=0)
    save(ds, OUT / "enhanced_mr" / "0.dcm")
    pictures = [image(blocks[e] * (1.0 + e), places[0], SAGITTAL, [1.0, 1.0], 5.0) for e in range(2)]
    # The echo times are 4.5 and 11.5: the order is that of numbers, not of text.
    accept("enhanced_mr_each_echo", "enhanced_mr", spec(12, 12, 4, orientation="SPL", several="each"), *pictures)
    refuse("enhanced_mr_refused", "enhanced_mr", spec(4, 12, 12), "several-volumes", "2 volumes, of 4, 4 planes")

    # The same positions twice, told apart by a dimension that has no attribute of its own here.
    ds.SharedFunctionalGroupsSequence = Sequence([groups(spacing=[1.0, 1.0])])
    ds.DimensionIndexSequence = Sequence([Dataset(), Dataset()])
    ds.DimensionIndexSequence[0].DimensionIndexPointer = Tag(0x0020, 0x9057)
    ds.DimensionIndexSequence[1].DimensionIndexPointer = Tag(0x0018, 0x9218)
    for number, frame in enumerate(frames):
        del frame.MREchoSequence
        frame.FrameContentSequence[0].DimensionIndexValues = [number // 2 + 1, number % 2 + 1]
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    save(ds, OUT / "enhanced_dimension" / "0.dcm")
    accept("enhanced_dimension", "enhanced_dimension", spec(4, 12, 12, several="each"), *pictures)

    dose = np.round(np.abs(scene(6, 10, 12, 0, 30000)).astype(np.float64) * 1000).astype(np.uint32)
    ds = base(RT_DOSE, "RTDOSE", "22")
    ds.ImagePositionPatient, ds.ImageOrientationPatient = decimal([-9.0, -9.0, -30.0]), decimal(AXIAL)
    ds.PixelSpacing, ds.DoseGridScaling = decimal([2.5, 2.5]), "0.0001"
    ds.GridFrameOffsetVector = decimal([3.0 * k for k in range(6)])
    ds.FrameIncrementPointer = Tag(0x3004, 0x000C)
    pixels(ds, dose, bits=32, signed=0)
    save(ds, OUT / "dose" / "0.dcm")
    picture = image(dose * 0.0001, [-9.0, -9.0, -30.0], AXIAL, [2.5, 2.5], 3.0)
    accept("dose", "dose", spec(9, 10, 12, spacing_mm=[2.0, 2.5, 2.5]), picture)
    ds.GridFrameOffsetVector = decimal([-30.0 + 3.0 * k for k in range(6)])
    save(ds, OUT / "dose_absolute" / "0.dcm")
    accept("dose_absolute", "dose_absolute", spec(9, 10, 12, spacing_mm=[2.0, 2.5, 2.5]), picture)
    ds.GridFrameOffsetVector = decimal([7.0 + 3.0 * k for k in range(6)])
    save(ds, OUT / "dose_nowhere" / "0.dcm")
    refuse("dose_nowhere", "dose_nowhere", spec(6, 10, 12), "geometry-invalid", "neither 0 nor the position")
    del ds.GridFrameOffsetVector, ds.FrameIncrementPointer
    save(ds, OUT / "dose_without_offsets" / "0.dcm")
    refuse("dose_without_offsets", "dose_without_offsets", spec(6, 10, 12), "geometry-missing", "6 frames without a position each")


def irregular():
    """Tiny series, each with one thing wrong."""
    wanted = spec(4, 4, 4)
    block = scene(5, 4, 4)
    places = positions([0.0, 0.0, -10.0], AXIAL, 2.5, 5)

    def broken(name, code, text, block=block, places=places, axes=AXIAL, want=wanted, **keys):
        series(name, block, places, axes, keys.pop("spacing", [1.0, 1.0]), **keys)
        refuse(name, name, want, code, text)

    missing = [0, 1, 3, 4]
    broken("missing_plane", "slice-gap", "5.0 mm > 2.625 mm between planes 2 and 3 of 4", block[missing], [places[k] for k in missing])
    loose = spec(4, 4, 4, max_gap_mm=2.5)
    refuse("missing_plane_over_the_limit", "missing_plane", loose, "slice-gap", "5.0 mm > 2.5 mm between planes 2 and 3 of 4")
    crowded = places[:3] + [places[2] + [0, 0, 1.0]] + places[3:]
    broken("plane_between", "slice-uneven", "1.0 mm < 2.375 mm between planes 3 and 4 of 6", scene(6, 4, 4), crowded)
    broken("same_plane_twice", "duplicate-position", "1 of 6 planes", scene(6, 4, 4), places + places[2:3])
    leaning = [place + [0, k * 2.5 * np.tan(np.radians(12)), 0] for k, place in enumerate(places)]
    broken("tilted_gantry", "gantry-tilt", "12.00 degrees > 0.1 degrees", places=leaning)
    shifted = [place + [3.0 * (k == 2), 0, 0] for k, place in enumerate(places)]
    broken("shifted_plane", "planes-shifted", "plane 3 of 5 lies 3.0 mm > 0.5 mm", places=shifted)
    broken("two_spacings", "mixed-spacing", "pixels of 1.0 mm and of 1.25 mm", each=lambda k: {"PixelSpacing": ["1", "1.25"] if k == 3 else ["1", "1"]})
    series("two_sizes", block, places, AXIAL, [1.0, 1.0])
    ds = base(CT, "CT", "30")
    single(ds, scene(1, 6, 4)[0], [0, 0, 2.5], AXIAL, [1.0, 1.0])
    save(ds, OUT / "two_sizes" / "05.dcm")
    refuse("two_sizes", "two_sizes", wanted, "mixed-sizes", "4 x 4 and 4 x 6")
    broken("no_position", "geometry-missing", "Image Position (Patient) is absent", ImagePositionPatient=None)
    broken("no_orientation", "geometry-missing", "Image Orientation (Patient) is absent", ImageOrientationPatient=None)
    broken("detector_spacing", "geometry-missing", "Imager Pixel Spacing is no substitute", PixelSpacing=None, ImagerPixelSpacing=["1", "1"])
    broken("long_cosine", "geometry-invalid", "has the length 1.1000", axes=([1.1, 0, 0], [0, 1, 0]))
    broken("skewed_cosines", "geometry-invalid", "right angle", axes=([1, 0, 0], [0.6, 0.8, 0]))
    broken("no_spacing", "geometry-invalid", "Pixel Spacing is out of range", spacing=[0.0, 1.0])
    broken("no_number", "geometry-invalid", "Image Position (Patient) is not 3 finite numbers", each=lambda k: {"ImagePositionPatient": ["0", "0"]})
    broken("one_plane", "too-few-planes", "1 < 2", block[:1], places[:1])
    ds = base(CAPTURE, "OT", "31")
    ds.ImagePositionPatient, ds.ImageOrientationPatient = decimal([0, 0, 0]), decimal(AXIAL)
    ds.PixelSpacing = decimal([1, 1])
    pixels(ds, np.zeros((4, 12), np.uint16), signed=0)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration, ds.Columns = 3, "RGB", 0, 4
    save(ds, OUT / "colour" / "0.dcm")
    refuse("colour", "colour", wanted, "photometric-unsupported", "a volume of RGB images")


def beyond_oblique():
    """More than 45 degrees off every axis but one: which axis chooses first makes a difference."""
    row = np.array([-0.578, 0.609, -0.544])
    column = np.cross([-0.609, 0.122, 0.784], row)
    axes = [row / np.linalg.norm(row), column / np.linalg.norm(column)]
    series("beyond", scene(5, 10, 12), positions([10.0, 20.0, 30.0], axes, 2.0, 5), axes, [1.0, 1.0])
    accept("beyond_oblique", "beyond", spec(5, 10, 12, orientation="SPL"))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    single_frame_series()
    uneven()
    several_volumes()
    multi_frame()
    irregular()
    beyond_oblique()
    versions = {"SimpleITK": sitk.Version.VersionString(), "numpy": np.__version__}
    text = json.dumps({"made_with": versions, "cases": CASES}, indent=1)
    (OUT / "manifest.json").write_text(text + "\n")
    print(f"{len(CASES)} cases")


if __name__ == "__main__":
    main()
