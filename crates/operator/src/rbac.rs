//! Every permission of the operator, with the reason it is needed. The roles in `deploy/` are
//! generated from these tables.

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

/// What the operator may do where it looks after backups: in every namespace, or in those that it is
/// installed for.
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
        verbs: &["get", "list", "watch", "patch"],
        why: "the cache; whether a Restore is as it was read, before a failure is told; the finalizer that puts a half-written target back",
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
        group: GROUP,
        resource: "backupstorages",
        verbs: &["get", "list", "watch"],
        why: "where bytes live; the cache",
    },
    Permission {
        group: GROUP,
        resource: "backupstorages/status",
        verbs: &["update"],
        why: "status",
    },
    Permission {
        group: GROUP,
        resource: "backupstorages/finalizers",
        verbs: &["update"],
        why: "owning Jobs where OwnerReferencesPermissionEnforcement is on",
    },
    Permission {
        group: GROUP,
        resource: "clusterbackupstorages",
        verbs: &["get"],
        why: "where bytes live, and whether the namespace may keep its own there",
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
        why: "the mover's report; what a pod is stuck on; on which node and by whom a volume is used",
    },
    Permission {
        group: "",
        resource: "namespaces",
        verbs: &["get"],
        why: "the Pod Security Standard that a mover's pod has to fit; whether a Job can still be made that removes data",
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
        verbs: &["create", "list"],
        why: "Events; what keeps a mover's pod from starting that says nothing itself, such as a volume that cannot be mounted",
    },
];

/// What the operator may do in its own namespace besides.
pub const OWN_NAMESPACE: &[Permission] = &[Permission {
    group: "coordination.k8s.io",
    resource: "leases",
    verbs: &["get", "create", "update"],
    why: "leader election",
}];

/// What people may do who may see what is in a namespace; part of the cluster's roles view, edit and
/// admin.
pub const VIEWERS: &[Permission] = &[
    Permission {
        group: GROUP,
        resource: "backuppolicies",
        verbs: &["get", "list", "watch"],
        why: "seeing what is backed up, and how that went",
    },
    Permission {
        group: GROUP,
        resource: "backups",
        verbs: &["get", "list", "watch"],
        why: "seeing what is backed up, and how that went",
    },
    Permission {
        group: GROUP,
        resource: "restores",
        verbs: &["get", "list", "watch"],
        why: "seeing what is backed up, and how that went",
    },
    Permission {
        group: GROUP,
        resource: "backupstorages",
        verbs: &["get", "list", "watch"],
        why: "seeing where backups are kept",
    },
];

/// What people may do besides who may edit what is in a namespace; part of the cluster's roles edit
/// and admin. No status is among it: a restore relies on what the status of a Backup tells.
pub const EDITORS: &[Permission] = &[
    Permission {
        group: GROUP,
        resource: "backuppolicies",
        verbs: &["create", "delete", "deletecollection", "patch", "update"],
        why: "backing up, restoring, and deleting backups",
    },
    Permission {
        group: GROUP,
        resource: "backups",
        verbs: &["create", "delete", "deletecollection", "patch", "update"],
        why: "backing up, restoring, and deleting backups",
    },
    Permission {
        group: GROUP,
        resource: "restores",
        verbs: &["create", "delete", "deletecollection", "patch", "update"],
        why: "backing up, restoring, and deleting backups",
    },
    Permission {
        group: GROUP,
        resource: "backupstorages",
        verbs: &["create", "delete", "deletecollection", "patch", "update"],
        why: "saying where backups are kept",
    },
];

/// A table as Kubernetes takes it.
pub fn rules(permissions: &[Permission]) -> Vec<PolicyRule> {
    let owned = |text: &str| Some(vec![text.to_owned()]);
    permissions
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_the_operator_writes_a_status_or_a_finalizer_subresource() {
        for permission in VIEWERS.iter().chain(EDITORS) {
            assert_eq!(permission.group, GROUP);
            assert!(
                !permission.resource.contains(['/', '*']),
                "{}",
                permission.resource
            );
        }
    }

    #[test]
    fn the_operator_reads_no_secret_runs_nothing_in_pods_and_changes_no_role() {
        let all = || PERMISSIONS.iter().chain(OWN_NAMESPACE);
        for permission in all() {
            let resource = permission.resource;
            let taboo = [
                "secrets",
                "configmaps",
                "pods/exec",
                "pods/attach",
                "serviceaccounts/token",
            ];
            assert!(!taboo.contains(&resource), "{resource}");
            assert!(
                !resource.contains('*') && !permission.verbs.contains(&"*"),
                "{resource}"
            );
            assert_ne!(permission.group, "rbac.authorization.k8s.io");
            for verb in ["impersonate", "escalate", "bind"] {
                assert!(!permission.verbs.contains(&verb), "{verb} {resource}");
            }
        }
        let pods = all().find(|permission| permission.resource == "pods");
        assert_eq!(pods.map(|pods| pods.verbs), Some(&["list", "watch"][..]));
    }
}
