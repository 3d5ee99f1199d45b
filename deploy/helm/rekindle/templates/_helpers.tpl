{{/* Names and labels. */}}
{{- define "rekindle.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "rekindle.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "rekindle.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "rekindle.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Prefix of object keys, model names and Job labels: two releases can share a bucket, a Triton and a namespace.
     Never cut short: two that share the beginning of a name would share their objects. */}}
{{- define "rekindle.installationId" -}}
{{- default (printf "%s-%s" .Release.Namespace .Release.Name) .Values.installationId -}}
{{- end -}}

{{/* One component's name: (list $ "scheduler"). */}}
{{- define "rekindle.component" -}}
{{- printf "%s-%s" (include "rekindle.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- define "rekindle.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "rekindle.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "rekindle.labels" -}}
{{- $root := index . 0 -}}
{{ include "rekindle.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: rekindle
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image by digest where there is one, else by tag: (list $ .Values.scheduler.image). */}}
{{- define "rekindle.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry $root.Values.global.imageRegistry -}}
{{- $name := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "rekindle.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $account := (index $root.Values $component).serviceAccount -}}
{{- default (include "rekindle.component" .) $account.name -}}
{{- end -}}

{{/* host:port of a service inside the cluster: (list $ "inference" 50052). */}}
{{- define "rekindle.address" -}}
{{- printf "%s.%s.svc:%d" (include "rekindle.component" .) (index . 0).Release.Namespace (int (index . 2)) -}}
{{- end -}}

{{/* The Secret with the servers' certificate. */}}
{{- define "rekindle.tlsSecret" -}}
{{- default (printf "%s-tls" (include "rekindle.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{- define "rekindle.databaseSecret" -}}
{{- if .Values.evaluation.enabled -}}
{{- printf "%s-evaluation" (include "rekindle.fullname" .) -}}
{{- else -}}
{{- .Values.database.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "rekindle.objectsSecret" -}}
{{- if .Values.evaluation.enabled -}}
{{- printf "%s-evaluation" (include "rekindle.fullname" .) -}}
{{- else -}}
{{- .Values.objects.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The gRPC services behind each component, which routes tell apart by name. */}}
{{- define "rekindle.grpcServices" -}}
scheduler:
  - rekindle.api.scheduler.v1.SchedulerService
inference:
  - rekindle.api.inference.v1.VolumeService
  - rekindle.api.inference.v1.InferenceService
  - rekindle.api.inference.v1.SegmentationService
trainer:
  - rekindle.api.trainer.v1.TrainerService
{{- end -}}
