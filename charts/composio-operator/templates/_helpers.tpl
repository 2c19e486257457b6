{{- define "composio-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the release's objects. A Service may have 63 characters, and its name gets a suffix. */}}
{{- define "composio-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- $name := include "composio-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Roles without a namespace would collide between two releases of the same name. */}}
{{- define "composio-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "composio-operator.fullname" .) }}
{{- end }}

{{- define "composio-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "composio-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "composio-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "composio-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "composio-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "composio-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "composio-operator.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Secret with the operator's own API key; empty if it has none. */}}
{{- define "composio-operator.apiKeySecretName" -}}
{{- with .Values.composio.apiKeySecret }}
{{- if .name }}
{{- .name }}
{{- else if .value }}
{{- printf "%s-api-key" (include "composio-operator.fullname" $) }}
{{- end }}
{{- end }}
{{- end }}
