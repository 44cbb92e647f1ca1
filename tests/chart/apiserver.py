"""As much of a Kubernetes API server as Helm needs to install a chart: discovery, nothing there yet, and every object
taken. What it was given is kept. Nothing runs in it."""

import http.server
import json
import re
import threading

# group/version: kinds. Plurals follow English; only these are cluster-wide: none.
KINDS = {
    "v1": ["ConfigMap", "Pod", "Secret", "Service", "ServiceAccount", "PersistentVolumeClaim"],
    "apps/v1": ["StatefulSet"],
    "policy/v1": ["PodDisruptionBudget"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "keda.sh/v1alpha1": ["ScaledObject"],
    "monitoring.coreos.com/v1": ["ServiceMonitor", "PodMonitor", "PrometheusRule"],
    "cert-manager.io/v1": ["Certificate"],
    "rabbitmq.com/v1beta1": [
        "Exchange", "Queue", "Binding", "Policy", "User", "Permission", "TopicPermission",
    ],
}


def plural(kind):
    name = kind.lower()
    if name.endswith("y"):
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "x", "ch")) else "s")


class Server(http.server.ThreadingHTTPServer):
    """Serves on a free port of this machine until closed; `objects` holds what was created."""

    daemon_threads = True

    def __init__(self, version):
        super().__init__(("127.0.0.1", 0), Handler)
        self.version = version
        self.objects = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def kubeconfig(self):
        """The text of a configuration that leads here."""
        cluster = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}
        context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
        user = {"name": "test", "user": {}}
        own = {"apiVersion": "v1", "kind": "Config", "current-context": "test"}
        return json.dumps(own | {"clusters": [cluster], "contexts": [context], "users": [user]})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/version":
            major, minor = self.server.version.split(".")
            return self.answer({"major": major, "minor": minor, "gitVersion": f"v{self.server.version}.0"})
        if path == "/api":
            return self.answer({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            groups = []
            for name in KINDS:
                group, _, version = name.rpartition("/")
                if group:
                    said = {"groupVersion": name, "version": version}
                    groups.append({"name": group, "versions": [said], "preferredVersion": said})
            return self.answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        if found := re.fullmatch(r"/apis?/(.+)", path):
            if found[1] in KINDS:
                resources = [
                    {"name": plural(kind), "singularName": "", "namespaced": True, "kind": kind, "verbs": ["create", "get"]}
                    for kind in KINDS[found[1]]
                ]
                head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": found[1]}
                return self.answer(head | {"resources": resources})
        return self.answer({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.objects.append(body)
        self.answer(body, 201)
