//! What the operators in the cluster asked for, over all stories that were told before: the name of
//! this binary makes it the last one.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use tidelock_e2e::{audit, effect};
use tidelock_operator::rbac::{OWN_NAMESPACE, PERMISSIONS, Permission};

/// Admission asks whether this may be done, where OwnerReferencesPermissionEnforcement is on; no
/// request is made.
fn is_for_admission(permission: &Permission) -> bool {
    permission.resource.ends_with("/finalizers")
}

#[test]
fn the_operator_used_every_right_it_has_and_was_denied_nothing() -> Result<()> {
    let requests = audit::of_operator(Timestamp::UNIX_EPOCH)?;
    let denied: Vec<_> = requests.iter().filter(|r| r.is_denied()).collect();
    ensure!(denied.is_empty(), "denied: {denied:#?}");

    let used: BTreeSet<(String, String, &str)> = requests
        .iter()
        .filter_map(|request| {
            let (group, resource) = effect::resource_of(&request.uri)?;
            Some((group, resource, request.verb.as_str()))
        })
        .collect();
    let asked = PERMISSIONS.iter().chain(OWN_NAMESPACE);
    let mut unused = Vec::new();
    for permission in asked.filter(|permission| !is_for_admission(permission)) {
        let (group, resource) = (permission.group.to_owned(), permission.resource.to_owned());
        for verb in permission.verbs {
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
