"""Masks and what is measured of them."""

import hashlib

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist


def components(mask):
    """Connected parts of a mask, numbered from 1, and how many; voxels that share a corner are connected."""
    return ndimage.label(mask, np.ones((3,) * mask.ndim, int))


def largest(mask):
    """The part with the most voxels; of equals the one whose first voxel comes first."""
    parts, count = components(mask)
    if not count:
        return mask
    # scipy numbers parts in the order of their first voxels, and argmax takes the first of equals.
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1


# From a pixel's centre to the middles of its edges, in pixels: where the outline at one half of marching squares passes.
EDGES = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])


def diameter_mm(mask, spacing):
    """Greatest Feret diameter in one plane of the largest part of a mask (planes, rows, columns), outer edge to outer edge."""
    best = 0.0
    for plane in largest(mask):
        if plane.any():
            points = (np.argwhere(plane)[:, np.newaxis] + EDGES).reshape(-1, 2) * np.array(spacing)
            best = max(best, float(pdist(points[ConvexHull(points).vertices]).max()))
    return best


def measured(probabilities, threshold, spacing, distance):
    """What expected.json says of one label of a volume (planes, rows, columns) of probabilities at source centres."""
    mask = probabilities >= threshold
    voxels = int(mask.sum())
    return {
        "probability": float(probabilities[mask].mean()) if voxels else float(probabilities.max()),
        "voxels": voxels,
        "volume_ml": voxels * spacing[0] * spacing[1] * distance / 1000,
        "diameter_mm": diameter_mm(mask, spacing),
        "mask_sha256": hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest(),
        # How near the nearest voxel is to the threshold: two correct programs differ by far less.
        "margin": float(np.abs(probabilities - threshold).min()),
    }
