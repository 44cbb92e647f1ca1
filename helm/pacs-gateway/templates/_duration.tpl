{{/* Milliseconds of a duration such as 500ms, 1m30s or 2h. */}}
{{- define "pacs-gateway.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" (toString .) -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $total = add $total (mul (trimSuffix $unit . | int64) (get $units $unit)) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/*
Seconds that the drain needs at worst (src/app.rs): shutdown.delay, associations, studies twice (a model being loaded,
then the studies), outbox, and 10 s for what has a fixed time: reports, housekeeping, HTTP and the like. 5 s more are for
the signal's way and the end of the process. A test compares this with the source.
*/}}
{{- define "pacs-gateway.drainSeconds" -}}
{{- $grace := .Values.config.shutdown | default dict -}}
{{- $delay := include "pacs-gateway.milliseconds" (get $grace "delay" | default "0s") | int64 -}}
{{- $associations := include "pacs-gateway.milliseconds" (get $grace "associations" | default "10s") | int64 -}}
{{- $studies := include "pacs-gateway.milliseconds" (get $grace "studies" | default "10s") | int64 -}}
{{- $outbox := include "pacs-gateway.milliseconds" (get $grace "outbox" | default "5s") | int64 -}}
{{- $total := add $delay $associations $studies $studies $outbox 10000 5000 -}}
{{- div (add $total 999) 1000 -}}
{{- end -}}

{{- define "pacs-gateway.graceSeconds" -}}
{{- $needed := include "pacs-gateway.drainSeconds" . | int64 -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- $needed -}}
{{- else if lt (int64 $given) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds: %d s is shorter than the %d s that config.shutdown needs at worst; raise it or leave it null" (int64 $given) $needed) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}
