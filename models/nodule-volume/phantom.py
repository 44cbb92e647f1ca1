"""Draws computed tomography of a small chest phantom: two lungs with vessels, and nodules of a known volume.

Nothing here comes from a patient. The phantom is about 12 cm wide: a body with a layer of fat, a spine, two ellipsoid lungs
with branching tubes in them, and up to three ellipsoid nodules. Values are Hounsfield units; edges are as blurred as the
voxels are large, and noise, level of the lung and sizes vary.

The phantom is a function of the place in the patient (mm, LPS: PS3.3 C.7.6.2.1.1), so it can be drawn on any grid.
`draw(seed, index)` depends on its arguments only, so any process may draw any volume.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))


@dataclass(frozen=True)
class Grid:
    """Where the planes of a series are. Axis k of `size` has direction `directions[k]` and the distance `spacing[k]`."""

    size: tuple  # planes, rows, columns
    spacing: tuple  # mm between planes, rows, columns
    origin: np.ndarray  # place of the first voxel's centre, mm
    row: tuple  # direction in which the column index grows
    column: tuple  # direction in which the row index grows

    @property
    def directions(self):
        """Unit vectors of planes, rows and columns."""
        return np.array([np.cross(self.row, self.column), self.column, self.row], float)

    def places(self):
        """Coordinates of every voxel's centre, three arrays (planes, rows, columns)."""
        index = np.indices(self.size, np.float32) * np.array(self.spacing, np.float32)[:, None, None, None]
        return (
            np.tensordot(self.directions.T.astype(np.float32), index, 1)
            + self.origin.astype(np.float32)[:, None, None, None]
        )


@dataclass
class Nodule:
    """An ellipsoid."""

    centre: np.ndarray
    axes: np.ndarray  # half axes, mm
    turn: np.ndarray  # (3, 3) rotation

    @property
    def volume_ml(self):
        """Its volume."""
        return 4 / 3 * np.pi * float(np.prod(self.axes)) / 1000

    def distance(self, places):
        """About how far outside a place is, mm; negative inside."""
        away = np.stack(places, -1) - self.centre.astype(np.float32)
        scaled = np.linalg.norm(away @ self.turn.astype(np.float32) / self.axes.astype(np.float32), axis=-1)
        return (scaled - 1) * float(self.axes.min())


@dataclass
class Phantom:
    """`values` (planes, rows, columns) int16 in Hounsfield units, `grid` where they are, `nodules` what is in them."""

    values: np.ndarray
    grid: Grid
    nodules: list

    def inside(self, grid=None):
        """Whether the centre of each voxel (of `grid`, else of its own) lies in a nodule."""
        places = (grid or self.grid).places()
        inside = np.zeros(places[0].shape, bool)
        for nodule in self.nodules:
            inside |= nodule.distance(places) < 0
        return inside


def draw(seed, index, nodules=None, grid=None):
    """Draws volume `index` of the series `seed`; the number of nodules and the grid are drawn where not given."""
    rng = np.random.default_rng([seed, index])
    drawn_nodules = int(rng.integers(1, 4)) if rng.random() < 0.75 else 0
    drawn_grid = _grid(rng)
    nodules = drawn_nodules if nodules is None else nodules
    grid = grid or drawn_grid
    x, y, z = grid.places()
    blur = 0.4 * float(np.mean(grid.spacing))

    lungs = [_lung(rng, side) for side in (-1, 1)]
    values = _body(rng, x, y, blur)
    inside = np.zeros(x.shape, np.float32)
    for lung in lungs:
        inside = np.maximum(inside, _smooth(_ellipsoid(lung, x, y, z), blur))
    air = rng.uniform(-900, -800)
    values += (air - values) * inside
    tissue = np.zeros(x.shape, np.float32)
    for lung in lungs:
        _vessels(rng, lung, grid, blur, tissue)
    found = []
    for _ in range(nodules):
        nodule = _nodule(rng, lungs, found)
        found.append(nodule)
        tissue = np.maximum(tissue, _smooth(-nodule.distance((x, y, z)), blur))
    values += (rng.uniform(0, 60) - values) * tissue * inside
    noise = gaussian_filter(rng.normal(0, 1, x.shape).astype(np.float32), (0, 0.6, 0.6))
    values += noise * rng.uniform(8, 25) / noise.std()
    return Phantom(np.clip(np.rint(values), -1024, 3071).astype(np.int16), grid, found)


def _grid(rng):
    """A grid of axial planes around the middle of the phantom."""
    spacing = (rng.uniform(2.0, 3.6), *(rng.uniform(1.2, 1.8),) * 2)
    reach = (rng.uniform(70, 90), rng.uniform(120, 150), rng.uniform(125, 155))
    size = tuple(int(length / distance) for length, distance in zip(reach, spacing))
    middle = rng.normal(0, 4, 3)
    return centred(size, spacing, middle)


def centred(size, spacing, middle=(0.0, 0.0, 0.0), axes=AXIAL):
    """The grid of a size and spacing (planes, rows, columns) whose middle is at a place."""
    grid = Grid(tuple(size), tuple(spacing), np.zeros(3), *axes)
    extent = (np.array(size) - 1) * np.array(spacing)
    origin = np.asarray(middle, float) - grid.directions.T @ extent / 2
    # What a file can say: places are written with three decimals.
    return Grid(grid.size, grid.spacing, np.round(origin, 3), *axes)


def _smooth(value, width):
    """A soft step: 0 below zero, 1 above, over about `width` mm."""
    return (0.5 * (1 + np.tanh(value / width))).astype(np.float32)


def _body(rng, x, y, blur):
    """Air, fat, soft tissue and spine."""
    across, deep = rng.uniform(58, 66), rng.uniform(44, 52)
    edge = (1 - np.hypot(x / across, y / deep)) * deep
    values = np.full(x.shape, -1000, np.float32)
    values += _smooth(edge, blur) * rng.uniform(880, 920)
    values += _smooth(edge - rng.uniform(3, 7), blur) * rng.uniform(110, 150)
    spine = rng.uniform(7, 10) - np.hypot(x, y - rng.uniform(28, 34))
    return values + _smooth(spine, blur) * rng.uniform(250, 500)


def _lung(rng, side):
    """Middle and half axes of one lung; the left of the patient is +x."""
    centre = np.array([side * rng.uniform(26, 30), rng.uniform(-6, 2), rng.uniform(-5, 5)])
    return centre, np.array([rng.uniform(18, 22), rng.uniform(26, 32), rng.uniform(34, 44)])


def _ellipsoid(lung, x, y, z):
    """How far inside a lung a place is, mm; about right near its edge."""
    (cx, cy, cz), (a, b, c) = lung
    return (1 - np.sqrt(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2)) * float(min(a, b, c))


def _vessels(rng, lung, grid, blur, tissue):
    """Tubes from the hilum outwards that bend and get thinner, drawn into `tissue`."""
    centre, axes = lung
    hilum = centre - np.array([np.sign(centre[0]) * axes[0] * 0.8, 0, 0])
    for _ in range(int(rng.integers(8, 14))):
        goal = centre + axes * _direction(rng) * rng.uniform(0.6, 0.95)
        start = hilum + rng.normal(0, 3, 3)
        bend = rng.normal(0, 5, 3)
        radius = rng.uniform(1.2, 2.8)
        steps = np.linspace(0, 1, 6)
        path = start + np.outer(steps, goal - start) + np.outer(np.sin(np.pi * steps), bend)
        for part in range(len(path) - 1):
            _tube(grid, path[part], path[part + 1], radius * (1 - 0.13 * part), blur, tissue)


def _tube(grid, one, other, radius, blur, tissue):
    """A straight tube with round ends, drawn where it can be seen only."""
    ends = (np.array([one, other]) - grid.origin) @ grid.directions.T / np.array(grid.spacing)
    reach = (radius + 4 * blur) / np.array(grid.spacing)
    low = np.maximum(np.floor(ends.min(0) - reach).astype(int), 0)
    high = np.minimum(np.ceil(ends.max(0) + reach).astype(int) + 1, grid.size)
    if np.any(low >= high):
        return
    index = np.indices(tuple(high - low), np.float32) + low.astype(np.float32)[:, None, None, None]
    away = np.moveaxis(index, 0, -1) * np.array(grid.spacing, np.float32)
    along = ((other - one) @ grid.directions.T).astype(np.float32)
    start = ((one - grid.origin) @ grid.directions.T).astype(np.float32)
    away -= start
    part = np.clip(away @ along / max(float(along @ along), 1e-6), 0, 1)
    distance = np.linalg.norm(away - part[..., None] * along, axis=-1)
    where = tuple(slice(a, b) for a, b in zip(low, high))
    tissue[where] = np.maximum(tissue[where], _smooth(radius - distance, blur))


def _direction(rng):
    """A random direction."""
    way = rng.normal(0, 1, 3)
    return way / np.linalg.norm(way)


def _nodule(rng, lungs, others):
    """One nodule within a lung, clear of the others."""
    axes = np.exp(rng.uniform(np.log(2.8), np.log(8.5))) * rng.uniform(0.8, 1.2, 3)
    turn, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
    for _ in range(100):
        centre, size = lungs[int(rng.integers(2))]
        place = centre + (size - axes.max()) * _direction(rng) * rng.random() ** (1 / 3) * 0.95
        if all(np.linalg.norm(place - other.centre) > axes.max() + other.axes.max() + 5 for other in others):
            break
    return Nodule(place, axes, turn)
