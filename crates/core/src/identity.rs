//! As whom a mover's pod runs.

use crate::run::{Blocker, Readiness, Refusal};

/// As whom the user wants a mover to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// As root where the namespace takes such pods.
    Auto,
    /// As root.
    Root,
    /// As an ordinary user.
    Unprivileged,
}

/// User and groups of a pod, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// `runAsUser`.
    pub user: Option<i64>,
    /// `runAsGroup`.
    pub group: Option<i64>,
    /// `fsGroup`.
    pub fs_group: Option<i64>,
    /// `supplementalGroups`.
    pub supplemental: Vec<i64>,
}

/// As whom a mover runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PodIdentity {
    /// As root, with the capabilities that the task takes.
    #[default]
    Root,
    /// As an ordinary user, without any capability.
    User {
        /// `runAsUser`, never 0.
        user: i64,
        /// `runAsGroup`.
        group: Option<i64>,
        /// `fsGroup`.
        fs_group: Option<i64>,
        /// `supplementalGroups`.
        supplemental: Vec<i64>,
    },
}

/// What decides as whom a mover runs.
#[derive(Debug, Clone, Copy)]
pub struct IdentityFacts<'a> {
    /// What the user wants.
    pub privilege: Privilege,
    /// The namespace.
    pub namespace: &'a str,
    /// Whether it enforces the restricted Pod Security Standard.
    pub restricted: bool,
    /// User and groups that the user names.
    pub wanted: &'a Ids,
    /// Those who use the data, the closest first.
    pub users: &'a [Ids],
    /// The claim that holds the data.
    pub claim: &'a str,
}

/// As whom a mover runs.
///
/// # Errors
/// Blocked while no user can be known, for a pod that tells it may come; refused where the
/// namespace would refuse the pod.
pub fn identity(facts: &IdentityFacts<'_>) -> Result<PodIdentity, Readiness> {
    match (facts.privilege, facts.restricted) {
        (Privilege::Root, true) => Err(Readiness::Refused(root_forbidden(facts.namespace))),
        (Privilege::Root, false) | (Privilege::Auto, false) => Ok(PodIdentity::Root),
        (Privilege::Unprivileged, _) | (Privilege::Auto, true) => {
            unprivileged(facts).ok_or_else(|| Readiness::Blocked(unknown(facts)))
        }
    }
}

/// What the user names, and where that is silent what one of those who use the data has.
fn unprivileged(facts: &IdentityFacts<'_>) -> Option<PodIdentity> {
    let ordinary = |ids: &&Ids| ids.user.is_some_and(|user| user != 0);
    let other = facts.users.iter().find(ordinary);
    let other = other.or(facts.users.first()).cloned().unwrap_or_default();
    let wanted = facts.wanted;
    let supplemental = if wanted.supplemental.is_empty() {
        other.supplemental
    } else {
        wanted.supplemental.clone()
    };
    Some(PodIdentity::User {
        user: wanted.user.or(other.user).filter(|user| *user != 0)?,
        group: wanted.group.or(other.group),
        fs_group: wanted.fs_group.or(other.fs_group),
        supplemental,
    })
}

fn root_forbidden(namespace: &str) -> Refusal {
    Refusal {
        reason: "PrivilegeForbidden",
        message: format!(
            "mover.privilege is Root, but namespace {namespace} enforces the Pod Security Standard restricted (label pod-security.kubernetes.io/enforce), which takes no pod that runs as root. Use mover.privilege Auto or Unprivileged, with mover.runAsUser where no pod tells the owner of the data."
        ),
    }
}

fn unknown(facts: &IdentityFacts<'_>) -> Blocker {
    let why = match facts.privilege {
        Privilege::Unprivileged => "mover.privilege is Unprivileged".to_owned(),
        Privilege::Auto | Privilege::Root => format!(
            "Namespace {} enforces the Pod Security Standard restricted",
            facts.namespace
        ),
    };
    Blocker {
        reason: "PrivilegeUnknown",
        message: format!(
            "{why}, so the mover cannot run as root, and no pod that uses PersistentVolumeClaim {} says as which other user it runs (securityContext.runAsUser). Set mover.runAsUser to the ID of the user that owns the data.",
            facts.claim
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(user: Option<i64>) -> Ids {
        Ids {
            user,
            group: user.map(|user| user + 1),
            fs_group: Some(7),
            supplemental: vec![8],
        }
    }

    fn who(
        privilege: Privilege,
        restricted: bool,
        wanted: &Ids,
        users: &[Ids],
    ) -> Result<PodIdentity, Readiness> {
        identity(&IdentityFacts {
            privilege,
            namespace: "shop",
            restricted,
            wanted,
            users,
            claim: "data",
        })
    }

    #[test]
    fn auto_is_root_unless_the_namespace_is_restricted() {
        let nobody = Ids::default();
        assert_eq!(
            who(Privilege::Auto, false, &nobody, &[ids(Some(5))]),
            Ok(PodIdentity::Root)
        );
        assert_eq!(
            who(Privilege::Auto, true, &nobody, &[ids(Some(5))]),
            who(Privilege::Unprivileged, false, &nobody, &[ids(Some(5))]),
        );
    }

    #[test]
    fn an_ordinary_user_is_the_one_named_or_else_the_one_that_uses_the_data() {
        let user = |wanted: &Ids, users: &[Ids]| who(Privilege::Unprivileged, false, wanted, users);
        let users = [ids(None), ids(Some(0)), ids(Some(5)), ids(Some(9))];
        assert_eq!(
            user(&Ids::default(), &users),
            Ok(PodIdentity::User {
                user: 5,
                group: Some(6),
                fs_group: Some(7),
                supplemental: vec![8]
            })
        );
        let wanted = Ids {
            user: Some(3),
            supplemental: vec![1, 2],
            ..Ids::default()
        };
        assert_eq!(
            user(&wanted, &users),
            Ok(PodIdentity::User {
                user: 3,
                group: Some(6),
                fs_group: Some(7),
                supplemental: vec![1, 2]
            })
        );
    }

    #[test]
    fn a_user_that_nobody_tells_is_asked_for_by_name_of_the_setting() {
        for users in [vec![], vec![ids(None)], vec![ids(Some(0))]] {
            let Err(Readiness::Blocked(blocker)) =
                who(Privilege::Auto, true, &Ids::default(), &users)
            else {
                panic!("runs as somebody")
            };
            assert_eq!(blocker.reason, "PrivilegeUnknown");
            assert!(blocker.message.contains("mover.runAsUser"));
            assert!(blocker.message.contains("PersistentVolumeClaim data"));
        }
    }

    #[test]
    fn root_in_a_restricted_namespace_is_refused_before_the_pod_would_be() {
        let Err(Readiness::Refused(refusal)) =
            who(Privilege::Root, true, &Ids::default(), &[ids(Some(5))])
        else {
            panic!("not refused")
        };
        assert_eq!(refusal.reason, "PrivilegeForbidden");
        assert_eq!(
            who(Privilege::Root, false, &Ids::default(), &[]),
            Ok(PodIdentity::Root)
        );
    }
}
