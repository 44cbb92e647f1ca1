"""Checks of the package `reference` against what others say, or what geometry says.

python -m unittest discover models
"""

import json
import unittest
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from onnx import TensorProto, helper, numpy_helper
from reference import answers, images, manifests, outputs, regions, samples, volumes

VOLUMES = Path(__file__).resolve().parent.parent / "tests/fixtures/volumes"
SPEC = {"rows": 64, "columns": 80, "fit": "letterbox", "interpolation": "bilinear-antialias"}
LABELS = [{"index": 0, "label": "one", "threshold": 0.5}, {"index": 1, "label": "other", "threshold": 0.6}]
DETECTION = {
    "boxes": "b",
    "scores": "s",
    "activation": "sigmoid",
    "nms": {"iou": 0.5},
    "max_boxes": 20,
    "labels": LABELS,
}


def sample(answer, flip=None, **keys):
    """A sample with one answer."""
    return samples.Sample({"file": "1.dcm"}, None, answers=[(flip, answer)], **keys)


class Images(unittest.TestCase):
    def test_the_tensor_lies_where_its_place_says(self):
        """A picture whose values are its own coordinates has, in the tensor, the coordinates that the place gives."""
        for fit in ("stretch", "letterbox", "crop"):
            for rows, columns in ((100, 60), (61, 133), (300, 500), (257, 255)):
                y, x = np.mgrid[0:rows, 0:columns] + 0.5
                across, place = images.fit(x, SPEC | {"fit": fit})
                down, _ = images.fit(y, SPEC | {"fit": fit})
                for axis, found, most in ((0, across[32], columns), (1, down[:, 40], rows)):
                    wanted = place.offset[axis] + place.scale[axis] * (np.arange(len(found)) + 0.5)
                    # At the edges and beyond them interpolation has one side only.
                    inside = (wanted > 3 * place.scale[axis]) & (wanted < most - 3 * place.scale[axis])
                    off = np.abs(found - wanted)[inside].max()
                    self.assertLess(off, 0.13 * place.scale[axis], (fit, rows, columns))


class Boxes(unittest.TestCase):
    def setUp(self):
        rng = np.random.default_rng(0)
        self.boxes = rng.uniform(0, 40, (50, 4))
        self.boxes[:, 2:] = self.boxes[:, :2] + rng.uniform(4, 20, (50, 2))
        self.scores = rng.normal(0, 2, (50, 2))
        self.place = images.fit(np.zeros((200, 160)), SPEC)[1]

    def found(self, form, coordinates, flip):
        """The same boxes, written another way."""
        x0, y0, x1, y1 = self.boxes.T
        if flip == "horizontal":
            x0, x1 = SPEC["columns"] - x1, SPEC["columns"] - x0
        if flip == "vertical":
            y0, y1 = SPEC["rows"] - y1, SPEC["rows"] - y0
        written = {
            "xyxy": (x0, y0, x1, y1),
            "xywh": (x0, y0, x1 - x0, y1 - y0),
            "cxcywh": ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0),
        }[form]
        side = (SPEC["columns"], SPEC["rows"]) * 2 if coordinates == "normalized" else (1, 1, 1, 1)
        answer = {"b": np.stack(written, 1) / side, "s": self.scores}
        manifest = {"output": DETECTION | {"format": form, "coordinates": coordinates}, "input": [SPEC]}
        return answers.detection(manifest, [sample(answer, flip, place=self.place)])

    def test_formats_coordinates_and_flips_say_the_same(self):
        wanted = self.found("xyxy", "pixels", None)
        self.assertGreater(len(wanted["boxes"]), 10)
        for form in ("xyxy", "xywh", "cxcywh"):
            for coordinates in ("pixels", "normalized"):
                for flip in (None, "horizontal", "vertical"):
                    found = self.found(form, coordinates, flip)
                    self.assertEqual(found["probabilities"], wanted["probabilities"])
                    self.assertEqual(
                        [one["label"] for one in found["boxes"]], [one["label"] for one in wanted["boxes"]]
                    )
                    edges = [np.array([one["box"] for one in these["boxes"]]) for these in (found, wanted)]
                    self.assertLess(np.abs(edges[0] - edges[1]).max(), 2e-4)

    def test_suppression_is_that_of_onnxruntime(self):
        shapes = {"boxes": [1, "n", 4], "scores": [1, 1, "n"], "iou": [1]}
        graph = helper.make_graph(
            [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"])],
            "suppression",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
            [helper.make_tensor_value_info("kept", TensorProto.INT64, ["k", 3])],
            [numpy_helper.from_array(np.array([10_000]), "most")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        session = manifests.session(model.SerializeToString())
        rng = np.random.default_rng(1)
        for _ in range(300):
            boxes = rng.uniform(0, 60, (int(rng.integers(1, 200)), 4)).astype(np.float32)
            boxes[:, 2:] = boxes[:, :2] + rng.uniform(1, 30, (len(boxes), 2))
            scores, iou = rng.random(len(boxes)).astype(np.float32), np.float32(rng.choice([0.3, 0.5, 0.7]))
            given = {"boxes": boxes[None, :, [1, 0, 3, 2]], "scores": scores[None, None], "iou": np.array([iou])}
            (kept,) = session.run(None, given)
            found = outputs.suppress(boxes.astype(float), scores.astype(float), float(iou))
            self.assertEqual(kept[:, 2].tolist(), found.tolist())


class Numbers(unittest.TestCase):
    def test_aggregates(self):
        values = [0.1, 0.9, 0.5]
        for output, wanted in (
            ({"aggregate": "max"}, 0.9),
            ({"aggregate": "mean"}, 0.5),
            ({"aggregate": "mean-top-k", "top_k": 2}, 0.7),
            ({"aggregate": "mean-top-k", "top_k": 5}, 0.5),
            ({"aggregate": "any", "at_least": 2}, 0.5),
        ):
            self.assertAlmostEqual(outputs.combine(values, output), wanted)
        with self.assertRaises(manifests.Refused):
            outputs.combine(values, {"aggregate": "any", "at_least": 4})

    def test_flips_of_a_quantity_are_averaged_before_the_aggregate(self):
        label = {"index": 0, "label": "age", "range": [0, 100], "threshold": 5.0}
        manifest = {"output": {"tensor": "t", "aggregate": "max", "labels": [label]}}
        two = [sample({"t": np.array([value])}) for value in (1.0, 4.0)]
        for one in two:
            one.answers.append(("horizontal", {"t": one.answers[0][1]["t"] + 3}))
        found = answers.regression(manifest, two)
        self.assertEqual((found["outcome"], found["quantities"]), ("finding", {"age": 5.5}))


class Regions(unittest.TestCase):
    def test_a_disc_has_its_area_and_diameter(self):
        place = images.fit(np.zeros((200, 160)), SPEC)[1]
        y, x = np.mgrid[0:64, 0:80] + 0.5
        away = np.hypot(place.offset[0] + place.scale[0] * x - 70, place.offset[1] + place.scale[1] * y - 90)
        disc = np.clip(0.5 + (30 - away) / 6, 0, 1)[np.newaxis]
        label = {"index": 0, "label": "disc", "threshold": 0.5, "min_area_mm2": 700.0}
        manifest = {"output": {"tensor": "t", "activation": "none", "labels": [label]}}
        one = sample({"t": disc}, place=place, spacing=(0.5, 0.5))
        one.answers.append(("horizontal", {"t": disc[..., ::-1]}))
        found = answers.segmentation(manifest, [one])
        self.assertEqual(found["outcome"], "finding")
        self.assertLess(abs(found["regions"]["disc"]["area_mm2"] - np.pi * 15**2), 2.0)
        self.assertLess(abs(found["regions"]["disc"]["diameter_mm"] - 30), 0.6)

    def test_diameters_are_those_of_scikit_image(self):
        stairs = np.array([[[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]])
        # find_contours at 0.5 and the largest of scipy's pdist.
        self.assertAlmostEqual(regions.diameter_mm(stairs, (1, 1)), 4.472136, 6)
        self.assertAlmostEqual(regions.diameter_mm(stairs, (3, 1)), 9.486833, 6)
        self.assertAlmostEqual(regions.diameter_mm(np.ones((1, 1, 1)), (2, 3)), 3.0, 6)


class Volumes(unittest.TestCase):
    def test_tensors_are_those_of_gdcm_and_simpleitk(self):
        """scripts/golden_volumes.py has GDCM read and order the same series."""
        compared = 0
        for case in json.loads((VOLUMES / "manifest.json").read_text())["cases"]:
            if len(case.get("tensors", [])) != 1:
                continue
            files = [pydicom.dcmread(path) for path in sorted((VOLUMES / case["folder"]).glob("*.dcm"))]
            if any("ImageOrientationPatient" not in file for file in files):
                continue
            try:
                found, _ = volumes.tensor(volumes.series(files, case["input"])[0], case["input"])
            except manifests.Refused:
                continue
            wanted = np.fromfile(VOLUMES / case["tensors"][0]["file"], "<f4").reshape(found.shape)
            self.assertLess(np.abs(found - wanted).max(), 1e-6, case["name"])
            compared += 1
        self.assertGreaterEqual(compared, 15)

    def test_places_come_back(self):
        """A tensor whose values are its places in the patient has, on the source's grid, the source's places."""
        turned = [np.cos(0.2), -np.sin(0.2), 0, np.sin(0.2), np.cos(0.2), 0, 0, 0, 1]
        for direction in (
            [1, 0, 0, 0, 1, 0, 0, 0, 1],
            [1, 0, 0, 0, 0, 1, 0, -1, 0],
            [-1, 0, 0, 0, 1, 0, 0, 0, -1],
            turned,
        ):
            picture = sitk.Image([40, 36, 20], sitk.sitkFloat32)
            picture.SetDirection([float(cosine) for cosine in direction])
            picture.SetSpacing([1.7, 1.3, 3.1])
            picture.SetOrigin([5.0, -3.0, 2.0])
            for orientation in ("SPL", "RAS", "IPR"):
                volume = {
                    "fit": "crop-pad",
                    "orientation": orientation,
                    "spacing_mm": [2.5, 1.5, 1.2],
                    "interpolation": "linear",
                }
                spec = {
                    "layout": "NCDHW",
                    "dtype": "float32",
                    "depth": 100,
                    "rows": 100,
                    "columns": 100,
                    "volume": volume,
                }
                _, where = volumes.tensor(picture, spec)
                back = volumes.to_source(mixed(where), where, picture)
                self.assertLess(np.abs(back - mixed(picture)).max(), 1e-9, (direction, orientation))


def mixed(image):
    """One number of each voxel's place."""
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    index = np.indices(image.GetSize()[::-1])[::-1]
    x, y, z = np.tensordot(direction, index, 1) + np.array(image.GetOrigin())[:, None, None, None]
    return x + 2 * y - 0.5 * z


if __name__ == "__main__":
    unittest.main()
