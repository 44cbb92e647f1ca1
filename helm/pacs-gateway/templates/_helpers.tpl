{{/* Names, labels and the image. */}}

{{- define "pacs-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for the suffixes of Services and the ordinal of pods. */}}
{{- define "pacs-gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pacs-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pacs-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* Labels of an object. */}}
{{- define "pacs-gateway.labels" -}}
{{- $own := include "pacs-gateway.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "pacs-gateway" -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- merge $own .Values.commonLabels | toYaml -}}
{{- end -}}

{{/* Labels of a pod: not the chart's version, which would replace pods that are as they should be. */}}
{{- define "pacs-gateway.podLabels" -}}
{{- $own := include "pacs-gateway.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "pacs-gateway" -}}
{{- merge $own .Values.podLabels .Values.commonLabels | toYaml -}}
{{- end -}}

{{- define "pacs-gateway.image" -}}
{{- $image := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $image = printf "%s/%s" . $image }}{{ end -}}
{{- if .Values.image.digest -}}
{{ $image }}@{{ .Values.image.digest }}
{{- else -}}
{{ $image }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "pacs-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "pacs-gateway.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Where Secrets are mounted: beside the configuration, not inside its volume. */}}
{{- define "pacs-gateway.secrets" -}}/etc/pacs-gateway-secrets{{- end -}}

{{/* Secret of the certificate of the DICOM listener. */}}
{{- define "pacs-gateway.dicomTlsSecret" -}}
{{- .Values.dicom.tls.existingSecret | default (printf "%s-dicom-tls" (include "pacs-gateway.fullname" .)) -}}
{{- end -}}

{{/* Secret of the broker; empty: none. */}}
{{- define "pacs-gateway.brokerSecret" -}}
{{- if .Values.broker.existingSecret -}}
{{- .Values.broker.existingSecret -}}
{{- else if and .Values.rabbitmq.topology.enabled .Values.rabbitmq.topology.user.enabled -}}
{{- /* The topology operator names it after the User object. */ -}}
{{- include "pacs-gateway.fullname" . }}-user-credentials
{{- end -}}
{{- end -}}

{{/* Whether there may be more than one pod; empty: no. */}}
{{- define "pacs-gateway.several" -}}
{{- if or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled .Values.keda.enabled -}}yes{{- end -}}
{{- end -}}
