"""From the planes of a series to a tensor, and from the tensor's voxels back to the planes.

A volume is a SimpleITK image: it carries its own origin, spacing and directions, in mm of the patient (LPS).
"""

import numpy as np
import SimpleITK as sitk

from . import images
from .manifests import Refused


def series(datasets, spec):
    """One volume of single-frame files, in values of the wanted stage, and which file each plane is.

    Planes ascend along row x column direction. This reference takes one regular stack and refuses everything else.
    """
    if len(datasets) < 2:
        raise Refused("a volume needs two planes")
    first = datasets[0]
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    if any(list(one.ImageOrientationPatient) != list(first.ImageOrientationPatient) for one in datasets):
        raise Refused("planes of several orientations")
    if any(list(one.PixelSpacing) != list(first.PixelSpacing) for one in datasets):
        raise Refused("planes of several spacings")
    places = np.array([one.ImagePositionPatient for one in datasets], float)
    order = np.argsort(places @ normal)
    heights = (places @ normal)[order]
    distance = (heights[-1] - heights[0]) / (len(heights) - 1)
    if np.abs(np.diff(heights) - distance).max() > 0.01 * distance:
        raise Refused("planes are not evenly spaced")
    planes = [images.values(datasets[which], spec) for which in order]
    if any(len(plane) != 1 for plane in planes):
        raise Refused("not single-frame images")
    picture = sitk.GetImageFromArray(np.concatenate(planes).astype(np.float32))
    down, across = (float(value) for value in first.PixelSpacing)
    picture.SetOrigin(places[order[0]].tolist())
    picture.SetSpacing([across, down, float(distance)])
    picture.SetDirection(np.stack([row, column, normal], 1).ravel().tolist())
    return picture, order.tolist()


def tensor(picture, spec):
    """A (1, planes, rows, columns) tensor, and an empty volume that says where its voxels are."""
    volume = spec["volume"]
    if spec["layout"] != "NCDHW" or spec["dtype"] != "float32" or volume["fit"] != "crop-pad":
        raise Refused("this reference makes float32 NCDHW tensors by crop-pad only")
    size = [spec["depth"], spec["rows"], spec["columns"]]
    pad = float(spec.get("pad", 0.0))
    if "orientation" in volume:
        # SimpleITK names x, y, z; the manifest names depth, rows, columns.
        picture = sitk.DICOMOrient(picture, volume["orientation"][::-1])
    if "spacing_mm" in volume:
        method = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}[volume["interpolation"]]
        new = np.array(volume["spacing_mm"][::-1], float)
        wanted = np.maximum(np.floor(np.array(picture.GetSize()) * picture.GetSpacing() / new + 0.5 + 1e-6), 1)
        picture = sitk.Resample(
            picture,
            [int(n) for n in wanted],
            sitk.Transform(),
            method,
            picture.GetOrigin(),
            new.tolist(),
            picture.GetDirection(),
            pad,
        )
    have = sitk.GetArrayFromImage(picture)
    out = np.full(size, pad, np.float32)
    first = [n // 2 - most // 2 if n > most else -((most - n) // 2) for n, most in zip(have.shape, size)]
    kept = [slice(max(begin, 0), max(begin, 0) + min(n, most)) for begin, n, most in zip(first, have.shape, size)]
    at = [slice(max(-begin, 0), max(-begin, 0) + min(n, most)) for begin, n, most in zip(first, have.shape, size)]
    out[tuple(at)] = have[tuple(kept)]
    where = sitk.Image(size[::-1], sitk.sitkUInt8)
    where.SetSpacing(picture.GetSpacing())
    where.SetDirection(picture.GetDirection())
    direction = np.array(picture.GetDirection()).reshape(3, 3)
    step = np.array(first[::-1]) * np.array(picture.GetSpacing())
    where.SetOrigin((np.array(picture.GetOrigin()) + direction @ step).tolist())
    return images.normalise(out, spec)[np.newaxis], where


def to_source(values, where, picture):
    """Values (planes, rows, columns) of a tensor at the voxel centres of its source, interpolated linearly.

    Within half a voxel beyond the tensor's last centre its last value is repeated, farther out it is 0.
    """
    moving = sitk.GetImageFromArray(np.asarray(values, np.float64))
    moving.CopyInformation(where)
    moved = sitk.Resample(moving, picture, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat64)
    return sitk.GetArrayFromImage(moved)
