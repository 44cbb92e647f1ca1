"""From an image to a tensor, and from the tensor's places back to the image's."""

from dataclasses import dataclass

import numpy as np
import pydicom
from PIL import Image

from .manifests import Refused


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its image: source = offset + scale x tensor, for x and y.

    Coordinates are continuous: 0 is the outer edge of the first pixel, 1 the edge between the first and the second.
    """

    columns: int
    rows: int
    scale: tuple  # pixels of the image per pixel of the tensor: across, down
    offset: tuple  # where the tensor's first edge is in the image: across, down; below 0 where it was padded

    def to_source(self, boxes):
        """Boxes (.., 4) left, top, right, bottom from the tensor to the image, clipped to it."""
        moved = np.asarray(boxes, np.float64) * np.tile(self.scale, 2) + np.tile(self.offset, 2)
        return np.clip(moved, 0, np.tile((self.columns, self.rows), 2))

    def to_tensor(self, boxes):
        """Boxes from the image to the tensor."""
        return (np.asarray(boxes, np.float64) - np.tile(self.offset, 2)) / np.tile(self.scale, 2)


def values(dataset, spec):
    """Values of the wanted stage of every frame of a grey image, (frames, rows, columns) float64."""
    picture = dataset.pixel_array.astype(np.float64)
    if dataset.SamplesPerPixel != 1 or picture.ndim not in (2, 3):
        raise Refused("not a grey image")
    picture = picture.reshape(-1, *picture.shape[-2:])
    if spec["value"] in ("modality", "voi", "presentation"):
        if "ModalityLUTSequence" in dataset:
            raise Refused("this reference has no modality LUT")
        picture = picture * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    if spec["value"] in ("voi", "presentation"):
        if "window" in spec:
            picture = window_of_manifest(picture, spec["window"])
        else:
            if "WindowCenter" not in dataset or dataset.get("VOILUTFunction", "LINEAR") != "LINEAR":
                raise Refused("this reference needs a LINEAR window in the file or a window in the manifest")
            picture = window_linear(picture, *(_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth")))
    if spec["value"] == "presentation" and dataset.PhotometricInterpretation == "MONOCHROME1":
        picture = 1.0 - picture
    return picture


def _first(value):
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


def window_linear(picture, center, width):
    """VOI LUT Function LINEAR, PS3.3 C.11.2.1.2.1, with an output range of 0 to 1."""
    picture = np.asarray(picture, np.float64)
    if width < 1:
        raise Refused(f"window width {width} is below 1")
    low = center - 0.5 - (width - 1) / 2
    high = center - 0.5 + (width - 1) / 2
    # At width 1 the ramp is empty and only the two ends are left.
    ramp = (picture - (center - 0.5)) / max(width - 1, np.finfo(np.float64).tiny) + 0.5
    return np.where(picture <= low, 0.0, np.where(picture > high, 1.0, ramp))


def window_of_manifest(picture, window):
    """The manifest's own window: a ramp from center - width / 2 to center + width / 2."""
    return np.clip((picture - window["center"]) / window["width"] + 0.5, 0, 1)


def fit(picture, spec):
    """(rows, columns) values in the tensor's size, float32, and where it lies in the picture."""
    if spec.get("interpolation") != "bilinear-antialias":
        raise Refused("this reference resizes by bilinear-antialias only")
    rows, columns = picture.shape
    size = (spec["rows"], spec["columns"])
    by = [wanted / have for wanted, have in zip(size, picture.shape)]
    if spec["fit"] == "stretch":
        inner, first = size, (0, 0)
        out = _resize(picture, inner)
    elif spec["fit"] == "letterbox":
        inner = [min(max(int(np.floor(have * min(by) + 0.5)), 1), most) for have, most in zip(picture.shape, size)]
        first = [-((most - have) // 2) for have, most in zip(inner, size)]
        out = np.full(size, spec.get("pad", 0.0), np.float32)
        out[-first[0] : inner[0] - first[0], -first[1] : inner[1] - first[1]] = _resize(picture, inner)
    elif spec["fit"] == "crop":
        inner = [max(int(have * max(by) + 1e-9), least) for have, least in zip(picture.shape, size)]
        # Python's round, to the even neighbour, as torchvision's center_crop does it.
        first = [round((have - least) / 2) for have, least in zip(inner, size)]
        out = _resize(picture, inner)[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]
    else:
        raise Refused(f"input.fit = {spec['fit']!r}")
    scale = [have / made for have, made in zip(picture.shape, inner)]
    return out, Place(columns, rows, (scale[1], scale[0]), (first[1] * scale[1], first[0] * scale[0]))


def _resize(picture, size):
    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)


def normalise(picture, spec):
    """(x * scale - mean) / std for one channel, as float32."""
    scaled = picture.astype(np.float32) * np.float32(spec.get("scale", 1.0))
    return (scaled - np.float32(spec.get("mean", [0.0])[0])) / np.float32(spec.get("std", [1.0])[0])


def tensors(dataset, spec):
    """For every frame: a (1, rows, columns) tensor and its place."""
    if spec["layout"] != "NCHW" or spec["dtype"] != "float32" or spec["channels"] != 1:
        raise Refused("this reference makes float32 NCHW tensors of one channel only")
    fitted = [fit(frame, spec) for frame in values(dataset, spec)]
    return [(normalise(picture, spec)[np.newaxis], place) for picture, place in fitted]
