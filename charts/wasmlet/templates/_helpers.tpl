{{- /* What all is called, and the nodes with a number behind it: "wasmlet" of a release of that name. */ -}}
{{- define "wasmlet.name" -}}
{{- ternary .Release.Name (printf "%s-wasmlet" .Release.Name) (contains "wasmlet" .Release.Name) | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{- define "wasmlet.labels" -}}
app.kubernetes.io/name: wasmlet
app.kubernetes.io/instance: {{ include "wasmlet.name" . }}
{{- end -}}

{{- define "wasmlet.hostLabels" -}}
app.kubernetes.io/name: wasmlet-host
app.kubernetes.io/instance: {{ include "wasmlet.name" . }}
{{- end -}}

{{- /* The settings, as TOML: what the chart needs, overridden and added to by values.config. */ -}}
{{- define "wasmlet.config" -}}
{{- $own := dict "impersonate-node" true "serving-csr" false "drain-on-exit" true "drain-seconds" 25 "state-dir" "/var/lib/wasmlet/state" -}}
{{- range $key, $value := mergeOverwrite $own (deepCopy .Values.config) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end -}}
