"""What must be true of every rendered chart, whatever the values. Each check gives complaints as text."""

import functools
import json
import re

import jsonschema
import kubernetes_validate.utils as known

from custom_resources import SPECS

# It reads its schemas anew for each object; once is enough.
known.schema_contents = functools.cache(known.schema_contents)

# The two newest minor versions of Kubernetes that it knows.
VERSIONS = sorted({known.major_minor(version) for version in known.all_versions()}, key=known.Version)[-2:]

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


def names(objects):
    """Each object can be created beside the others."""
    seen = set()
    for each in objects:
        key = (each["apiVersion"], each["kind"], each["metadata"]["name"])
        if key in seen:
            yield f"{key} is there twice"
        seen.add(key)
        if not NAME.fullmatch(key[2]):
            yield f"{key} has no name that Kubernetes takes"


def labels(objects):
    """Each object says what it belongs to, by the labels that Kubernetes recommends. The operator's own need not."""
    wanted = {"app.kubernetes.io/instance": "gw", "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/part-of": "pacs-gateway"}
    for each in objects:
        own = each["metadata"].get("labels", {})
        if "release" in each.get("data", {}):
            continue
        if not wanted.items() <= own.items() or not {"helm.sh/chart", "app.kubernetes.io/version"} <= own.keys():
            yield f"{each['kind']} {each['metadata']['name']} has the labels {own}"
        if not all(isinstance(value, str) for value in own.values()):
            yield f"{each['kind']} {each['metadata']['name']} has a label that is no text: {own}"


def validity(objects):
    """Each object is what its API takes: Kubernetes' own by its schemas, the others by ours."""
    for each in objects:
        what = f"{each['kind']} {each['metadata']['name']}"
        spec = SPECS.get((each["apiVersion"], each["kind"]))
        if spec:
            for error in jsonschema.Draft202012Validator(spec).iter_errors(each.get("spec", {})):
                yield f"{what}: {error.json_path}: {error.message}"
            continue
        for version in VERSIONS:
            if complaint := invalid(json.dumps(each), version):
                yield f"{what} for Kubernetes {version}: {complaint}"


@functools.cache
def invalid(text, version):
    """Why Kubernetes would not take an object; many are the same in several sets of values."""
    try:
        known.validate(json.loads(text), version, strict=True)
    except (known.ValidationError, known.SchemaNotFoundError) as error:
        return str(error)
    return None


def pods(objects):
    """Name, labels and spec of every pod that the objects make."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["metadata"]["labels"], each["spec"]
        if each["kind"] == "StatefulSet":
            made = each["spec"]["template"]
            yield each["metadata"]["name"], made["metadata"]["labels"], made["spec"]


def restricted(objects):
    """The restricted Pod Security Standard, and what we ask beyond it."""
    for name, _, pod in pods(objects):
        security = pod.get("securityContext", {})
        wanted = {
            "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        }
        if security != wanted:
            yield f"{name}: its security context is {security}"
        for key, value in (("automountServiceAccountToken", False), ("enableServiceLinks", False)):
            if pod.get(key) is not value:
                yield f"{name}: {key} is {pod.get(key)}"
        for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"):
            if key in pod:
                yield f"{name}: has {key}"
        for container in pod.get("initContainers", []) + pod["containers"]:
            own = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            if container.get("securityContext") != own:
                yield f"{name}/{container['name']}: its security context is {container.get('securityContext')}"
            for port in container.get("ports", []):
                if "hostPort" in port:
                    yield f"{name}/{container['name']}: has a port of the host"
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= set(resources.get("limits", {})) & set(resources.get("requests", {})):
                yield f"{name}/{container['name']}: has no request or limit of CPU or memory"
        kinds = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "secret"}
        for volume in pod.get("volumes", []):
            if not set(volume) - {"name"} <= kinds:
                yield f"{name}: volume {volume} is of a kind that restricted pods may not have"
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{name}: volume {volume['name']} has no size limit"
            if "secret" in volume and volume["secret"].get("defaultMode") != 0o440:
                yield f"{name}: volume {volume['name']} has mode {volume['secret'].get('defaultMode')}"


def mounts(objects):
    """What is mounted is there, no two things in one place, and Secrets and the configuration as folders."""
    for name, _, pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        if len(volumes) != len(pod.get("volumes", [])):
            yield f"{name}: two volumes have one name"
        claims = [claim["metadata"]["name"] for each in objects for claim in each.get("spec", {}).get("volumeClaimTemplates", [])]
        for container in pod.get("initContainers", []) + pod["containers"]:
            places = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if len(set(places)) != len(places):
                yield f"{name}/{container['name']}: two volumes are mounted in one place"
            for mount in container.get("volumeMounts", []):
                volume = volumes.get(mount["name"])
                if not volume and mount["name"] not in claims:
                    yield f"{name}/{container['name']}: mounts {mount['name']}, which is not there"
                if volume and {"secret", "configMap"} & set(volume):
                    if "subPath" in mount or not mount.get("readOnly"):
                        yield f"{name}/{container['name']}: {mount['name']} would not follow a change"
        used = {mount["name"] for each in pod.get("initContainers", []) + pod["containers"] for mount in each["volumeMounts"]}
        for unused in set(volumes) - used:
            yield f"{name}: nothing mounts {unused}"
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}) and variable["name"] != "PACS_GATEWAY__BROKER__URL":
                    yield f"{name}: a Secret comes as the variable {variable['name']}"


def selectors(objects):
    """What selects the gateway's pods does, nothing else selects them, and nothing selects the test's pod as one."""
    (gateway,) = [each for each in objects if each["kind"] == "StatefulSet"]
    labels = gateway["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in gateway["spec"]["template"]["spec"]["containers"][0]["ports"]}
    others = [own for name, own, _ in pods(objects) if own is not labels]

    def selected(what, selector):
        if not selector or not selector.items() <= labels.items():
            yield f"{what} does not select the pods"
        for other in others:
            if selector.items() <= other.items():
                yield f"{what} selects the pod of the test too"

    for each in objects:
        what, spec = f"{each['kind']} {each['metadata']['name']}", each.get("spec", {})
        if each["kind"] == "Service":
            yield from selected(what, spec["selector"])
            for port in spec["ports"]:
                if port["targetPort"] not in ports:
                    yield f"{what}: no port {port['targetPort']}"
        if each["kind"] in ("StatefulSet", "PodDisruptionBudget", "PodMonitor"):
            yield from selected(what, spec["selector"]["matchLabels"])
        if each["kind"] == "StatefulSet":
            headless = [one for one in objects if one["kind"] == "Service" and one["metadata"]["name"] == spec["serviceName"]]
            if not headless or headless[0]["spec"].get("clusterIP") != "None":
                yield f"{what}: {spec['serviceName']} is no headless Service"
            for rule in spec["template"]["spec"].get("topologySpreadConstraints", []):
                yield from selected(f"{what}: spread", rule["labelSelector"]["matchLabels"])
        if each["kind"] == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            found = [one for one in objects if one["kind"] == "Service" and wanted <= one["metadata"]["labels"].items()]
            if len(found) != 1:
                yield f"{what} selects {len(found)} Services"
            elif spec["endpoints"][0]["port"] not in [port["name"] for port in found[0]["spec"]["ports"]]:
                yield f"{what}: the Service has no port {spec['endpoints'][0]['port']}"
        if each["kind"] == "NetworkPolicy":
            yield from selected(what, spec["podSelector"]["matchLabels"])
            if spec["policyTypes"] != ["Ingress", "Egress"]:
                yield f"{what} denies nothing in {spec['policyTypes']}"
            for rule in spec["ingress"]:
                for port in rule["ports"]:
                    if port["port"] not in ports:
                        yield f"{what}: no port {port['port']}"
        if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec["scaleTargetRef"]
            if (target["kind"], target["name"]) != ("StatefulSet", gateway["metadata"]["name"]):
                yield f"{what} scales {target}"
            if "replicas" in gateway["spec"]:
                yield f"{what}: the StatefulSet sets replicas too"
        if each["kind"] == "PodDisruptionBudget" and "minAvailable" in spec:
            yield f"{what}: blocks a node with the only pod"


def probes(objects):
    """Every probe asks the probe port, which exists."""
    (gateway,) = [each for each in objects if each["kind"] == "StatefulSet"]
    container = gateway["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name, path in (("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        asked = container[name]["httpGet"]
        if (asked["path"], ports.get(asked["port"])) != (path, 9090):
            yield f"{name} asks {asked}"
