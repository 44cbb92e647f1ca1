"""What single sets of values must lead to: for each an object, a place in it, and what is there."""

GATEWAY = "StatefulSet"
POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"

EXPECTED = {
    "minimal": [
        (GATEWAY, "spec.replicas", 1),
        (GATEWAY, "spec.podManagementPolicy", "Parallel"),
        (GATEWAY, "spec.persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"}),
        (GATEWAY, "spec.volumeClaimTemplates.0.spec.resources.requests.storage", "200Gi"),
        (GATEWAY, f"{CONTAINER}.image", "pacs-gateway:0.1.0"),
        (GATEWAY, f"{CONTAINER}.args", ["serve", "--config", "/etc/pacs-gateway/gateway.toml"]),
        ("Service gw-pacs-gateway", "spec.type", "ClusterIP"),
        ("Service gw-pacs-gateway", "spec.externalTrafficPolicy", None),
        ("Service gw-pacs-gateway", "spec.sessionAffinity", "ClientIP"),
        ("Service gw-pacs-gateway", "spec.ports", [{"name": "dicom", "port": 11112, "targetPort": "dicom"}]),
        ("PodDisruptionBudget", "spec.maxUnavailable", 1),
        ("ServiceAccount", "automountServiceAccountToken", False),
        ("toml", "spool.limits.max_bytes", "163840MiB"),
        ("toml", "dicom.accept_any_called_ae_title", False),
        ("Pod", "metadata.annotations.helm\\.sh/hook", "test"),
        ("Pod", "spec.containers.0.args.2", "PACSGATEWAY@gw-pacs-gateway.imaging.svc:11112"),
    ],
    "production-tls": [
        (GATEWAY, f"{CONTAINER}.image", "registry.example.org/imaging/pacs-gateway@sha256:" + "0123456789abcdef" * 4),
        (GATEWAY, f"{POD}.priorityClassName", "clinical"),
        (GATEWAY, "spec.volumeClaimTemplates.0.spec.storageClassName", "fast"),
        ("Service gw-pacs-gateway", "spec.loadBalancerClass", "example.org/internal"),
        ("Service gw-pacs-gateway", "spec.loadBalancerSourceRanges", ["10.0.0.0/8"]),
        ("Service gw-pacs-gateway", "spec.externalTrafficPolicy", "Local"),
        ("Service gw-pacs-gateway", "spec.ports", [{"name": "dicom-tls", "port": 2762, "targetPort": "dicom-tls"}]),
        ("toml", "dicom.plain", False),
        ("toml", "dicom.tls.bind", "0.0.0.0:2762"),
        ("toml", "broker.password_file", "/etc/pacs-gateway-secrets/broker/password"),
        ("Pod", "spec.containers.0.args.5", "--tls-ca"),
    ],
    "mutual-tls-cert-manager": [
        ("Certificate", "spec.secretName", "gw-pacs-gateway-dicom-tls"),
        (GATEWAY, f"{POD}.volumes.3.secret.secretName", "gw-pacs-gateway-dicom-tls"),
        ("Certificate", "spec.usages", ["digital signature", "key encipherment", "server auth", "client auth"]),
        ("Certificate", "spec.issuerRef.kind", "ClusterIssuer"),
        ("toml", "broker.sasl", "external"),
        ("toml", "broker.tls.key", "/etc/pacs-gateway-secrets/broker-tls/tls.key"),
        ("toml", "broker.username_file", None),
        ("Service gw-pacs-gateway", "spec.ports.0.port", 104),
    ],
    "node-port": [
        ("Service gw-pacs-gateway", "spec.ports.0.nodePort", 30104),
        ("Service gw-pacs-gateway", "spec.sessionAffinityConfig", None),
        ("Service gw-pacs-gateway-http", "", None),
        ("PodDisruptionBudget", "", None),
        ("Pod", "", None),
        (GATEWAY, f"{POD}.serviceAccountName", "default"),
    ],
    "gpu": [
        (GATEWAY, f"{CONTAINER}.resources.limits.nvidia\\.com/mig-1g\\.10gb", 1),
        (GATEWAY, f"{CONTAINER}.resources.limits.memory", "8Gi"),
        (GATEWAY, f"{POD}.runtimeClassName", "nvidia"),
        (GATEWAY, f"{POD}.tolerations.1", {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}),
        ("toml", "inference.provider", "cuda"),
    ],
    "autoscaling": [
        ("HorizontalPodAutoscaler", "spec.behavior.scaleDown.selectPolicy", "Disabled"),
        ("HorizontalPodAutoscaler", "spec.metrics.0.resource.target.averageUtilization", 70),
    ],
    "keda": [
        ("ScaledObject", "spec.triggers.1.metadata.queueName", "pacs.findings"),
        ("ScaledObject", "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.selectPolicy", "Disabled"),
    ],
    "monitoring": [
        ("ConfigMap gw-pacs-gateway-dashboard", "metadata.labels.grafana_dashboard", "1"),
        ("PrometheusRule", "metadata.labels.release", "prometheus"),
        ("toml", "traces.sample", 1),
    ],
    "models-claim": [
        (GATEWAY, f"{POD}.volumes.2", {"name": "spool", "persistentVolumeClaim": {"claimName": "old-spool"}}),
        (GATEWAY, f"{POD}.volumes.3.persistentVolumeClaim", {"claimName": "models", "readOnly": True}),
        (GATEWAY, f"{CONTAINER}.volumeMounts.3.subPath", "imaging/production"),
        (GATEWAY, "spec.volumeClaimTemplates", None),
    ],
    "models-command": [
        (GATEWAY, f"{POD}.initContainers.0.command", ["oras"]),
        (GATEWAY, f"{POD}.initContainers.0.args.0", "pull"),
    ],
    "models-volume": [
        (GATEWAY, f"{POD}.volumes.2.image.pullPolicy", "IfNotPresent"),
        (GATEWAY, f"{CONTAINER}.volumeMounts.3.subPath", "models"),
    ],
    "rabbitmq-topology": [
        ("Queue gw-pacs-gateway-findings", "spec.deletionPolicy", "retain"),
        ("Policy", "spec.definition.max-length", 100000),
        (GATEWAY, f"{POD}.volumes.2.secret.secretName", "gw-pacs-gateway-user-credentials"),
    ],
    "several-replicas": [
        ("StatefulSet gateway", "spec.replicas", 3),
        ("StatefulSet gateway", f"{CONTAINER}.env.3.value", "urn:pacs-gateway:$(POD_NAMESPACE):$(POD_NAME)"),
        ("StatefulSet gateway", "spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Delete"),
        ("ConfigMap gateway-notes", "data.release", "gw"),
    ],
    "trial": [
        (GATEWAY, f"{POD}.volumes.2.emptyDir.sizeLimit", "8Gi"),
        (GATEWAY, f"{POD}.terminationGracePeriodSeconds", 120),
        (GATEWAY, f"{CONTAINER}.env.4", None),
        ("toml", "broker.kind", "file"),
    ],
}


def check(name, objects, toml):
    """Complaints about one set of values."""
    for what, path, wanted in EXPECTED.get(name, []):
        kind, _, own = what.partition(" ")
        found = [each for each in objects if each["kind"] == kind and own in ("", each["metadata"]["name"])]
        place = toml if what == "toml" else found[0] if found else None
        for key in path.replace("\\.", "\0").split(".") if path else []:
            key = key.replace("\0", ".")
            if isinstance(place, list):
                place = place[int(key)] if int(key) < len(place) else None
            else:
                place = (place or {}).get(key)
        if place != wanted:
            yield f"{what}: {path} is {place!r}, not {wanted!r}"
