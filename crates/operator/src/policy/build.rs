//! The Backup that a policy makes for a slot. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tidelock_api::{
    Backup, BackupPolicy, BackupSpec, DATA_FINALIZER, POLICY_LABEL, PVC_LABEL, SLOT_ANNOTATION,
};
use tidelock_core::names;

use crate::convert;
use crate::error::Error;

/// The Backup of `policy` for `slot`, with all it needs written out, so that a later change of the
/// policy does not change this run.
pub fn backup(policy: &BackupPolicy, slot: Timestamp) -> Result<Backup, Error> {
    let name = policy.name_any();
    let spec = &policy.spec;
    let mut backup = Backup::new(
        &names::slot_backup_name(&name, slot),
        BackupSpec {
            policy_ref: Some(name.clone()),
            target: Some(spec.target.clone()),
            storage: spec.storage.clone(),
            format: spec.format,
            deletion_policy: spec.deletion_policy,
            start_deadline_seconds: spec.start_deadline_seconds,
            mover: spec.mover.clone(),
        },
    );
    let pvc = &spec.target.pvc_name;
    let meta = &mut backup.metadata;
    meta.namespace = Some(convert::namespace(policy)?);
    meta.finalizers = Some(vec![DATA_FINALIZER.to_owned()]);
    meta.owner_references = Some(policy.controller_owner_ref(&()).into_iter().collect());
    meta.labels = Some(BTreeMap::from([
        (POLICY_LABEL.to_owned(), names::label_value(&name)),
        (PVC_LABEL.to_owned(), names::label_value(pvc)),
    ]));
    meta.annotations = Some(BTreeMap::from([(
        SLOT_ANNOTATION.to_owned(),
        slot.to_string(),
    )]));
    Ok(backup)
}
