"""Reads what /metrics says with the parser of prometheus-client, and holds it to the conventions of
prometheus.io/docs/practices/naming and /instrumentation.

usage: exposition.py LATER [EARLIER] [--secret TEXT]... [--most N]

LATER and EARLIER are two scrapes of one process: counters must not have fallen. A secret must not appear in
either. No metric may have more than N series. Prints what is wrong, a line each; exit code 1 if anything is.
"""

import argparse
import math
import pathlib
import re

from prometheus_client.parser import text_string_to_metric_families

OURS = "pacs_gateway_"
# What is measured has a unit; these are numbers without one.
UNITLESS = {"inference_batch_size", "score", "input_mean", "input_deviation", "model_difference"}
# Base units are seconds and bytes; a name must not speak of any other.
OTHER_UNITS = {
    "milliseconds", "millis", "ms", "microseconds", "micros", "us", "nanoseconds", "ns", "minutes", "hours", "days",
    "kilobytes", "kb", "megabytes", "mb", "kib", "mib", "gib", "bits", "percent", "percentage",
}
UID = re.compile(r"\b[0-2](\.\d+){3,}\b")
ADDRESS = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b|[0-9a-fA-F]*(:[0-9a-fA-F]*){3,}")


def comments(text):
    """HELP and TYPE of every family, and where its lines are, straight from the text: the parser forgives much."""
    wrong, families, order = [], {}, []
    for line in text.splitlines():
        if line.startswith("# "):
            _, keyword, name, rest = (line.split(" ", 3) + [""])[:4]
            family = families.setdefault(name, {})
            if keyword in family:
                wrong.append(f"{name}: {keyword} twice")
            if order and order[-1] != name and name in order:
                wrong.append(f"{name}: its lines are not together")
            family[keyword] = rest
            if not order or order[-1] != name:
                order.append(name)
        elif line:
            name = re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*", line).group()
            stem = re.sub(r"_(bucket|sum|count)$", "", name)
            if not order or order[-1] not in (name, stem):
                wrong.append(f"{name}: a sample apart from its HELP and TYPE")
    for name, family in families.items():
        if not family.get("HELP", "").strip():
            wrong.append(f"{name}: no HELP")
        if family.get("TYPE") not in ("counter", "gauge", "histogram"):
            wrong.append(f"{name}: TYPE is {family.get('TYPE')}")
    return wrong


def naming(name, kind):
    short = name.removeprefix(OURS)
    words = set(short.split("_"))
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        yield "a name is lower case with underscores"
    if words & OTHER_UNITS:
        yield f"{words & OTHER_UNITS}: base units are seconds and bytes"
    if (kind == "counter") != short.endswith("_total"):
        yield f"a {kind}; counters, and only they, end in _total"
    if kind != "histogram" and short.endswith(("_bucket", "_sum", "_count")):
        yield "the ending belongs to histograms"
    if kind == "histogram" and short not in UNITLESS and not short.endswith(("_seconds", "_bytes")):
        yield "a histogram ends in its unit"
    if words & {"counter", "gauge", "histogram", "metric"}:
        yield "the type is not part of the name"


def labels(sample):
    for label, value in sample.labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", label):
            yield f"label {label}"
        if len(value) > 64:
            yield f"{label}={value!r} is too long for a fixed word"
        version = label in ("version", "other")
        if UID.search(value) and not version or ADDRESS.search(value) and not version:
            yield f"{label}={value!r} looks like a UID or an address"


def histogram(name, samples):
    series = {}
    for sample in samples:
        key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(key, []).append(sample)
    for key, parts in series.items():
        buckets = [(float(s.labels["le"]), s.value) for s in parts if s.name == f"{name}_bucket"]
        single = {s.name.removeprefix(name): s.value for s in parts if s.name != f"{name}_bucket"}
        if set(single) != {"_sum", "_count"}:
            yield f"{key}: has {sorted(single)}"
            continue
        if buckets != sorted(buckets) or len({edge for edge, _ in buckets}) != len(buckets):
            yield f"{key}: buckets out of order"
        counts = [count for _, count in buckets]
        if counts != sorted(counts):
            yield f"{key}: counts of buckets fall"
        if not buckets or buckets[-1][0] != math.inf or buckets[-1][1] != single["_count"]:
            yield f"{key}: +Inf is not the count"
        if single["_count"] == 0 and single["_sum"] != 0:
            yield f"{key}: a sum of nothing"


def check(text, most):
    wrong = comments(text)
    values = {}
    for family in text_string_to_metric_families(text):
        # The parser takes _total from the names of counters.
        name = family.name + ("_total" if family.type == "counter" else "")
        said = [f"{name}: {complaint}" for complaint in naming(name, family.type)]
        if family.type == "histogram":
            said += [f"{name}: {complaint}" for complaint in histogram(name, family.samples)]
        series = {tuple(sorted((k, v) for k, v in s.labels.items() if k != "le")) for s in family.samples}
        if len(series) > most:
            said.append(f"{name}: {len(series)} series")
        # What the client library says of the process is not ours to name.
        if not name.startswith(OURS):
            said = [line for line in said if not name.startswith("process_")]
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            if key in values:
                said.append(f"{name}: {key} twice")
            values[key] = (family.type, sample.value)
            said += [f"{name}: {complaint}" for complaint in labels(sample)]
            if family.type == "counter" and not (sample.value >= 0 and math.isfinite(sample.value)):
                said.append(f"{name}: counts {sample.value}")
        wrong += said
    if not any(name.startswith(OURS) for name, _ in values):
        wrong.append("there is no metric of the gateway")
    return wrong, values


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("later", type=pathlib.Path)
    parser.add_argument("earlier", type=pathlib.Path, nargs="?")
    parser.add_argument("--secret", action="append", default=[])
    parser.add_argument("--most", type=int, default=100)
    arguments = parser.parse_args()
    later = arguments.later.read_text()
    wrong, values = check(later, arguments.most)
    texts = [later]
    if arguments.earlier:
        earlier = arguments.earlier.read_text()
        texts.append(earlier)
        complaints, before = check(earlier, arguments.most)
        wrong += complaints
        for key, (kind, value) in before.items():
            grows = kind == "counter" or kind == "histogram" and not key[0].endswith("_sum")
            if grows and value > values.get(key, (kind, -1))[1]:
                wrong.append(f"{key}: fell from {value} to {values.get(key)}")
    for secret in arguments.secret:
        if any(secret in text for text in texts):
            wrong.append(f"{secret!r} is in the metrics")
    for line in wrong:
        print(line)
    print(f"{len(values)} samples, {len(wrong)} complaints")
    raise SystemExit(bool(wrong))


main()
