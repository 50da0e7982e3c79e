//! What operators asked for, over all stories that were told before: the name of this binary makes it
//! the last one.

use anyhow::Result;
use tidelock_e2e::{audit, usage};
use tidelock_operator::rbac::{OWN_NAMESPACE, PERMISSIONS};

#[test]
fn operators_used_every_right_they_have_and_were_denied_nothing() -> Result<()> {
    let requests = audit::of_all_operators()?;
    usage::judge(&requests, PERMISSIONS.iter().chain(OWN_NAMESPACE))
}
