//! The Jobs that movers run in. Pure: specs in, manifests out.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use tidelock_api::{MoverResources, MoverSpec, RUN_KIND_LABEL, RUN_UID_LABEL};
use tidelock_protocol::{
    ExitCode, PROTOCOL_VERSION, REQUEST_ENV, Request, RunId, STORAGE_PATH, StorageTarget,
    TERMINATION_LOG, Task,
};

use crate::convert;
use crate::error::Error;

/// Name of the mover's container.
pub const CONTAINER: &str = "mover";
/// Label that all our Jobs and pods carry; caches select by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "tidelock";
/// Annotation on Jobs and pods: the name of the object they work for.
pub const RUN_NAME_ANNOTATION: &str = "tidelock.dev/run-name";

/// How often a failed pod is replaced; permanent faults end the Job at once.
const BACKOFF_LIMIT: i32 = 3;

type Quantities = BTreeMap<String, Quantity>;

/// What a Job works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// A Backup.
    Backup,
    /// A Restore.
    Restore,
    /// The data of deleted Backups.
    Delete,
}

impl RunKind {
    /// The value of the kind label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "Backup",
            Self::Restore => "Restore",
            Self::Delete => "Delete",
        }
    }

    /// Capabilities the mover needs beside none: reading what belongs to others, and for a
    /// restore giving files their owners, modes, capabilities and device numbers back.
    fn capabilities(self) -> &'static [&'static str] {
        match self {
            Self::Backup | Self::Delete => &["DAC_OVERRIDE"],
            Self::Restore => &[
                "CHOWN",
                "DAC_OVERRIDE",
                "FOWNER",
                "FSETID",
                "MKNOD",
                "SETFCAP",
            ],
        }
    }
}

/// A PVC in a mover pod.
#[derive(Debug, Clone)]
pub struct Mount<'a> {
    /// Name of the claim.
    pub claim: &'a str,
    /// Where it is mounted.
    pub path: &'a str,
    /// Whether the mover may not write to it.
    pub read_only: bool,
}

/// The mover's request to do `task` on the storage claim, as JSON.
pub fn request(run: RunId, task: Task) -> Result<String, Error> {
    let object = format!("{}/{}", run.namespace, run.name);
    let request = Request {
        version: PROTOCOL_VERSION,
        run,
        storage: StorageTarget::Directory {
            path: STORAGE_PATH.to_owned(),
        },
        task,
    };
    request
        .to_json()
        .map_err(|source| Error::Request { object, source })
}

/// What a run's Job is built from, besides what its kind brings.
pub struct RunJob<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it works for.
    pub kind: RunKind,
    /// The mover's image.
    pub image: &'a str,
    /// The mover's task.
    pub task: Task,
    /// Its volumes.
    pub mounts: &'a [Mount<'a>],
    /// What the user says of the pod.
    pub mover: &'a MoverSpec,
}

/// The Job that a Backup or Restore owns.
pub fn of_run<R: Resource<DynamicType = ()>>(run: &R, job: RunJob<'_>) -> Result<Job, Error> {
    let id = RunId {
        namespace: convert::namespace(run)?,
        name: run.name_any(),
        uid: convert::uid(run)?,
    };
    Ok(build(JobPlan {
        name: job.name,
        namespace: &id.namespace,
        kind: job.kind,
        run_name: &id.name,
        run_uid: &id.uid,
        owners: run.controller_owner_ref(&()).into_iter().collect(),
        image: job.image,
        request: request(id.clone(), job.task)?,
        mounts: job.mounts,
        mover: job.mover,
        ttl_seconds: None,
        annotations: BTreeMap::new(),
    }))
}

/// Everything that tells one Job from another.
pub struct JobPlan<'a> {
    /// Its name, at most 63 characters.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// What it works for.
    pub kind: RunKind,
    /// Name of the object it works for.
    pub run_name: &'a str,
    /// UID of the object it works for.
    pub run_uid: &'a str,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// The mover's image.
    pub image: &'a str,
    /// The mover's request, as JSON.
    pub request: String,
    /// Its volumes.
    pub mounts: &'a [Mount<'a>],
    /// What the user says of the pod.
    pub mover: &'a MoverSpec,
    /// After how many seconds a finished Job goes by itself; none leaves it to its owner.
    pub ttl_seconds: Option<i32>,
    /// More annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The Job of `plan`.
pub fn build(plan: JobPlan<'_>) -> Job {
    let labels = BTreeMap::from([
        (
            "app.kubernetes.io/name".to_owned(),
            "tidelock-mover".to_owned(),
        ),
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (RUN_KIND_LABEL.to_owned(), plan.kind.as_str().to_owned()),
        (RUN_UID_LABEL.to_owned(), plan.run_uid.to_owned()),
    ]);
    let mut annotations = plan.annotations.clone();
    annotations.insert(RUN_NAME_ANNOTATION.to_owned(), plan.run_name.to_owned());
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels.clone()),
            annotations: Some(annotations.clone()),
            ..Default::default()
        }),
        spec: Some(pod(&plan)),
    };
    Job {
        metadata: ObjectMeta {
            name: Some(plan.name.to_owned()),
            namespace: Some(plan.namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(plan.owners),
            ..Default::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(BACKOFF_LIMIT),
            active_deadline_seconds: plan.mover.timeout_seconds.map(i64::from),
            // A replacement starts only when its predecessor is gone: two movers never write one
            // archive.
            pod_replacement_policy: Some("Failed".to_owned()),
            pod_failure_policy: Some(failure_policy()),
            ttl_seconds_after_finished: plan.ttl_seconds,
            template,
            ..Default::default()
        }),
        status: None,
    }
}

/// Permanent faults end the Job at once; evictions and drains cost no retry.
fn failure_policy() -> PodFailurePolicy {
    let codes = ExitCode::NO_RETRY.iter().map(|exit| i32::from(exit.code()));
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: codes.collect(),
                }),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: Some("True".to_owned()),
                }]),
            },
        ],
    }
}

fn pod(plan: &JobPlan<'_>) -> PodSpec {
    let claim_volumes = plan.mounts.iter().enumerate().map(|(index, mount)| Volume {
        name: volume_name(index),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: mount.claim.to_owned(),
            read_only: None,
        }),
        ..Default::default()
    });
    let scratch = Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("64Mi".to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    };
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            seccomp_profile: Some(runtime_default()),
            ..Default::default()
        }),
        containers: vec![container(plan)],
        volumes: Some(claim_volumes.chain([scratch]).collect()),
        node_selector: Some(plan.mover.node_selector.clone()).filter(|map| !map.is_empty()),
        tolerations: Some(plan.mover.tolerations.iter().map(toleration).collect()),
        priority_class_name: plan.mover.priority_class_name.clone(),
        termination_grace_period_seconds: Some(30),
        ..Default::default()
    }
}

fn container(plan: &JobPlan<'_>) -> Container {
    let mounts = plan
        .mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| VolumeMount {
            name: volume_name(index),
            mount_path: mount.path.to_owned(),
            read_only: Some(mount.read_only),
            ..Default::default()
        });
    let scratch = VolumeMount {
        name: "tmp".to_owned(),
        mount_path: "/tmp".to_owned(),
        ..Default::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(plan.image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/usr/local/bin/tidelock-mover".to_owned()]),
        env: Some(vec![EnvVar {
            name: REQUEST_ENV.to_owned(),
            value: Some(escape_expansion(&plan.request)),
            value_from: None,
        }]),
        resources: Some(resources(plan.mover.resources.as_ref())),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: Some(
                    plan.kind
                        .capabilities()
                        .iter()
                        .map(|c| (*c).to_owned())
                        .collect(),
                ),
            }),
            ..Default::default()
        }),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(mounts.chain([scratch]).collect()),
        ..Default::default()
    }
}

/// `text` so that the kubelet hands it on as it is: `$(NAME)` would be expanded, `$$` is one `$`.
fn escape_expansion(text: &str) -> String {
    text.replace('$', "$$")
}

fn volume_name(index: usize) -> String {
    format!("volume-{index}")
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}

/// What the user says, over a small default; the memory limit keeps a mover from harming its node.
/// Where the user sets one of request and limit, the other has no default: it could contradict.
fn resources(wanted: Option<&MoverResources>) -> ResourceRequirements {
    let (requests, limits) = wanted
        .map(|wanted| (wanted.requests.clone(), wanted.limits.clone()))
        .unwrap_or_default();
    let with_defaults = |own: &Quantities, other: &Quantities, defaults: &[(&str, &str)]| {
        let mut all = own.clone();
        for (name, amount) in defaults {
            if !own.contains_key(*name) && !other.contains_key(*name) {
                all.insert((*name).to_owned(), Quantity((*amount).to_owned()));
            }
        }
        Some(all)
    };
    ResourceRequirements {
        requests: with_defaults(&requests, &limits, &[("cpu", "50m"), ("memory", "64Mi")]),
        limits: with_defaults(&limits, &requests, &[("memory", "256Mi")]),
        claims: None,
    }
}

fn toleration(wanted: &tidelock_api::Toleration) -> Toleration {
    Toleration {
        key: wanted.key.clone(),
        operator: Some(format!("{:?}", wanted.operator)),
        value: wanted.value.clone(),
        effect: wanted.effect.map(|effect| format!("{effect:?}")),
        toleration_seconds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(kind: RunKind) -> Job {
        build(JobPlan {
            name: "nightly-1-backup",
            namespace: "shop",
            kind,
            run_name: "nightly-1",
            run_uid: "u-1",
            owners: vec![],
            image: "tidelock.dev/tidelock:dev",
            request: r#"{"a":"$(HOME)"}"#.to_owned(),
            mounts: &[
                Mount {
                    claim: "data",
                    path: "/source",
                    read_only: true,
                },
                Mount {
                    claim: "backup-storage",
                    path: "/storage",
                    read_only: false,
                },
            ],
            mover: &MoverSpec::default(),
            ttl_seconds: None,
            annotations: BTreeMap::new(),
        })
    }

    #[test]
    fn the_backup_job_keeps_its_shape() {
        insta::assert_json_snapshot!(job(RunKind::Backup));
    }

    #[test]
    fn a_default_never_contradicts_what_the_user_sets() {
        let one = |name: &str, amount: &str| {
            BTreeMap::from([(name.to_owned(), Quantity(amount.to_owned()))])
        };
        let small = MoverResources {
            limits: one("memory", "32Mi"),
            requests: BTreeMap::new(),
        };
        let made = resources(Some(&small));
        assert_eq!(made.limits, Some(one("memory", "32Mi")));
        assert_eq!(made.requests, Some(one("cpu", "50m")));
        let large = MoverResources {
            limits: BTreeMap::new(),
            requests: one("memory", "1Gi"),
        };
        assert_eq!(resources(Some(&large)).limits, Some(BTreeMap::new()));
    }

    #[test]
    fn no_mover_gets_a_token_or_more_than_it_needs() {
        for kind in [RunKind::Backup, RunKind::Restore, RunKind::Delete] {
            let pod = job(kind).spec.unwrap().template.spec.unwrap();
            assert_eq!(pod.automount_service_account_token, Some(false));
            let security = pod.containers[0].security_context.clone().unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
            assert_eq!(security.capabilities.unwrap().drop.unwrap(), ["ALL"]);
        }
    }
}
