{{/* Parts of pods that all components share. */}}

{{/* Pod security "restricted". */}}
{{- define "rekindle.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "rekindle.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The native gRPC probe asks the plain-text port that answers health and nothing else. */}}
{{- define "rekindle.probes" -}}
startupProbe:
  grpc: {port: 50060}
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
  grpc: {port: 50060}
  periodSeconds: 5
  failureThreshold: 3
livenessProbe:
  grpc: {port: 50060}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Where pods may go: (list $ "scheduler"). */}}
{{- define "rekindle.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if dig "topologySpread" "enabled" false $values }}
topologySpreadConstraints:
  - maxSkew: {{ $values.topologySpread.maxSkew }}
    topologyKey: {{ $values.topologySpread.topologyKey }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "rekindle.selectorLabels" . | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "rekindle.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* One environment entry: (list "NAME" value). */}}
{{- define "rekindle.env" -}}
- name: {{ index . 0 }}
  value: {{ index . 1 | toString | quote }}
{{- end -}}

{{/* One environment entry out of a Secret: (list "NAME" secret key). */}}
{{- define "rekindle.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{/* Free settings of a component, as REKINDLE_<COMPONENT>_<NAME>. */}}
{{- define "rekindle.freeSettings" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- range $name, $value := (index $root.Values $component).settings }}
{{ include "rekindle.env" (list (printf "REKINDLE_%s_%s" (upper $component) (upper $name)) $value) }}
{{- end }}
{{- end -}}
