{{- define "medreward.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $both .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* What a pod is found by. A Deployment's selector cannot be changed, so nothing may be added here. */}}
{{- define "medreward.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "medreward.labels" -}}
{{ include "medreward.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "medreward.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "medreward.serviceAccount" -}}
{{- default (ternary (include "medreward.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "medreward.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "medreward.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "medreward.url" -}}
{{ ternary "https" "http" (ne (include "medreward.tlsSecret" .) "") }}://{{ include "medreward.fullname" . }}.{{ .Release.Namespace }}.svc:8000
{{- end -}}

{{- define "medreward.modelPath" -}}
{{ if ne .Values.model.source "image" }}/models/{{ end }}{{ .Values.model.ref }}
{{- end -}}

{{- define "medreward.modelClaim" -}}
{{- if .Values.model.existingClaim -}}
{{ .Values.model.existingClaim }}
{{- else -}}
{{ if eq .Values.model.source "pvc" }}{{ fail "model.source pvc needs model.existingClaim" }}{{ end -}}
{{ include "medreward.fullname" . }}-models
{{- end -}}
{{- end -}}

{{/* What every pod of the chart has; `restricted` in the words of Pod Security. */}}
{{- define "medreward.pod" -}}
serviceAccountName: {{ include "medreward.serviceAccount" . }}
automountServiceAccountToken: false
# Kubernetes would set MEDREWARD_PORT and the like for a Service of that name, and the server refuses unknown settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.security.userId }}
  runAsGroup: {{ .Values.security.userId }}
  fsGroup: {{ .Values.security.userId }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod that runs a model goes. */}}
{{- define "medreward.placement" -}}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "medreward.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: {{ .Values.security.readOnlyRootFilesystem }}
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Variables of everything that runs a model: caches, no hub, the settings. */}}
{{- define "medreward.env" -}}
- {name: HOME, value: /cache}
- {name: XDG_CACHE_HOME, value: /cache}
- {name: TMPDIR, value: /tmp}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- range $name, $value := .Values.settings }}
- {name: MEDREWARD_{{ upper $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Variables of what calls the server: its key, its certificate, and whom to trust. */}}
{{- define "medreward.clientEnv" -}}
{{- if not .Values.keys.insecure }}
- name: MEDREWARD_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.clientKey.existingSecret }}
      key: {{ .Values.clientKey.secretKey }}
{{- end }}
{{- if include "medreward.tlsSecret" . }}
- {name: SSL_CERT_FILE, value: /etc/medreward/ca/ca.crt}
{{- end }}
{{- if .Values.tls.clientCaSecret }}
- {name: MEDREWARD_CLIENT_CERT, value: /etc/medreward/client/tls.crt}
- {name: MEDREWARD_CLIENT_KEY, value: /etc/medreward/client/tls.key}
{{- end }}
{{- end -}}

{{- define "medreward.writable" -}}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
{{- if .Values.cache.shmSizeLimit }}
- {name: shm, mountPath: /dev/shm}
{{- end }}
{{- end -}}

{{- define "medreward.writableVolumes" -}}
- name: cache
  emptyDir: {sizeLimit: {{ .Values.cache.sizeLimit }}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.cache.tmpSizeLimit }}}
{{- with .Values.cache.shmSizeLimit }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ . }}}
{{- end }}
{{- end -}}

{{/* Whether each pod has claims of its own. */}}
{{- define "medreward.perReplica" -}}
{{- if .Values.model.claim.perReplica -}}
{{- if or (ne .Values.model.source "download") .Values.model.existingClaim -}}
{{ fail "model.claim.perReplica needs model.source download, without model.existingClaim" }}
{{- end -}}
yes
{{- end -}}
{{- end -}}

{{- define "medreward.workload" -}}
{{ empty (include "medreward.perReplica" .) | ternary "Deployment" "StatefulSet" }}
{{- end -}}

{{- define "medreward.modelMount" -}}
{{- if eq .Values.model.source "oci" -}}
- {name: model, mountPath: {{ include "medreward.modelPath" . }}, readOnly: true}
{{- else if ne .Values.model.source "image" -}}
- {name: model, mountPath: /models, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "medreward.modelVolume" -}}
{{- if eq .Values.model.source "oci" -}}
- name: model
  image:
    reference: {{ required "model.source oci needs model.oci.reference" .Values.model.oci.reference }}
    pullPolicy: {{ .Values.image.pullPolicy }}
{{- else if include "medreward.perReplica" . -}}
- name: model
  emptyDir: {sizeLimit: {{ .Values.model.claim.size }}}
{{- else if ne .Values.model.source "image" -}}
- name: model
  persistentVolumeClaim: {claimName: {{ include "medreward.modelClaim" . }}}
{{- end -}}
{{- end -}}

{{/* A probe of a path. The kubelet shows no certificate, so where one is asked for, a script in the pod shows it. */}}
{{- define "medreward.probe" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.clientCaSecret -}}
exec:
  command: [python, /scripts/probe.py, https://127.0.0.1:8000{{ index . 1 }}, /etc/medreward/client]
{{- else -}}
httpGet: {path: {{ index . 1 }}, port: rest, scheme: {{ ternary "HTTPS" "HTTP" (ne (index . 2) "") }}}
{{- end -}}
{{- end -}}

{{- define "medreward.scripts" -}}
{{- range list "fetch_model.py" "probe.py" "smoke.py" "gate.py" }}
{{ . }}: |
  {{- $.Files.Get (print "files/" .) | nindent 2 }}
{{- end }}
model.json: {{ toJson .Values.model.download.files | quote }}
{{- end -}}

{{/* A claim, `(list . class)` of a size and modes of its own. */}}
{{- define "medreward.claimSpec" -}}
accessModes: {{ toJson .accessModes }}
{{- with .storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end -}}

{{/* The container that downloads a model: in the download Job, before the gate, and in pods with claims of their own. */}}
{{- define "medreward.download" -}}
- name: download
  image: {{ include "medreward.image" . }}
  {{- include "medreward.container" . | nindent 2 }}
  command: [python, /scripts/fetch_model.py, fetch, /scripts/model.json, {{ include "medreward.modelPath" . }}]
  {{- with .Values.model.download.authorizationSecret }}
  env:
    - name: DOWNLOAD_AUTHORIZATION
      valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.model.download.authorizationKey }}}}
  {{- end }}
  resources: {requests: {cpu: 200m, memory: 128Mi}, limits: {memory: 256Mi}}
  volumeMounts:
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - {name: model, mountPath: /models}
{{- end -}}

{{/* The pod of the gate: `(list $ "--candidate=MODEL" URL)`. Its exit status is the gate's. */}}
{{- define "medreward.gatePod" -}}
{{- $root := index . 0 -}}
{{- $gate := $root.Values.gate -}}
{{- $image := $root.Values.image -}}
{{- include "medreward.pod" $root }}
{{- include "medreward.placement" $root }}
restartPolicy: Never
{{- if eq $root.Values.model.source "download" }}
initContainers:
  {{- include "medreward.download" $root | nindent 2 }}
{{- end }}
containers:
  - name: gate
    image: {{ default $image.repository $gate.image.repository }}:{{ default (printf "%s-bench" (default $root.Chart.AppVersion $image.tag)) $gate.image.tag }}
    {{- include "medreward.container" $root | nindent 4 }}
    command: [python, /scripts/gate.py]
    args:
      - {{ index . 1 }}
      - --baseline-url={{ index . 2 }}
      - --data={{ eq $gate.data "phantom" | ternary "phantom" (print "/data/" $gate.data) }}
      - --policy={{ $gate.policyText | empty | ternary $gate.policy "/scripts/policy.toml" }}
      - --out=/gate/$(POD_NAME)
      {{- if $gate.limit }}
      - --limit={{ $gate.limit }}
      {{- end }}
      {{- if $gate.blanked }}
      - --blanked
      {{- end }}
      {{- if $gate.compareLatency }}
      - --compare-latency
      {{- end }}
    env:
      - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      {{- include "medreward.env" $root | nindent 6 }}
      {{- include "medreward.clientEnv" $root | nindent 6 }}
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      {{- include "medreward.resources" $root | nindent 6 }}
    volumeMounts:
      - {name: scripts, mountPath: /scripts, readOnly: true}
      - {name: gate, mountPath: /gate}
      {{- include "medreward.writable" $root | nindent 6 }}
      {{- include "medreward.modelMount" $root | nindent 6 }}
      {{- include "medreward.trustMount" $root | nindent 6 }}
      {{- if $gate.dataClaim }}
      - {name: data, mountPath: /data, readOnly: true}
      {{- end }}
volumes:
  - name: scripts
    configMap: {name: {{ include "medreward.fullname" $root }}-gate}
  - name: gate
    {{- if $gate.keepClaim }}
    persistentVolumeClaim: {claimName: {{ $gate.keepClaim }}}
    {{- else }}
    emptyDir: {}
    {{- end }}
  {{- include "medreward.writableVolumes" $root | nindent 2 }}
  {{- include "medreward.modelVolume" $root | nindent 2 }}
  {{- include "medreward.trustVolume" $root | nindent 2 }}
  {{- with $gate.dataClaim }}
  - name: data
    persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
  {{- end }}
{{- end -}}

{{/* Whom `helm test` and the gate trust, and what they show. Of the server's secret they see the authority alone. */}}
{{- define "medreward.trustMount" -}}
{{- if include "medreward.tlsSecret" . -}}
- {name: ca, mountPath: /etc/medreward/ca, readOnly: true}
{{- end }}
{{- if .Values.tls.clientCaSecret }}
- {name: client-cert, mountPath: /etc/medreward/client, readOnly: true}
{{- end }}
{{- end -}}

{{- define "medreward.trustVolume" -}}
{{- with include "medreward.tlsSecret" . -}}
- name: ca
  secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if .Values.tls.clientCaSecret }}
- name: client-cert
  secret: {secretName: {{ .Values.tls.clientCertSecret }}}
{{- end }}
{{- end -}}

{{- define "medreward.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.count -}}
{{- $limits := merge (dict .Values.gpu.resource .Values.gpu.count) (default dict $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
