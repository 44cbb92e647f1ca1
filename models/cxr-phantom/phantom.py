"""Draws synthetic chest radiographs ("phantoms") with and without two findings.

Nothing here comes from a patient: every picture is a sum of water-equivalent thicknesses (body, lungs, heart,
spine, ribs, vessels) turned into 12-bit detector values. The pictures are good enough to give a small network
something to learn and a gateway something to decode; they are no substitute for radiographs.

`draw(seed, index)` depends on its two arguments only, so any process may draw any picture.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

LABELS = ("opacity", "pneumothorax")
BITS_STORED = 12
# Attenuation of water at the energies of a chest radiograph, per cm; bone counts as 2.2 times its thickness in water.
MU_WATER = 0.19
BONE = 2.2


@dataclass
class Phantom:
    """One picture: `stored` is (rows, columns) uint16 in 0..4095, brighter where more is in the way (MONOCHROME2)."""

    stored: np.ndarray
    window_center: float
    window_width: float
    labels: tuple  # one bool per entry of LABELS


def draw(seed, index, labels=None, rows=None, columns=None):
    """Draws picture `index` of the series `seed`.

    `labels` (two bools) and the size are drawn at random where they are not given.
    """
    rng = np.random.default_rng([seed, index])
    drawn_labels = (bool(rng.random() < 0.4), bool(rng.random() < 0.4))
    drawn_rows = int(rng.integers(176, 257))
    drawn_columns = int(drawn_rows * rng.uniform(0.85, 1.15))
    labels = drawn_labels if labels is None else tuple(labels)
    rows = rows or drawn_rows
    columns = columns or drawn_columns

    x, y = _coordinates(rng, rows, columns)
    thickness, lungs = _thorax(rng, x, y)
    if labels[0]:
        thickness += _opacity(rng, x, y, lungs)
    collapse = [None, None]
    if labels[1]:
        side = int(rng.integers(2))
        collapse[side] = _collapse(rng, x, y, lungs[side])
    for lung, ptx in zip(lungs, collapse):
        thickness += _vessels(rng, x, y, lung, ptx)
        if ptx is not None:
            thickness += _pneumothorax(rng, lung, ptx)
    thickness += _clutter(rng, x, y)
    stored = _detector(rng, np.maximum(thickness, 0.0))
    center, width = _window(rng, stored)
    return Phantom(stored, center, width, labels)


def _coordinates(rng, rows, columns):
    """Anatomical coordinates of each pixel: x to the patient's left, y towards the feet, the thorax within ±1."""
    v, u = np.meshgrid(
        np.linspace(-1, 1, rows, dtype=np.float32), np.linspace(-1, 1, columns, dtype=np.float32), indexing="ij"
    )
    angle = np.deg2rad(rng.normal(0, 4))
    scale = rng.uniform(0.9, 1.12)
    u = (u - rng.normal(0, 0.04)) * scale * rng.uniform(0.95, 1.05)
    v = (v - rng.normal(0, 0.04)) * scale
    x = np.cos(angle) * u - np.sin(angle) * v
    y = np.sin(angle) * u + np.cos(angle) * v
    # A few phantoms lie mirrored (situs or a swapped marker); neither finding depends on the side.
    return (-x if rng.random() < 0.1 else x), y


def _smooth(value, width):
    """A soft step: 0 below zero, 1 above, over about `width`."""
    return 0.5 * (1 + np.tanh(value / width))


def _thorax(rng, x, y):
    """Body, lungs, heart, great vessels, spine, ribs, clavicles: cm of water, and the two lungs for later use."""
    girth = rng.uniform(0.88, 1.02)
    outline = np.abs(x / (girth * (0.93 + 0.07 * y))) ** 3.2
    shoulders = _smooth(y + 0.95 - 0.55 * np.abs(x) ** 2, 0.06)
    neck = _smooth(0.27 - np.abs(x), 0.05)
    body = np.sqrt(np.clip(1 - outline, 0, 1)) * np.maximum(shoulders, neck)
    thickness = rng.uniform(17, 24) * body * (1 + 0.15 * y)

    lungs = []
    base = rng.uniform(0.55, 0.75)
    for side in (-1, 1):
        lung = _lung(rng, x, y, side, base + (0.05 if side > 0 else -0.02))
        thickness -= lung["air"]
        lungs.append(lung)

    heart_x, heart_y = rng.uniform(0.08, 0.16), base - rng.uniform(0.22, 0.3)
    size = rng.uniform(0.85, 1.2)
    heart = ((x - heart_x + 0.25 * (y - heart_y)) / (0.30 * size)) ** 2 + ((y - heart_y) / (0.30 * size)) ** 2
    # The heart displaces lung, so it brings back what the lung took away and no more than its own depth.
    thickness += 5.5 * np.sqrt(np.clip(1 - heart, 0, 1))
    knob = ((x - 0.13) / 0.09) ** 2 + ((y + 0.22) / 0.11) ** 2
    thickness += 3.0 * np.sqrt(np.clip(1 - knob, 0, 1))
    mediastinum = rng.uniform(0.12, 0.17) + 0.03 * y
    thickness += 3.2 * _smooth(mediastinum - np.abs(x), 0.03) * _smooth(base - y + 0.2, 0.1)
    spine = _smooth(0.075 - np.abs(x), 0.015)
    thickness += BONE * spine * (1.0 + 0.35 * np.cos(y * np.pi * 2 / rng.uniform(0.14, 0.18)))
    trachea = _smooth(0.035 - np.abs(x + 0.01), 0.01) * _smooth(-0.25 - y, 0.05)
    thickness -= 1.6 * trachea * body
    thickness += _ribs(rng, x, y) * (body > 0.05)
    return thickness, lungs


def _lung(rng, x, y, side, base):
    """One lung: its shape function (below 1 inside), a soft mask, and the tissue it takes away in cm of water."""
    cx, cy = side * rng.uniform(0.40, 0.45), rng.uniform(-0.12, -0.04)
    half_height = rng.uniform(0.66, 0.74)
    half_width = rng.uniform(0.31, 0.37) * (0.80 + 0.26 * _smooth(y - cy + 0.25, 0.35))
    shape = np.abs((x - cx) / half_width) ** 2.3 + np.abs((y - cy) / half_height) ** 2.3
    dome = base + 0.9 * (x - cx) ** 2 - 0.12
    shape = np.maximum(shape, 1 + (y - dome) * 6)
    depth = np.clip(1 - shape, 0, None) ** 0.35
    mask = _smooth(1 - shape, 0.05)
    aeration = rng.uniform(8.5, 11.5)
    return {"side": side, "cx": cx, "cy": cy, "shape": shape, "mask": mask, "depth": depth, "air": aeration * depth}


def _ribs(rng, x, y):
    """Posterior and anterior ribs and the clavicles; each family is one band function repeated down the body."""
    spacing = rng.uniform(0.135, 0.165)
    r = np.abs(x)
    cage = _smooth(0.86 - r, 0.02) * _smooth(y + 0.8, 0.05) * _smooth(0.8 - y, 0.1)
    total = np.zeros_like(x)
    for strength, bend in ((rng.uniform(0.45, 0.75), (0.15, 0.30, -0.25)), (rng.uniform(0.25, 0.45), (-0.1, -0.55, 0.55))):
        start, slope, curve = bend
        phase = (y - start - slope * r - curve * r * r) / spacing + rng.random()
        number = np.floor(phase).astype(int) % 16
        jitter = rng.normal(0, 0.04, 16).astype(np.float32)[number]
        weight = rng.uniform(0.75, 1.25, 16).astype(np.float32)[number]
        band = _smooth(0.19 - np.abs(phase - np.floor(phase) - 0.5 + jitter), 0.05)
        total += strength * weight * band * cage
    tilt = rng.uniform(0.15, 0.35)
    clavicle = np.abs(y + rng.uniform(0.60, 0.68) + tilt * (r - 0.4) * 0.6)
    total += 0.7 * _smooth(0.032 - clavicle, 0.012) * _smooth(r - 0.08, 0.03) * _smooth(0.72 - r, 0.05)
    return BONE * total


def _vessels(rng, x, y, lung, ptx):
    """Branching vessels from the hilum, thinner outwards; a collapsed lung carries all of them inside its own edge."""
    rows, columns = x.shape
    px = 2.0 / rows
    fields = [np.zeros(x.shape, np.float32) for _ in range(3)]
    hilum = np.array([lung["cx"] * 0.45, lung["cy"] + 0.1])
    for _ in range(int(rng.integers(16, 24))):
        angle = rng.uniform(-np.pi, np.pi)
        position, radius = hilum + rng.normal(0, 0.03, 2), rng.uniform(0.5, 1.0)
        reach = int(rng.uniform(35, 80))
        turn = np.cumsum(rng.normal(0, 0.07, reach))
        steps = 0.012 * np.stack([np.cos(angle + turn), np.sin(angle + turn)], 1)
        path = position + np.cumsum(steps, 0)
        fade = radius * np.linspace(1, 0.15, reach)
        # Anatomical to pixel coordinates without the small rotation: vessels have no fixed place anyway.
        i = ((path[:, 1] + 1) / 2 * rows).astype(int)
        j = ((path[:, 0] + 1) / 2 * columns).astype(int)
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        group = np.clip((2.99 * (1 - fade)).astype(int), 0, 2)
        for level in range(3):
            chosen = inside & (group == level)
            np.add.at(fields[level], (i[chosen], j[chosen]), fade[chosen])
    drawn = sum(
        gaussian_filter(field, sigma / px) * (sigma / px) * 2.2 for field, sigma in zip(fields, (0.016, 0.010, 0.006))
    )
    texture = gaussian_filter(rng.normal(0, 1, x.shape).astype(np.float32), 0.012 / px) * 0.012 / px
    held = lung["mask"] if ptx is None else lung["mask"] * ptx["lung"] * 1.15
    return (drawn * 1.5 + texture * 0.8) * held


def _collapse(rng, x, y, lung):
    """Where the visceral pleura lies when air has got between lung and chest wall (apical, lateral or both)."""
    kind = rng.choice(["apical", "lateral", "both"])
    amount = rng.uniform(0.10, 0.26)
    down = amount if kind != "lateral" else amount * 0.25
    inward = amount if kind != "apical" else amount * 0.3
    half_height, half_width = 0.72 - down / 2, 0.36 - inward / 2
    cx, cy = lung["cx"] - lung["side"] * inward / 2, lung["cy"] + down / 2
    edge = np.abs((x - cx) / half_width) ** 2.2 + np.abs((y - cy) / half_height) ** 2.2
    outward = _smooth((x - cx) * lung["side"] + 0.12, 0.05) + _smooth(cy - 0.25 - y, 0.05)
    free = _smooth(edge - 1, 0.02) * np.clip(outward, 0, 1)
    return {"edge": edge, "lung": 1 - free, "free": free, "outward": np.clip(outward, 0, 1)}


def _pneumothorax(rng, lung, ptx):
    """Air instead of lung outside the pleura, a thin bright pleural line, a slightly denser lung inside."""
    air = -rng.uniform(1.0, 2.2) * lung["depth"] * ptx["free"]
    line = np.exp(-(((ptx["edge"] - 1) / 0.035) ** 2)) * ptx["outward"] * _smooth(0.9 - lung["shape"], 0.05)
    denser = rng.uniform(0.2, 0.6) * lung["depth"] * ptx["lung"]
    return air + rng.uniform(0.35, 0.7) * line + denser


def _opacity(rng, x, y, lungs):
    """One or two patches of consolidation: clusters of soft blobs with a rough texture, inside a lung."""
    total = np.zeros_like(x)
    for _ in range(1 if rng.random() < 0.7 else 2):
        lung = lungs[int(rng.integers(2))]
        size = rng.uniform(0.07, 0.17)
        cx = lung["cx"] + rng.uniform(-0.17, 0.17)
        cy = lung["cy"] + rng.uniform(-0.38, 0.42)
        patch = np.zeros_like(x)
        for _ in range(int(rng.integers(3, 7))):
            bx, by = cx + rng.normal(0, size * 0.6), cy + rng.normal(0, size * 0.6)
            patch += np.exp(-(((x - bx) ** 2 + (y - by) ** 2) / (2 * (size * rng.uniform(0.4, 0.8)) ** 2)))
        rough = gaussian_filter(rng.normal(0, 1, x.shape).astype(np.float32), 0.02 * x.shape[0] / 2)
        rough *= 1 / max(float(rough.std()), 1e-6)
        total += rng.uniform(1.6, 4.5) * np.tanh(patch) * (1 + 0.18 * rough) * lung["mask"]
    return total


def _clutter(rng, x, y):
    """What is on radiographs and means neither finding: breast shadows, a tube, electrodes, a skin fold."""
    total = np.zeros_like(x)
    if rng.random() < 0.4:
        for side in (-1, 1):
            shadow = ((x - side * 0.42) / 0.33) ** 2 + ((y - 0.38) / 0.28) ** 2
            total += rng.uniform(0.8, 2.0) * np.sqrt(np.clip(1 - shadow, 0, 1))
    if rng.random() < 0.25:
        path = 0.12 * np.sin(3 * y + rng.uniform(0, 6)) + rng.uniform(-0.3, 0.3)
        total += 0.9 * _smooth(0.012 - np.abs(x - path), 0.005) * _smooth(rng.uniform(-0.1, 0.4) - y, 0.02)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 4))):
            ex, ey = rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 0.6)
            total += 1.5 * _smooth(0.025 - np.hypot(x - ex, y - ey), 0.006)
    if rng.random() < 0.25:
        # A fold looks like an edge (a step that fades away), not like a pleural line, and vessels cross it.
        distance = (x - rng.choice([-1, 1]) * rng.uniform(0.4, 0.65)) + rng.uniform(-0.3, 0.3) * y
        total += 0.6 * _smooth(distance, 0.008) * np.exp(-np.clip(distance, 0, None) / 0.08)
    return total


def _detector(rng, thickness):
    """Thickness to 12-bit values: scatter, photon noise, a logarithmic detector with its own gain, collimation."""
    px = 2.0 / thickness.shape[0]
    primary = np.exp(-MU_WATER * thickness)
    signal = primary + rng.uniform(0.1, 0.35) * gaussian_filter(primary, 0.15 / px)
    photons = 10 ** rng.uniform(4.3, 5.3)
    signal = signal + rng.normal(0, 1, signal.shape) * np.sqrt(signal / photons)
    density = -np.log(np.maximum(signal, 1e-4))
    density = gaussian_filter(density, rng.uniform(0.3, 0.8))
    value = rng.uniform(80, 250) + density * rng.uniform(620, 880)
    if rng.random() < 0.3:
        border = int(rng.uniform(0.01, 0.05) * thickness.shape[0])
        frame = np.zeros(thickness.shape, bool)
        frame[: border + 1], frame[:, : border + 1], frame[-border - 1 :], frame[:, -border - 1 :] = (True,) * 4
        value = np.where(frame, 3800, value)
    return np.clip(np.rint(value), 0, 2**BITS_STORED - 1).astype(np.uint16)


def _window(rng, stored):
    """The window a modality would write into the header: the middle of the histogram, a little off."""
    rows, columns = stored.shape
    middle = stored[rows // 10 : -rows // 10, columns // 10 : -columns // 10]
    low, high = np.percentile(middle, [1, 99])
    width = (high - low) * rng.uniform(0.95, 1.25)
    center = (high + low) / 2 + rng.normal(0, 0.03) * width
    return float(np.rint(center)), float(max(np.rint(width), 2))
