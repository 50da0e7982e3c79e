//! The Jobs that movers run in. Pure: specs in, manifests out.

mod pod;
mod security;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use tidelock_api::{DEFAULT_STALL_TIMEOUT_SECONDS, MoverSpec, RUN_KIND_LABEL, RUN_UID_LABEL};
use tidelock_protocol::{ExitCode, Limits, PROTOCOL_VERSION, Request, RunId, StorageTarget, Task};

use crate::convert;
use crate::error::Error;
use crate::placement::Placement;
use crate::store::{Store, Use};

/// Name of the mover's container.
pub const CONTAINER: &str = "mover";
/// Label that all our Jobs and pods carry; caches select by it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "tidelock";
/// Annotation on Jobs and pods: the name of the object they work for.
pub const RUN_NAME_ANNOTATION: &str = "tidelock.dev/run-name";

/// Annotation on Jobs and pods: the storage of the archives they work on.
pub const STORAGE_ANNOTATION: &str = "tidelock.dev/storage";
/// Annotation on Jobs and pods that have to run on one node: why, as a sentence.
pub const PIN_ANNOTATION: &str = "tidelock.dev/pinned";

/// What a Job works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// A Backup.
    Backup,
    /// A Restore.
    Restore,
    /// The data of deleted Backups.
    Delete,
    /// What a run half wrote.
    Undo,
    /// Stored backups that are read again.
    Verify,
    /// A storage that is looked at.
    Check,
}

impl RunKind {
    /// The value of the kind label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "Backup",
            Self::Restore => "Restore",
            Self::Delete => "Delete",
            Self::Undo => "Undo",
            Self::Verify => "Verify",
            Self::Check => "Check",
        }
    }

    /// How often a failed pod is replaced; permanent faults end the Job at once. A look is made again
    /// anyhow, and what it found is to be told soon.
    fn replacements(self) -> i32 {
        match self {
            Self::Backup | Self::Restore | Self::Delete | Self::Undo | Self::Verify => 3,
            Self::Check => 1,
        }
    }
}

/// Something that a mover pod mounts.
#[derive(Debug, Clone)]
pub struct Mount<'a> {
    /// What it is.
    pub what: Mounted<'a>,
    /// Where it is mounted.
    pub path: &'a str,
    /// Whether the mover may not write to it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, Copy)]
pub enum Mounted<'a> {
    /// A PersistentVolumeClaim, or a folder of it.
    Claim {
        /// Its name.
        name: &'a str,
        /// The folder.
        sub_path: Option<&'a str>,
    },
    /// A Secret of that name.
    Secret(&'a str),
    /// A ConfigMap of that name.
    ConfigMap(&'a str),
}

impl<'a> Mount<'a> {
    /// All of a claim.
    pub fn claim(name: &'a str, path: &'a str, read_only: bool) -> Self {
        let what = Mounted::Claim {
            name,
            sub_path: None,
        };
        Self {
            what,
            path,
            read_only,
        }
    }
}

/// A storage and what is done to it.
pub type StoreUse<'a> = (&'a Store, Use);

/// The mover's request to do `task` on `store`, as JSON.
pub fn request(
    run: RunId,
    mover: &MoverSpec,
    task: Task,
    store: Option<StoreUse<'_>>,
) -> Result<String, Error> {
    let stall = mover.stall_timeout_seconds;
    let object = format!("{}/{}", run.namespace, run.name);
    let request = Request {
        version: PROTOCOL_VERSION,
        run,
        storage: store.map_or(StorageTarget::None, |(store, wanted)| store.target(wanted)),
        limits: store.map_or_else(Limits::default, |(store, _)| store.limits()),
        stall_timeout_seconds: Some(stall.unwrap_or(DEFAULT_STALL_TIMEOUT_SECONDS).into()),
        task,
    };
    request
        .to_json()
        .map_err(|source| Error::Request { object, source })
}

/// `mover` for taking back: the time-out was meant for what is taken back.
pub fn in_its_own_time(mover: MoverSpec) -> MoverSpec {
    MoverSpec {
        timeout_seconds: None,
        ..mover
    }
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
    /// Its volumes besides the storage.
    pub mounts: &'a [Mount<'a>],
    /// The storage it works on.
    pub store: Option<StoreUse<'a>>,
    /// What the user says of the pod.
    pub mover: &'a MoverSpec,
    /// Where it runs and as whom.
    pub placement: &'a Placement,
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
        request: request(id.clone(), job.mover, job.task, job.store)?,
        mounts: job.mounts,
        store: job.store,
        mover: job.mover,
        placement: job.placement,
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
    /// Its volumes besides the storage.
    pub mounts: &'a [Mount<'a>],
    /// The storage it works on.
    pub store: Option<StoreUse<'a>>,
    /// What the user says of the pod.
    pub mover: &'a MoverSpec,
    /// Where it runs and as whom.
    pub placement: &'a Placement,
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
    if let Some((store, _)) = plan.store {
        annotations.insert(STORAGE_ANNOTATION.to_owned(), store.reference.key());
    }
    annotations.insert(RUN_NAME_ANNOTATION.to_owned(), plan.run_name.to_owned());
    if let Some(pin) = &plan.placement.pin {
        let why = format!("It has to run on node {}: {}.", pin.node, pin.why);
        annotations.insert(PIN_ANNOTATION.to_owned(), why);
    }
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels.clone()),
            annotations: Some(annotations.clone()),
            ..Default::default()
        }),
        spec: Some(pod::pod(&plan)),
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
            backoff_limit: Some(plan.kind.replacements()),
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{SELinuxOptions, Toleration};
    use tidelock_core::identity::PodIdentity;
    use tidelock_core::placement::Pin;

    use super::*;

    fn job(kind: RunKind, placement: &Placement) -> Job {
        build(JobPlan {
            name: "nightly-1-backup",
            namespace: "shop",
            kind,
            run_name: "nightly-1",
            run_uid: "u-1",
            owners: vec![],
            image: "tidelock.dev/tidelock:dev",
            request: r#"{"a":"$(HOME)"}"#.to_owned(),
            mounts: &[Mount::claim("data", "/source", true)],
            store: Some((&Store::of_claim("backup-storage"), Use::Write)),
            mover: &MoverSpec::default(),
            placement,
            ttl_seconds: None,
            annotations: BTreeMap::new(),
        })
    }

    #[test]
    fn the_backup_job_keeps_its_shape() {
        insta::assert_json_snapshot!(job(RunKind::Backup, &Placement::default()));
    }

    fn pinned_and_unprivileged() -> Placement {
        Placement {
            pin: Some(Pin {
                node: "node-2".to_owned(),
                pods: vec!["app-0".to_owned()],
                why: "PersistentVolumeClaim data is in use there by pod app-0".to_owned(),
            }),
            tolerations: vec![Toleration {
                key: Some("dedicated".to_owned()),
                operator: Some("Equal".to_owned()),
                value: Some("db".to_owned()),
                effect: Some("NoSchedule".to_owned()),
                toleration_seconds: None,
            }],
            exclude_nodes: vec!["node-1".to_owned()],
            security: PodIdentity::User {
                user: 12_345,
                group: Some(12_346),
                fs_group: Some(12_347),
                supplemental: vec![12_348],
            },
            se_linux: Some(SELinuxOptions {
                level: Some("s0:c1,c2".to_owned()),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn the_unprivileged_pod_beside_its_workload_keeps_its_shape() {
        let job = job(RunKind::Restore, &pinned_and_unprivileged());
        insta::assert_json_snapshot!(job.spec.unwrap().template);
    }

    #[test]
    fn no_mover_gets_a_token_or_more_than_it_needs() {
        for kind in [RunKind::Backup, RunKind::Restore, RunKind::Delete] {
            for placement in [Placement::default(), pinned_and_unprivileged()] {
                let pod = job(kind, &placement).spec.unwrap().template.spec.unwrap();
                assert_eq!(pod.automount_service_account_token, Some(false));
                let security = pod.containers[0].security_context.clone().unwrap();
                assert_eq!(security.allow_privilege_escalation, Some(false));
                assert_eq!(security.read_only_root_filesystem, Some(true));
                let capabilities = security.capabilities.unwrap();
                assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
                let root = placement.security == PodIdentity::Root;
                assert_eq!(capabilities.add.is_some(), root);
                assert_eq!(pod.security_context.unwrap().run_as_user == Some(0), root);
            }
        }
    }
}
