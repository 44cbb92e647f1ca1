"""Trains the lesion-detector network on pictures that phantom.py draws, and writes 1.0.0/model.onnx and metrics.json.

    python models/lesion-detector/train.py [--cache FOLDER] [--measure]

One stage, no anchors (after FCOS, Tian et al. 2019, arXiv:1904.01355): every cell of a grid of 8 pixels says how likely
it lies in the middle of a mass, and how far the four sides of its box are. The preprocessing is the manifest's, through
models/reference, so the network is trained on what the gateway will feed it. The threshold is chosen on the validation
series; the test series is looked at once, at the end. The graph is written node by node.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import golden  # noqa: E402
import metrics_boxes  # noqa: E402
import phantom  # noqa: E402
from reference import images, manifests, outputs  # noqa: E402

NAME = "lesion-detector"
# Seeds of the three disjoint series of phantoms; the golden cases use a fourth (cases.py).
TRAIN, VALIDATION, TEST = (101, 2400), (202, 400), (303, 1000)
EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY = 14, 16, 3e-3, 1e-3
# (kernel, stride, channels) of each convolution; all are followed by batch normalisation and ReLU.
LAYERS = ((5, 2, 8), (3, 2, 16), (3, 1, 16), (3, 2, 32), (3, 1, 32), (3, 1, 32), (3, 1, 32), (3, 1, 32))
STRIDE, SIDE = 8, phantom.SIDE
GRID = SIDE // STRIDE
OPSET = 17
# Most masses of one picture.
MASSES = 3
# Boxes below this probability are left out of the figures.
LEAST = 0.02


def example(task):
    """One phantom as the network's input, float16, and its boxes in pixels of the tensor, padded with zeros."""
    seed, index, spec = task
    drawn = phantom.draw(seed, index)
    values = images.window_of_manifest(drawn.stored.astype(np.float64), spec["window"])
    tensor, place = images.fit(values, spec)
    boxes = np.zeros((MASSES, 4), np.float32)
    boxes[: len(drawn.boxes)] = place.to_tensor(drawn.boxes)
    return images.normalise(tensor, spec).astype(np.float16), boxes


def series(seed_and_count, spec, cache):
    """All pictures of one series: (count, rows, columns, 1) float32 and (count, MASSES, 4) float32."""
    seed, count = seed_and_count
    stored = cache / f"lesions-{seed}-{count}.npz" if cache else None
    if stored and stored.exists():
        kept = np.load(stored)
        return kept["x"].astype(np.float32), kept["boxes"]
    drawn = [example((seed, index, spec)) for index in range(count)]
    x = np.stack([tensor for tensor, _ in drawn])[..., np.newaxis]
    boxes = np.stack([boxes for _, boxes in drawn])
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez(stored, x=x, boxes=boxes)
    return x.astype(np.float32), boxes


def centres():
    """Middle of each cell, (GRID * GRID, 2) as x and y, row by row."""
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) * STRIDE
    y, x = np.meshgrid(middle, middle, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1)


def targets(boxes):
    """Of padded boxes (N, MASSES, 4): per cell 1 in the inner part of a mass, 0 outside of all, -1 between; and the box."""
    where = centres()[None, :, None]
    boxes = boxes[:, None]
    middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    real = half[..., 0] > 0
    away = np.abs(where - middle)
    # A small mass may have no cell within its inner part: the cell that its middle lies in always counts.
    inner = np.all(away <= np.maximum(half * 0.5, STRIDE / 2), -1) & real
    near = np.all(away <= np.maximum(half, STRIDE), -1) & real
    level = np.where(inner.any(-1), 1.0, np.where(near.any(-1), -1.0, 0.0)).astype(np.float32)
    chosen = np.argmax(inner, -1)
    box = np.take_along_axis(np.broadcast_to(boxes, inner.shape + (4,)), chosen[..., None, None], 2)[:, :, 0]
    return level, box.astype(np.float32)


def initial(key):
    """Parameters (He initialisation) and the running mean and variance of each batch normalisation."""
    params, running, channels = [], [], 1
    for kernel, _, out in LAYERS:
        key, sub = jax.random.split(key)
        weight = jax.random.normal(sub, (kernel, kernel, channels, out)) * np.sqrt(2 / (kernel * kernel * channels))
        params.append({"w": weight, "gamma": jnp.ones(out), "beta": jnp.zeros(out)})
        running.append({"mean": jnp.zeros(out), "var": jnp.ones(out)})
        channels = out
    # One score and four distances per cell; at first nothing is likely, and a side is about 12 pixels away.
    bias = jnp.array([-4.0, 0.4, 0.4, 0.4, 0.4])
    params.append({"w": jax.random.normal(key, (1, 1, channels, 5)) * 0.02, "b": bias})
    return params, running


def forward(params, running, x, training):
    """Score logits (N, cells) and boxes (N, cells, 4), and the running statistics moved a little when training."""
    moved = []
    for (kernel, stride, _), layer, seen in zip(LAYERS, params, running):
        pad = kernel // 2
        x = jax.lax.conv_general_dilated(
            x, layer["w"], (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if training else (seen["mean"], seen["var"])
        moved.append({"mean": 0.95 * seen["mean"] + 0.05 * mean, "var": 0.95 * seen["var"] + 0.05 * var})
        x = jax.nn.relu((x - mean) * jax.lax.rsqrt(var + 1e-5) * layer["gamma"] + layer["beta"])
    head = (x.reshape(len(x), GRID * GRID, -1) @ params[-1]["w"][0, 0]) + params[-1]["b"]
    away = jnp.exp(jnp.clip(head[..., 1:], -4, 4)) * STRIDE
    middle = jnp.asarray(centres())
    return head[..., 0], jnp.concatenate([middle - away[..., :2], middle + away[..., 2:]], -1), moved


def loss(params, running, x, level, wanted):
    """Focal loss of the scores (Lin et al. 2017) and the negative logarithm of the boxes' overlap (Yu et al. 2016)."""
    logits, boxes, moved = forward(params, running, x, True)
    positive, counted = level == 1, level >= 0
    p = jax.nn.sigmoid(logits)
    entropy = jnp.maximum(logits, 0) - logits * positive + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    weight = jnp.where(positive, (1 - p) ** 2, 0.5 * p**2)
    many = jnp.maximum(positive.sum(), 1)
    scores = (entropy * weight * counted).sum() / many
    low, high = jnp.maximum(boxes[..., :2], wanted[..., :2]), jnp.minimum(boxes[..., 2:], wanted[..., 2:])
    both = jnp.prod(jnp.maximum(high - low, 0), -1)
    either = jnp.prod(boxes[..., 2:] - boxes[..., :2], -1) + jnp.prod(wanted[..., 2:] - wanted[..., :2], -1) - both
    overlap = (both + 1) / (jnp.where(positive, either, 1) + 1)
    return scores + (-jnp.log(overlap) * positive).sum() / many, moved


@jax.jit
def step(params, running, first, second, batch, rate, count):
    """One step of AdamW."""
    (value, running), gradient = jax.value_and_grad(loss, has_aux=True)(params, running, *batch)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)

    def moved(p, m, v):
        m, v = m / (1 - 0.9**count), v / (1 - 0.999**count)
        return p - rate * (m / (jnp.sqrt(v) + 1e-8) + WEIGHT_DECAY * p)

    return jax.tree.map(moved, params, first, second), running, first, second, value


def varied(x, boxes, rng):
    """A batch mirrored, turned by a quarter, and changed in brightness and contrast: a mass is a mass either way."""
    real = boxes[..., 2:3] > boxes[..., 0:1]
    if rng.random() < 0.5:
        x, boxes = (
            x[:, :, ::-1],
            np.where(real, np.stack([SIDE - boxes[..., 2], boxes[..., 1], SIDE - boxes[..., 0], boxes[..., 3]], -1), 0),
        )
    if rng.random() < 0.5:
        x, boxes = (
            x[:, ::-1],
            np.where(real, np.stack([boxes[..., 0], SIDE - boxes[..., 3], boxes[..., 2], SIDE - boxes[..., 1]], -1), 0),
        )
    if rng.random() < 0.5:
        x, boxes = x.transpose(0, 2, 1, 3), boxes[..., [1, 0, 3, 2]]
    x = x * np.float32(rng.uniform(0.9, 1.1)) + np.float32(rng.normal(0, 0.1))
    return np.ascontiguousarray(x), *targets(boxes)


def fit(train, validation, say):
    """Trains for EPOCHS with a one-cycle rate; returns the parameters and statistics of the last step."""
    x, boxes = train
    rng = np.random.default_rng(1)
    params, running = initial(jax.random.key(0))
    first = jax.tree.map(jnp.zeros_like, params)
    second = jax.tree.map(jnp.zeros_like, params)
    total, count = EPOCHS * (len(x) // BATCH), 0
    for epoch in range(EPOCHS):
        order, losses = rng.permutation(len(x)), []
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            count += 1
            part = count / total
            rate = PEAK_RATE * (part / 0.1 if part < 0.1 else 0.5 * (1 + np.cos(np.pi * (part - 0.1) / 0.9)))
            batch = varied(x[chosen], boxes[chosen], rng)
            params, running, first, second, value = step(params, running, first, second, batch, rate, count)
            losses.append(float(value))
        scores, seen = predict(params, running, validation[0])
        found = metrics_boxes.average_precision(detections(scores, seen), truths(validation[1]), 0.5)
        say(f"epoch {epoch + 1}/{EPOCHS}: loss {np.mean(losses):.4f}, validation AP at 0.5 {found:.4f}")
    return params, running


def predict(params, running, x):
    """Score logits and boxes by jax, for the validation and to check the exported graph against."""
    apply = jax.jit(lambda batch: forward(params, running, batch, False)[:2])
    parts = [apply(x[start : start + 50]) for start in range(0, len(x), 50)]
    return [np.concatenate([np.asarray(part[which]) for part in parts]) for which in (0, 1)]


def detections(logits, boxes):
    """Per picture the boxes that are left, (boxes, 4), and their probabilities, most probable first; in the tensor."""
    found = []
    for scores, picture in zip(1 / (1 + np.exp(-logits.astype(np.float64))), boxes.astype(np.float64)):
        kept = np.flatnonzero(scores >= LEAST)
        kept = kept[outputs.suppress(picture[kept], scores[kept], 0.5)][:20]
        found.append((np.clip(picture[kept], 0, SIDE), scores[kept]))
    return found


def truths(boxes):
    """The real ones of padded boxes."""
    return [picture[picture[:, 2] > picture[:, 0]].astype(np.float64) for picture in boxes]


def export(params, running, spec, path):
    """Writes the ONNX graph, with each batch normalisation folded into the convolution before it."""
    nodes, weights, value = [], [], spec["name"]

    def constant(name, array, kind=np.float32):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, kind), name))
        return name

    for number, ((kernel, stride, _), layer, seen) in enumerate(zip(LAYERS, params, running), 1):
        gain = np.asarray(layer["gamma"] / jnp.sqrt(seen["var"] + 1e-5), np.float64)
        weight = (np.asarray(layer["w"], np.float64) * gain).transpose(3, 2, 0, 1)
        bias = np.asarray(layer["beta"], np.float64) - np.asarray(seen["mean"], np.float64) * gain
        inputs = [value, constant(f"conv{number}.weight", weight), constant(f"conv{number}.bias", bias)]
        nodes.append(helper.make_node("Conv", inputs, [f"conv{number}"], strides=[stride] * 2, pads=[kernel // 2] * 4))
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        value = f"relu{number}"
    head = [
        value,
        constant("head.weight", np.asarray(params[-1]["w"]).transpose(3, 2, 0, 1)),
        constant("head.bias", params[-1]["b"]),
    ]
    nodes += [
        helper.make_node("Conv", head, ["head"]),
        helper.make_node("Reshape", ["head", constant("cells", [0, 5, GRID * GRID], np.int64)], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["cell"], perm=[0, 2, 1]),
        helper.make_node(
            "Split", ["cell", constant("parts", [1, 2, 2], np.int64)], ["scores", "before", "after"], axis=2
        ),
    ]
    for name in ("before", "after"):
        nodes += [
            helper.make_node("Clip", [name, "least", "most"], [f"{name}.bounded"]),
            helper.make_node("Exp", [f"{name}.bounded"], [f"{name}.cells"]),
            helper.make_node("Mul", [f"{name}.cells", "stride"], [f"{name}.pixels"]),
        ]
    constant("least", -4.0), constant("most", 4.0), constant("stride", float(STRIDE))
    constant("centres", centres()[np.newaxis])
    nodes += [
        helper.make_node("Sub", ["centres", "before.pixels"], ["low"]),
        helper.make_node("Add", ["centres", "after.pixels"], ["high"]),
        helper.make_node("Concat", ["low", "high"], ["boxes"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [
            helper.make_tensor_value_info(
                spec["name"], TensorProto.FLOAT, ["N", spec["channels"], spec["rows"], spec["columns"]]
            )
        ],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", GRID * GRID, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", GRID * GRID, 1]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="pacs-gateway")
    model.ir_version = 8
    model.doc_string = "Synthetic demonstration on drawn phantoms. Not a medical device."
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def asked(session, spec, x):
    """Score logits and boxes of all pictures by onnxruntime."""
    pictures = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    parts = [session.run(["scores", "boxes"], {spec["name"]: pictures[k : k + 50]}) for k in range(0, len(x), 50)]
    scores, boxes = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
    return scores[..., 0], boxes


def main():
    """Draws, trains, exports, measures on the held-out series with onnxruntime, seals the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder in which drawn phantoms are kept between runs")
    parser.add_argument("--measure", action="store_true", help="measure the network that is there")
    options = parser.parse_args()
    began = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    manifest, path = manifests.load(NAME)
    spec, threshold = manifest["input"][0], manifest["output"]["labels"][0]["threshold"]
    validation = series(VALIDATION, spec, options.cache)
    if not options.measure:
        train = series(TRAIN, spec, options.cache)
        say(f"drew {len(train[0])} + {len(validation[0])} phantoms")
        params, running = fit(train, validation, say)
        path.parent.mkdir(parents=True, exist_ok=True)
        export(params, running, spec, path)
        golden.seal(NAME)
    session = manifests.session(path)
    logits, boxes = asked(session, spec, validation[0])
    if not options.measure:
        apart = [
            np.abs(one - other).max() for one, other in zip((logits, boxes), predict(params, running, validation[0]))
        ]
        say(f"onnxruntime and jax differ by at most {apart[0]:.1e} and {apart[1]:.1e} pixels")
    chosen = metrics_boxes.threshold_at(detections(logits, boxes), truths(validation[1]), 0.1)
    say(f"validation: at {chosen:.3f} and above 0.1 wrong boxes per picture; the manifest's threshold is {threshold}")
    test = series(TEST, spec, options.cache)
    found = detections(*asked(session, spec, test[0]))
    report = {"mass": metrics_boxes.report(found, truths(test[1]), threshold)}
    (path.parent / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    say(f"{path.stat().st_size} bytes; {json.dumps(report)}")


if __name__ == "__main__":
    main()
