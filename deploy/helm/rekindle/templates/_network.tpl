{{/* Rules of network policies. */}}
{{- define "rekindle.clientIngress" -}}
- from:
    {{- if .Values.networkPolicy.clients }}
    {{- toYaml .Values.networkPolicy.clients | nindent 4 }}
    - podSelector:
        matchLabels:
          {{- include "rekindle.selectorLabels" (list . "test") | nindent 10 }}
    {{- else }}
    - podSelector: {}
    {{- end }}
  ports:
    - {port: grpc, protocol: TCP}
{{- end -}}

{{- define "rekindle.metricsIngress" -}}
{{- if and .Values.monitoring.metrics.enabled .Values.networkPolicy.monitoring -}}
- from:
    {{- toYaml .Values.networkPolicy.monitoring | nindent 4 }}
  ports:
    - {port: metrics, protocol: TCP}
{{- end -}}
{{- end -}}

{{- define "rekindle.toComponent" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "rekindle.selectorLabels" (list (index . 0) (index . 1)) | nindent 10 }}
  ports:
    - {port: {{ index . 2 }}, protocol: TCP}
{{- end -}}

{{- define "rekindle.toDatabase" -}}
{{- if .Values.evaluation.enabled -}}
{{ include "rekindle.toComponent" (list . "postgresql" "postgresql") }}
{{- else -}}
- to:
    {{- toYaml .Values.networkPolicy.databasePeers | nindent 4 }}
  ports:
    - {port: {{ .Values.networkPolicy.databasePort }}, protocol: TCP}
{{- end -}}
{{- end -}}

{{- define "rekindle.toObjects" -}}
{{- if .Values.evaluation.enabled -}}
{{ include "rekindle.toComponent" (list . "minio" "s3") }}
{{- else -}}
- to:
    {{- toYaml .Values.networkPolicy.objectsPeers | nindent 4 }}
  ports:
    - {port: {{ .Values.networkPolicy.objectsPort }}, protocol: TCP}
{{- end -}}
{{- end -}}

{{- define "rekindle.toNames" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{/* The labels that the launcher gives to the pods of its Jobs. */}}
{{- define "rekindle.runLabels" -}}
app.kubernetes.io/name: rekindle-training
rekindle.dev/installation: {{ include "rekindle.installationId" . }}
{{- end -}}
