{{/* The Deployment of one of the three services: (list $ "scheduler"). Its own environment is "rekindle.env.<component>". */}}
{{- define "rekindle.deployment" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
{{- $prefix := printf "REKINDLE_%s" (upper $component) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "rekindle.component" . }}
  labels:
    {{- include "rekindle.labels" . | nindent 4 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false $values) }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "rekindle.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "rekindle.labels" . | nindent 8 }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "rekindle.serviceAccountName" . }}
      # Only the trainer talks to the cluster: its launcher makes Jobs.
      automountServiceAccountToken: {{ and (eq $component "trainer") (eq $root.Values.trainer.launcher "kubernetes") }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      securityContext:
        {{- include "rekindle.podSecurityContext" $root | nindent 8 }}
      {{- include "rekindle.pullSecrets" $root | nindent 6 }}
      {{- include "rekindle.placement" . | nindent 6 }}
      containers:
        - name: {{ $component }}
          image: {{ include "rekindle.image" (list $root $values.image) }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          securityContext:
            {{- include "rekindle.containerSecurityContext" $root | nindent 12 }}
          env:
            {{- include "rekindle.env" (list (printf "%s_ADDRESS" $prefix) (printf "0.0.0.0:%d" (int $values.port))) | nindent 12 }}
            {{- include "rekindle.env" (list (printf "%s_HEALTH_ADDRESS" $prefix) "0.0.0.0:50060") | nindent 12 }}
            {{- if $root.Values.monitoring.metrics.enabled }}
            {{- include "rekindle.env" (list (printf "%s_METRICS_ADDRESS" $prefix) (printf "0.0.0.0:%d" (int $root.Values.monitoring.metrics.port))) | nindent 12 }}
            {{- end }}
            {{- include "rekindle.env" (list (printf "%s_MIGRATE_ON_START" $prefix) (not $root.Values.migrations.enabled)) | nindent 12 }}
            {{- include "rekindle.env" (list (printf "%s_INSTALLATION_ID" $prefix) (include "rekindle.installationId" $root)) | nindent 12 }}
            {{- include "rekindle.secretEnv" (list (printf "%s_DATABASE_URL" $prefix) (include "rekindle.databaseSecret" $root) (get $root.Values.database.keys $component)) | nindent 12 }}
            {{- include "rekindle.tlsEnv" . | nindent 12 }}
            {{- include (printf "rekindle.env.%s" $component) $root | nindent 12 }}
            {{- include "rekindle.freeSettings" . | trim | nindent 12 }}
          ports:
            - {name: grpc, containerPort: {{ $values.port }}, protocol: TCP}
            - {name: health, containerPort: 50060, protocol: TCP}
            {{- if $root.Values.monitoring.metrics.enabled }}
            - {name: metrics, containerPort: {{ $root.Values.monitoring.metrics.port }}, protocol: TCP}
            {{- end }}
          {{- include "rekindle.probes" $root | nindent 10 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: scratch, mountPath: /tmp}
            - {name: state, mountPath: /var/lib/rekindle}
            {{- include "rekindle.tlsMounts" . | nindent 12 }}
      volumes:
        - name: scratch
          emptyDir: {sizeLimit: {{ dig "scratch" "sizeLimit" "1Gi" $values }}}
        - name: state
          emptyDir: {sizeLimit: 1Gi}
        {{- include "rekindle.tlsVolumes" . | nindent 8 }}
{{- end -}}

{{/* How the service listens, and who may call. */}}
{{- define "rekindle.tlsEnv" -}}
{{- $root := index . 0 -}}
{{- $prefix := printf "REKINDLE_%s" (upper (index . 1)) -}}
{{- if $root.Values.tls.enabled -}}
{{ include "rekindle.env" (list (printf "%s_TLS_CERTIFICATE" $prefix) "/etc/rekindle/tls/tls.crt") }}
{{ include "rekindle.env" (list (printf "%s_TLS_KEY" $prefix) "/etc/rekindle/tls/tls.key") }}
{{- if $root.Values.tls.requireClientCertificate }}
{{ include "rekindle.env" (list (printf "%s_TLS_CLIENT_CA" $prefix) "/etc/rekindle/tls/ca.crt") }}
{{- with $root.Values.tls.certificateRoles }}
{{ include "rekindle.env" (list (printf "%s_CERTIFICATE_ROLES" $prefix) .) }}
{{- end }}
{{- end }}
{{- else -}}
{{ include "rekindle.env" (list (printf "%s_INSECURE" $prefix) "true") }}
{{- end }}
{{- if $root.Values.auth.existingSecret }}
{{ include "rekindle.env" (list (printf "%s_CALLERS_FILE" $prefix) (printf "/etc/rekindle/callers/%s" $root.Values.auth.callersKey)) }}
{{- end }}
{{- end -}}

{{- define "rekindle.tlsMounts" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.enabled }}
- {name: tls, mountPath: /etc/rekindle/tls, readOnly: true}
{{- end }}
{{- if $root.Values.auth.existingSecret }}
- {name: callers, mountPath: /etc/rekindle/callers, readOnly: true}
{{- end }}
{{- if and (eq (index . 1) "scheduler") $root.Values.auth.serviceTokenSecret }}
- {name: service-token, mountPath: /etc/rekindle/service-token, readOnly: true}
{{- end }}
{{- if and (ne (index . 1) "scheduler") $root.Values.objects.caConfigMap }}
- {name: objects-ca, mountPath: /etc/rekindle/objects-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "rekindle.tlsVolumes" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ include "rekindle.tlsSecret" $root }}, defaultMode: 0440}
{{- end }}
{{- if $root.Values.auth.existingSecret }}
- name: callers
  secret: {secretName: {{ $root.Values.auth.existingSecret }}, defaultMode: 0440}
{{- end }}
{{- if and (eq (index . 1) "scheduler") $root.Values.auth.serviceTokenSecret }}
- name: service-token
  secret: {secretName: {{ $root.Values.auth.serviceTokenSecret }}, defaultMode: 0440}
{{- end }}
{{- if and (ne (index . 1) "scheduler") $root.Values.objects.caConfigMap }}
- name: objects-ca
  configMap: {name: {{ $root.Values.objects.caConfigMap }}}
{{- end }}
{{- end -}}
