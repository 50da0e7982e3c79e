//! What operators asked for, held against what they may.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tidelock_operator::rbac::Permission;

use crate::audit::Request;
use crate::effect;

/// Admission asks whether this may be done, where OwnerReferencesPermissionEnforcement is on; no
/// request is made.
fn is_for_admission(permission: &Permission) -> bool {
    permission.resource.ends_with("/finalizers")
}

/// Holds `requests` against `permissions`.
///
/// # Errors
/// Where one of them was denied, or a permission was needed by none.
pub fn judge<'a>(
    requests: &[Request],
    permissions: impl IntoIterator<Item = &'a Permission>,
) -> Result<()> {
    let denied: Vec<_> = requests.iter().filter(|r| r.is_denied()).collect();
    ensure!(
        denied.is_empty(),
        "denied: {denied:#?}; an operator asks for what its role does not allow: add it to \
         crates/operator/src/rbac.rs with its reason, or do without it"
    );
    let used: BTreeSet<(String, String, &str)> = requests
        .iter()
        .filter_map(|request| {
            let (group, resource) = effect::resource_of(&request.uri)?;
            Some((group, resource, request.verb.as_str()))
        })
        .collect();
    let mut unused = Vec::new();
    for permission in permissions {
        let (group, resource) = (permission.group.to_owned(), permission.resource.to_owned());
        let verbs = permission.verbs.iter();
        for verb in verbs.filter(|_| !is_for_admission(permission)) {
            if !used.contains(&(group.clone(), resource.clone(), verb)) {
                unused.push(format!("{verb} {resource}"));
            }
        }
    }
    ensure!(
        unused.is_empty(),
        "no story needs these rights: {unused:?}; take them from crates/operator/src/rbac.rs, or tell \
         a story that does. This is known only after all other suites ran on this cluster (`make e2e`)."
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::line;

    const OPERATOR: &str = "system:serviceaccount:tidelock-system:tidelock";
    const PERMISSIONS: [Permission; 2] = [
        Permission {
            group: "batch",
            resource: "jobs",
            verbs: &["list", "create"],
            why: "the cache; movers",
        },
        Permission {
            group: "tidelock.dev",
            resource: "backups/finalizers",
            verbs: &["update"],
            why: "admission",
        },
    ];

    fn asked(verb: &str, code: u16, message: &str) -> Request {
        let uri = "/apis/batch/v1/namespaces/shop/jobs?limit=5";
        line((OPERATOR, None), (verb, uri), (code, message), 0)
    }

    fn words(requests: &[Request]) -> Option<String> {
        let judged = judge(requests, &PERMISSIONS);
        judged.err().map(|error| error.to_string())
    }

    #[test]
    fn it_passes_where_all_that_is_allowed_was_needed_and_nothing_else_was() {
        let all = [asked("list", 200, ""), asked("create", 201, "")];
        assert_eq!(words(&all), None);
    }

    #[test]
    fn it_fails_on_a_denied_request() {
        let all = [
            asked("list", 200, ""),
            asked("create", 201, ""),
            asked("delete", 403, "User \"x\" cannot delete resource \"jobs\""),
        ];
        assert!(words(&all).unwrap().starts_with("denied: "));
    }

    #[test]
    fn a_quota_and_a_namespace_that_goes_deny_nothing() {
        let quota = "jobs.batch \"x\" is forbidden: exceeded quota: full";
        let leaving =
            "unable to create new content in namespace shop because it is being terminated";
        let all = [
            asked("list", 200, ""),
            asked("create", 403, quota),
            asked("create", 403, leaving),
        ];
        assert_eq!(words(&all), None);
    }

    #[test]
    fn it_fails_on_a_permission_that_nothing_needed() {
        let words = words(&[asked("list", 200, "")]).unwrap();
        assert!(words.contains("create jobs"), "{words}");
        assert!(!words.contains("finalizers"), "{words}");
    }
}
