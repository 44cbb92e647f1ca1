"""Trains the nodule-volume network on volumes that phantom.py draws, and writes 1.0.0/model.onnx and metrics.json.

    python models/nodule-volume/train.py [--cache FOLDER] [--measure]

A small 3-D U-Net (Cicek et al. 2016, arXiv:1606.06650) that works at half the resolution of its input and below, and comes
back to it in one step. The preprocessing is the manifest's, through models/reference, so the network is trained on what
the gateway will feed it. The manifest's threshold is where the volumes of the validation series have the least bias. The
graph is written node by node.
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
import SimpleITK as sitk
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import golden  # noqa: E402
import metrics_regions  # noqa: E402
import phantom  # noqa: E402
from reference import manifests, volumes  # noqa: E402

NAME = "nodule-volume"
# Seeds of the three disjoint series of phantoms; the golden cases use a fourth (cases.py).
TRAIN, VALIDATION, TEST = (101, 360), (202, 60), (303, 200)
EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY = 14, 4, 4e-3, 1e-4
# Channels at a half, a quarter and an eighth of the resolution, and of the step back to all of it.
HALF, QUARTER, EIGHTH, FULL = 8, 16, 24, 4
# name: (stride, channels in, channels out) of each 3 x 3 x 3 convolution; all but the last have normalisation and ReLU.
CONVOLUTIONS = {
    "stem": (2, 1, HALF),
    "half": (1, HALF, HALF),
    "down1": (2, HALF, QUARTER),
    "quarter": (1, QUARTER, QUARTER),
    "down2": (2, QUARTER, EIGHTH),
    "eighth": (1, EIGHTH, EIGHTH),
    "back2": (1, 2 * QUARTER, QUARTER),
    "back1": (1, 2 * HALF, HALF),
    "last": (1, FULL + 1, 1),
}
# name: (channels in, channels out) of each transposed convolution, 2 x 2 x 2 with stride 2.
STEPS_UP = {"up2": (EIGHTH, QUARTER), "up1": (QUARTER, HALF), "up0": (HALF, FULL)}
OPSET = 17


def picture_of(drawn):
    """A phantom as a SimpleITK image."""
    grid = drawn.grid
    picture = sitk.GetImageFromArray(drawn.values.astype(np.float32))
    picture.SetOrigin(grid.origin.tolist())
    picture.SetSpacing([grid.spacing[2], grid.spacing[1], grid.spacing[0]])
    picture.SetDirection(grid.directions[::-1].T.ravel().tolist())
    return picture


def example(task):
    """One phantom as the network's input, float16, and which voxels of the tensor are nodule."""
    seed, index, spec = task
    drawn = phantom.draw(seed, index)
    tensor, where = volumes.tensor(picture_of(drawn), spec)
    size, spacing = where.GetSize()[::-1], where.GetSpacing()[::-1]
    # The manifest wants SPL, which is what ascending axial planes are.
    inside = drawn.inside(phantom.Grid(size, spacing, np.array(where.GetOrigin()), *phantom.AXIAL))
    return tensor[0].astype(np.float16), inside


def series(seed_and_count, spec, cache):
    """All volumes of one series: (count, planes, rows, columns, 1) float16 and (count, planes, rows, columns) bool."""
    seed, count = seed_and_count
    stored = cache / f"nodules-{seed}-{count}.npz" if cache else None
    if stored and stored.exists():
        kept = np.load(stored)
        return kept["x"], kept["y"]
    drawn = [example((seed, index, spec)) for index in range(count)]
    x = np.stack([tensor for tensor, _ in drawn])[..., np.newaxis]
    y = np.stack([inside for _, inside in drawn])
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez(stored, x=x, y=y)
    return x, y


def initial(key):
    """Parameters (He initialisation) and the running mean and variance of each batch normalisation."""
    params, running = {}, {}
    for name, (_, before, out) in CONVOLUTIONS.items():
        key, sub = jax.random.split(key)
        params[name] = {"w": jax.random.normal(sub, (3, 3, 3, before, out)) * np.sqrt(2 / (27 * before))}
        if name == "last":
            # At first nothing is likely.
            params[name] = {"w": params[name]["w"] * 0.1, "b": jnp.full(out, -3.0)}
        else:
            params[name] |= {"gamma": jnp.ones(out), "beta": jnp.zeros(out)}
            running[name] = {"mean": jnp.zeros(out), "var": jnp.ones(out)}
    for name, (before, out) in STEPS_UP.items():
        key, sub = jax.random.split(key)
        params[name] = {"w": jax.random.normal(sub, (before, 2, 2, 2, out)) * np.sqrt(1 / before), "b": jnp.zeros(out)}
    return params, running


def convolve(x, weight, stride):
    """A 3 x 3 x 3 convolution padded by one, as 2-D convolutions over neighbouring planes: XLA's own is slow on a CPU."""
    count, planes, rows, columns, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    three = jnp.concatenate([padded[:, k : k + planes : stride] for k in range(3)], -1)
    flat = weight.transpose(1, 2, 0, 3, 4).reshape(3, 3, 3 * channels, -1)
    out = jax.lax.conv_general_dilated(
        three.reshape(-1, rows, columns, 3 * channels),
        flat,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out.reshape(count, -1, *out.shape[1:])


def step_up(x, layer):
    """A transposed convolution whose stride is its size: every voxel becomes 2 x 2 x 2."""
    wide = jnp.einsum("ndhwc,cijko->ndihjwko", x, layer["w"])
    count, planes, _, rows, _, columns, _, out = wide.shape
    return wide.reshape(count, 2 * planes, 2 * rows, 2 * columns, out) + layer["b"]


def forward(params, running, x, training):
    """Logits (N, planes, rows, columns), and the running statistics moved a little when training."""
    moved = {}

    def layer(name, value):
        value = convolve(value, params[name]["w"], CONVOLUTIONS[name][0])
        if training:
            mean, var = value.mean((0, 1, 2, 3)), value.var((0, 1, 2, 3))
        else:
            mean, var = running[name]["mean"], running[name]["var"]
        moved[name] = {
            "mean": 0.95 * running[name]["mean"] + 0.05 * mean,
            "var": 0.95 * running[name]["var"] + 0.05 * var,
        }
        value = (value - mean) * jax.lax.rsqrt(var + 1e-5)
        return jax.nn.relu(value * params[name]["gamma"] + params[name]["beta"])

    half = layer("half", layer("stem", x))
    quarter = layer("quarter", layer("down1", half))
    eighth = layer("eighth", layer("down2", quarter))
    back = layer("back2", jnp.concatenate([step_up(eighth, params["up2"]), quarter], -1))
    back = layer("back1", jnp.concatenate([step_up(back, params["up1"]), half], -1))
    full = jax.nn.relu(step_up(back, params["up0"]))
    last = convolve(jnp.concatenate([full, x], -1), params["last"]["w"], 1) + params["last"]["b"]
    return last[..., 0], moved


def loss(params, running, x, y):
    """Binary cross-entropy, in which nodule counts ten times, and soft Dice over the batch (Milletari et al. 2016)."""
    logits, moved = forward(params, running, x, True)
    entropy = jnp.maximum(logits, 0) - logits * y + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    p = jax.nn.sigmoid(logits)
    dice = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    return jnp.mean(entropy * (1 + 9 * y)) * 5 + 1 - dice, moved


@jax.jit
def step(params, running, first, second, x, y, rate, count):
    """One step of AdamW."""
    (value, running), gradient = jax.value_and_grad(loss, has_aux=True)(params, running, x, y)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)

    def moved(p, m, v):
        m, v = m / (1 - 0.9**count), v / (1 - 0.999**count)
        return p - rate * (m / (jnp.sqrt(v) + 1e-8) + WEIGHT_DECAY * p)

    return jax.tree.map(moved, params, first, second), running, first, second, value


def fit(train, validation, say):
    """Trains for EPOCHS with a one-cycle rate; returns the parameters and statistics of the last step."""
    x, y = train
    rng = np.random.default_rng(1)
    params, running = initial(jax.random.key(0))
    first = jax.tree.map(jnp.zeros_like, params)
    second = jax.tree.map(jnp.zeros_like, params)
    total, count = EPOCHS * (len(x) // BATCH), 0
    for epoch in range(EPOCHS):
        order, losses = rng.permutation(len(x)), []
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            volume, inside = x[chosen].astype(np.float32), y[chosen].astype(np.float32)
            # A nodule is one in a mirror too.
            for axis in (1, 2, 3):
                if rng.random() < 0.5:
                    volume, inside = np.flip(volume, axis), np.flip(inside, axis)
            volume = np.ascontiguousarray(volume) + np.float32(rng.normal(0, 0.05))
            count += 1
            part = count / total
            rate = PEAK_RATE * (part / 0.1 if part < 0.1 else 0.5 * (1 + np.cos(np.pi * (part - 0.1) / 0.9)))
            params, running, first, second, value = step(
                params, running, first, second, volume, np.ascontiguousarray(inside), rate, count
            )
            losses.append(float(value))
        mask = predict(params, running, validation[0]) >= 0
        dice = 2 * (mask & validation[1]).sum() / (mask.sum() + validation[1].sum())
        say(f"epoch {epoch + 1}/{EPOCHS}: loss {np.mean(losses):.4f}, validation Dice of all voxels {dice:.4f}")
    return params, running


def predict(params, running, x):
    """Logits by jax, for the validation and to check the exported graph against."""
    apply = jax.jit(lambda batch: forward(params, running, batch, False)[0])
    return np.concatenate([np.asarray(apply(x[k : k + 4].astype(np.float32))) for k in range(0, len(x), 4)])


def export(params, running, spec, path):
    """Writes the ONNX graph, with each batch normalisation folded into the convolution before it."""
    nodes, weights = [], []

    def constant(name, array):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def layer(name, value):
        stride, own = CONVOLUTIONS[name][0], params[name]
        weight = np.asarray(own["w"], np.float64)
        if name == "last":
            bias = np.asarray(own["b"])
        else:
            gain = np.asarray(own["gamma"] / jnp.sqrt(running[name]["var"] + 1e-5), np.float64)
            weight = weight * gain
            bias = np.asarray(own["beta"], np.float64) - np.asarray(running[name]["mean"], np.float64) * gain
        inputs = [value, constant(f"{name}.weight", weight.transpose(4, 3, 0, 1, 2)), constant(f"{name}.bias", bias)]
        out = "logits" if name == "last" else f"{name}.linear"
        nodes.append(helper.make_node("Conv", inputs, [out], strides=[stride] * 3, pads=[1] * 6))
        if name != "last":
            nodes.append(helper.make_node("Relu", [out], [name]))
        return name

    def up(name, value):
        weight = np.asarray(params[name]["w"]).transpose(0, 4, 1, 2, 3)
        inputs = [value, constant(f"{name}.weight", weight), constant(f"{name}.bias", params[name]["b"])]
        nodes.append(helper.make_node("ConvTranspose", inputs, [name], kernel_shape=[2] * 3, strides=[2] * 3))
        return name

    def beside(name, *values):
        nodes.append(helper.make_node("Concat", list(values), [name], axis=1))
        return name

    half = layer("half", layer("stem", spec["name"]))
    quarter = layer("quarter", layer("down1", half))
    eighth = layer("eighth", layer("down2", quarter))
    back = layer("back2", beside("both2", up("up2", eighth), quarter))
    back = layer("back1", beside("both1", up("up1", back), half))
    nodes.append(helper.make_node("Relu", [up("up0", back)], ["full"]))
    layer("last", beside("both0", "full", spec["name"]))
    size = [spec["depth"], spec["rows"], spec["columns"]]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info(spec["name"], TensorProto.FLOAT, ["N", 1, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, *size])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="pacs-gateway")
    model.ir_version = 8
    model.doc_string = "Synthetic demonstration on drawn phantoms. Not a medical device."
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def asked(session, manifest, seed_and_count):
    """Each volume of a series, and the probabilities on the grid it was drawn on."""
    seed, count = seed_and_count
    spec, label = manifest["input"][0], manifest["output"]["labels"][0]
    for index in range(count):
        drawn = phantom.draw(seed, index)
        picture = picture_of(drawn)
        tensor, where = volumes.tensor(picture, spec)
        (logits,) = session.run(["logits"], {spec["name"]: tensor[np.newaxis]})
        probability = 1 / (1 + np.exp(-logits[0, label["index"]].astype(np.float64)))
        yield drawn, volumes.to_source(probability, where, picture)


def bias(session, manifest, seed_and_count):
    """For several thresholds the mean error of the volume, ml, over the volumes of a series that have a nodule."""
    thresholds = [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
    errors = []
    for drawn, probability in asked(session, manifest, seed_and_count):
        if drawn.nodules:
            voxel_ml, true_ml = np.prod(drawn.grid.spacing) / 1000, sum(nodule.volume_ml for nodule in drawn.nodules)
            errors.append([(probability >= threshold).sum() * voxel_ml - true_ml for threshold in thresholds])
    return {threshold: round(float(error), 3) for threshold, error in zip(thresholds, np.mean(errors, 0))}


def tested(session, manifest, seed_and_count):
    """What metrics_regions.report needs of each volume of a series."""
    label = manifest["output"]["labels"][0]
    for drawn, probability in asked(session, manifest, seed_and_count):
        places = drawn.grid.places()
        each = [nodule.distance(places) < 0 for nodule in drawn.nodules]
        true_ml = [nodule.volume_ml for nodule in drawn.nodules]
        voxel_ml = float(np.prod(drawn.grid.spacing)) / 1000
        mask = probability >= label["threshold"]
        yield metrics_regions.compared(mask, each, true_ml, voxel_ml, label["min_volume_ml"])


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
    spec = manifest["input"][0]
    if not options.measure:
        train, validation = (series(which, spec, options.cache) for which in (TRAIN, VALIDATION))
        say(f"drew {len(train[0])} + {len(validation[0])} phantoms; {train[1].mean():.5f} of the voxels are nodule")
        params, running = fit(train, validation, say)
        path.parent.mkdir(parents=True, exist_ok=True)
        export(params, running, spec, path)
        golden.seal(NAME)
        few = validation[0][:8].astype(np.float32)
        (logits,) = manifests.session(path).run(
            ["logits"], {spec["name"]: np.ascontiguousarray(few.transpose(0, 4, 1, 2, 3))}
        )
        say(f"onnxruntime and jax differ by at most {np.abs(logits[:, 0] - predict(params, running, few)).max():.1e}")
    session = manifests.session(path)
    say(f"validation: mean error of the volume in ml by threshold {bias(session, manifest, VALIDATION)}")
    report = {"nodule": metrics_regions.report(list(tested(session, manifest, TEST)))}
    (path.parent / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    say(f"{path.stat().st_size} bytes; {json.dumps(report)}")


if __name__ == "__main__":
    main()
