{{/*
The configuration of the gateway: config of the values, and what follows from the others. A key that the chart sets
cannot be set in config too, and not through extraEnv.
*/}}

{{/* Keys that the chart sets, and the value that each follows from. */}}
{{- define "pacs-gateway.owned" -}}
dicom.bind: service.dicom.port
dicom.plain: dicom.plain
dicom.tls.bind: dicom.tls.enabled
dicom.tls.certificate: dicom.tls.existingSecret
dicom.tls.key: dicom.tls.existingSecret
dicom.tls.ca: dicom.tls.ca
spool.dir: persistence
models.dir: models.source
broker.url: broker.url or broker.existingSecret
broker.username_file: broker.existingSecret
broker.password_file: broker.existingSecret
broker.tls.ca: broker.tls.existingSecret
broker.tls.certificate: broker.tls.clientCertificate
broker.tls.key: broker.tls.clientCertificate
http.bind: service.http.port
http.probe_bind: probes
http.read_token_files: http.readTokens
http.operate_token_files: http.operateTokens
http.read_tokens: http.readTokens
http.operate_tokens: http.operateTokens
http.tls.certificate: http.tls.existingSecret
http.tls.key: http.tls.existingSecret
log.study_key_file: log.studyKey.existingSecret
{{- end -}}

{{/* The whole configuration as JSON. */}}
{{- define "pacs-gateway.config" -}}
{{- $secrets := include "pacs-gateway.secrets" . -}}
{{- $tls := .Values.dicom.tls -}}
{{- $dicom := dict "bind" "0.0.0.0:11112" "plain" .Values.dicom.plain -}}
{{- if $tls.enabled -}}
{{- $own := printf "%s/dicom-tls" $secrets -}}
{{- $listener := dict "bind" "0.0.0.0:2762" "certificate" (printf "%s/tls.crt" $own) "key" (printf "%s/tls.key" $own) -}}
{{- $given := get (get (.Values.config.dicom | default dict) "tls" | default dict) "client_certificate" | default "required" -}}
{{- $authorities := list -}}
{{- range $index, $authority := $tls.ca -}}
{{- $authorities = append $authorities (printf "%s/dicom-ca-%d/ca.crt" $secrets $index) -}}
{{- end -}}
{{- if and (not $tls.ca) (ne $given "none") -}}
{{- $authorities = list (printf "%s/ca.crt" $own) -}}
{{- end -}}
{{- $_ := set $dicom "tls" (set $listener "ca" $authorities) -}}
{{- end -}}
{{- $broker := dict -}}
{{- with .Values.broker.url -}}{{- $_ := set $broker "url" . -}}{{- end -}}
{{- if and .Values.broker.url (include "pacs-gateway.brokerSecret" .) -}}
{{- $_ := set $broker "username_file" (printf "%s/broker/username" $secrets) -}}
{{- $_ := set $broker "password_file" (printf "%s/broker/password" $secrets) -}}
{{- end -}}
{{- if .Values.broker.tls.existingSecret -}}
{{- $own := dict "ca" (printf "%s/broker-tls/ca.crt" $secrets) -}}
{{- if .Values.broker.tls.clientCertificate -}}
{{- $_ := set $own "certificate" (printf "%s/broker-tls/tls.crt" $secrets) -}}
{{- $_ := set $own "key" (printf "%s/broker-tls/tls.key" $secrets) -}}
{{- end -}}
{{- $_ := set $broker "tls" $own -}}
{{- end -}}
{{- if .Values.rabbitmq.topology.enabled -}}{{- $_ := set $broker "declare" "passive" -}}{{- end -}}
{{- $http := dict "bind" "0.0.0.0:8080" "probe_bind" "0.0.0.0:9090" -}}
{{- if .Values.http.tls.existingSecret -}}
{{- $own := printf "%s/http-tls" $secrets -}}
{{- $_ := set $http "tls" (dict "certificate" (printf "%s/tls.crt" $own) "key" (printf "%s/tls.key" $own)) -}}
{{- end -}}
{{- range $role, $tokens := dict "read" .Values.http.readTokens "operate" .Values.http.operateTokens -}}
{{- $files := list -}}
{{- range $index, $token := $tokens -}}
{{- $files = append $files (printf "%s/http-%s-%d/token" $secrets $role $index) -}}
{{- end -}}
{{- if $files -}}{{- $_ := set $http (printf "%s_token_files" $role) $files -}}{{- end -}}
{{- end -}}
{{- $set := dict "dicom" $dicom "broker" $broker "http" $http -}}
{{- $_ := set $set "spool" (dict "dir" "/var/lib/pacs-gateway/spool") -}}
{{- $_ := set $set "models" (dict "dir" "/opt/pacs-gateway/models") -}}
{{- if .Values.log.studyKey.existingSecret -}}
{{- $_ := set $set "log" (dict "study_key_file" (printf "%s/log-study-key/key" $secrets)) -}}
{{- end -}}
{{- if .Values.gpu.enabled -}}{{- $_ := set $set "inference" (dict "provider" .Values.gpu.provider) -}}{{- end -}}
{{- $limits := get (.Values.config.spool | default dict) "limits" | default dict -}}
{{- if not (hasKey $limits "max_bytes") -}}
{{- $_ := set $set.spool "limits" (include "pacs-gateway.spoolLimits" . | fromJson) -}}
{{- end -}}
{{- mustMergeOverwrite (deepCopy .Values.config) $set | toJson -}}
{{- end -}}

{{/* 80 % and 72 % of the volume: the rest is for the outbox, the ledger, artefacts and quarantine. */}}
{{- define "pacs-gateway.spoolLimits" -}}
{{- $units := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $unit := regexFind "[A-Za-z]+$" .Values.persistence.size -}}
{{- $bytes := mul (trimSuffix $unit .Values.persistence.size | int64) (get $units $unit) -}}
{{- $max := div (div (mul $bytes 80) 100) 1048576 -}}
{{- $resume := div (div (mul $bytes 72) 100) 1048576 -}}
{{- dict "max_bytes" (printf "%dMiB" $max) "resume_bytes" (printf "%dMiB" $resume) | toJson -}}
{{- end -}}
