"""Schemas of the custom resources that the chart can make: the fields it uses, and no other. kubernetes-validate knows
only what Kubernetes itself has."""


def of(required, **properties):
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
FREE = {"type": "object"}
LABELS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}
TIME = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
SELECTOR = of(["matchLabels"], matchLabels=LABELS)
CLUSTER = of(["name"], name=TEXT, namespace=TEXT)
USER = of(["name"], name=TEXT)


def endpoints():
    relabel = of([], sourceLabels=TEXTS, targetLabel=TEXT, regex=TEXT, action=TEXT, replacement=TEXT)
    relabels = {"type": "array", "items": relabel}
    endpoint = of(
        ["port"], port=TEXT, path=TEXT, interval=TIME, scrapeTimeout=TIME, relabelings=relabels, metricRelabelings=relabels
    )
    return {"type": "array", "minItems": 1, "items": endpoint}


def rules():
    alert = of(["alert", "expr"], alert=TEXT, expr=TEXT, labels=LABELS, annotations=LABELS, keep_firing_for=TIME)
    alert["properties"]["for"] = TIME
    record = of(["record", "expr"], record=TEXT, expr=TEXT, labels=LABELS)
    group = of(["name", "rules"], name=TEXT, interval=TIME, rules={"type": "array", "items": {"anyOf": [alert, record]}})
    return of(["groups"], groups={"type": "array", "minItems": 1, "items": group})


def scaled_object():
    target = of(["kind", "name"], apiVersion=TEXT, kind=TEXT, name=TEXT)
    # Every value of a trigger's metadata is text, numbers too.
    trigger = of(
        ["type", "metadata"], type=TEXT, metadata=LABELS, authenticationRef=USER,
        metricType={"enum": ["AverageValue", "Value", "Utilization"]},
    )
    number = {"type": "integer", "minimum": 1}
    return of(
        ["scaleTargetRef", "triggers"], scaleTargetRef=target, minReplicaCount=number, maxReplicaCount=number,
        pollingInterval=number, advanced=FREE, triggers={"type": "array", "minItems": 1, "items": trigger},
    )


def certificate():
    usages = {"enum": ["digital signature", "key encipherment", "server auth", "client auth"]}
    key = of(["algorithm", "size"], algorithm=TEXT, size={"type": "integer"}, rotationPolicy=TEXT)
    return of(
        ["secretName", "dnsNames", "issuerRef"], secretName=TEXT, duration=TIME, renewBefore=TIME, privateKey=key,
        usages={"type": "array", "items": usages}, dnsNames=TEXTS, ipAddresses=TEXTS,
        issuerRef=of(["name", "kind", "group"], name=TEXT, kind=TEXT, group=TEXT),
    )


def rabbitmq():
    yes_no = {"type": "boolean"}
    own = {"name": TEXT, "vhost": TEXT, "rabbitmqClusterReference": CLUSTER}
    on = ["name", "vhost", "rabbitmqClusterReference"]
    exchange = of([*on, "type"], **own, type={"enum": ["topic", "fanout"]}, durable=yes_no, autoDelete=yes_no, arguments=FREE)
    queue = of(
        [*on, "type"], **own, type={"const": "quorum"}, durable=yes_no, autoDelete=yes_no, arguments=FREE,
        deletionPolicy={"enum": ["retain", "delete"]},
    )
    link = {"vhost": TEXT, "rabbitmqClusterReference": CLUSTER}
    binding = of(
        ["source", "destination", "destinationType", *link], **link, source=TEXT, destination=TEXT,
        destinationType={"const": "queue"}, routingKey=TEXT,
    )
    policy = of([*on, "pattern", "definition"], **own, pattern=TEXT, applyTo={"const": "queues"}, definition=FREE)
    user = of(["rabbitmqClusterReference"], tags={"type": "array"}, rabbitmqClusterReference=CLUSTER)
    rights = {"configure": {"type": "string"}, "write": {"type": "string"}, "read": {"type": "string"}}
    permission = of(["userReference", "permissions", *link], **link, userReference=USER, permissions=of(list(rights), **rights))
    del rights["configure"]
    topics = of(["exchange", *rights], exchange=TEXT, **rights)
    topic = of(["userReference", "permissions", *link], **link, userReference=USER, permissions=topics)
    kinds = {"Exchange": exchange, "Queue": queue, "Binding": binding, "Policy": policy, "User": user}
    return kinds | {"Permission": permission, "TopicPermission": topic}


SPECS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): of(["selector", "endpoints"], selector=SELECTOR, endpoints=endpoints()),
    ("monitoring.coreos.com/v1", "PodMonitor"): of(
        ["selector", "podMetricsEndpoints"], selector=SELECTOR, podMetricsEndpoints=endpoints()
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): rules(),
    ("keda.sh/v1alpha1", "ScaledObject"): scaled_object(),
    ("cert-manager.io/v1", "Certificate"): certificate(),
} | {("rabbitmq.com/v1beta1", kind): spec for kind, spec in rabbitmq().items()}
