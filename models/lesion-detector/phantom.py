"""Draws pictures of a mammography quality phantom: a slab with round masses in it, and things that are none.

Nothing here comes from a patient. A slab of wax has a texture, a shading and an edge; half of the slabs hold one to three
masses, which are round or a little oval, of several sizes and contrasts. Fibres, specks and a marker plate are drawn as
things that are no mass.

`draw(seed, index)` depends on its arguments only, so any process may draw any picture.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

BITS_STORED = 12
# The side of the tensor that the longer side of a picture becomes. Sizes below are in pixels of the tensor.
SIDE = 256


@dataclass
class Phantom:
    """One picture: `stored` is (rows, columns) uint16 in 0..4095, brighter where more is in the way (MONOCHROME2).

    `boxes` is (masses, 4) float64: left, top, right, bottom in pixels of the picture, 0 being the outer edge of the first.
    """

    stored: np.ndarray
    boxes: np.ndarray


def draw(seed, index, masses=None, rows=None, columns=None):
    """Draws picture `index` of the series `seed`; the number of masses and the size are drawn where not given."""
    rng = np.random.default_rng([seed, index])
    drawn_masses = int(rng.integers(1, 4)) if rng.random() < 0.5 else 0
    drawn_rows, drawn_columns = (int(side) for side in rng.integers(150, 400, 2))
    if drawn_rows > 2 * drawn_columns or drawn_columns > 2 * drawn_rows:
        drawn_columns = drawn_rows
    masses = drawn_masses if masses is None else masses
    rows, columns = rows or drawn_rows, columns or drawn_columns
    pixel = max(rows, columns) / SIDE
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) + np.float32(0.5)

    value = _slab(rng, x, y, pixel)
    value += _clutter(rng, x, y, pixel)
    boxes = []
    for _ in range(masses):
        mass = _mass(rng, x, y, pixel, boxes)
        if mass is not None:
            value += mass[0]
            boxes.append(mass[1])
    value += rng.normal(0, rng.uniform(12, 30), value.shape)
    value = gaussian_filter(value, rng.uniform(0.3, 0.7))
    stored = np.clip(np.rint(value), 0, 2**BITS_STORED - 1).astype(np.uint16)
    return Phantom(stored, np.array(boxes, np.float64).reshape(-1, 4))


def _smooth(value, width):
    """A soft step: 0 below zero, 1 above, over about `width`."""
    return 0.5 * (1 + np.tanh(value / width))


def _noise(rng, shape, size):
    """Smooth noise of about `size` pixels with a deviation of 1."""
    field = gaussian_filter(rng.normal(0, 1, shape).astype(np.float32), size)
    return field / max(float(field.std()), 1e-6)


def _slab(rng, x, y, pixel):
    """Level, shading and texture of the slab, and the edge of the field, which is dark."""
    rows, columns = x.shape
    value = np.full(x.shape, rng.uniform(1500, 2500), np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    value += rng.uniform(0, 350) * (np.cos(angle) * (x / columns - 0.5) + np.sin(angle) * (y / rows - 0.5))
    for size, strength in ((20, 70), (8, 40), (3, 25)):
        value += rng.uniform(0.4, 1.2) * strength * _noise(rng, x.shape, size * pixel)
    if rng.random() < 0.5:
        border = rng.uniform(4, 12) * pixel
        side = int(rng.integers(4))
        distance = (x, y, columns - x, rows - y)[side]
        value -= 900 * _smooth(border - distance, 1.0 * pixel)
    return value


def _mass(rng, x, y, pixel, others):
    """One mass and its box, clear of the others and inside the picture; none where no place is free."""
    rows, columns = x.shape
    radius = pixel * np.exp(rng.uniform(np.log(5), np.log(22)))
    oval = rng.uniform(0.8, 1.0)
    angle = rng.uniform(0, np.pi)
    long, short = radius, radius * oval
    half_width = np.hypot(long * np.cos(angle), short * np.sin(angle))
    half_height = np.hypot(long * np.sin(angle), short * np.cos(angle))
    strength = rng.uniform(160, 520)
    for _ in range(20):
        cx = rng.uniform(half_width + 2, columns - half_width - 2)
        cy = rng.uniform(half_height + 2, rows - half_height - 2)
        box = (cx - half_width, cy - half_height, cx + half_width, cy + half_height)
        gap = 4 * pixel
        if all(
            box[2] + gap < o[0] or o[2] + gap < box[0] or box[3] + gap < o[1] or o[3] + gap < box[1] for o in others
        ):
            break
    else:
        return None
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    distance = np.sqrt((u / long) ** 2 + (v / short) ** 2)
    # Between a ball, which is thickest in the middle, and a disc; the edge is sharper than either is thick.
    ball = np.sqrt(np.clip(1 - distance**2, 0, 1))
    share = rng.uniform(0.3, 0.9)
    picture = strength * (share + (1 - share) * ball) * _smooth((1 - distance) * radius, 0.8 * pixel)
    return picture.astype(np.float32), box


def _clutter(rng, x, y, pixel):
    """Fibres, groups of specks and a marker plate."""
    rows, columns = x.shape
    total = np.zeros_like(x)
    for _ in range(int(rng.integers(0, 4))):
        angle, reach = rng.uniform(0, np.pi), rng.uniform(15, 50) * pixel
        cx, cy = rng.uniform(0, columns), rng.uniform(0, rows)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        width = rng.uniform(1.0, 2.5) * pixel
        total += rng.uniform(150, 450) * _smooth(width - np.abs(v), 0.5 * pixel) * _smooth(reach - np.abs(u), pixel)
    for _ in range(int(rng.integers(0, 3))):
        cx, cy = rng.uniform(0, columns), rng.uniform(0, rows)
        for _ in range(int(rng.integers(4, 8))):
            sx, sy = cx + rng.normal(0, 8) * pixel, cy + rng.normal(0, 8) * pixel
            speck = (x - sx) ** 2 + (y - sy) ** 2
            total += rng.uniform(300, 700) * np.exp(-speck / (2 * (0.8 * pixel) ** 2))
    if rng.random() < 0.4:
        px, py = rng.uniform(0, columns), rng.uniform(0, rows)
        width, height = rng.uniform(8, 30, 2) * pixel
        plate = np.minimum(width - np.abs(x - px), height - np.abs(y - py))
        total += rng.uniform(200, 700) * _smooth(plate, 0.6 * pixel)
    return total
