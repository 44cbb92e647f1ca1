"""Tests of the Helm chart with Helm 3 and the library of Helm 4: `run.py PART BINARY`. Complaints are printed, and any
is a failure. tests/chart/main.rs says what each part is for."""

import copy
import functools
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

import yaml

import checks
import particulars
from checks import VERSIONS
from helm4 import Helm4, Refused

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/pacs-gateway"
HELM3 = ROOT / ".deps/helm/helm3"
LIBRARY = ROOT / ".deps/helm/libhelm4.so"
SECRETS = "/etc/pacs-gateway-secrets"

MINIMAL = yaml.safe_load((CHART / "ci/minimal-values.yaml").read_text())


def value_sets():
    for file in sorted((CHART / "ci").glob("*-values.yaml")):
        yield file.name.removesuffix("-values.yaml"), yaml.safe_load(file.read_text())


def merged(below, above):
    """As Helm merges values: tables key by key, anything else as a whole."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merged(below.get(key), value) for key, value in above.items()}
    return copy.deepcopy(above)


class Helms:
    """Both Helms. Each renders values to (manifests as text, notes) or raises Refused."""

    def __init__(self, work):
        self.work = pathlib.Path(work)
        self.four = Helm4(str(LIBRARY), VERSIONS[-1], work)

    def helm3(self, *arguments, values):
        file = self.work / "values.json"
        file.write_text(json.dumps(values))
        command = [HELM3, *arguments, "--namespace", "imaging", "--values", file]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.work)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        if done.returncode:
            raise Refused(done.stderr + done.stdout)
        return done.stdout

    def template3(self, values):
        return self.helm3("template", "gw", CHART, "--kube-version", VERSIONS[-1] + ".0", values=values)

    def lint3(self, values):
        self.helm3("lint", "--strict", CHART, values=values)

    def lint4(self, values):
        """The library lints a chart with its own values only, so these become its own."""
        chart = self.work / "pacs-gateway"
        shutil.rmtree(chart, ignore_errors=True)
        shutil.copytree(CHART, chart)
        own = yaml.safe_load((CHART / "values.yaml").read_text())
        (chart / "values.yaml").write_text(yaml.safe_dump(merged(own, values)))
        result = self.four.lint(str(chart))
        if result["Errors"] or any(message["Severity"] > 1 for message in result["Messages"]):
            raise Refused(f"lint: {result}")


def objects(text):
    # The loader in C, where PyYAML has it: there are hundreds of documents.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = [each for each in yaml.load_all(text, Loader=loader) if each]
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))


def toml_of(rendered):
    (text,) = [each["data"]["gateway.toml"] for each in rendered if "gateway.toml" in each.get("data", {})]
    return text


def rendering(helms, _binary):
    """Every set of values: both Helms lint it, both make the same of it, and that is valid and safe."""
    count = 0
    for name, values in value_sets():
        try:
            helms.lint3(values)
            helms.lint4(values)
            three = objects(helms.template3(values))
            text, notes = helms.four.install(str(CHART), values)
        except Refused as refused:
            yield f"{name}: {refused}"
            continue
        if three != objects(text):
            yield f"{name}: Helm 3 and Helm 4 differ"
        title = values.get("config", {}).get("dicom", {}).get("ae_title", "PACSGATEWAY")
        if title not in notes or "echoscu" not in notes:
            yield f"{name}: the notes do not say how to connect"
        count += len(three)
        for check in (checks.names, checks.labels, checks.restricted, checks.mounts, checks.selectors, checks.probes):
            yield from (f"{name}: {complaint}" for complaint in check(three))
        yield from (f"{name}: {complaint}" for complaint in checks.validity(three))
        yield from (f"{name}: {complaint}" for complaint in particulars.check(name, three, tomllib.loads(toml_of(three))))
    print(f"{count} objects valid for Kubernetes {' and '.join(VERSIONS)}, the same with Helm 3 and Helm 4")


def configuration(helms, binary):
    """The rendered TOML says what the values say, and the real binary takes it."""
    for name, values in [*value_sets(), ("odd", merged(MINIMAL, ODD))]:
        rendered = objects(helms.template3(values))
        text = toml_of(rendered)
        try:
            loaded = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            yield f"{name}: {error}\n{text}"
            continue
        yield from (f"{name}: {complaint}" for complaint in missing(values["config"], loaded, "config"))
        yield from (f"{name}: {complaint}" for complaint in refused(binary, rendered, helms.work))


# What a renderer of TOML gets wrong: whole and small and large numbers, quotes, other scripts, keys with dots and blanks.
ODD = {
    "dicom": {"tls": {"enabled": True, "existingSecret": "a"}},
    "config": {
        "dicom": {"max_instance_bytes": 9007199254740991, "tls": {"ae_titles": {'CN="a\\b", O=Ü & <Co>': ["A", "B C"]}}},
        "traces": {"sample": 1},
        "spool": {"limits": {"min_free_inodes": 100000000}},
        "message": {"source": 'urn:a"b\\c\td\u2603'},
        "models": {
            "sites": {
                "a.b c": {"calling_ae_titles": ["X"], "only": ["wdbc-forest"], "thresholds": {"wdbc-forest.malignant": 0.0000001}},
                "Süd": {"calling_ae_titles": ["Y"], "thresholds": {"wdbc-forest.malignant": 1}},
            }
        },
        "study": {
            "expected_series": [
                {
                    "name": "Chest 'x' \\ \"y\"",
                    "when": [{"attribute": "ProtocolName", "matches": "^head\\.\t[0-9]+$"}],
                    "series": [{"min_instances": 120, "min_series": 2}, {"when": []}],
                },
            ]
        },
    }
}


def missing(wanted, found, path):
    """What is not in the TOML as it is in the values."""
    for key, value in wanted.items():
        here = found.get(key)
        if isinstance(value, dict):
            yield from missing(value, here if isinstance(here, dict) else {}, f"{path}.{key}")
        elif here != value or isinstance(here, bool) != isinstance(value, bool):
            yield f"{path}.{key} is {value!r} in the values and {here!r} in the TOML"


def refused(binary, rendered, work):
    """Whether `check` refuses a configuration."""
    command, environment = at_home(binary, "check", rendered, work)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    if done.returncode:
        yield f"check refuses it: {done.stderr}{done.stdout}"


def at_home(binary, subcommand, rendered, work):
    """How the gateway of a pod is started here. Files that Kubernetes would mount are made, and the model is the
    smallest of the repository, on the processor: what is asked is whether every key and value is taken."""
    text = toml_of(rendered)
    for file in re.findall(rf'"{SECRETS}/([^"]+)"', text):
        path = work / "secrets" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        certificate, key = pem(work)
        path.write_text({".crt": certificate, ".key": key}.get(path.suffix, "a-token-or-a-key-of-a-test\n"))
    config = work / "gateway.toml"
    config.write_text(text.replace(SECRETS, str(work / "secrets")))
    own = {"MODELS__DIR": str(ROOT / "models"), "MODELS__ONLY": "wdbc-forest", "INFERENCE__PROVIDER": "cpu"}
    own |= {"INFERENCE__SESSIONS": "1", "DECODE__WORKERS": "1"}
    environment = {"ORT_DYLIB_PATH": str(ROOT / ".deps/onnxruntime/lib/libonnxruntime.so")} | os.environ
    environment |= variables(rendered) | {f"PACS_GATEWAY__{key}": value for key, value in own.items()}
    return [binary, subcommand, "--config", config], environment


def serving(helms, binary):
    """The gateway of a pod answers the C-ECHO of the chart's own test, rejects who is not named, and ends in its time."""
    yield from serving_with(helms, binary, MINIMAL, "dicom_port")
    tls = {"dicom": {"plain": False, "tls": {"enabled": True, "existingSecret": "a"}}}
    yield from serving_with(helms, binary, merged(MINIMAL, tls), "dicom_tls_port")


def serving_with(helms, binary, values, listener):
    rendered = objects(helms.template3(values))
    command, environment = at_home(binary, "serve", rendered, helms.work)
    free = {"DICOM__BIND": "127.0.0.1:0", "HTTP__BIND": "127.0.0.1:0", "HTTP__PROBE_BIND": "127.0.0.1:0"}
    free |= {"SPOOL__DIR": str(helms.work / "spool"), "SHUTDOWN__DELAY": "0s"}
    if listener == "dicom_tls_port":
        free["DICOM__TLS__BIND"] = "127.0.0.1:0"
    environment |= {f"PACS_GATEWAY__{key}": value for key, value in free.items()}
    (hook,) = [each for each in rendered if each["kind"] == "Pod"]
    echo = [text.replace(SECRETS, str(helms.work / "secrets")) for text in hook["spec"]["containers"][0]["args"]]
    log = helms.work / "log"
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr, env=environment) as gateway:
        try:
            port = wait_for(lambda: ready(log, gateway, listener))
            echo[2] = re.sub(r"@.*", f"@127.0.0.1:{port}", echo[2])
            for title, fine in ((echo[4], True), ("STRANGER", False)):
                echo[4] = title
                done = subprocess.run([binary, *echo], capture_output=True, text=True, timeout=60)
                if (done.returncode == 0) != fine:
                    yield f"{echo} ends with {done.returncode}: {done.stdout}{done.stderr}"
            print(f"C-ECHO at {listener}: {echo[2]} answered, {title} rejected")
            gateway.terminate()
            if code := gateway.wait(timeout=60):
                yield f"the gateway ends with {code}: {log.read_text()}"
        finally:
            gateway.kill()


def ready(log, gateway, listener):
    """The port of a listener, once the log has it."""
    if gateway.poll() is not None:
        raise RuntimeError(f"the gateway ended: {log.read_text()}")
    found = re.search(rf'"{listener}": ?"?(\d+)', log.read_text())
    return found and found[1]


def wait_for(condition):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise RuntimeError("the gateway is not ready after a minute")


@functools.cache
def pem(work):
    """A certificate and its key, for whatever needs one."""
    key, certificate = work / "test.key", work / "test.crt"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=gateway.test", "-addext", "subjectAltName=DNS:gateway.test,IP:127.0.0.1"]
    # No authority: it is the server's, the client's and, as what is trusted, its own.
    command += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate.read_text(), key.read_text()


def variables(rendered):
    """The environment of the gateway as the kubelet would fill it in, with one URL for what a Secret would hold."""
    (gateway,) = [each for each in rendered if each["kind"] == "StatefulSet"]
    filled = {}
    for variable in gateway["spec"]["template"]["spec"]["containers"][0]["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            value = source["fieldRef"]["fieldPath"].removeprefix("metadata.")
        else:
            value = variable.get("value", "amqps://user:password@broker:5671/imaging")
        filled[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: filled[found[1]], value)
    return filled


def wrong_values():
    """Values that are refused, and the words that both Helms' messages must have. None takes a default away."""
    yield {"config": {"dicom": {"calling_ae_titles": []}}}, ["config.dicom.calling_ae_titles", "allowAnyCallingAE"]
    yield {"broker": {"existingSecret": ""}}, ["broker.existingSecret"]
    yield {"replicaCount": "two"}, ["replicaCount"]
    yield {"replicas": 2}, ["replicas"]
    yield {"image": {"digest": "latest"}}, ["image", "digest"]
    yield {"image": {"pullPolicy": "Sometimes"}}, ["pullPolicy"]
    yield {"service": {"dicom": {"type": "Ingress"}}}, ["service", "dicom", "type"]
    yield {"service": {"dicom": {"port": 70000}}}, ["service", "dicom", "port"]
    yield {"service": {"dicom": {"externalTrafficPolicy": "local"}}}, ["externalTrafficPolicy"]
    yield {"service": {"dicom": {"loadBalancerSourceRanges": ["10.0.0.1"]}}}, ["loadBalancerSourceRanges"]
    yield {"persistence": {"size": "lots"}}, ["persistence", "size"]
    yield {"networkPolicy": {"dicomCIDRs": ["everybody"]}}, ["dicomCIDRs"]
    yield {"config": {"dicom": {"ae_titel": "X"}}}, ["ae_titel"]
    yield {"config": {"dicom": {"ae_title": "A TITLE THAT IS TOO LONG"}}}, ["ae_title"]
    yield {"config": {"dicom": {"calling_ae_titles": [12]}}}, ["calling_ae_titles"]
    yield {"config": {"dicom": {"max_associations": 0}}}, ["max_associations"]
    yield {"config": {"dicom": {"peers": {"PACS": "10.0.0.1"}}}}, ["peers", "PACS"]
    yield {"config": {"study": {"quiet_period": "5"}}}, ["quiet_period"]
    yield {"config": {"study": {"priority_by_ae": {"ER": "now"}}}}, ["priority_by_ae", "ER"]
    yield {"config": {"spool": {"duplicates": "keep-all"}}}, ["duplicates"]
    yield {"config": {"artefacts": {"max_bytes": "ten"}}}, ["max_bytes"]
    yield {"config": {"inference": {"provider": "tpu"}}}, ["provider"]
    yield {"config": {"traces": {"sample": 2}}}, ["sample"]
    yield {"broker": {"url": "amqp://me:secret@broker/"}}, ["broker", "url"]
    yield {"models": {"source": "internet"}}, ["models", "source"]
    yield {"models": {"init": {"files": [{"url": "https://a/b", "sha256": "12", "path": "m"}]}}}, ["sha256"]
    yield {"models": {"init": {"files": [{"url": "https://a/b", "sha256": "0" * 64, "path": "../m"}]}}}, ["path"]
    yield {"gpu": {"count": 0}}, ["gpu", "count"]
    yield {"config": {"study": {"expected_series": [{"name": "a", "when": []}]}}}, ["expected_series"]
    # What the chart sets, and what contradicts itself.
    for key, value in (("bind", "0.0.0.0:104"), ("plain", False)):
        yield {"config": {"dicom": {key: value}}}, [f"config.dicom.{key}", "the chart sets this key"]
    yield {"config": {"dicom": {"tls": {"ca": ["/ca.pem"]}}}}, ["config.dicom.tls.ca", "dicom.tls.ca"]
    yield {"config": {"http": {"operate_tokens": ["a secret of mine"]}}}, ["config.http.operate_tokens", "http.operateTokens"]
    yield {"config": {"broker": {"url": "amqp://a/"}}}, ["config.broker.url"]
    yield {"config": {"models": {"dir": "/m"}}}, ["config.models.dir", "models.source"]
    yield {"extraEnv": [{"name": "PACS_GATEWAY__SPOOL__DIR", "value": "/tmp"}]}, ["extraEnv", "PACS_GATEWAY__SPOOL__DIR"]
    yield {"dicom": {"plain": False}}, ["dicom.plain"]
    yield {"dicom": {"tls": {"enabled": True}}}, ["dicom.tls.existingSecret"]
    yield {"dicom": {"tls": {"enabled": True, "certManager": {"enabled": True}}}}, ["issuerRef.name"]
    tls = {"enabled": True, "existingSecret": "a"}
    yield {"dicom": {"tls": tls}, "service": {"dicom": {"tlsPort": 11112}}}, ["service.dicom.tlsPort"]
    yield {"config": {"broker": {"sasl": "external"}}}, ["broker.tls.clientCertificate"]
    yield {"broker": {"url": "amqp://broker/", "tls": {"existingSecret": "a"}}}, ["broker.url", "amqps://"]
    yield {"terminationGracePeriodSeconds": 10}, ["terminationGracePeriodSeconds", "config.shutdown"]
    both = {"enabled": True, "prometheus": {"serverAddress": "http://a"}}
    yield {"autoscaling": {"enabled": True}, "keda": both}, ["keda.enabled", "autoscaling.enabled"]
    yield {"autoscaling": {"enabled": True, "minReplicas": 9}}, ["autoscaling.maxReplicas"]
    yield {"keda": {"enabled": True}}, ["keda.prometheus.serverAddress"]
    monitors = {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}
    yield {"metrics": monitors}, ["metrics.podMonitor.enabled"]
    yield {"replicaCount": 2, "persistence": {"existingClaim": "a"}}, ["persistence.existingClaim"]
    yield {"replicaCount": 2, "config": {"message": {"source": "urn:a"}}}, ["config.message.source"]
    yield {"config": {"spool": {"limits": {"max_bytes": "1GiB"}}}}, ["config.spool.limits.resume_bytes"]
    yield {"models": {"source": "claim"}}, ["models.existingClaim"]
    yield {"models": {"source": "init"}}, ["models.init.image"]
    yield {"models": {"source": "volume"}}, ["models.volume.reference"]
    yield {"config": {"inference": {"provider": "cuda"}}}, ["gpu.enabled"]
    yield {"service": {"dicom": {"nodePort": 30104}}}, ["service.dicom.nodePort"]
    yield {"service": {"dicom": {"loadBalancerClass": "a"}}}, ["loadBalancerClass", "service.dicom.type"]
    yield {"networkPolicy": {"enabled": True}}, ["networkPolicy.dicomCIDRs"]
    yield {"networkPolicy": {"enabled": True, "dicomCIDRs": ["10.0.0.0/8"]}}, ["networkPolicy.egress.brokerTo"]
    yield {"config": {"broker": {"kind": "file"}}}, ["config.broker.file"]
    yield {"rabbitmq": {"topology": {"enabled": True}}}, ["rabbitmq.topology.clusterReference.name"]
    cluster = {"enabled": True, "clusterReference": {"name": "a"}}
    active = {"broker": {"declare": "active"}}
    yield {"rabbitmq": {"topology": cluster}, "config": active}, ["config.broker.declare"]


def refusals(helms, _binary):
    """A wrong value is refused by both Helms, with a message that names it."""
    count = 0
    for wrong, words in wrong_values():
        values = merged(MINIMAL, wrong)
        for helm, render in (("3", helms.template3), ("4", lambda own: helms.four.install(str(CHART), own))):
            try:
                render(values)
            except Refused as refusal:
                if lost := [word for word in words if word not in str(refusal)]:
                    yield f"{wrong}: Helm {helm} does not say {lost}: {refusal}"
            else:
                yield f"{wrong}: Helm {helm} takes it"
        count += 1
    try:
        old = (CHART / "ci/models-volume-values.yaml").read_text()
        helms.helm3("template", "gw", CHART, "--kube-version", "1.32.0", values=yaml.safe_load(old))
        yield "an image volume is rendered for Kubernetes 1.32"
    except Refused as refusal:
        if "models.source" not in str(refusal) or "1.33" not in str(refusal):
            yield f"an image volume on Kubernetes 1.32: {refusal}"
    print(f"{count} wrong values refused by name")


def shutdown(helms, _binary):
    """The time a pod is given is what the drain in src/app.rs takes at worst, and more is taken as it is."""
    source = (ROOT / "src/app.rs").read_text()
    drain = re.search(r"let drain = async \{(.*?)\n        \};", source, re.S)[1]
    waits = re.findall(r"\.finish\((.+?)\)\.await", drain)
    fixed = dict(re.findall(r"const (\w+): Duration = Duration::from_secs\((\d+)\);", source))
    for own in ({}, {"associations": "2m", "studies": "1m30s"}, {"delay": "1500ms", "outbox": "1h"}, {"studies": "0s"}):
        shutdown = {"delay": "5s", "associations": "10s", "studies": "10s", "outbox": "5s"} | own
        total = milliseconds(shutdown["delay"])
        for wait in waits:
            if key := re.fullmatch(r"grace\.(\w+)\.get\(\)", wait):
                total += milliseconds(shutdown[key[1]])
            elif seconds := re.fullmatch(r"Duration::from_secs\((\d+)\)", wait):
                total += int(seconds[1]) * 1000
            elif wait in fixed:
                total += int(fixed[wait]) * 1000
            else:
                yield f"src/app.rs waits for `{wait}`, which this test cannot read"
        given = grace(helms, {"config": {"shutdown": own}})
        if not total + 5000 <= given * 1000 <= total + 15000:
            yield f"{own}: the drain takes up to {total} ms, and the pod has {given} s; see templates/_duration.tpl"
    if grace(helms, {"terminationGracePeriodSeconds": 3600}) != 3600:
        yield "a longer terminationGracePeriodSeconds is not taken"
    if len(waits) < 5:
        yield f"only {len(waits)} waits found in the drain of src/app.rs"


def grace(helms, values):
    rendered = objects(helms.template3(merged(MINIMAL, values)))
    (gateway,) = [each for each in rendered if each["kind"] == "StatefulSet"]
    return gateway["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def milliseconds(text):
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h|d)", text))


def documents(helms, _binary):
    """Schema, README and version are those of the sources they are made from."""
    done = subprocess.run([sys.executable, ROOT / "scripts/chart.py", "--check"], capture_output=True, text=True)
    if done.returncode:
        yield done.stdout + done.stderr
    schema = json.loads((CHART / "values.schema.json").read_text())
    keys = tomllib.loads((ROOT / "config/gateway.toml").read_text())
    yield from unknown(keys, schema["properties"]["config"], "config")
    readme = (CHART / "README.md").read_text()
    for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text()), schema, ""):
        if f"| `{path}` |" not in readme:
            yield f"helm/pacs-gateway/README.md does not tell {path}"
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    told = yaml.safe_load((CHART / "Chart.yaml").read_text())
    if told["appVersion"] != version:
        yield f"helm/pacs-gateway/Chart.yaml: appVersion is {told['appVersion']}, Cargo.toml has {version}"


def unknown(keys, schema, path):
    for key, value in keys.items():
        if key not in schema["properties"]:
            yield f"{path}.{key} of config/gateway.toml is not in the schema of the chart: run .deps/chart-venv/bin/python scripts/chart.py"
        elif isinstance(value, dict) and "properties" in schema["properties"][key]:
            yield from unknown(value, schema["properties"][key], f"{path}.{key}")


def leaves(values, schema, path):
    """Names of the values as the README tells them: down to where the keys are no longer the chart's."""
    for key, value in values.items():
        below, name = schema["properties"][key], f"{path}.{key}".lstrip(".")
        if "properties" in below and name != "config":
            yield from leaves(value, below, name)
        else:
            yield name


def fetching(helms, _binary):
    """The init container's script fetches what is named, and a wrong sum or a missing file ends it."""
    served, fetched = helms.work / "served", helms.work / "fetched"
    served.mkdir()
    content = b"the weights of a model\n"
    (served / "model 1.onnx").write_bytes(content)
    (served / "model.toml").write_bytes(b"")
    handler = functools.partial(QuietFiles, directory=served)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    right, empty = hashlib.sha256(content).hexdigest(), hashlib.sha256(b"").hexdigest()
    good = [{"url": f"{at}/model%201.onnx?a=1&b='$(id)'", "sha256": right, "path": "cxr/1/model.onnx"}]
    good += [{"url": f"{at}/model.toml", "sha256": empty, "path": "cxr/model.toml"}]
    cases = [(good, True), ([good[0] | {"sha256": empty}, good[1]], False), ([good[1] | {"url": f"{at}/none"}], False)]
    for files, fine in cases:
        shutil.rmtree(fetched, ignore_errors=True)
        values = merged(MINIMAL, {"models": {"source": "init", "init": {"image": "curl", "files": files}}})
        (gateway,) = [each for each in objects(helms.template3(values)) if each["kind"] == "StatefulSet"]
        command = gateway["spec"]["template"]["spec"]["initContainers"][0]["command"]
        # A missing file is tried again for half a minute; here it stays missing.
        command = [part.replace("/opt/pacs-gateway/models", str(fetched)).replace("--retry 5", "") for part in command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if (done.returncode == 0) != fine:
            yield f"{files}: the script ends with {done.returncode}: {done.stdout}{done.stderr}"
        if fine and (fetched / "cxr/1/model.onnx").read_bytes() != content:
            yield f"{files}: what was fetched is not what was served"
    server.shutdown()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def topology(helms, _binary):
    """What the RabbitMQ operator is asked for is what docs/messages.md says that the gateway declares."""
    values = dict(value_sets())["rabbitmq-topology"]
    made = [each for each in objects(helms.template3(values)) if each["apiVersion"] == "rabbitmq.com/v1beta1"]
    exchanges = {
        each["spec"]["name"]: (each["spec"]["type"], each["spec"].get("arguments", {}))
        for each in made if each["kind"] == "Exchange"
    }
    if exchanges != {
        "hospital.findings": ("topic", {"alternate-exchange": "hospital.findings.unrouted"}),
        "hospital.findings.unrouted": ("fanout", {}),
        "hospital.findings.dlx": ("fanout", {}),
        "pacs.shadow": ("topic", {}),
    }:
        yield f"exchanges: {exchanges}"
    queues = {each["spec"]["name"]: each["spec"].get("arguments", {}) for each in made if each["kind"] == "Queue"}
    if queues != {
        "hospital.findings": {"x-dead-letter-exchange": "hospital.findings.dlx"},
        "hospital.findings.unrouted": {}, "hospital.findings.dlx": {}, "pacs.shadow": {},
    }:
        yield f"queues: {queues}"
    bindings = {
        (each["spec"]["source"], each["spec"]["destination"], each["spec"].get("routingKey", ""))
        for each in made if each["kind"] == "Binding"
    }
    sides = {(name, name, "") for name in ("hospital.findings.unrouted", "hospital.findings.dlx")}
    if bindings != sides | {("hospital.findings", "hospital.findings", "#"), ("pacs.shadow", "pacs.shadow", "#")}:
        yield f"bindings: {bindings}"
    (permission,) = [each["spec"]["permissions"] for each in made if each["kind"] == "Permission"]
    for name, may in (("hospital.findings", True), ("pacs.shadow", True), ("hospitalXfindings", False), ("hospital.findings.dlx", False)):
        if bool(re.search(permission["write"], name)) != may:
            yield f"the user {'may not' if may else 'may'} write to {name}"
    for right in ("configure", "read"):
        if re.search(permission[right], "hospital.findings"):
            yield f"the user may {right}"
    for topic in (each["spec"]["permissions"] for each in made if each["kind"] == "TopicPermission"):
        for key, may in (("finding.stat.dx.chest.cxr-phantom", True), ("superseded.routine._._._", True), ("finding.stat", False)):
            if bool(re.search(topic["write"], key)) != may:
                yield f"the user {'may not' if may else 'may'} write {key} to {topic['exchange']}"
    if toml_of(objects(helms.template3(values))).count('declare = "passive"') != 1:
        yield "the gateway declares the topology as well"


PARTS = {part.__name__: part for part in (rendering, configuration, serving, refusals, shutdown, fetching, documents, topology)}


def main():
    part, binary = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as work:
        complaints = list(PARTS[part](Helms(work), binary))
    for complaint in complaints:
        print(complaint)
    return bool(complaints)


if __name__ == "__main__":
    # Go reads the environment that the process began with.
    if os.environ.get("HELM_DRIVER") != "memory":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"HELM_DRIVER": "memory"})
    sys.exit(main())
