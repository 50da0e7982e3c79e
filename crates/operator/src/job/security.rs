//! What a mover's pod may do. Pure.

use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};
use tidelock_core::identity::PodIdentity;

use crate::job::RunKind;

/// The pod's part.
///
/// # Guarantees
/// With an ordinary user the pod fits the Pod Security Standard restricted, as root it fits
/// baseline.
pub fn of_pod(identity: &PodIdentity, se_linux: Option<&SELinuxOptions>) -> PodSecurityContext {
    let common = PodSecurityContext {
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        se_linux_options: se_linux.cloned(),
        ..Default::default()
    };
    match identity {
        PodIdentity::Root => PodSecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            ..common
        },
        PodIdentity::User {
            user,
            group,
            fs_group,
            supplemental,
        } => PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(*user),
            run_as_group: *group,
            fs_group: *fs_group,
            // A volume that has the group already is left as it is, however many files it holds.
            fs_group_change_policy: fs_group.map(|_| "OnRootMismatch".to_owned()),
            supplemental_groups: Some(supplemental.clone()).filter(|groups| !groups.is_empty()),
            ..common
        },
    }
}

/// The container's part.
pub fn of_container(identity: &PodIdentity, kind: RunKind) -> SecurityContext {
    let add = match identity {
        PodIdentity::Root => Some(
            capabilities(kind)
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
        ),
        PodIdentity::User { .. } => None,
    };
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add,
        }),
        ..Default::default()
    }
}

/// What root needs beside nothing: reading what belongs to others, and for a restore giving files
/// their owners, modes, capabilities and device numbers back.
fn capabilities(kind: RunKind) -> &'static [&'static str] {
    match kind {
        RunKind::Backup | RunKind::Delete | RunKind::Verify | RunKind::Check => &["DAC_OVERRIDE"],
        RunKind::Restore | RunKind::Undo => &[
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "MKNOD",
            "SETFCAP",
        ],
    }
}
