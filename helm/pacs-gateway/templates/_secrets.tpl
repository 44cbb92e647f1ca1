{{/* Volumes with Secrets, as YAML; each is mounted under its name. Mode 0440 (288): our group reads. */}}
{{- define "pacs-gateway.secretVolumes" -}}
{{- $volumes := list -}}
{{- $broker := include "pacs-gateway.brokerSecret" . -}}
{{- if and $broker .Values.broker.url -}}
{{- $items := list (dict "key" .Values.broker.usernameKey "path" "username") (dict "key" .Values.broker.passwordKey "path" "password") -}}
{{- $volumes = append $volumes (dict "name" "broker" "secret" (dict "secretName" $broker "defaultMode" 288 "items" $items)) -}}
{{- end -}}
{{- with .Values.broker.tls -}}
{{- if .existingSecret -}}
{{- $items := list (dict "key" .caKey "path" "ca.crt") -}}
{{- if .clientCertificate -}}
{{- $items = concat $items (list (dict "key" .certificateKey "path" "tls.crt") (dict "key" .keyKey "path" "tls.key")) -}}
{{- end -}}
{{- $volumes = append $volumes (dict "name" "broker-tls" "secret" (dict "secretName" .existingSecret "defaultMode" 288 "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- if .Values.dicom.tls.enabled -}}
{{- $volumes = append $volumes (dict "name" "dicom-tls" "secret" (dict "secretName" (include "pacs-gateway.dicomTlsSecret" .) "defaultMode" 288)) -}}
{{- range $index, $authority := .Values.dicom.tls.ca -}}
{{- $items := list (dict "key" $authority.key "path" "ca.crt") -}}
{{- $volumes = append $volumes (dict "name" (printf "dicom-ca-%d" $index) "secret" (dict "secretName" $authority.name "defaultMode" 288 "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.http.tls.existingSecret -}}
{{- $volumes = append $volumes (dict "name" "http-tls" "secret" (dict "secretName" . "defaultMode" 288)) -}}
{{- end -}}
{{- range $role, $tokens := dict "read" .Values.http.readTokens "operate" .Values.http.operateTokens -}}
{{- range $index, $token := $tokens -}}
{{- $items := list (dict "key" $token.key "path" "token") -}}
{{- $volumes = append $volumes (dict "name" (printf "http-%s-%d" $role $index) "secret" (dict "secretName" $token.name "defaultMode" 288 "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.log.studyKey -}}
{{- if .existingSecret -}}
{{- $items := list (dict "key" .key "path" "key") -}}
{{- $volumes = append $volumes (dict "name" "log-study-key" "secret" (dict "secretName" .existingSecret "defaultMode" 288 "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $volumes -}}
{{- end -}}
