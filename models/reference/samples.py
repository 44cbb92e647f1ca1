"""From the files of a study to samples, and what the graph says of each."""

from dataclasses import dataclass, field

import numpy as np

from . import features, images, volumes
from .manifests import Refused

# Axis of a tensor (channel, planes, rows, columns) that a flip reverses, from the end.
FLIPS = {"horizontal": -1, "vertical": -2, "depth": -3}


@dataclass
class Sample:
    """One tensor, where it came from, and the answers: one per flip of the input, the first of the input as it is."""

    source: dict  # what expected.json says of its origin: a file and perhaps a frame, or a series
    tensor: np.ndarray
    place: images.Place | None = None
    where: object = None  # SimpleITK image of the tensor's voxels
    picture: object = None  # SimpleITK image of the source
    spacing: tuple | None = None  # mm between rows and between columns of the source
    answers: list = field(default_factory=list)  # (flip or None, {tensor: float64 array without the batch})


def of_study(files, spec):
    """Samples of the files of a study: `files` are (name, data set) in the order of their names."""
    if spec["layout"] == "NF":
        return [Sample({"file": name}, features.row(dataset, spec)) for name, dataset in files]
    if "volume" in spec:
        return _series(files, spec)
    made = []
    for name, dataset in files:
        fitted = images.tensors(dataset, spec)
        spacing = tuple(map(float, dataset.PixelSpacing)) if "PixelSpacing" in dataset else None
        for frame, (tensor, place) in enumerate(fitted, 1):
            source = {"file": name} | ({"frame": frame} if len(fitted) > 1 else {})
            made.append(Sample(source, tensor, place, spacing=spacing))
    return made


def _series(files, spec):
    groups = {}
    for name, dataset in files:
        groups.setdefault(str(dataset.SeriesInstanceUID), []).append((name, dataset))
    made = []
    for number, group in enumerate(groups.values(), 1):
        picture, order = volumes.series([dataset for _, dataset in group], spec)
        tensor, where = volumes.tensor(picture, spec)
        source = {"series": number, "planes": [group[which][0] for which in order]}
        made.append(Sample(source, tensor, where=where, picture=picture))
    return made


def run(session, manifest, samples):
    """Asks the graph about every sample, as it is and flipped as the manifest says."""
    if "ensemble" in manifest or len(manifest["input"]) != 1:
        raise Refused("this reference runs one graph with one input")
    spec, output = manifest["input"][0], manifest["output"]
    names = [output[key] for key in ("tensor", "boxes", "scores", "classes") if key in output]
    for sample in samples:
        for flip in [None, *manifest.get("flips", [])]:
            tensor = sample.tensor if flip is None else np.flip(sample.tensor, FLIPS[flip])
            given = session.run(names, {spec["name"]: np.ascontiguousarray(tensor[np.newaxis])})
            sample.answers.append((flip, {name: array[0].astype(np.float64) for name, array in zip(names, given)}))
    return samples
