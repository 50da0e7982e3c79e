{{- /* Written by hand, as all of templates/ but crds.yaml. */ -}}

{{- define "tidelock.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains "tidelock" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-tidelock" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Name of what is not in a namespace. */}}
{{- define "tidelock.clusterName" -}}
{{- $name := include "tidelock.fullname" . }}
{{- ternary $name (printf "%s-%s" .Release.Namespace $name) (eq .Release.Namespace "tidelock-system") }}
{{- end }}

{{- define "tidelock.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "tidelock.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tidelock.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* What an operator's pods are found by, together with tidelock.dev/watches where there are several. */}}
{{- define "tidelock.selector" -}}
app.kubernetes.io/name: tidelock
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Refuses keys that the chart sets itself: one that stands twice in an object is an error to one
reader, and either of the two to another. */}}
{{- define "tidelock.refuseFixed" -}}
{{- $pod := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/part-of" "tidelock.dev/watches" }}
{{- $labels := append $pod "app.kubernetes.io/version" }}
{{- $annotations := list "helm.sh/resource-policy" "tidelock.dev/chart" }}
{{- range list
  (list "commonLabels" .Values.commonLabels $labels)
  (list "podLabels" .Values.podLabels $pod)
  (list "serviceMonitor.labels" .Values.serviceMonitor.labels $labels)
  (list "prometheusRule.labels" .Values.prometheusRule.labels $labels)
  (list "dashboards.labels" .Values.dashboards.labels $labels)
  (list "commonAnnotations" .Values.commonAnnotations $annotations)
}}
{{- $value := index . 0 }}
{{- $fixed := index . 2 }}
{{- range $key, $_ := index . 1 }}
{{- if has $key $fixed }}{{ fail (printf "%s: %s is set by the chart itself; leave it out" $value $key) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tidelock.labels" -}}
{{ include "tidelock.labelsAnd" (dict "root" . "more" (dict)) }}
{{- end }}

{{- /* Those of every object, and more; what is in both is as in `more`, and there once. */}}
{{- define "tidelock.labelsAnd" -}}
{{ include "tidelock.selector" .root }}
app.kubernetes.io/part-of: tidelock
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- with merge (dict) .more .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidelock.metadata" -}}
labels:
  {{- include "tidelock.labels" . | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Annotations of the CRDs; the generated crds.yaml includes them. */}}
{{- define "tidelock.crdAnnotations" -}}
tidelock.dev/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- if .Values.crds.keep }}
helm.sh/resource-policy: keep
{{- end }}
{{- with .Values.commonAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The namespaces that have an operator each, as a JSON list; "" stands for one that looks after all. */}}
{{- define "tidelock.watched" -}}
{{- if eq .Values.rbac.scope "Namespace" }}{{ toJson (required "rbac.watchNamespaces is needed where rbac.scope is Namespace" .Values.rbac.watchNamespaces | uniq) }}
{{- else if .Values.rbac.watchNamespaces }}{{ fail "rbac.watchNamespaces is for rbac.scope Namespace only; the operator looks after all namespaces otherwise" }}
{{- else }}{{ toJson (list "") }}
{{- end }}
{{- end }}
