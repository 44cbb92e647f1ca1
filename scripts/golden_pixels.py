#!/usr/bin/env python3
"""Makes tests/fixtures/pixels: small DICOM files, and what independent code makes of their pixels.

The expected values come from pydicom, NumPy, Pillow, OpenCV and torchvision, never from the gateway. Run it in a
throw-away environment when a case is added; the result is committed:

    python3 -m venv env && env/bin/pip install pydicom numpy pillow opencv-python-headless \\
        pylibjpeg pylibjpeg-openjpeg pyjpegls torch torchvision
    env/bin/python scripts/golden_pixels.py tests/fixtures/pixels

manifest.json lists the cases: `stored` (hash of the sample values), `modality`, `voi` and `presentation`
(arrays), `resize` (arrays in and out) and `prepare` (a model's input and its tensor). Arrays are raw little
endian float32 files.
"""

import hashlib
import io
import json
import pathlib
import sys

import cv2
import numpy as np
import PIL.Image
import pydicom
import torch
import torchvision
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_rescale, apply_voi_lut, apply_windowing
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/pixels")
ROOT = "1.2.826.0.1.3680043.10.1465.7."
RNG = np.random.default_rng(20240229)
ROWS, COLUMNS = 20, 26
CASES = []


def scene(low, high, shape=(ROWS, COLUMNS)):
    """A smooth picture with an edge and some noise, between `low` and `high`."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    value = 0.5 + 0.3 * np.sin(x / 4.0) * np.cos(y / 5.0) + 0.2 * (x > shape[1] // 2)
    value = np.clip(value + RNG.normal(0, 0.03, shape), 0, 1)
    value.flat[0], value.flat[-1] = 0.0, 1.0
    return np.round(low + value * (high - low)).astype(np.int64)


def dataset(pixels, bits, stored=None, signed=0, photometric="MONOCHROME2", syntax=ExplicitVRLittleEndian, frames=None, **extra):
    """A secondary-capture-like instance with `pixels` in their native form."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = ROOT + str(len(CASES) + 1)
    ds.file_meta.ImplementationClassUID = ROOT + "0"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = ROOT + "0.1", ROOT + "0.2"
    ds.Modality = "OT"
    ds.PatientName, ds.PatientID = "PHANTOM", "PHANTOM"
    colour = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = photometric
    if colour:
        ds.PlanarConfiguration = extra.pop("PlanarConfiguration", 0)
    if frames:
        ds.NumberOfFrames = frames
    ds.Rows, ds.Columns = extra.pop("Rows", ROWS), extra.pop("Columns", COLUMNS)
    ds.BitsAllocated, ds.BitsStored = bits, stored or bits
    ds.HighBit, ds.PixelRepresentation = extra.pop("HighBit", (stored or bits) - 1), signed
    for keyword, value in extra.items():
        setattr(ds, keyword, value)
    if pixels is not None:
        data = pixels.tobytes()
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OW" if bits > 8 else "OB"
    return ds


def save(name, ds):
    syntax = ds.file_meta.TransferSyntaxUID
    path = OUT / f"{name}.dcm"
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer,
        ds,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    path.write_bytes(buffer.getvalue())
    return path.name


def array(name, values):
    values = np.ascontiguousarray(values, dtype="<f4")
    (OUT / f"{name}.f32").write_bytes(values.tobytes())
    return {"file": f"{name}.f32", "shape": list(values.shape)}


def stored(name, ds, values, photometric=None):
    """`values` are the sample values, frames first, in the type of Bits Allocated."""
    values = np.ascontiguousarray(values)
    CASES.append(
        {
            "kind": "stored",
            "name": name,
            "file": save(name, ds),
            "sha256": hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest(),
            "dtype": values.dtype.name,
            "photometric": photometric or ds.PhotometricInterpretation,
        }
    )


def stage(kind, name, ds, values, file=None):
    CASES.append({"kind": kind, "name": name, "file": file or save(name, ds), "expected": array(name, values)})


def stored_cases():
    u8 = scene(0, 255).astype("<u1")
    u12 = scene(0, 4095).astype("<u2")
    s16 = scene(-32768, 32767).astype("<i2")
    stored("native_u8", dataset(u8, 8), u8)
    stored("native_u16_implicit", dataset(u12, 16, 12, syntax=ImplicitVRLittleEndian), u12)
    stored("native_s16", dataset(s16, 16, signed=1), s16)
    overlay = (u12 | (RNG.integers(0, 16, u12.shape).astype("<u2") << 12)).astype("<u2")
    stored("native_overlay_bits", dataset(overlay, 16, 12), u12)
    stored("native_high_bit_15", dataset((u12 << 4).astype("<u2"), 16, 12, HighBit=15), u12)
    s12 = scene(-2048, 2047).astype("<i2")
    stored("native_s12_not_extended", dataset(s12.view("<u2") & 0x0FFF, 16, 12, signed=1), s12)
    stored("native_big_endian", dataset(u12.astype(">u2"), 16, 12, syntax=ExplicitVRBigEndian), u12)
    words = np.frombuffer(u8.tobytes(), "<u2").astype(">u2")
    big8 = dataset(words, 8, syntax=ExplicitVRBigEndian)
    big8["PixelData"].VR = "OW"
    stored("native_u8_big_endian_words", big8, u8)
    u32 = (scene(0, 1 << 20) * 4093).astype("<u4")
    stored("native_u32", dataset(u32, 32), u32)
    bits = RNG.integers(0, 2, (3, 7, 7)).astype("u1")
    packed = np.packbits(bits.ravel(), bitorder="little")
    stored("native_bits_3_frames", dataset(packed, 1, frames=3, Rows=7, Columns=7), bits)
    frames = np.stack([u12, u12[::-1], u12[:, ::-1]])
    stored("native_3_frames", dataset(frames, 16, 12, frames=3), frames)
    rgb = np.stack([scene(0, 255), scene(0, 255).T.reshape(ROWS, COLUMNS), scene(255, 0)], -1).astype("u1")
    stored("rgb", dataset(rgb, 8, photometric="RGB"), rgb)
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    stored("rgb_planar", dataset(planes, 8, photometric="RGB", PlanarConfiguration=1), rgb)
    halved = np.stack([rgb[:, 0::2, 0], rgb[:, 1::2, 0], rgb[:, 0::2, 1], rgb[:, 0::2, 2]], -1)
    up = np.stack([rgb[..., 0], np.repeat(rgb[:, 0::2, 1], 2, 1), np.repeat(rgb[:, 0::2, 2], 2, 1)], -1)
    stored("ybr_422_native", dataset(np.ascontiguousarray(halved), 8, photometric="YBR_FULL_422"), up, "YBR_FULL")
    deflated = dataset(u12, 16, 12, syntax=DeflatedExplicitVRLittleEndian)
    stored("deflated_data_set", deflated, u12)
    f32 = (scene(-1000, 1000) / 7).astype("<f4")
    floats = dataset(None, 32)
    floats.FloatPixelData = f32.tobytes()
    stored("float_pixel_data", floats, f32)
    f64 = (scene(-1000, 1000) / 7).astype("<f8")
    doubles = dataset(None, 64)
    doubles.DoubleFloatPixelData = f64.tobytes()
    stored("double_float_pixel_data", doubles, f64)
    compressed_cases()
    jpeg_cases(u8, rgb)


def compressed_cases():
    # The JPEG 2000 encoder wants to halve each side six times.
    size = {"Rows": 66, "Columns": 70}
    shape = (66, 70)
    u8 = scene(0, 255, shape).astype("u1")
    u12 = scene(0, 4095, shape).astype("<u2")
    s16 = scene(-32768, 32767, shape).astype("<i2")
    rgb = np.stack([u8, u8[::-1], 255 - u8], -1)
    for name, syntax in (("rle", RLELossless), ("j2k", JPEG2000Lossless), ("jpegls", JPEGLSLossless)):
        for what, ds, values in (
            ("u8", dataset(u8, 8, **size), u8),
            ("u12", dataset(u12, 16, 12, **size), u12),
            ("s16", dataset(s16, 16, signed=1, **size), s16),
            ("rgb", dataset(rgb, 8, photometric="RGB", **size), rgb),
        ):
            if (name, what) == ("jpegls", "s16"):
                continue
            # pydicom's own RLE, so that the files do not depend on what else is installed.
            plugin = "pydicom" if syntax == RLELossless else ""
            ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
            stored(f"{name}_{what}", ds, values, "RGB" if what == "rgb" else None)


def jpeg_cases(u8, rgb):
    def stream(image, **options):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90, **options)
        return buffer.getvalue()

    def encapsulated(streams, photometric, **extra):
        ds = dataset(None, 8, photometric=photometric, syntax=JPEGBaseline8Bit, **extra)
        ds.PixelData = encapsulate(streams)
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        return ds

    grey = stream(PIL.Image.fromarray(u8))
    values = np.asarray(PIL.Image.open(io.BytesIO(grey)))
    stored("jpeg_grey", encapsulated([grey], "MONOCHROME2"), values)
    turned = stream(PIL.Image.fromarray(np.ascontiguousarray(u8[::-1])))
    both = np.stack([values, np.asarray(PIL.Image.open(io.BytesIO(turned)))])
    stored("jpeg_2_frames", encapsulated([grey, turned], "MONOCHROME2", frames=2), both)
    for name, subsampling, photometric in (("444", 0, "YBR_FULL"), ("422", 1, "YBR_FULL_422"), ("420", 2, "YBR_FULL_422")):
        data = stream(PIL.Image.fromarray(rgb), subsampling=subsampling)
        image = PIL.Image.open(io.BytesIO(data))
        image.draft("YCbCr", image.size)
        assert image.mode == "YCbCr"
        stored(f"jpeg_ybr_{name}", encapsulated([data], photometric), np.asarray(image), "YBR_FULL")


def item(**attributes):
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def lut(vr, descriptor, data):
    ds = Dataset()
    ds.add_new("LUTDescriptor", vr, descriptor)
    ds.add_new("LUTData", "OW", np.asarray(data, "<u2").tobytes())
    return ds


def modality_cases():
    u12 = scene(0, 4095).astype("<u2")
    s12 = scene(-2048, 2047).astype("<i2")
    ct = dataset(u12, 16, 12, RescaleSlope="1.5", RescaleIntercept="-1024")
    stage("modality", "rescale", ct, apply_modality_lut(u12, ct)[None])
    negative = dataset(s12, 16, 12, signed=1, RescaleSlope="-0.25", RescaleIntercept="3")
    stage("modality", "rescale_signed", negative, apply_modality_lut(s12, negative)[None])
    table = np.round(60000 * (np.arange(1000) / 999.0) ** 2)
    sequence = dataset(s12, 16, 12, signed=1)
    sequence.ModalityLUTSequence = [lut("SS", [1000, -500, 16], table)]
    sequence.ModalityLUTSequence[0].ModalityLUTType = "US"
    stage("modality", "modality_lut", sequence, apply_modality_lut(s12, sequence)[None])
    dose = dataset(scene(0, 1 << 20).astype("<u4"), 32, Modality="RTDOSE", DoseGridScaling="1e-5")
    values = np.frombuffer(dose.PixelData, "<u4").reshape(1, ROWS, COLUMNS) * 1e-5
    stage("modality", "rt_dose", dose, values)
    frames = np.stack([u12, u12[::-1]])
    enhanced = dataset(frames, 16, 12, frames=2)
    enhanced.PerFrameFunctionalGroupsSequence = [
        item(PixelValueTransformationSequence=[item(RescaleSlope=s, RescaleIntercept=i, RescaleType="US")])
        for s, i in (("2", "-10"), ("0.5", "7"))
    ]
    stage("modality", "per_frame_rescale", enhanced, np.stack([frames[0] * 2.0 - 10, frames[1] * 0.5 + 7]))
    rgb = np.stack([scene(0, 255), scene(0, 200), scene(255, 0)], -1).astype("u1")
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    stage("modality", "ybr_to_rgb", dataset(ybr, 8, photometric="YBR_FULL"), convert_color_space(ybr, "YBR_FULL", "RGB")[None])
    palette_cases()


def palette_cases():
    index = scene(0, 199).astype("u1")
    ramps = [np.linspace(a, b, 180).round().astype("<u2") for a, b in ((0, 65535), (65535, 0), (300, 40000))]

    def palette(segmented):
        ds = dataset(index, 8, photometric="PALETTE COLOR")
        for colour, ramp in zip(("Red", "Green", "Blue"), ramps):
            ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [180, 10, 16])
            if segmented:
                words = [0, 1, int(ramp[0]), 1, 99, int(ramp[99]), 0, 80, *map(int, ramp[100:])]
                data = np.asarray(words, "<u2").tobytes()
                ds.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", data)
            else:
                ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", ramp.tobytes())
        return ds

    for name, segmented in (("palette", False), ("palette_segmented", True)):
        ds = palette(segmented)
        stage("modality", name, ds, apply_color_lut(index, ds)[None])


def voi_cases():
    u12 = scene(0, 4095).astype("<u2")

    def windowed(name, function=None, photometric="MONOCHROME2", center="300\\40", width="1500\\400"):
        ds = dataset(u12, 16, 12, photometric=photometric, RescaleSlope="1", RescaleIntercept="-1024")
        ds.WindowCenter, ds.WindowWidth = center, width
        if function:
            ds.VOILUTFunction = function
        values = apply_modality_lut(u12, ds)
        # pydicom keeps the range of the modality values; the gateway's is 0 to 1.
        out = (apply_voi_lut(values, ds, index=0) + 1024) / 4095.0
        stage("voi", name, ds, out[None])

    windowed("window_linear")
    windowed("window_linear_exact", "LINEAR_EXACT")
    windowed("window_sigmoid", "SIGMOID")
    windowed("window_monochrome1", photometric="MONOCHROME1")
    table = np.round(4095 * np.sqrt(np.arange(2000) / 1999.0))
    ds = dataset(u12, 16, 12, RescaleSlope="1", RescaleIntercept="-1024")
    ds.VOILUTSequence = [lut("SS", [2000, -500, 12], table)]
    stage("voi", "voi_lut", ds, apply_voi_lut(apply_modality_lut(u12, ds).astype("<i2"), ds)[None] / 4095.0)
    plain = dataset(u12, 16, 12, RescaleSlope="2", RescaleIntercept="-1024")
    stage("voi", "no_window", plain, u12[None] / 4095.0)
    rgb = np.stack([scene(0, 255), scene(0, 200), scene(255, 0)], -1).astype("u1")
    stage("voi", "rgb_to_unit", dataset(rgb, 8, photometric="RGB"), rgb[None] / 255.0)


def resized(image, size, how):
    """`image` as rows x columns float32, `size` as (rows, columns)."""
    rows, columns = size
    if how == "bilinear-antialias":
        resample = PIL.Image.Resampling.BILINEAR
        return np.asarray(PIL.Image.fromarray(image, "F").resize((columns, rows), resample))
    flags = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST}
    return cv2.resize(image, (columns, rows), interpolation=flags[how])


def resize_cases():
    image = scene(0, 255, (37, 29)).astype("f4")
    source = array("resize_source", image)
    for how in ("bilinear-antialias", "linear", "area", "nearest"):
        for size in ((37, 10), (16, 16), (40, 31), (50, 12), (12, 50), (5, 7), (48, 48)):
            name = f"resize_{how}_{size[0]}x{size[1]}"
            CASES.append(
                {"kind": "resize", "name": name, "source": source, "interpolation": how, "expected": array(name, resized(image, size, how))}
            )


def prepare_cases():
    u12 = scene(0, 4095, (40, 30)).astype("<u2")
    ds = dataset(u12, 16, 12, photometric="MONOCHROME1", Rows=40, Columns=30, RescaleSlope="1", RescaleIntercept="-1024")
    file = save("prepare_monochrome1", ds)
    hu = u12.astype("f8") - 1024
    window = (np.clip((hu - 500) / 2000 + 0.5, 0, 1)).astype("f4")
    shown = 1 - window
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

    def case(name, spec, tensor, source=file):
        base = {
            "layout": "NCHW", "dtype": "float32", "rows": 16, "columns": 16, "channels": 1, "value": "presentation", "window": None,
            "fit": "stretch", "interpolation": "bilinear-antialias", "pad": 0.0, "scale": 1.0, "mean": [], "std": [],
        }
        CASES.append({"kind": "prepare", "name": name, "file": source, "spec": {**base, **spec}, "expected": array(name, tensor)})

    small = resized(shown, (16, 16), "bilinear-antialias")
    wide = {"center": 500.0, "width": 2000.0}
    normal = (np.repeat(small[None], 3, 0) - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    case("prepare_imagenet", {"window": wide, "channels": 3, "mean": mean, "std": std}, normal)
    box = np.full((16, 16), 0.25, "f4")
    box[:, 2:14] = resized(shown, (16, 12), "area")
    case("prepare_letterbox", {"window": wide, "fit": "letterbox", "interpolation": "area", "pad": 0.25}, box[None])
    cropped = resized(shown, (21, 16), "linear")[2:18]
    case("prepare_crop", {"window": wide, "fit": "crop", "interpolation": "linear"}, cropped[None])
    case("prepare_hounsfield", {"value": "modality", "interpolation": "linear"}, resized(hu.astype("f4"), (16, 16), "linear")[None])
    bytes_ = np.rint(resized(shown, (16, 16), "area").astype("f8") * 255).clip(0, 255)
    case("prepare_bytes_nhwc", {"window": wide, "layout": "NHWC", "dtype": "uint8", "interpolation": "area", "scale": 255.0}, bytes_[..., None])
    rgb = np.stack([scene(0, 255), scene(0, 200), scene(255, 0)], -1).astype("u1")
    colour = save("prepare_rgb", dataset(rgb, 8, photometric="RGB"))
    planes = np.stack([resized(rgb[..., i].astype("f4") / 255, (16, 16), "bilinear-antialias") for i in range(3)])
    case("prepare_rgb", {"channels": 3}, planes, colour)
    luma = (rgb @ np.array([0.299, 0.587, 0.114])).astype("f4") / 255
    case("prepare_luma", {}, resized(luma, (16, 16), "bilinear-antialias")[None], colour)


def unit(ds, values, stored_range, rescale=(1.0, 0.0)):
    """pydicom's window ends in the range of the modality values, from that of the lowest stored value; ours is 0 to 1."""
    low, high = (rescale[0] * v + rescale[1] for v in stored_range)
    return (apply_voi_lut(values, ds, index=0) - low) / (high - low)


def more_modality_cases():
    """What the first cases leave out: shared macros, slices of their own, bytes through a table, dose in 16 bits."""
    u12, s16 = scene(0, 4095).astype("<u2"), scene(-20000, 32767).astype("<i2")
    frames = np.stack([u12, u12[:, ::-1]])
    shared = item(RescaleSlope="0.25", RescaleIntercept="-100", RescaleType="US")
    enhanced = dataset(frames, 16, 12, frames=2)
    enhanced.SharedFunctionalGroupsSequence = [item(PixelValueTransformationSequence=[shared])]
    enhanced.PerFrameFunctionalGroupsSequence = [item(), item()]
    stage("modality", "shared_rescale", enhanced, apply_rescale(frames, shared))
    # Each slice of a PET series has a slope of its own, and none makes whole numbers.
    for name, slope in (("pet_slice_1", "0.370173"), ("pet_slice_2", "4.81026")):
        ds = dataset(s16, 16, signed=1, Modality="PT", RescaleSlope=slope, RescaleIntercept="0", Units="BQML")
        stage("modality", name, ds, apply_modality_lut(s16, ds)[None])
    dose = dataset(u12, 16, Modality="RTDOSE", DoseGridScaling="0.00125")
    stage("modality", "rt_dose_16", dose, (u12 * 0.00125)[None])
    u8 = scene(0, 255).astype("u1")
    ds = dataset(u8, 8)
    ds.ModalityLUTSequence = [lut("US", [200, 30, 16], np.arange(200)[::-1] * 300)]
    ds.ModalityLUTSequence[0].ModalityLUTType = "OD"
    stage("modality", "modality_lut_u8", ds, apply_modality_lut(u8, ds)[None])


def more_voi_cases():
    u12, s16 = scene(0, 4095).astype("<u2"), scene(-1024, 3071).astype("<i2")
    frames = np.stack([u12, u12[::-1], u12])
    windows = [
        item(WindowCenter="1000", WindowWidth="800"),
        item(WindowCenter="2500", WindowWidth="3000", VOILUTFunction="SIGMOID"),
        item(WindowCenter=["2000", "100"], WindowWidth=["100", "50"], VOILUTFunction="LINEAR_EXACT"),
    ]
    enhanced = dataset(frames, 16, 12, frames=3)
    enhanced.PerFrameFunctionalGroupsSequence = [item(FrameVOILUTSequence=[window]) for window in windows]
    expected = []
    for frame, window in zip(frames, windows):
        # pydicom needs the shape of the pixels next to the window.
        for keyword in ("BitsStored", "PixelRepresentation", "PhotometricInterpretation"):
            setattr(window, keyword, enhanced[keyword].value)
        expected.append(apply_windowing(frame, window, index=0) / 4095.0)
        for keyword in ("BitsStored", "PixelRepresentation", "PhotometricInterpretation"):
            delattr(window, keyword)
    stage("voi", "per_frame_windows", enhanced, np.stack(expected))

    def signed(name, **attributes):
        ds = dataset(s16, 16, signed=1, **attributes)
        stage("voi", name, ds, unit(ds, s16, (-32768, 32767))[None])

    signed("window_signed", WindowCenter="40", WindowWidth="400")
    signed("window_of_one", WindowCenter="40", WindowWidth="1")
    signed("window_of_two", WindowCenter="-7.5", WindowWidth="2")
    signed("window_exact_fraction", WindowCenter="40.25", WindowWidth="0.5", VOILUTFunction="LINEAR_EXACT")
    negative = dataset(u12, 16, 12, RescaleSlope="-0.5", RescaleIntercept="300", WindowCenter="-700", WindowWidth="900")
    values = apply_modality_lut(u12, negative)
    stage("voi", "window_negative_slope", negative, unit(negative, values, (0, 4095), (-0.5, 300.0))[None])
    # A table goes before a window.
    both = dataset(u12, 16, 12, WindowCenter="1", WindowWidth="2")
    both.VOILUTSequence = [lut("US", [4096, 0, 12], np.arange(4096)[::-1])]
    stage("voi", "voi_lut_before_window", both, apply_voi_lut(u12, both)[None] / 4095.0)


def presentation_cases():
    u12 = scene(0, 4095).astype("<u2")

    def shown(name, photometric, inverted, **attributes):
        ds = dataset(u12, 16, 12, photometric=photometric, **attributes)
        values = apply_modality_lut(u12, ds)
        rescale = (float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0)))
        out = unit(ds, values, (0, 4095), rescale)
        stage("presentation", name, ds, (1 - out if inverted else out)[None])

    window = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "WindowCenter": "300", "WindowWidth": "1500"}
    shown("shown_monochrome2", "MONOCHROME2", False, **window)
    shown("shown_monochrome1", "MONOCHROME1", True, **window)
    shown("shown_monochrome1_inverse", "MONOCHROME1", True, PresentationLUTShape="INVERSE", **window)
    shown("shown_monochrome2_inverse", "MONOCHROME2", True, PresentationLUTShape="INVERSE", **window)
    shown("shown_monochrome2_identity", "MONOCHROME2", False, PresentationLUTShape="IDENTITY", **window)
    shown("shown_monochrome1_sigmoid", "MONOCHROME1", True, VOILUTFunction="SIGMOID", **window)
    shown("shown_monochrome1_no_window", "MONOCHROME1", True)
    table = dataset(u12, 16, 12, photometric="MONOCHROME1")
    table.VOILUTSequence = [lut("US", [3000, 500, 12], np.round(4095 * np.sqrt(np.arange(3000) / 2999.0)))]
    stage("presentation", "shown_monochrome1_lut", table, 1 - apply_voi_lut(u12, table)[None] / 4095.0)
    rgb = np.stack([scene(0, 255), scene(0, 200), scene(255, 0)], -1).astype("u1")
    stage("presentation", "shown_rgb", dataset(rgb, 8, photometric="RGB"), rgb[None] / 255.0)


def torchvision_resize(image, size):
    """`image` as float32 with channels first or none."""
    planes = torch.from_numpy(np.ascontiguousarray(image)).reshape(-1, *image.shape[-2:])
    out = torchvision.transforms.functional.resize(planes, list(size), antialias=True)
    return out.numpy().reshape(*image.shape[:-2], *out.shape[-2:])


def torchvision_cases():
    image = scene(0, 255, (37, 29)).astype("f4")
    source = array("torchvision_source", image)
    for size in ((16, 16), (37, 10), (50, 12), (5, 7), (48, 48), (1, 1)):
        name = f"resize_torchvision_{size[0]}x{size[1]}"
        expected = array(name, torchvision_resize(image, size))
        CASES.append({"kind": "resize", "name": name, "source": source, "interpolation": "bilinear-antialias", "expected": expected})
    nearest = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], (16, 40), mode="nearest")[0, 0].numpy()
    name = "resize_torch_nearest_16x40"
    CASES.append({"kind": "resize", "name": name, "source": source, "interpolation": "nearest", "expected": array(name, nearest)})


def training_cases():
    """Tensors as torchvision's usual transforms make them, in every type and order of axes."""
    u12 = scene(0, 4095, (40, 30)).astype("<u2")
    wide = {"center": 1800.0, "width": 2500.0}
    grey_file = save("training_grey", dataset(u12, 16, 12, Rows=40, Columns=30))
    grey = torch.from_numpy(np.clip((u12.astype("f8") - 1800) / 2500 + 0.5, 0, 1).astype("f4"))[None]
    rgb = np.stack([scene(0, 255, (27, 45)), scene(0, 200, (27, 45)), scene(255, 0, (27, 45))], -1).astype("u1")
    colour_file = save("training_rgb", dataset(rgb, 8, photometric="RGB", Rows=27, Columns=45))
    colour = torch.from_numpy(rgb.astype("f4") / 255).permute(2, 0, 1).contiguous()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    functional = torchvision.transforms.functional
    plain = {"layout": "NCHW", "dtype": "float32", "rows": 16, "columns": 16, "pad": 0.0, "scale": 1.0, "mean": [], "std": []}

    def case(name, file, tensor, **spec):
        source = {"window": wide if file == grey_file else None, "value": "presentation", "interpolation": "bilinear-antialias"}
        if spec.get("layout") == "NHWC":
            tensor = tensor.permute(1, 2, 0)
        expected = array(f"training_{name}", tensor.contiguous().float().numpy())
        spec = {**plain, **source, **spec}
        CASES.append({"kind": "prepare", "name": f"training_{name}", "file": file, "spec": spec, "expected": expected})

    def cropped(image):
        return functional.center_crop(functional.resize(image, 16, antialias=True), [16, 16])

    normal = functional.normalize(cropped(colour), mean, std)
    imagenet = {"channels": 3, "fit": "crop", "mean": mean, "std": std}
    case("imagenet", colour_file, normal, **imagenet)
    case("imagenet_nhwc", colour_file, normal, layout="NHWC", **imagenet)
    case("imagenet_half", colour_file, normal.half(), dtype="float16", **imagenet)
    case("imagenet_half_nhwc", colour_file, normal.half(), dtype="float16", layout="NHWC", **imagenet)
    repeated = functional.normalize(cropped(grey).repeat(3, 1, 1), mean, std)
    case("grey_crop_repeat", grey_file, repeated, **imagenet)
    case("grey_crop_repeat_nhwc", grey_file, repeated, layout="NHWC", **imagenet)
    as_bytes = (functional.resize(grey, [16, 16], antialias=True) * 255).round().clamp(0, 255).to(torch.uint8)
    case("bytes", grey_file, as_bytes, channels=1, fit="stretch", dtype="uint8", scale=255.0)
    small = functional.resize(colour, [10, 16], antialias=True)
    boxed = functional.pad(small, [0, 3, 0, 3], fill=0.5)
    case("letterbox_bytes_nhwc", colour_file, (boxed * 255).round().to(torch.uint8), channels=3, fit="letterbox", pad=0.5, dtype="uint8", scale=255.0, layout="NHWC")
    case("letterbox", colour_file, boxed, channels=3, fit="letterbox", pad=0.5)
    unwindowed = torch.from_numpy(u12.astype("f4"))[None]
    stored_values = functional.resize(unwindowed, [24, 20], antialias=True)
    case("stored_values", grey_file, stored_values, channels=1, fit="stretch", value="stored", window=None, rows=24, columns=20)
    voi = functional.resize(grey, [50, 60], antialias=True)
    case("voi_enlarged", grey_file, voi, channels=1, fit="stretch", value="voi", rows=50, columns=60)


OUT.mkdir(parents=True, exist_ok=True)
for old in [*OUT.glob("*.dcm"), *OUT.glob("*.f32")]:
    old.unlink()
stored_cases()
modality_cases()
voi_cases()
resize_cases()
prepare_cases()
more_modality_cases()
more_voi_cases()
presentation_cases()
torchvision_cases()
training_cases()
versions = {m.__name__: m.__version__ for m in (pydicom, np, PIL, cv2, torch, torchvision)}
(OUT / "manifest.json").write_text(json.dumps({"made_with": versions, "cases": CASES}, indent=1) + "\n")
print(f"{len(CASES)} cases, {sum(p.stat().st_size for p in OUT.iterdir()) / 1024:.0f} KiB")
