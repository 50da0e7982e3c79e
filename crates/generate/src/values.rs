//! What the chart can be told: one table, from which values.yaml, its schema and the chart's README
//! are written.

use serde_json::{Value, json};

/// One value of the chart.
pub struct Setting {
    /// Where it is in values.yaml, with dots.
    pub path: &'static str,
    /// What it is by default.
    pub default: Value,
    /// What it may be, as JSON schema.
    pub schema: Value,
    /// What it means.
    pub about: &'static str,
}

fn setting(path: &'static str, default: Value, schema: Value, about: &'static str) -> Setting {
    Setting {
        path,
        default,
        schema,
        about,
    }
}

fn text() -> Value {
    json!({"type": "string"})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn count(least: u32) -> Value {
    json!({"type": "integer", "minimum": least})
}

/// Labels, annotations, a node selector.
fn words() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}})
}

/// An object or a list whose form is Kubernetes' own.
fn object() -> Value {
    json!({"type": "object"})
}

fn objects() -> Value {
    json!({"type": "array", "items": {"type": "object"}})
}

/// Every value, in the order of values.yaml.
pub fn settings() -> Vec<Setting> {
    [
        naming(),
        installation(),
        work(),
        pods(),
        security(),
        network(),
        monitoring(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn naming() -> Vec<Setting> {
    vec![
        setting(
            "fullnameOverride",
            json!(""),
            text(),
            "Name of all objects; by default the release's, with `-tidelock` where that does not say so.",
        ),
        setting(
            "commonLabels",
            json!({}),
            words(),
            "Labels of every object and pod.",
        ),
        setting(
            "commonAnnotations",
            json!({}),
            words(),
            "Annotations of every object and pod.",
        ),
        setting(
            "image.repository",
            json!("tidelock.dev/tidelock"),
            text(),
            "The image of operator and mover; they are one, so that their versions never part.",
        ),
        setting(
            "image.tag",
            json!(""),
            text(),
            "Its tag; the chart's appVersion by default.",
        ),
        setting(
            "image.digest",
            json!(""),
            json!({"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}),
            "Its digest, `sha256:…`; replaces the tag.",
        ),
        setting(
            "image.pullPolicy",
            json!("IfNotPresent"),
            json!({"enum": ["Always", "IfNotPresent", "Never"]}),
            "When the kubelet pulls it.",
        ),
        setting(
            "imagePullSecrets",
            json!([]),
            objects(),
            "Secrets for pulling the operator's image. Movers run in the tenants' namespaces and are pulled with what their service account or node has.",
        ),
    ]
}

fn installation() -> Vec<Setting> {
    vec![
        setting(
            "crds.install",
            json!(true),
            boolean(),
            "Install the CRDs and upgrade them with the chart. One release of a cluster does; others say false.",
        ),
        setting(
            "crds.keep",
            json!(true),
            boolean(),
            "`helm uninstall` leaves the CRDs, and with them all policies, backups and restores.",
        ),
        setting(
            "rbac.create",
            json!(true),
            boolean(),
            "Make roles and bindings.",
        ),
        setting(
            "rbac.scope",
            json!("Cluster"),
            json!({"enum": ["Cluster", "Namespace"]}),
            "`Cluster`: one operator for all namespaces, with a ClusterRole. `Namespace`: one for each of `watchNamespaces`, with a Role in it and no right anywhere else.",
        ),
        setting(
            "rbac.watchNamespaces",
            json!([]),
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}}),
            "For `scope: Namespace`; they must exist.",
        ),
        setting(
            "rbac.aggregate",
            json!(true),
            boolean(),
            "Let the cluster's own roles view, edit and admin include policies, backups and restores, but for their status. With `scope: Cluster` only.",
        ),
        setting(
            "serviceAccount.create",
            json!(true),
            boolean(),
            "Make the operator's ServiceAccount.",
        ),
        setting(
            "serviceAccount.name",
            json!(""),
            text(),
            "Its name; the objects' name by default.",
        ),
        setting(
            "serviceAccount.annotations",
            json!({}),
            words(),
            "Its annotations.",
        ),
    ]
}

fn work() -> Vec<Setting> {
    vec![
        setting(
            "replicas",
            json!(2),
            count(0),
            "Operators; one works, the others stand by with filled caches.",
        ),
        setting(
            "leaderElection.enabled",
            json!(true),
            boolean(),
            "Work only while holding a Lease. Without it there can be one replica only.",
        ),
        setting(
            "leaderElection.leaseDurationSeconds",
            json!(15),
            count(3),
            "How long the others wait for a leader that is not heard of.",
        ),
        setting(
            "leaderElection.renewDeadlineSeconds",
            json!(10),
            count(2),
            "How long after its last renewal a leader ends; at least 2 s less than the lease lasts.",
        ),
        setting(
            "leaderElection.retryPeriodSeconds",
            json!(2),
            count(1),
            "How often the Lease is renewed or looked at; at most half of the renew deadline.",
        ),
        setting(
            "limits.maxMovers",
            json!(20),
            count(1),
            "How many movers run at once in all.",
        ),
        setting(
            "limits.maxMoversPerNode",
            json!(5),
            count(1),
            "How many movers run at once on one node.",
        ),
        setting(
            "limits.maxMoversPerStorage",
            json!(10),
            count(1),
            "How many movers work on one storage at once.",
        ),
        setting(
            "limits.maxMetricsObjects",
            json!(10_000),
            count(1),
            "How many policies, and how many restores, have metrics, the oldest first; an alert tells of more.",
        ),
        setting(
            "log.level",
            json!("info,kube_runtime=warn"),
            json!({"type": "string", "minLength": 1}),
            "What to log, such as `info` or `info,tidelock_operator=debug`.",
        ),
        setting(
            "log.format",
            json!("json"),
            json!({"enum": ["json", "text"]}),
            "How log lines look.",
        ),
    ]
}

fn pods() -> Vec<Setting> {
    let soon = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30});
    vec![
        setting(
            "resources",
            json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}),
            object(),
            "Resources of one operator.",
        ),
        setting("nodeSelector", json!({}), words(), "Nodes it may run on."),
        setting(
            "tolerations",
            json!([
                soon("node.kubernetes.io/not-ready"),
                soon("node.kubernetes.io/unreachable")
            ]),
            objects(),
            "Taints it tolerates; by default those of a lost node for 30 s instead of five minutes.",
        ),
        setting("affinity", json!({}), object(), "Its affinity."),
        setting(
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]),
            objects(),
            "How replicas are spread; the labelSelector is added where there is none.",
        ),
        setting(
            "priorityClassName",
            json!(""),
            text(),
            "Its priority class.",
        ),
        setting("podLabels", json!({}), words(), "Labels of the pods."),
        setting(
            "podAnnotations",
            json!({}),
            words(),
            "Annotations of the pods.",
        ),
        setting(
            "podDisruptionBudget.enabled",
            json!(true),
            boolean(),
            "Keep drains from taking all replicas at once.",
        ),
        setting(
            "podDisruptionBudget.maxUnavailable",
            json!(1),
            json!({"type": ["integer", "string"]}),
            "How many may be away at once.",
        ),
    ]
}

fn security() -> Vec<Setting> {
    vec![
        setting(
            "podSecurityContext",
            json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}),
            object(),
            "As whom the operator runs; fits the restricted Pod Security Standard.",
        ),
        setting(
            "securityContext",
            json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}),
            object(),
            "What its container may do; fits the restricted Pod Security Standard.",
        ),
    ]
}

fn network() -> Vec<Setting> {
    let port = json!({"type": "integer", "minimum": 1, "maximum": 65535});
    vec![
        setting(
            "networkPolicy.enabled",
            json!(true),
            boolean(),
            "Let only `ingressFrom` reach the operator's one port, which serves probes and metrics. The kubelet's probes pass in any case.",
        ),
        setting(
            "networkPolicy.ingressFrom",
            json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]),
            objects(),
            "Who may, as NetworkPolicyPeers: where your Prometheus runs.",
        ),
        setting(
            "networkPolicy.egress.enabled",
            json!(false),
            boolean(),
            "Let the operator reach the API server and name service only. Off by default: on which port the API server listens differs from cluster to cluster, and a wrong one cuts the operator off.",
        ),
        setting(
            "networkPolicy.egress.apiServerPorts",
            json!([443, 6443]),
            json!({"type": "array", "minItems": 1, "items": port}),
            "Ports of the API server, as its endpoints have them: `kubectl get endpointslices kubernetes`.",
        ),
        setting(
            "networkPolicy.egress.apiServerCidrs",
            json!([]),
            json!({"type": "array", "items": {"type": "string"}}),
            "Its addresses; empty is any.",
        ),
    ]
}

fn monitoring() -> Vec<Setting> {
    vec![
        setting(
            "service.enabled",
            json!(true),
            boolean(),
            "A headless Service for the metrics of each replica.",
        ),
        setting(
            "serviceMonitor.enabled",
            json!(false),
            boolean(),
            "A ServiceMonitor for the Prometheus operator.",
        ),
        setting(
            "serviceMonitor.interval",
            json!("30s"),
            json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}),
            "How often metrics are read.",
        ),
        setting(
            "serviceMonitor.labels",
            json!({}),
            words(),
            "Labels by which your Prometheus finds it.",
        ),
        setting(
            "prometheusRule.enabled",
            json!(false),
            boolean(),
            "A PrometheusRule with all alerts.",
        ),
        setting(
            "prometheusRule.labels",
            json!({}),
            words(),
            "Labels by which your Prometheus finds it.",
        ),
        setting(
            "dashboards.enabled",
            json!(false),
            boolean(),
            "A ConfigMap for each Grafana dashboard.",
        ),
        setting(
            "dashboards.labels",
            json!({"grafana_dashboard": "1"}),
            words(),
            "Labels by which Grafana's sidecar finds them.",
        ),
    ]
}
