{{/* The objects of a folder, which are those that kustomize takes too, as a list. */}}
{{- define "muster.objects" -}}
{{- $found := list -}}
{{- range $path, $_ := .Files.Glob (printf "%s/*.yaml" .folder) -}}
{{- range splitList "\n---\n" ($.Files.Get $path) -}}
{{- $found = append $found (fromYaml .) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "objects" $found) -}}
{{- end -}}

{{/* Settings as they are in the end. */}}
{{- define "muster.settings" -}}
{{- .Values.settings | default (.Files.Get "coordinator/muster.toml") -}}
{{- end -}}

{{/* Their name changes with them, so that the coordinator is started again. */}}
{{- define "muster.settingsName" -}}
muster-settings-{{ include "muster.settings" . | sha256sum | trunc 10 }}
{{- end -}}
