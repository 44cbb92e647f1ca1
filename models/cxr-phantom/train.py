"""Trains the cxr-phantom network on pictures that phantom.py draws, and writes 1.0.0/model.onnx and metrics.json.

    python models/cxr-phantom/train.py [--cache FOLDER]

Runs on two CPU cores in some minutes. The preprocessing is the manifest's, through models/reference, so the network
is trained on what the gateway will feed it. The graph is written node by node: what is in the file is what is below.
"""

import argparse
import json
import sys
import time
from multiprocessing import Pool
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import golden  # noqa: E402
import metrics  # noqa: E402
import phantom  # noqa: E402
from reference import images, manifests  # noqa: E402

# Seeds of the three disjoint series of phantoms; the golden cases use a fourth (cases.py).
TRAIN, VALIDATION, TEST = (101, 6000), (202, 600), (303, 2000)
EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY = 16, 32, 3e-3, 1e-3
# (kernel, stride, channels) of each convolution; all are followed by batch normalisation and ReLU.
LAYERS = ((5, 2, 12), (3, 2, 24), (3, 1, 24), (3, 2, 32), (3, 1, 32), (3, 2, 48), (3, 1, 48))
OPSET = 17


def example(task):
    """One phantom as the network's input (rows, columns) float16, and its labels."""
    seed, index, spec = task
    drawn = phantom.draw(seed, index)
    values = images.window_linear(drawn.stored, drawn.window_center, drawn.window_width)
    tensor = images.normalise(images.fit(values, spec)[0], spec)
    return tensor.astype(np.float16), drawn.labels


def series(pool, seed_and_count, spec, cache):
    """All pictures of one series: (count, rows, columns, 1) float32 and (count, labels) float32."""
    seed, count = seed_and_count
    stored = cache / f"phantoms-{seed}-{count}.npz" if cache else None
    if stored and stored.exists():
        kept = np.load(stored)
        return kept["x"].astype(np.float32), kept["y"]
    drawn = pool.map(example, [(seed, index, spec) for index in range(count)], chunksize=50)
    x = np.stack([tensor for tensor, _ in drawn])[..., np.newaxis]
    y = np.array([labels for _, labels in drawn], np.float32)
    if stored:
        np.savez(stored, x=x, y=y)
    return x.astype(np.float32), y


def initial(key):
    """Parameters (He initialisation) and the running mean and variance of each batch normalisation."""
    params, running, channels = [], [], 1
    for kernel, _, out in LAYERS:
        key, sub = jax.random.split(key)
        fan_in = kernel * kernel * channels
        weight = jax.random.normal(sub, (kernel, kernel, channels, out)) * np.sqrt(2 / fan_in)
        params.append({"w": weight, "gamma": jnp.ones(out), "beta": jnp.zeros(out)})
        running.append({"mean": jnp.zeros(out), "var": jnp.ones(out)})
        channels = out
    shape = (2 * channels, len(phantom.LABELS))
    params.append({"w": jax.random.normal(key, shape) * np.sqrt(1 / shape[0]), "b": jnp.zeros(shape[1])})
    return params, running


def forward(params, running, x, training):
    """Logits (batch, labels), and the running statistics moved a little when training."""
    moved = []
    for (kernel, stride, _), layer, seen in zip(LAYERS, params, running):
        pad = kernel // 2
        x = jax.lax.conv_general_dilated(
            x, layer["w"], (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if training else (seen["mean"], seen["var"])
        moved.append({"mean": 0.95 * seen["mean"] + 0.05 * mean, "var": 0.95 * seen["var"] + 0.05 * var})
        x = jax.nn.relu((x - mean) * jax.lax.rsqrt(var + 1e-5) * layer["gamma"] + layer["beta"])
    pooled = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], 1)
    return pooled @ params[-1]["w"] + params[-1]["b"], moved


def loss(params, running, x, y):
    """Binary cross-entropy over the labels."""
    logits, moved = forward(params, running, x, True)
    return jnp.mean(jnp.maximum(logits, 0) - logits * y + jnp.log1p(jnp.exp(-jnp.abs(logits)))), moved


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
            batch = x[chosen]
            # Neither finding depends on the side, so half of the batches are mirrored.
            batch = batch[:, :, ::-1] if rng.random() < 0.5 else batch
            # The exposure and the window vary from site to site: jitter contrast and brightness.
            batch = batch * np.float32(rng.uniform(0.9, 1.1)) + np.float32(rng.normal(0, 0.1))
            count += 1
            part = count / total
            rate = PEAK_RATE * (part / 0.1 if part < 0.1 else 0.5 * (1 + np.cos(np.pi * (part - 0.1) / 0.9)))
            params, running, first, second, value = step(params, running, first, second, batch, y[chosen], rate, count)
            losses.append(value)
        scores = predict(params, running, validation[0])
        aucs = [metrics.auc(scores[:, k], validation[1][:, k] > 0.5) for k in range(len(phantom.LABELS))]
        say(f"epoch {epoch + 1}/{EPOCHS}: loss {np.mean(losses):.4f}, validation AUC {np.round(aucs, 4).tolist()}")
    return params, running


def predict(params, running, x):
    """Logits of many pictures."""
    apply = jax.jit(lambda batch: forward(params, running, batch, False)[0])
    return np.concatenate([np.asarray(apply(x[start : start + 100])) for start in range(0, len(x), 100)])


def export(params, running, spec, path):
    """Writes the ONNX graph, with each batch normalisation folded into the convolution before it."""
    nodes, weights, value = [], [], spec["name"]

    def constant(name, array):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    for number, ((kernel, stride, _), layer, seen) in enumerate(zip(LAYERS, params, running), 1):
        gain = np.asarray(layer["gamma"] / jnp.sqrt(seen["var"] + 1e-5), np.float64)
        weight = (np.asarray(layer["w"], np.float64) * gain).transpose(3, 2, 0, 1)
        bias = np.asarray(layer["beta"], np.float64) - np.asarray(seen["mean"], np.float64) * gain
        inputs = [value, constant(f"conv{number}.weight", weight), constant(f"conv{number}.bias", bias)]
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", inputs, [f"conv{number}"], strides=[stride] * 2, pads=pads))
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        value = f"relu{number}"
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["average"]),
        helper.make_node("GlobalMaxPool", [value], ["maximum"]),
        helper.make_node("Concat", ["average", "maximum"], ["pooled"], axis=1),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node(
            "Gemm",
            ["flat", constant("head.weight", params[-1]["w"]), constant("head.bias", params[-1]["b"])],
            ["logits"],
        ),
    ]
    shape = ["N", spec["channels"], spec["rows"], spec["columns"]]
    graph = helper.make_graph(
        nodes,
        "cxr-phantom",
        [helper.make_tensor_value_info(spec["name"], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(phantom.LABELS)])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="pacs-gateway")
    model.ir_version = 8
    model.doc_string = "Synthetic demonstration on drawn phantoms. Not a medical device."
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def main():
    """Draws, trains, exports, measures on the held-out series with onnxruntime, seals the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="folder in which drawn phantoms are kept between runs")
    cache = parser.parse_args().cache
    began = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    manifest, path = manifests.load("cxr-phantom")
    spec = manifest["input"][0]
    with Pool(2) as pool:
        train, validation, test = (series(pool, which, spec, cache) for which in (TRAIN, VALIDATION, TEST))
    say(f"drew {len(train[0])} + {len(validation[0])} + {len(test[0])} phantoms")
    params, running = fit(train, validation, say)
    path.parent.mkdir(parents=True, exist_ok=True)
    export(params, running, spec, path)

    session = manifests.session(path)
    pictures = np.ascontiguousarray(test[0].transpose(0, 3, 1, 2))
    logits = np.concatenate(
        [session.run(["logits"], {spec["name"]: pictures[start : start + 50]})[0] for start in range(0, len(pictures), 50)]
    )
    say(f"onnxruntime and jax differ by at most {np.abs(logits - predict(params, running, test[0])).max():.1e}")
    report = {
        label["label"]: metrics.binary(
            1 / (1 + np.exp(-logits[:, label["index"]].astype(np.float64))),
            test[1][:, label["index"]] > 0.5,
            label["threshold"],
        )
        for label in manifest["output"]["labels"]
    }
    (path.parent / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    golden.seal("cxr-phantom")
    say(f"{path.stat().st_size} bytes; {json.dumps(report)}")


if __name__ == "__main__":
    main()
