#!/usr/bin/env python3
"""Makes tests/fixtures/shapes: what detectors and segmenters could answer, and the boxes, regions and
sizes that independent code reads from it.

Boxes are thinned out by ONNX Runtime's NonMaxSuppression; probabilities are brought to the source by
SciPy (images) and SimpleITK (volumes, which are those of tests/fixtures/volumes, read by GDCM);
regions are labelled by SciPy and measured between scikit-image's contours. Where an image lies in a
tensor is closed form here, held against ramps that Pillow resamples. Nothing comes from the gateway.
Run it in a throw-away environment when a case is added; the result is committed:

    python3 -m venv env
    env/bin/pip install numpy scipy scikit-image SimpleITK nibabel pydicom pillow onnx onnxruntime
    env/bin/python scripts/golden_shapes.py

manifest.json lists the cases: the tables of a manifest, an image or a folder of volumes, the answers
(numbers, or files of little endian float16) and the findings.
"""

import hashlib
import json
import pathlib

import nibabel
import numpy as np
import onnx
import onnxruntime
import SimpleITK as sitk
from onnx import TensorProto, helper
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage
from scipy.spatial.distance import pdist
from scipy.special import expit, softmax
from skimage.measure import find_contours

TESTS = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures"
OUT, VOLUMES = TESTS / "shapes", TESTS / "volumes"
ROOT = "1.2.826.0.1.3680043.10.1465.9."
RNG = np.random.default_rng(20261121)
CASES = []
# Of a comparison with a threshold nothing may hang on rounding.
MARGIN = 1e-6


# Images and their place in a tensor


def image(name, rows, columns, number, **spacing):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = ROOT + "0"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = ROOT + "2", ROOT + "3"
    ds.PatientName, ds.PatientID, ds.Modality = "PHANTOM", "PHANTOM", "OT"
    for keyword, value in spacing.items():
        setattr(ds, keyword, value)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = RNG.integers(0, 255, rows * columns + rows * columns % 2, np.uint8).tobytes()
    ds["PixelData"].VR = "OB"
    ds.save_as(OUT / name, enforce_file_format=True)
    known = spacing.get("PixelSpacing")
    if known == spacing.get("ImagerPixelSpacing", []):
        known = None
    return {"file": name, "rows": rows, "columns": columns, "spacing": known, "sop": ds.SOPInstanceUID}


def fitted(size, tensor, fit):
    """Scale and offset of `source = offset + scale * tensor`, pixel edges, for rows and columns."""
    size, tensor = np.array(size), np.array(tensor)
    if fit == "stretch":
        inner, first = tensor, np.zeros(2)
    elif fit == "letterbox":
        scale = (tensor / size).min()
        inner = np.clip(np.floor(size * scale + 0.5).astype(int), 1, tensor)
        first = -((tensor - inner) // 2)
    else:
        scale = (tensor / size).max()
        inner = np.maximum((size * scale + 1e-9).astype(int), tensor)
        first = np.array([round(left / 2) for left in inner - tensor])
    check_by_pillow(size, tensor, inner, first)
    return size / inner, first * size / inner


def check_by_pillow(size, tensor, inner, first):
    """A ramp through Pillow has, at each place of the tensor, the value of its place in the source."""
    for axis in (0, 1):
        ramp = np.broadcast_to(np.expand_dims(np.arange(size[axis]) + 0.5, 1 - axis), size)
        moved = Image.fromarray(ramp.astype(np.float32)).resize(tuple(int(n) for n in inner[::-1]), Image.BILINEAR)
        line = np.asarray(moved).mean(1 - axis)
        at = np.arange(inner[axis]) + 0.5
        scale = size[axis] / inner[axis]
        inside = (at * scale > 2 * scale) & (at * scale < size[axis] - 2 * scale)
        found = np.polyfit(at[inside], line[inside], 1)
        assert np.allclose(found, [scale, 0], atol=0.05), (found, scale)
    assert ((first <= 0).all() or (first >= 0).all()) and tensor.shape == (2,)


def input_table(tensor, fit):
    return {
        "name": "image",
        "layout": "NCHW",
        "dtype": "float32",
        "rows": tensor[0],
        "columns": tensor[1],
        "channels": 1,
        "value": "stored",
        "fit": fit,
        "interpolation": "bilinear-antialias",
    }


def label(index, name, threshold, **more):
    return {
        "index": index,
        "label": name,
        "code": {"scheme": "99TEST", "value": name, "meaning": name},
        "threshold": threshold,
        "priority": "urgent",
    } | more


# Boxes


def suppressor():
    """A graph of one node; all inputs, so that one session serves every case."""
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, None, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, None]),
        helper.make_tensor_value_info("most", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("iou", TensorProto.FLOAT, [1]),
    ]
    outputs = [helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])]
    node = helper.make_node("NonMaxSuppression", [i.name for i in inputs], ["kept"])
    model = helper.make_model(helper.make_graph([node], "nms", inputs, outputs), opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


NMS = suppressor()


def thinned(boxes, scores, iou, most):
    """Indices that stay, by falling score."""
    order = np.argsort(-scores, kind="stable")
    assert len(scores) < 2 or np.diff(scores[order]).max() < -MARGIN, "equal scores"
    if iou is None or not len(scores):
        return order[:most]
    feeds = {
        "boxes": boxes[None, :, [1, 0, 3, 2]].astype(np.float32),
        "scores": scores[None, None].astype(np.float32),
        "most": np.array([most], np.int64),
        "iou": np.array([iou], np.float32),
    }
    return NMS.run(None, feeds)[0][:, 2]


def mirrored(edges, flip, rows, columns):
    left, top, right, bottom = edges.T
    if flip == "horizontal":
        left, right = columns - right, columns - left
    if flip == "vertical":
        top, bottom = rows - bottom, rows - top
    return np.stack([left, top, right, bottom], 1)


def written(edges, form, coordinates, rows, columns):
    left, top, right, bottom = edges.T
    numbers = {
        "xyxy": [left, top, right, bottom],
        "xywh": [left, top, right - left, bottom - top],
        "cxcywh": [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top],
    }[form]
    numbers = np.stack(numbers, 1)
    if coordinates == "normalized":
        numbers = numbers / [columns, rows, columns, rows]
    return numbers.astype(np.float32)


def read_back(numbers, form, coordinates, rows, columns):
    numbers = numbers.astype(np.float64)
    if coordinates == "normalized":
        numbers = numbers * [columns, rows, columns, rows]
    a, b, c, d = numbers.T
    if form == "xywh":
        c, d = a + c, b + d
    if form == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return np.stack([a, b, c, d], 1)


def detection(name, pictures, tensor, fit, form="xyxy", coordinates="pixels", activation="sigmoid", flips=(), iou=0.45, most=20, classes=False, absent=False):
    rows, columns = tensor
    labels = [label(1, "nodule", 0.6), label(2, "mass", 0.5)] + ([label(3, "never", 0.999)] if absent else [])
    channels = 5
    output = {
        "kind": "detection",
        "boxes": "boxes",
        "scores": "scores",
        "activation": activation,
        "format": form,
        "coordinates": coordinates,
        "max_boxes": most,
        "labels": labels,
    }
    if iou is not None:
        output["nms"] = {"iou": iou}
    if classes:
        output["classes"] = "classes"
    samples, found, highest = [], [], {entry["label"]: None for entry in labels}
    for picture in pictures:
        centre = RNG.uniform([0, 0], [columns, rows], (7, 2)).repeat(5, 0) + RNG.normal(0, 1.2, (35, 2))
        half = RNG.uniform(2, 8, (7, 2)).repeat(5, 0) + RNG.uniform(0, 1, (35, 2))
        half[::11, 0] = 0
        edges = np.concatenate([centre - half, centre + half], 1)
        answers, pooled = [], []
        for flip in (None, *flips):
            seen = mirrored(edges + RNG.normal(0, 0.2, (len(edges), 1)), flip, rows, columns)
            numbers = written(seen, form, coordinates, rows, columns)
            back = mirrored(read_back(numbers, form, coordinates, rows, columns), flip, rows, columns)
            raw = RNG.normal(0.3, 1.5, (len(edges), channels)).astype(np.float32)
            if classes:
                raw = raw[:, 0]
            if activation == "none":
                raw = expit(raw).astype(np.float32)
            score = {"sigmoid": expit, "softmax": lambda v: softmax(v, -1), "none": lambda v: v}[activation](raw.astype(np.float64))
            outputs = [{"shape": list(numbers.shape), "values": numbers.ravel().tolist()}]
            outputs.append({"shape": list(raw.shape), "values": raw.ravel().tolist()})
            if classes:
                kind = RNG.integers(0, channels, len(edges))
                outputs.append({"shape": [len(edges)], "integers": kind.tolist()})
                score = np.where(kind[:, None] == np.arange(channels), score[:, None], np.nan)
            answers.append({"flip": flip, "outputs": outputs})
            pooled.append((back, score))
        boxes, scores = (np.concatenate(part) for part in zip(*pooled))
        scale, offset = fitted([picture["rows"], picture["columns"]], tensor, fit)
        places = boxes * np.tile(scale[::-1], 2) + np.tile(offset[::-1], 2)
        places = np.clip(places, 0, [picture["columns"], picture["rows"]] * 2)
        area = (places[:, 2] > places[:, 0]) & (places[:, 3] > places[:, 1])
        image_boxes = []
        for entry in labels:
            own = scores[:, entry["index"]]
            seen = own[area & ~np.isnan(own)]
            best = highest[entry["label"]]
            if len(seen) and (best is None or seen.max() > best[0]):
                highest[entry["label"]] = (seen.max(), picture)
            assert (np.abs(seen - entry["threshold"]) > MARGIN).all()
            index = np.flatnonzero(area & (np.nan_to_num(own, nan=-1) >= entry["threshold"]))
            kept = index[thinned(boxes[index], own[index], iou, most)]
            image_boxes += [(own[at], rank == 0, entry["label"], places[at], picture) for rank, at in enumerate(kept)]
        image_boxes.sort(key=lambda box: -box[0])
        found += [box for place, box in enumerate(image_boxes) if place < most or box[1]]
        samples.append({"image": picture["file"], "answers": answers})
    found.sort(key=lambda box: -box[0])
    findings = [
        {"label": name, "probability": score, "present": True, "sop": picture["sop"], "box": place.tolist()}
        for score, _, name, place, picture in found
    ]
    for entry in labels:
        if all(finding["label"] != entry["label"] for finding in findings):
            score, picture = highest[entry["label"]]
            findings.append({"label": entry["label"], "probability": score, "present": False, "sop": picture["sop"], "box": None})
    assert sum(f["present"] for f in findings) > 3, name
    CASES.append({"name": name, "input": input_table(tensor, fit), "output": output, "flips": list(flips), "samples": samples, "findings": findings})


# Regions


def blobs(shape, channels, count=5):
    """Smooth numbers around 0, a few hills per channel and small islands; half floats."""
    noise = RNG.normal(0, 1, (channels, *shape))
    smooth = np.stack([ndimage.gaussian_filter(plane, max(shape) / 9, mode="constant") for plane in noise])
    rough = np.stack([ndimage.gaussian_filter(plane, 0.8, mode="constant") for plane in noise])
    field = smooth / smooth.std() * 2.0 + rough / rough.std() * 0.7 - 0.5
    return field.astype(np.float16)


def probabilities(raw, activation):
    raw = raw.astype(np.float64)
    return {"none": raw, "sigmoid": expit(raw), "softmax": softmax(raw, 0)}[activation]


FLIPPED = {None: None, "horizontal": -1, "vertical": -2, "depth": -3}


def answers_of(name, shape, channels, activation, flips):
    """Answers as files, and the mean of their probabilities, mirrored back."""
    answers, total = [], 0
    base = blobs(shape, channels)
    for index, flip in enumerate((None, *flips)):
        raw = (base + RNG.normal(0, 0.2, base.shape)).astype(np.float16)
        if activation == "none":
            raw = expit(raw.astype(np.float32)).astype(np.float16)
        total = total + probabilities(raw, activation)
        sent = raw if flip is None else np.flip(raw, FLIPPED[flip])
        file = f"{name}_{index}.f16"
        sent.astype("<f2").tofile(OUT / file)
        answers.append({"flip": flip, "outputs": [{"shape": list(sent.shape), "file": file}]})
    return answers, total / (1 + len(flips))


def longest(mask, spacing):
    """Largest distance between contour points of a plane of the largest part, and the plane."""
    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    part = parts == 1 + int(np.argmax(sizes))
    best = (0, None)
    for plane, pixels in enumerate(part):
        if pixels.any():
            contours = find_contours(np.pad(pixels, 1).astype(float), 0.5, fully_connected="high")
            points = np.concatenate(contours) * spacing
            length = pdist(points).max()
            if length > best[0]:
                best = (length, plane)
    return best


def digest(mask):
    return hashlib.sha256(np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()


def region(entry, values, inside, present, measurements, **more):
    mask = inside & (values >= entry["threshold"])
    assert (np.abs(values[inside] - entry["threshold"]) > MARGIN).all()
    found = {
        "label": entry["label"],
        "probability": float(values[mask].mean() if mask.any() else values[inside].max()),
        "present": bool(present),
        "measurements": measurements if mask.any() else [],
    }
    return found | more


def segmentation_2d(name, pictures, tensor, fit, activation, labels, channels=3, flips=()):
    samples, present, absent = [], {e["label"]: [] for e in labels}, {}
    for number, picture in enumerate(pictures):
        answers, mean = answers_of(f"{name}_{number}", tensor, channels, activation, flips)
        samples.append({"image": picture["file"], "answers": answers})
        size = [picture["rows"], picture["columns"]]
        scale, offset = fitted(size, tensor, fit)
        places = [(np.arange(n) + 0.5 - o) / s - 0.5 for n, o, s in zip(size, offset, scale)]
        inside = np.logical_and.outer(*[(p >= -0.5) & (p < t - 0.5) for p, t in zip(places, tensor)])
        grid = np.meshgrid(*places, indexing="ij")
        for entry in labels:
            values = ndimage.map_coordinates(mean[entry["index"]], grid, order=1, mode="nearest")
            mask = inside & (values >= entry["threshold"])
            pixels, spacing = int(mask.sum()), picture["spacing"]
            sizes = [["42798000", "{pixels}", pixels]]
            enough = pixels >= entry.get("min_pixels", 1)
            if spacing:
                area = pixels * spacing[0] * spacing[1]
                enough &= area >= entry.get("min_area_mm2", 0)
                sizes += [["42798000", "mm2", area]]
                if pixels:
                    sizes += [["103339001", "mm", longest(mask[None], spacing)[0]]]
            found = region(entry, values, inside, enough, sizes, sop=picture["sop"])
            if enough:
                packed = {"extension": "png", "size": size, "sha256": digest(mask)}
                present[entry["label"]].append(found | {"mask": packed})
            else:
                best = absent.get(entry["label"])
                if best is None or (pixels, found["probability"]) > best[0]:
                    absent[entry["label"]] = ((pixels, found["probability"]), found)
    findings = [found for entry in labels for found in present[entry["label"]]]
    findings += [absent[entry["label"]][1] for entry in labels if not present[entry["label"]]]
    output = {"kind": "segmentation", "tensor": "map", "activation": activation, "labels": labels}
    CASES.append({"name": name, "input": input_table(tensor, fit), "output": output, "flips": list(flips), "samples": samples, "findings": findings})


def source_volume(folder):
    """A series of tests/fixtures/volumes as GDCM reads and orders it, and the images of its planes."""
    reader = sitk.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(VOLUMES / folder))
    names = reader.GetGDCMSeriesFileNames(str(VOLUMES / folder), uid)
    reader.SetFileNames(names)
    source = sitk.Cast(reader.Execute(), sitk.sitkFloat64)
    uids = []
    for name in names:
        one = sitk.ImageFileReader()
        one.SetFileName(name)
        one.ReadImageInformation()
        uids.append(one.GetMetaData("0008|0018").strip("\0 "))
    return source, uids


def tensor_grid(source, spec):
    """An empty picture with the geometry of the tensor's voxels, by the manifest's words."""
    volume, size = spec["volume"], np.array([spec["columns"], spec["rows"], spec["depth"]])
    moved = sitk.DICOMOrient(source, volume["orientation"][::-1]) if volume.get("orientation") else source
    have, old = np.array(moved.GetSize()), np.array(moved.GetSpacing())
    origin, direction = np.array(moved.GetOrigin()), np.array(moved.GetDirection()).reshape(3, 3)
    new = old
    if volume["fit"] == "stretch":
        new = have * old / size
        origin = origin + direction @ ((new - old) / 2)
    else:
        if volume.get("spacing_mm"):
            new = np.array(volume["spacing_mm"][::-1], float)
            have = np.maximum(np.floor(have * old / new + 0.5 + 1e-6), 1).astype(int)
        first = np.where(have > size, have // 2 - size // 2, -((size - have) // 2))
        origin = origin + direction @ (first * new)
    grid = sitk.Image([int(n) for n in size], sitk.sitkFloat64)
    grid.SetOrigin(origin.tolist())
    grid.SetSpacing(new.tolist())
    grid.SetDirection(moved.GetDirection())
    return grid


def segmentation_3d(name, case, activation, labels, channels=2, flips=()):
    (volume,) = [c for c in json.loads((VOLUMES / "manifest.json").read_text())["cases"] if c["name"] == case]
    spec = volume["input"]
    source, uids = source_volume(volume["folder"])
    answers, mean = answers_of(name, (spec["depth"], spec["rows"], spec["columns"]), channels, activation, flips)
    grid = tensor_grid(source, spec)
    present, absent = [], []
    spacing = source.GetSpacing()
    # What a reader of NIfTI makes of the source's geometry: right, anterior, superior.
    direction = np.array(source.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = source.GetOrigin()
    affine = np.diag([-1, -1, 1, 1]) @ affine
    assert nibabel.Nifti1Image(np.zeros((2, 2, 2)), affine).get_sform().shape == (4, 4)
    for entry in labels:
        picture = sitk.GetImageFromArray(mean[entry["index"]])
        picture.CopyInformation(grid)
        moved = sitk.Resample(picture, source, sitk.Transform(), sitk.sitkLinear, -1.0)
        values = sitk.GetArrayFromImage(moved)
        inside = values >= 0
        mask = inside & (values >= entry["threshold"])
        millilitres = int(mask.sum()) * float(np.prod(spacing)) / 1000
        enough = mask.sum() >= entry.get("min_pixels", 1) and millilitres >= entry.get("min_volume_ml", 0)
        sizes, place = [["118565006", "ml", millilitres]], None
        if mask.any():
            length, plane = longest(mask, [spacing[1], spacing[0]])
            sizes += [["103339001", "mm", length]]
            place = uids[plane]
        found = region(entry, values, inside, enough, sizes, sop=place)
        if enough:
            packed = {"extension": "nii.gz", "size": list(mask.shape), "sha256": digest(mask), "affine": affine[:3].tolist()}
            present.append(found | {"mask": packed})
        else:
            absent.append(found)
    output = {"kind": "segmentation", "tensor": "map", "activation": activation, "labels": labels}
    samples = [{"folder": volume["folder"], "answers": answers}]
    CASES.append({"name": name, "input": spec, "output": output, "flips": list(flips), "samples": samples, "findings": present + absent})


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for file in OUT.iterdir():
        file.unlink()
    wide = image("wide.dcm", 37, 50, 1, PixelSpacing=[0.8, 0.5])
    tall = image("tall.dcm", 61, 28, 2, ImagerPixelSpacing=[0.2, 0.2])
    large = image("large.dcm", 120, 96, 3, PixelSpacing=[0.3, 0.3], ImagerPixelSpacing=[0.4, 0.4])
    repeated = image("repeated.dcm", 40, 44, 4, PixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[0.2, 0.2])

    detection("boxes_stretch", [wide], [32, 48], "stretch")
    detection("boxes_letterbox", [wide, tall], [32, 48], "letterbox", "xywh", flips=["horizontal"], absent=True)
    detection("boxes_crop", [tall, wide, large], [24, 40], "crop", "cxcywh", "normalized", flips=["vertical"], most=6)
    detection("boxes_both_flips", [large], [48, 64], "letterbox", "cxcywh", activation="softmax", flips=["horizontal", "vertical"])
    detection("boxes_thinned_out_in_the_graph", [wide, large], [32, 32], "crop", activation="none", iou=None)
    detection("boxes_with_classes", [tall], [40, 24], "stretch", "xywh", "normalized", classes=True, flips=["horizontal"])

    regions = [label(0, "effusion", 0.6), label(2, "mass", 0.55, min_pixels=3)]
    segmentation_2d("regions_letterbox", [wide, tall], [32, 48], "letterbox", "sigmoid", regions, flips=["horizontal", "vertical"])
    segmentation_2d("regions_crop", [tall, repeated], [24, 40], "crop", "softmax", [label(1, "mass", 0.4), label(2, "never", 0.9999)])
    segmentation_2d("regions_stretch", [large], [40, 40], "stretch", "none", [label(0, "a", 0.7, min_area_mm2=20.0), label(1, "b", 0.8, min_area_mm2=2000.0)])

    one = [label(0, "lesion", 0.6), label(1, "organ", 0.5, min_volume_ml=0.02)]
    segmentation_3d("volume_as_acquired", "as_acquired", "sigmoid", one)
    segmentation_3d("volume_flipped_and_resampled", "flipped_and_resampled", "softmax", one, flips=["depth", "horizontal"])
    segmentation_3d("volume_finer", "finer", "sigmoid", [label(0, "lesion", 0.7)], channels=1)
    segmentation_3d("volume_coarser", "coarser", "sigmoid", [label(0, "lesion", 0.6, min_volume_ml=900.0), label(1, "x", 0.6)])
    segmentation_3d("volume_stretch", "stretch", "sigmoid", one)
    segmentation_3d("volume_sagittal", "sagittal_resampled", "none", one, flips=["vertical"])
    segmentation_3d("volume_coronal", "coronal_to_axial", "sigmoid", one)
    segmentation_3d("volume_oblique", "oblique_ras", "sigmoid", one)
    segmentation_3d("volume_cropped_and_padded", "crop_and_pad", "sigmoid", one, flips=["horizontal"])
    segmentation_3d("volume_cropped", "crop_odd", "sigmoid", one)

    text = json.dumps({"cases": CASES}, separators=(",", ":"), default=float)
    (OUT / "manifest.json").write_text(text.replace('{"name":"', '\n{"name":"') + "\n")
    for case in CASES:
        print(case["name"], [(f["label"], round(f["probability"], 3), f["present"]) for f in case["findings"]][:6])


main()
