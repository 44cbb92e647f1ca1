{{/* What a schema cannot say: values that contradict each other. Each message begins with the value to change. */}}
{{- define "pacs-gateway.validate" -}}
{{- $values := .Values -}}
{{- $dicom := .Values.config.dicom | default dict -}}
{{- $broker := .Values.config.broker | default dict -}}
{{- $owned := include "pacs-gateway.owned" . | fromYaml -}}
{{- range $key, $source := $owned -}}
{{- $node := $values.config -}}
{{- $found := true -}}
{{- range splitList "." $key -}}
{{- if not (kindIs "map" $node) -}}{{- $found = false -}}
{{- else if not (hasKey $node .) -}}{{- $found = false -}}{{- $node = dict -}}
{{- else -}}{{- $node = get $node . -}}
{{- end -}}
{{- end -}}
{{- if and $found (not (kindIs "invalid" $node)) -}}
{{- fail (printf "config.%s: the chart sets this key; it follows from %s" $key $source) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- $key := trimPrefix "PACS_GATEWAY__" .name | lower | replace "__" "." -}}
{{- if and (hasPrefix "PACS_GATEWAY__" .name) (or (hasKey $owned $key) (eq $key "message.source")) -}}
{{- fail (printf "extraEnv: the chart sets %s; it follows from %s" .name (get $owned $key | default "config.message.source")) -}}
{{- end -}}
{{- end -}}

{{- if and (not (get $dicom "calling_ae_titles")) (not .Values.dicom.allowAnyCallingAE) -}}
{{- fail "config.dicom.calling_ae_titles: name the AE titles that may connect, or set dicom.allowAnyCallingAE to let anybody in" -}}
{{- end -}}
{{- if not (or .Values.dicom.plain .Values.dicom.tls.enabled) -}}
{{- fail "dicom.plain: without it and without dicom.tls.enabled there is no DICOM listener" -}}
{{- end -}}
{{- if .Values.dicom.tls.enabled -}}
{{- if not (or .Values.dicom.tls.existingSecret .Values.dicom.tls.certManager.enabled) -}}
{{- fail "dicom.tls.existingSecret: name the Secret with the certificate, or set dicom.tls.certManager.enabled" -}}
{{- end -}}
{{- if and .Values.dicom.plain (eq (int .Values.service.dicom.port) (int .Values.service.dicom.tlsPort)) -}}
{{- fail "service.dicom.tlsPort: must differ from service.dicom.port" -}}
{{- end -}}
{{- else if .Values.dicom.tls.certManager.enabled -}}
{{- fail "dicom.tls.certManager.enabled: needs dicom.tls.enabled" -}}
{{- end -}}
{{- if and .Values.dicom.tls.certManager.enabled (not .Values.dicom.tls.certManager.issuerRef.name) -}}
{{- fail "dicom.tls.certManager.issuerRef.name: name the issuer of the certificate" -}}
{{- end -}}

{{- if eq (get $broker "kind" | default "amqp") "file" -}}
{{- if not (hasPrefix "/" (get $broker "file" | default "")) -}}
{{- fail "config.broker.file: name a file on a volume, for example /var/lib/pacs-gateway/findings.ndjson; the image is read-only" -}}
{{- end -}}
{{- else -}}
{{- $external := eq (get $broker "sasl" | default "plain") "external" -}}
{{- if and $external (not (and .Values.broker.tls.existingSecret .Values.broker.tls.clientCertificate)) -}}
{{- fail "broker.tls.clientCertificate: config.broker.sasl external needs a certificate from broker.tls.existingSecret" -}}
{{- end -}}
{{- if and (not $external) (not (include "pacs-gateway.brokerSecret" .)) -}}
{{- fail "broker.existingSecret: name the Secret with the broker's URL, or with user name and password beside broker.url" -}}
{{- end -}}
{{- if and (or $external (not .Values.broker.existingSecret)) (not .Values.broker.url) -}}
{{- fail "broker.url: needed, because no Secret holds the whole URL" -}}
{{- end -}}
{{- if and .Values.broker.tls.existingSecret .Values.broker.url (not (hasPrefix "amqps://" .Values.broker.url)) -}}
{{- fail "broker.url: broker.tls needs amqps://" -}}
{{- end -}}
{{- if and .Values.broker.tls.clientCertificate (not .Values.broker.tls.existingSecret) -}}
{{- fail "broker.tls.existingSecret: broker.tls.clientCertificate needs it" -}}
{{- end -}}
{{- end -}}
{{- if .Values.rabbitmq.topology.enabled -}}
{{- if not .Values.rabbitmq.topology.clusterReference.name -}}
{{- fail "rabbitmq.topology.clusterReference.name: name the RabbitmqCluster" -}}
{{- end -}}
{{- if ne (get $broker "declare" | default "passive") "passive" -}}
{{- fail "config.broker.declare: passive, because rabbitmq.topology.enabled leaves the topology to the operator" -}}
{{- end -}}
{{- else if .Values.rabbitmq.topology.user.enabled -}}
{{- fail "rabbitmq.topology.user.enabled: needs rabbitmq.topology.enabled" -}}
{{- end -}}

{{- with .Values.service.dicom -}}
{{- if and (eq .type "ClusterIP") (or .nodePort .tlsNodePort) -}}
{{- fail "service.dicom.nodePort: needs service.dicom.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and (ne .type "LoadBalancer") (or .loadBalancerClass .loadBalancerSourceRanges) -}}
{{- fail "service.dicom.loadBalancerSourceRanges: these and loadBalancerClass need service.dicom.type LoadBalancer" -}}
{{- end -}}
{{- end -}}
{{- with .Values.networkPolicy -}}
{{- if .enabled -}}
{{- if not (or .dicomCIDRs .dicomFrom) -}}
{{- fail "networkPolicy.dicomCIDRs: name where senders are; without these and dicomFrom no image would arrive" -}}
{{- end -}}
{{- if and (ne (get $broker "kind" | default "amqp") "file") (not (or .egress.brokerTo .egress.extra)) -}}
{{- fail "networkPolicy.egress.brokerTo: name where the broker is; without it no finding would leave" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if include "pacs-gateway.several" . -}}
{{- if .Values.persistence.existingClaim -}}
{{- fail "persistence.existingClaim: one claim serves one pod; each of several pods has a spool of its own" -}}
{{- end -}}
{{- if get (.Values.config.message | default dict) "source" -}}
{{- fail "config.message.source: one per gateway; with several pods the chart sets it from the pod's name" -}}
{{- end -}}
{{- end -}}
{{- $limits := get (.Values.config.spool | default dict) "limits" | default dict -}}
{{- if ne (hasKey $limits "max_bytes") (hasKey $limits "resume_bytes") -}}
{{- fail "config.spool.limits.resume_bytes: set max_bytes and resume_bytes together, or neither: they follow from persistence.size" -}}
{{- end -}}

{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "keda.enabled: not together with autoscaling.enabled; two autoscalers would fight over the same pods" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) -}}
{{- fail "autoscaling.maxReplicas: must not be below autoscaling.minReplicas" -}}
{{- end -}}
{{- if not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.metrics) -}}
{{- fail "autoscaling.metrics: needed when targetCPUUtilizationPercentage is null" -}}
{{- end -}}
{{- end -}}
{{- with .Values.keda -}}
{{- if .enabled -}}
{{- if lt (int .maxReplicas) (int .minReplicas) -}}
{{- fail "keda.maxReplicas: must not be below keda.minReplicas" -}}
{{- end -}}
{{- if not (or .prometheus.enabled .rabbitmq.enabled .triggers) -}}
{{- fail "keda.triggers: a ScaledObject needs a trigger" -}}
{{- end -}}
{{- if and .prometheus.enabled (not .prometheus.serverAddress) -}}
{{- fail "keda.prometheus.serverAddress: where is Prometheus?" -}}
{{- end -}}
{{- if and .rabbitmq.enabled (not .rabbitmq.authenticationRef) -}}
{{- fail "keda.rabbitmq.authenticationRef: name the TriggerAuthentication with the broker's host" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics.podMonitor.enabled: not together with metrics.serviceMonitor.enabled; everything would be counted twice" -}}
{{- end -}}

{{- with .Values.models -}}
{{- if and (eq .source "claim") (not .existingClaim) -}}
{{- fail "models.existingClaim: models.source claim needs its name" -}}
{{- end -}}
{{- if eq .source "init" -}}
{{- if not .init.image -}}
{{- fail "models.init.image: models.source init needs an image" -}}
{{- end -}}
{{- if not (or .init.files .init.command) -}}
{{- fail "models.init.files: models.source init needs files to fetch, or a command" -}}
{{- end -}}
{{- end -}}
{{- if eq .source "volume" -}}
{{- if not .volume.reference -}}
{{- fail "models.volume.reference: models.source volume needs an image" -}}
{{- end -}}
{{- /* Below 1.27 it is an old Helm's lint, which asks no cluster. */ -}}
{{- if semverCompare ">=1.27.0-0 <1.33.0-0" $.Capabilities.KubeVersion.Version -}}
{{- fail (printf "models.source: volume needs Kubernetes 1.33 or later, this is %s" $.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $provider := get (.Values.config.inference | default dict) "provider" -}}
{{- if and .Values.gpu.enabled $provider (ne $provider .Values.gpu.provider) -}}
{{- fail "config.inference.provider: follows from gpu.provider" -}}
{{- end -}}
{{- if and (not .Values.gpu.enabled) (has $provider (list "cuda" "tensorrt")) -}}
{{- fail "gpu.enabled: config.inference.provider needs a GPU" -}}
{{- end -}}
{{- end -}}
