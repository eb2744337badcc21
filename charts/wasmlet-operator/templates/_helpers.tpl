{{- define "operator.labels" -}}
app.kubernetes.io/name: wasmlet-operator
{{- end -}}

{{- define "operator.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* What every container of the operator may. */ -}}
{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Names of the roles that pools' service accounts have. */ -}}
{{- define "operator.roles" -}}
{{- range . }}
- wasmlet-pool-{{ . }}
{{- end }}
{{- end -}}

{{- /* The namespace of join tokens and agents' keys; `helm lint` has no release. */ -}}
{{- define "operator.keys" -}}
{{ .Release.Namespace | default "default" }}-keys
{{- end -}}
