//! A Backup as the core's decisions take it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use tidelock_api::{
    ACCEPT_ANNOTATION, Backup, BackupPolicy, REPLACED_ANNOTATION, SUSPICIOUS, THERE_BY_ANNOTATION,
    VERIFIED, VerificationLevel,
};
use tidelock_core::fact::{BackupFact, Holdings, Proof, Standard};

use crate::convert;
use crate::store::StoreRef;

/// What is known of `backup`. One that never started counts from its creation.
pub fn of_backup(backup: &Backup) -> BackupFact {
    let status = backup.status.as_ref();
    let started = status.and_then(|status| status.start_time.as_ref());
    let ended = status.and_then(|status| status.completion_time.as_ref());
    let read_back = status.and_then(|status| status.verification.as_ref());
    let conditions = status.map(|status| &status.conditions[..]);
    BackupFact {
        name: backup.name_any(),
        phase: status.and_then(|status| status.phase).map(convert::to_core),
        leaving: backup.metadata.deletion_timestamp.is_some(),
        taken_at: started.map_or_else(|| convert::created(&backup.metadata), |time| time.0),
        there_by: there_by(backup),
        completed_at: ended.map(|time| time.0),
        proof: match of_type(conditions, VERIFIED) {
            Some("True") => Proof::Verified,
            Some("False") => Proof::Refuted,
            _ => Proof::Unknown,
        },
        proved_at: read_back.map(|verification| verification.time.0),
        suspicious: of_type(conditions, SUSPICIOUS) == Some("True") && !is_accepted(backup),
        storage: StoreRef::recorded(backup).map_or_else(String::new, |store| store.key()),
        holdings: holdings(backup),
        locked_until: locked_until(backup),
    }
}

/// What makes a backup of `policy` a good one; without a policy, what the default does.
pub fn standard(policy: Option<&BackupPolicy>) -> Standard {
    let verification = policy.and_then(|policy| policy.spec.verification.as_ref());
    match verification.map(|verification| verification.on_backup) {
        Some(VerificationLevel::None) => Standard::Completed,
        _ => Standard::Verified,
    }
}

/// Until when the storage of `backup` lets nobody remove its data.
pub fn locked_until(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    status.locked_until.as_ref().map(|time| time.0)
}

/// Whether a person says that `backup` is as it should be.
pub fn is_accepted(backup: &Backup) -> bool {
    let accepted = backup.annotations().get(ACCEPT_ANNOTATION);
    accepted.is_some_and(|text| text == "true")
}

/// The slot for which its policy cancelled `backup`; none where nobody did, or a person.
pub fn replaced_for(backup: &Backup) -> Option<Timestamp> {
    backup.annotations().get(REPLACED_ANNOTATION)?.parse().ok()
}

fn there_by(backup: &Backup) -> Option<Timestamp> {
    backup.annotations().get(THERE_BY_ANNOTATION)?.parse().ok()
}

fn of_type<'a>(conditions: Option<&'a [Condition]>, kind: &str) -> Option<&'a str> {
    let found = conditions?
        .iter()
        .find(|condition| condition.type_ == kind)?;
    Some(&found.status)
}

fn holdings(backup: &Backup) -> Option<Holdings> {
    let size = backup.status.as_ref()?.size.as_ref()?;
    Some(Holdings {
        files: u64::try_from(size.files).ok()?,
        others: u64::try_from(size.others).ok()?,
        logical_bytes: u64::try_from(size.logical_bytes).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn held(size: serde_json::Value) -> Option<Holdings> {
        let mut backup = Backup::new("now", serde_json::from_str("{}").unwrap());
        backup.status = Some(serde_json::from_value(json!({"size": size})).unwrap());
        of_backup(&backup).holdings
    }

    #[test]
    fn a_backup_of_folders_and_links_alone_holds_something() {
        let mut size = json!({"logicalBytes": 0, "storedBytes": 99, "stored": "99 B", "files": 0});
        let uncounted = held(size.clone()).unwrap();
        assert_eq!(uncounted, Holdings::default());
        size["others"] = json!(7);
        let counted = held(size).unwrap();
        assert_eq!((counted.files, counted.others), (0, 7));
    }
}
