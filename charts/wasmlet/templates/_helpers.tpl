{{- define "wasmlet.labels" -}}
app.kubernetes.io/name: wasmlet
{{- end -}}

{{- /* The settings, as TOML: what the chart needs, overridden and added to by values.config. */ -}}
{{- define "wasmlet.config" -}}
{{- $own := dict "impersonate-node" true "serving-csr" false "drain-on-exit" true "drain-seconds" 25 "state-dir" "/var/lib/wasmlet/state" -}}
{{- range $key, $value := mergeOverwrite $own (deepCopy .Values.config) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end -}}
