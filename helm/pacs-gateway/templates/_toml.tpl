{{/*
TOML of a table. Helm's own toToml writes every number as a float, because Helm reads every number of a values file as
one. Values first, then the tables below: a TOML table ends where the next one begins. JSON's numbers and escapes are
TOML's.
*/}}
{{- define "pacs-gateway.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if and (not (kindIs "map" $value)) (not (kindIs "invalid" $value)) }}
{{ include "pacs-gateway.toml.key" $key }} = {{ include "pacs-gateway.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- if and (kindIs "map" $value) $value -}}
{{- $name := include "pacs-gateway.toml.key" $key -}}
{{- if $path }}{{ $name = printf "%s.%s" $path $name }}{{ end }}

[{{ $name }}]
{{- include "pacs-gateway.toml" (dict "path" $name "table" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pacs-gateway.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{- . -}}{{- else -}}{{- toJson . -}}{{- end -}}
{{- end -}}

{{- define "pacs-gateway.toml.value" -}}
{{- if kindIs "slice" . -}}
[{{- range $index, $item := . -}}{{- if $index }}, {{ end -}}{{- include "pacs-gateway.toml.value" $item -}}{{- end -}}]
{{- else if kindIs "map" . -}}
{ {{- $rest := false -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- if $rest }},{{ end }} {{ include "pacs-gateway.toml.key" $key }} = {{ include "pacs-gateway.toml.value" $value -}}
{{- $rest = true -}}
{{- end -}}
{{- end }} }
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}
