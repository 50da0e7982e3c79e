//! Every permission of the operator, with the reason it is needed. The ClusterRole in `deploy/` is
//! generated from this table.

use k8s_openapi::api::rbac::v1::PolicyRule;

/// One line of the table.
pub struct Permission {
    /// API group; empty is the core group.
    pub group: &'static str,
    /// Resource or subresource.
    pub resource: &'static str,
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

const GROUP: &str = tidelock_api::GROUP;

/// What the operator may do, in every namespace.
pub const PERMISSIONS: &[Permission] = &[
    Permission {
        group: GROUP,
        resource: "backuppolicies",
        verbs: &["get", "list", "watch", "patch"],
        why: "the cache; whether a policy lives, before data goes; the finalizer that lets Backups outlive their policy",
    },
    Permission {
        group: GROUP,
        resource: "backuppolicies/status",
        verbs: &["update"],
        why: "status",
    },
    Permission {
        group: GROUP,
        resource: "backuppolicies/finalizers",
        verbs: &["update"],
        why: "owning Backups where OwnerReferencesPermissionEnforcement is on",
    },
    Permission {
        group: GROUP,
        resource: "backups",
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        why: "the cache; a due slot's Backup; finalizer and owner; retention",
    },
    Permission {
        group: GROUP,
        resource: "backups/status",
        verbs: &["update"],
        why: "status",
    },
    Permission {
        group: GROUP,
        resource: "backups/finalizers",
        verbs: &["update"],
        why: "owning Jobs where OwnerReferencesPermissionEnforcement is on",
    },
    Permission {
        group: GROUP,
        resource: "restores",
        verbs: &["get", "list", "watch"],
        why: "the cache; whether a Restore is as it was read, before a failure is told",
    },
    Permission {
        group: GROUP,
        resource: "restores/status",
        verbs: &["update"],
        why: "status",
    },
    Permission {
        group: GROUP,
        resource: "restores/finalizers",
        verbs: &["update"],
        why: "owning Jobs where OwnerReferencesPermissionEnforcement is on",
    },
    Permission {
        group: "batch",
        resource: "jobs",
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        why: "the cache; mover Jobs; their expiry; stopping the run of a deleted Backup",
    },
    Permission {
        group: "",
        resource: "pods",
        verbs: &["list", "watch"],
        why: "the mover's report; what a pod is stuck on",
    },
    Permission {
        group: "",
        resource: "persistentvolumeclaims",
        verbs: &["get", "list", "watch", "create"],
        why: "checks before a run; waking what waits for a claim; targetTemplate",
    },
    Permission {
        group: "",
        resource: "events",
        verbs: &["create"],
        why: "Events",
    },
];

/// The table as Kubernetes takes it.
pub fn rules() -> Vec<PolicyRule> {
    let owned = |text: &str| Some(vec![text.to_owned()]);
    PERMISSIONS
        .iter()
        .map(|permission| PolicyRule {
            api_groups: owned(permission.group),
            resources: owned(permission.resource),
            verbs: permission
                .verbs
                .iter()
                .map(|verb| (*verb).to_owned())
                .collect(),
            ..Default::default()
        })
        .collect()
}
