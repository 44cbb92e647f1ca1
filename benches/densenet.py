#!/usr/bin/env python3
"""Writes a model of the size of DenseNet-121 with random weights, to measure with (make bench).

    benches/densenet.py FOLDER [--classes 14]

FOLDER/densenet-121/model.toml and FOLDER/densenet-121/1.0.0/model.onnx. The graph is that of torchvision's `densenet121`
(Huang et al. 2017, arXiv:1608.06993): growth 32, blocks of 6, 12, 24 and 16 layers, bottlenecks of 128, batch normalisation
before every convolution but the first. Its weights come from a seed and mean nothing, and so do its answers; they are drawn so
that values stay of ordinary size on the way. The batch is of any size.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS, GROWTH, BOTTLENECK, FIRST = (6, 12, 24, 16), 32, 128, 64
SIDE, OPSET, SEED = 224, 17, 121
# What torchvision's densenet121 has without its classifier: sum(p.numel() for p in model.features.parameters()).
TORCHVISION_FEATURES = 6_953_856

MANIFEST = """\
# Made by benches/densenet.py: random weights, for measurements only.
name = "densenet-121"
version = "1.0.0"
sha256 = "{sha256}"
title = "A network of the size of DenseNet-121 with random weights"
intended_use = "Measurements of the gateway only: the weights are random. Not a medical device; never for patients."
licence = "Apache-2.0 OR MIT"
device_uid = "2.25.164913846237021518902266403174895033817"

[applies_to]
level = "instance"
modality = ["DX", "CR"]
body_part = ["CHEST"]
view = ["PA", "AP"]

[[input]]
name = "image"
layout = "NCHW"
dtype = "float32"
rows = {side}
columns = {side}
channels = 3
value = "presentation"
fit = "stretch"
interpolation = "bilinear-antialias"
scale = 1.0
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[output]
kind = "classification"
tensor = "logits"
activation = "sigmoid"
aggregate = "max"
{labels}
[batching]
max_batch = 16
max_delay = "10ms"
"""

LABEL = """
[[output.labels]]
index = {index}
label = "class-{index:02}"
code = {{ scheme = "99PGWDEMO", value = "class-{index:02}", meaning = "Class {index} of a random network" }}
threshold = 0.5
priority = "routine"
"""


class Graph:
    """A graph under construction: nodes, weights, and how many of the weights a training would learn."""

    def __init__(self):
        self.rng = np.random.default_rng(SEED)
        self.nodes, self.weights, self.learned = [], [], 0

    def constant(self, name, array, learned=True):
        """Adds a weight; returns its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        self.learned += array.size if learned else 0
        return name

    def node(self, kind, name, inputs, **attributes):
        """Adds a node with one output of the same name; returns it."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def conv(self, name, value, before, out, kernel, stride=1):
        """A convolution without bias; weights after He, which keep the size of what ReLU gives."""
        shape = (out, before, kernel, kernel)
        weight = self.rng.normal(0, np.sqrt(2 / (before * kernel * kernel)), shape)
        inputs = [value, self.constant(f"{name}.weight", weight)]
        return self.node("Conv", name, inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)

    def norm_relu(self, name, value, channels):
        """Batch normalisation, as at inference, and ReLU."""
        inputs = [
            value,
            self.constant(f"{name}.weight", self.rng.uniform(0.8, 1.2, channels)),
            self.constant(f"{name}.bias", self.rng.normal(0, 0.1, channels)),
            self.constant(f"{name}.running_mean", self.rng.normal(0, 0.1, channels), learned=False),
            self.constant(f"{name}.running_var", self.rng.uniform(0.8, 1.2, channels), learned=False),
        ]
        return self.node("Relu", f"{name}.relu", [self.node("BatchNormalization", name, inputs, epsilon=1e-5)])


def densenet(classes):
    """The model, and how many weights of it would be learned."""
    graph = Graph()
    value = graph.conv("conv0", "image", 3, FIRST, 7, 2)
    value = graph.norm_relu("norm0", value, FIRST)
    value = graph.node("MaxPool", "pool0", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = FIRST
    for number, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            name = f"denseblock{number}.denselayer{layer}"
            new = graph.norm_relu(f"{name}.norm1", value, channels)
            new = graph.conv(f"{name}.conv1", new, channels, BOTTLENECK, 1)
            new = graph.norm_relu(f"{name}.norm2", new, BOTTLENECK)
            new = graph.conv(f"{name}.conv2", new, BOTTLENECK, GROWTH, 3)
            value = graph.node("Concat", f"{name}.concat", [value, new], axis=1)
            channels += GROWTH
        if number < len(BLOCKS):
            value = graph.norm_relu(f"transition{number}.norm", value, channels)
            channels //= 2
            value = graph.conv(f"transition{number}.conv", value, 2 * channels, channels, 1)
            value = graph.node("AveragePool", f"transition{number}.pool", [value], kernel_shape=[2, 2], strides=[2, 2])
    value = graph.norm_relu("norm5", value, channels)
    value = graph.node("Flatten", "flat", [graph.node("GlobalAveragePool", "average", [value])])
    features = graph.learned
    weight = graph.constant("classifier.weight", graph.rng.normal(0, np.sqrt(1 / channels), (classes, channels)))
    bias = graph.constant("classifier.bias", np.zeros(classes))
    graph.node("Gemm", "logits", [value, weight, bias], transB=1)
    if features != TORCHVISION_FEATURES:
        raise SystemExit(
            f"{features} weights before the classifier; torchvision's densenet121 has {TORCHVISION_FEATURES}"
        )
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "densenet-121",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="benches/densenet.py",
    )
    model.ir_version = 8
    model.doc_string = "Random weights, for measurements only. Not a medical device."
    onnx.checker.check_model(model, full_check=True)
    return model, graph.learned


def main():
    """Writes the package and says how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of models (models.dir)")
    parser.add_argument("--classes", type=int, default=14)
    options = parser.parse_args()
    package = options.folder / "densenet-121"
    (package / "1.0.0").mkdir(parents=True, exist_ok=True)
    model, learned = densenet(options.classes)
    data = model.SerializeToString(deterministic=True)
    (package / "1.0.0" / "model.onnx").write_bytes(data)
    labels = "".join(LABEL.format(index=index) for index in range(options.classes))
    manifest = MANIFEST.format(sha256=hashlib.sha256(data).hexdigest(), side=SIDE, labels=labels)
    (package / "model.toml").write_text(manifest)
    print(
        f"{package}: {learned:,} weights ({TORCHVISION_FEATURES:,} before the classifier, as torchvision's), {len(data):,} bytes"
    )


if __name__ == "__main__":
    main()
