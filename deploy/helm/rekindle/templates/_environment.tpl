{{/* What each service is told beyond how it listens. */}}
{{- define "rekindle.env.scheduler" -}}
{{ include "rekindle.env" (list "REKINDLE_SCHEDULER_INFERENCE_ADDRESS" (include "rekindle.address" (list . "inference" .Values.inference.port))) }}
{{ include "rekindle.env" (list "REKINDLE_SCHEDULER_TRAINER_ADDRESS" (include "rekindle.address" (list . "trainer" .Values.trainer.port))) }}
{{- if .Values.tls.enabled }}
{{ include "rekindle.env" (list "REKINDLE_SCHEDULER_PEER_TLS" "true") }}
{{ include "rekindle.env" (list "REKINDLE_SCHEDULER_PEER_CA" "/etc/rekindle/tls/ca.crt") }}
{{- if .Values.tls.requireClientCertificate }}
{{ include "rekindle.env" (list "REKINDLE_SCHEDULER_PEER_CERTIFICATE" "/etc/rekindle/tls/tls.crt") }}
{{ include "rekindle.env" (list "REKINDLE_SCHEDULER_PEER_KEY" "/etc/rekindle/tls/tls.key") }}
{{- end }}
{{- end }}
{{- if .Values.auth.serviceTokenSecret }}
{{ include "rekindle.env" (list "REKINDLE_SCHEDULER_PEER_TOKEN_FILE" (printf "/etc/rekindle/service-token/%s" .Values.auth.serviceTokenKey)) }}
{{- end }}
{{- end -}}

{{/* Where objects lie: the same for inference, trainer and training runs. The argument is (list $ "INFERENCE"). */}}
{{- define "rekindle.objectsEnv" -}}
{{- $root := index . 0 -}}
{{- $prefix := printf "REKINDLE_%s_OBJECTS" (index . 1) -}}
{{- $secret := include "rekindle.objectsSecret" $root -}}
{{ include "rekindle.env" (list (printf "%s_URL" $prefix) (include "rekindle.objectsUrl" $root)) }}
{{- with include "rekindle.objectsEndpoint" $root }}
{{ include "rekindle.env" (list (printf "%s_ENDPOINT" $prefix) .) }}
{{- end }}
{{- with $root.Values.objects.publicEndpoint }}
{{ include "rekindle.env" (list (printf "%s_PUBLIC_ENDPOINT" $prefix) .) }}
{{- end }}
{{ include "rekindle.env" (list (printf "%s_REGION" $prefix) $root.Values.objects.region) }}
{{ include "rekindle.secretEnv" (list (printf "%s_ACCESS_KEY" $prefix) $secret $root.Values.objects.keys.accessKey) }}
{{ include "rekindle.secretEnv" (list (printf "%s_SECRET_KEY" $prefix) $secret $root.Values.objects.keys.secretKey) }}
{{- if $root.Values.objects.caConfigMap }}
{{ include "rekindle.env" (list (printf "%s_CA_FILE" $prefix) "/etc/rekindle/objects-ca/ca.crt") }}
{{- end }}
{{- with $root.Values.objects.encryption }}
{{ include "rekindle.env" (list (printf "%s_ENCRYPTION" $prefix) .) }}
{{- end }}
{{- end -}}

{{- define "rekindle.objectsUrl" -}}
{{- ternary "s3://rekindle" .Values.objects.url .Values.evaluation.enabled -}}
{{- end -}}

{{- define "rekindle.objectsEndpoint" -}}
{{- if .Values.evaluation.enabled -}}
{{- printf "http://%s" (include "rekindle.address" (list . "minio" 9000)) -}}
{{- else -}}
{{- .Values.objects.endpoint -}}
{{- end -}}
{{- end -}}

{{/* What Triton is started with: s3://, the endpoint where it is not Amazon's, then the place of the models: the same
     for all installations of a bucket, as each model's name begins with its installation's. */}}
{{- define "rekindle.tritonRepository" -}}
{{- $place := printf "%s/triton" (trimSuffix "/" (trimPrefix "s3://" (include "rekindle.objectsUrl" .))) -}}
{{- $endpoint := include "rekindle.objectsEndpoint" . -}}
{{- if $endpoint -}}
{{- $port := ternary "" (ternary ":443" ":80" (hasPrefix "https://" $endpoint)) (regexMatch ":[0-9]+$" $endpoint) -}}
{{- printf "s3://%s%s/%s" $endpoint $port $place -}}
{{- else -}}
{{- printf "s3://%s" $place -}}
{{- end -}}
{{- end -}}

{{- define "rekindle.env.inference" -}}
{{ include "rekindle.objectsEnv" (list . "INFERENCE") }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TEMPORARY_DIRECTORY" "/tmp") }}
{{- if eq .Values.inference.engine "triton" }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TRITON_ADDRESS" (ternary (include "rekindle.address" (list . "triton" 8001)) .Values.triton.address .Values.triton.enabled)) }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TRITON_SHARED_MEMORY" "off") }}
{{- if .Values.triton.gpu.count }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TRITON_INSTANCE_KIND" "gpu") }}
{{- end }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TRITON_INSTANCES" .Values.triton.instances) }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TRITON_ACCELERATOR" .Values.triton.accelerator) }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TRITON_PRECISION" .Values.triton.precision) }}
{{ include "rekindle.env" (list "REKINDLE_INFERENCE_TRITON_MAX_QUEUE_DELAY_US" .Values.triton.maxQueueDelayMicroseconds) }}
{{- end }}
{{- end -}}

{{- define "rekindle.env.trainer" -}}
{{ include "rekindle.objectsEnv" (list . "TRAINER") }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_STATE_DIRECTORY" "/var/lib/rekindle") }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_LAUNCHER" .Values.trainer.launcher) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_MAX_CONCURRENT_RUNS" .Values.trainer.jobs.maxConcurrent) }}
{{- if eq .Values.trainer.launcher "kubernetes" }}
{{- $jobs := .Values.trainer.jobs }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_NAMESPACE" .Release.Namespace) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_IMAGE" (include "rekindle.jobImage" .)) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_SECRET" (include "rekindle.objectsSecret" .)) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_SECRET_KEYS" (dict "REKINDLE_PROCESS_OBJECTS_ACCESS_KEY" .Values.objects.keys.accessKey "REKINDLE_PROCESS_OBJECTS_SECRET_KEY" .Values.objects.keys.secretKey | toJson)) }}
{{- with .Values.objects.caConfigMap }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_CA_CONFIG_MAP" .) }}
{{- end }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_GPUS" $jobs.gpu.count) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_GPU_RESOURCE" $jobs.gpu.resource) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_NODES" $jobs.nodes) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_CPU" $jobs.cpu) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_MEMORY" $jobs.memory) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_SCRATCH" $jobs.scratch) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_NODE_SELECTOR" (toJson $jobs.nodeSelector)) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_TOLERATIONS" (toJson $jobs.tolerations)) }}
{{- with $jobs.runtimeClassName }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_RUNTIME_CLASS" .) }}
{{- end }}
{{- with $jobs.priorityClassName }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_PRIORITY_CLASS" .) }}
{{- end }}
{{- with $jobs.kueueQueue }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_QUEUE" .) }}
{{- end }}
{{- with first (default list .Values.global.imagePullSecrets) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_PULL_SECRET" .) }}
{{- end }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_SERVICE_ACCOUNT" (include "rekindle.component" (list . "run"))) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_DEADLINE_S" (int $jobs.activeDeadlineSeconds)) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_TTL_S" (int $jobs.ttlSecondsAfterFinished)) }}
{{ include "rekindle.env" (list "REKINDLE_TRAINER_KUBERNETES_UNSCHEDULABLE_S" (mul 60 (int $jobs.unschedulableMinutes))) }}
{{- end }}
{{- end -}}

{{/* The Jobs' image: the trainer's own where nothing else is named. */}}
{{- define "rekindle.jobImage" -}}
{{- $own := .Values.trainer.image -}}
{{- $jobs := .Values.trainer.jobs.image -}}
{{- $image := dict "registry" (default $own.registry $jobs.registry) "repository" (default $own.repository $jobs.repository) "tag" (default $own.tag $jobs.tag) "digest" (default $own.digest $jobs.digest) -}}
{{- include "rekindle.image" (list . $image) -}}
{{- end -}}
