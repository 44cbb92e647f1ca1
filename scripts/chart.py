"""Makes the schema of the chart's values, and their table in its README, from where the values are told.

    .deps/chart-venv/bin/python scripts/chart.py [--check]

helm/pacs-gateway/values.yaml tells each value of the chart: the comment above it is its meaning, its default gives the
type, and a line `# @ {…}` narrows that with JSON Schema. config/gateway.toml tells each key below `config`: the shape of
its default (a duration, a size, a list) and the words in its comment (`store | reject`) are what the schema takes.
With --check nothing is written, and what would change is an error.
"""

import json
import pathlib
import re
import sys
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "helm/pacs-gateway"

# What tables of the operator's own hold: they are empty in config/gateway.toml.
AE_TITLE = {"type": "string", "pattern": r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"}
CIDR = {"type": "string", "pattern": "^[0-9A-Fa-f:.]+/[0-9]{1,3}$"}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}
SIZE = {"type": ["string", "integer"], "pattern": "^[0-9]+ ?([KMGTkmgt][Ii]?)?[Bb]?$", "minimum": 0}
TEXTS = {"type": "array", "items": {"type": "string"}}
KEYED = {"type": "string", "minLength": 1}
PORTED = r"^((tls://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5})?$"
SITE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["calling_ae_titles"],
    "properties": {
        "calling_ae_titles": {"type": "array", "items": AE_TITLE, "minItems": 1},
        "only": TEXTS,
        "except": TEXTS,
        "thresholds": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}
SERIES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "when", "series"],
    "properties": {
        "name": {"type": "string", "pattern": "^[ -~]{1,64}$"},
        "when": {"type": "array", "items": {"type": "object"}, "minItems": 1},
        "series": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "when": {"type": "array", "items": {"type": "object"}},
                    "min_instances": {"type": "integer", "minimum": 1},
                    "min_series": {"type": "integer", "minimum": 1},
                },
            },
        },
    },
}
OPEN = {
    "dicom.addresses_by_ae": {"type": "array", "items": CIDR},
    "dicom.tls.ae_titles": {"type": "array", "items": AE_TITLE},
    "dicom.peers": {"type": "string", "pattern": PORTED},
    "study.quiet_period_by_ae": DURATION,
    "study.priority_by_ae": {"enum": ["stat", "urgent", "routine"]},
    "models.sites": SITE,
}
# What a default does not show.
NARROWER = {
    "dicom.ae_title": AE_TITLE,
    "dicom.called_ae_titles": {"type": "array", "items": AE_TITLE},
    "dicom.calling_ae_titles": {"type": "array", "items": AE_TITLE},
    "dicom.addresses": {"type": "array", "items": CIDR},
    "dicom.max_pdu_length": {"type": "integer", "minimum": 4096, "maximum": 16777216},
    "study.evidence": {
        "type": "array",
        "items": {"enum": ["mpps", "storage-commitment", "pacs-count", "expected-series"]},
    },
    "study.expected_series": {"type": "array", "items": SERIES},
    "study.pacs.address": {"type": "string", "pattern": PORTED},
    "study.pacs.ae_title": {"anyOf": [AE_TITLE, {"const": ""}]},
    "study.pacs.calling_ae_title": {"anyOf": [AE_TITLE, {"const": ""}]},
    "broker.declare": {"enum": ["active", "passive", "none"]},
    "broker.url": {"type": "string"},
    "log.format": {"enum": ["auto", "json", "text"]},
    "traces.endpoint": {"type": "string", "pattern": "^(https?://.+)?$"},
    "traces.sample": {"type": "number", "minimum": 0, "maximum": 1},
}
ONE = {"dicom.max_associations", "dicom.max_associations_per_peer", "dicom.max_associations_per_ae", "broker.window"}


def configuration():
    """The schema of `config`: every key of config/gateway.toml, and nothing else."""
    text = (ROOT / "config/gateway.toml").read_text()
    told, table = {}, ""
    for line in text.splitlines():
        line, _, comment = line.partition("#") if not re.match(r'.*"[^"]*#[^"]*"', line) else (line, "", "")
        if found := re.match(r"\[([^\]]+)\]", line):
            table = found[1]
            told[table] = comment.strip()
        elif found := re.match(r"([a-z_0-9]+)\s*=", line):
            told[f"{table}.{found[1]}" if table else found[1]] = comment.strip()

    def of(path, value):
        meaning = {"description": sentence(told[path])} if told.get(path) else {}
        if isinstance(value, dict):
            if path in OPEN:
                return meaning | {"type": "object", "additionalProperties": OPEN[path]}
            if not value:
                raise SystemExit(f"scripts/chart.py: OPEN does not say what [{path}] of config/gateway.toml holds")
            below = {key: of(f"{path}.{key}" if path else key, below) for key, below in value.items()}
            return meaning | {"type": "object", "additionalProperties": False, "properties": below}
        return meaning | (NARROWER.get(path) or shape(path, value, told.get(path, "")))

    schema = of("", tomllib.loads(text))
    return {"description": "The gateway's own configuration."} | schema


def shape(path, value, comment):
    """What the schema takes for a key, from its default and its comment."""
    if words := re.search(r"(?:^|: )([a-z][\w-]*(?: \| [a-z][\w-]*)+)", comment):
        return {"enum": words[1].split(" | ")}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 1 if path in ONE else 0}
    if isinstance(value, float):
        return {"type": "number"}
    if isinstance(value, list):
        return TEXTS
    if re.fullmatch(DURATION["pattern"], value):
        return DURATION
    if re.fullmatch(r"[0-9]+([KMGT]i)?B", value):
        return SIZE
    return {"type": "string"}


def sentence(text):
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def comments():
    """The comment and the `@` line above each key of values.yaml, by its path."""
    above, stack, found = [], [], {}
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip()[1:].strip())
            continue
        if not line.strip():
            above = []
            continue
        if key := re.match(r"( *)([A-Za-z][\w.-]*):( |$)", line):
            depth = len(key[1]) // 2
            stack = stack[:depth] + [key[2]]
            rules = [text[1:].strip() for text in above if text.startswith("@")]
            meaning = " ".join(text for text in above if not text.startswith("@"))
            found[".".join(stack)] = (meaning, json.loads(rules[0]) if rules else {})
        above = []
    return found


def chart():
    """The schema of all values, and the rows of the README: name, default, meaning."""
    told = comments()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = []

    def structured(path, value):
        """Whether the keys below are the chart's; the others are Kubernetes' or the operator's own."""
        below = [told.get(f"{path}.{key}", ("", {})) for key in value]
        return any(meaning or rule for meaning, rule in below) or any(
            isinstance(item, dict) and item and structured(f"{path}.{key}", item) for key, item in value.items()
        )

    def of(path, value, inherited):
        meaning, rule = told.get(path, ("", {}))
        described = {"description": meaning} if meaning else {}
        if path == "config":
            rows.append((path, value, meaning))
            return configuration() | described
        if isinstance(value, dict) and value and structured(path, value):
            below = {key: of(f"{path}.{key}", item, meaning or inherited) for key, item in value.items()}
            return described | {"type": "object", "additionalProperties": False, "properties": below}
        if not (meaning or inherited):
            raise SystemExit(f"helm/pacs-gateway/values.yaml: {path} has no comment that says what it means")
        rows.append((path, value, meaning or inherited))
        last = path.rsplit(".", 1)[-1]
        if isinstance(value, dict):
            own = {"type": "object"}
            if re.search("[lL]abels$|[aA]nnotations$", last) or last == "nodeSelector":
                own["additionalProperties"] = {"type": "string"}
        elif isinstance(value, list):
            own = {"type": "array"}
        else:
            kinds = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
            own = {"type": kinds[type(value)]}
        return described | ({} if "enum" in rule else own) | rule

    properties = {key: of(key, value, "") for key, value in values.items()}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the pacs-gateway chart",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(schema, indent=2) + "\n", rows


def readme(rows):
    """README.md with the table of values between its two marks."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, value, meaning in rows:
        default = json.dumps(value).replace("|", "\\|")
        lines.append(f"| `{path}` | `{default}` | {meaning.replace('|', chr(92) + '|')} |")
    text = (CHART / "README.md").read_text()
    begin, end = "<!-- values: made by scripts/chart.py -->", "<!-- end of values -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return "\n".join([before + begin, "", *lines, "", end + after])


def main():
    schema, rows = chart()
    made = {"values.schema.json": schema, "README.md": readme(rows)}
    stale = [name for name, text in made.items() if not (CHART / name).is_file() or (CHART / name).read_text() != text]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"helm/pacs-gateway/{name} is not what values.yaml and config/gateway.toml say: run .deps/chart-venv/bin/python scripts/chart.py")
        return bool(stale)
    for name in stale:
        (CHART / name).write_text(made[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
