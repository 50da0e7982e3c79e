//! What reading stored backups again found, taken into their status.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, ResourceExt};
use tidelock_api::{
    Backup, BackupPolicy, FolderStatus, VERIFIED, VerificationLevel, VerificationResult,
};
use tidelock_core::text;
use tidelock_protocol::{ItemVerdict, Outcome, VerifyReport};

use crate::backup::{household, verification};
use crate::conditions;
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::policy::build::VERIFIES_ANNOTATION;
use crate::policy::observe::Observed;
use crate::policy::report as policy_report;
use crate::run::observe::{condition, has_condition, run_uid};
use crate::run::{report, tell, write_status};
use crate::telemetry::policy_reasons;

/// Most names in one Event.
const MOST_NAMED: usize = 10;

/// What a finished Job tells about the whole.
#[derive(Default)]
pub struct Found {
    /// When the backups were read; none where they were not.
    pub read_at: Option<Timestamp>,
    /// What stands in the volume's folder.
    pub folder: Option<FolderStatus>,
}

/// One backup of a batch.
struct Item {
    uid: String,
    verdict: ItemVerdict,
    message: String,
}

/// Takes what `job` found into the status of each Backup that is still there, and tells it.
///
/// # Guarantees
/// A Backup that is being deleted, or gone, is not judged: its data may be gone with it. What could
/// not be read to the end says nothing of a backup. Taking in twice changes nothing.
pub async fn take_in(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    job: &Job,
    now: Timestamp,
) -> Result<Found, Error> {
    let name = job.name_any();
    let outcome = report::newest(ctx, job, &run_uid(job)).await?;
    let report = match outcome {
        Some(Outcome::Verified(report)) => report,
        other => {
            not_done(policy, ctx, job, other, now).await?;
            return Ok(Found::default());
        }
    };
    let Some(items) = items(job, &report) else {
        let note = format!(
            "Stored backups were read again, but the report of Job {name} does not fit what was asked for and is not believed"
        );
        let head = (policy_reasons::VERIFICATION_NOT_DONE, true, name.as_str());
        policy_report::tell_of(policy, ctx, head, note, now).await?;
        return Ok(Found::default());
    };
    let at = ended(job).unwrap_or(now);
    let mut tally = Tally::default();
    for item in &items {
        let known = observed.backups.iter().map(AsRef::as_ref);
        if let Some(backup) = known
            .into_iter()
            .find(|b| b.uid().as_ref() == Some(&item.uid))
            && judge(backup, ctx, &name, item, (at, now)).await?
        {
            tally.count(backup, item);
        }
    }
    tally.tell(policy, ctx, &name, now).await?;
    let folder = report.folder.as_ref();
    Ok(Found {
        read_at: Some(at),
        folder: folder.map(|folder| household::folder_status(folder, at)),
    })
}

/// The verdict on each backup of the batch; none where the report is not one of this batch.
fn items(job: &Job, report: &VerifyReport) -> Option<Vec<Item>> {
    let uids = job.annotations().get(VERIFIES_ANNOTATION)?;
    let uids: Vec<&str> = uids.split(',').collect();
    let letters: Vec<char> = report.verdicts.chars().collect();
    if uids.len() != letters.len() {
        return None;
    }
    let item = |(index, (uid, letter)): (usize, (&str, char))| {
        let fault = report
            .faults
            .iter()
            .find(|fault| usize::try_from(fault.item) == Ok(index));
        Item {
            uid: uid.to_owned(),
            verdict: ItemVerdict::of(letter),
            message: fault.map_or_else(
                || format!("See `kubectl logs job/{}`.", job.name_any()),
                |fault| text::sentence(&fault.message),
            ),
        }
    };
    Some(
        uids.into_iter()
            .zip(letters)
            .enumerate()
            .map(item)
            .collect(),
    )
}

/// Records one verdict, read at `at`; false where the Backup is gone or going.
async fn judge(
    backup: &Backup,
    ctx: &Context,
    job: &str,
    item: &Item,
    (at, now): (Timestamp, Timestamp),
) -> Result<bool, Error> {
    let namespace = convert::namespace(backup)?;
    let name = backup.name_any();
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let live = api
        .get_opt(&name)
        .await
        .map_err(Error::api(format!("read Backup {namespace}/{name}")))?;
    let same = |live: &Backup| live.uid().as_ref() == Some(&item.uid);
    let Some(live) = live.filter(|l| same(l) && l.metadata.deletion_timestamp.is_none()) else {
        return Ok(false);
    };
    let status = live.status.clone().unwrap_or_default();
    let recorded = status.verification.map(|verification| verification.time.0);
    if recorded.is_some_and(|time| is_newer(time, at, now)) {
        return Ok(true);
    }
    let (result, message) = match item.verdict {
        ItemVerdict::Good => (VerificationResult::Passed, None),
        ItemVerdict::Bad => (VerificationResult::Failed, Some(item.message.clone())),
        ItemVerdict::Missing => (VerificationResult::Missing, Some(item.message.clone())),
        ItemVerdict::NotChecked => return Ok(true),
    };
    match &message {
        Some(message) => {
            let head = (policy_reasons::VERIFICATION_FAILED, true, job);
            tell(&live, ctx, head, message.clone(), at).await?;
        }
        None if !conditions::holds(&status.conditions, VERIFIED) => {
            let head = (policy_reasons::VERIFIED, false, job);
            let note = "What is stored was read again and is as it was written".to_owned();
            tell(&live, ctx, head, note, at).await?;
        }
        None => {}
    }
    let mut changed = live.clone();
    verification::record(&mut changed, VerificationLevel::Full, result, message, at);
    write_status(&live, changed, ctx).await?;
    Ok(true)
}

/// Whether what was recorded at `time` is newer than what was read at `at`. A time that lies ahead
/// of `now` is of a clock that was, and does not keep a verdict out.
fn is_newer(time: Timestamp, at: Timestamp, now: Timestamp) -> bool {
    time > convert::whole_seconds(at).0 && time <= now
}

/// When a Job came to its end.
fn ended(job: &Job) -> Option<Timestamp> {
    let end = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    Some(end.last_transition_time.as_ref()?.0)
}

/// Tells why nothing was found out.
async fn not_done(
    policy: &BackupPolicy,
    ctx: &Context,
    job: &Job,
    outcome: Option<Outcome>,
    now: Timestamp,
) -> Result<(), Error> {
    let name = job.name_any();
    let why = match outcome {
        Some(Outcome::Failed(failure)) => text::sentence(&failure.message),
        _ if has_condition(job, "Failed") => {
            report::of_failure(ctx, job, &run_uid(job)).await?.message
        }
        _ => format!("Job {name} left no report."),
    };
    let note = format!("Stored backups were not read again: {why}");
    let head = (policy_reasons::VERIFICATION_NOT_DONE, true, name.as_str());
    policy_report::tell_of(policy, ctx, head, note, now).await
}

/// What a batch came to.
#[derive(Default)]
struct Tally {
    good: u64,
    bad: Vec<String>,
    unread: Vec<String>,
    /// Why the first one was not read to the end.
    why_unread: Option<String>,
}

impl Tally {
    fn count(&mut self, backup: &Backup, item: &Item) {
        match item.verdict {
            ItemVerdict::Good => self.good += 1,
            ItemVerdict::Bad | ItemVerdict::Missing => self.bad.push(backup.name_any()),
            ItemVerdict::NotChecked => {
                self.unread.push(backup.name_any());
                self.why_unread.get_or_insert_with(|| item.message.clone());
            }
        }
    }

    async fn tell(
        &self,
        policy: &BackupPolicy,
        ctx: &Context,
        job: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        if !self.bad.is_empty() {
            let note = format!(
                "{} that were read again are damaged or gone: {}. They count for nothing in retention, and are not restored without allowUnverified",
                text::count(self.bad.len() as u64, "backup"),
                listed(&self.bad)
            );
            let head = (policy_reasons::VERIFICATION_FAILED, true, job);
            policy_report::tell_of(policy, ctx, head, note, now).await?;
        } else if self.good > 0 {
            let note = format!(
                "Read {} again: as they were written",
                text::count(self.good, "backup")
            );
            let head = (policy_reasons::VERIFIED, false, job);
            policy_report::tell_of(policy, ctx, head, note, now).await?;
        }
        if !self.unread.is_empty() {
            let note = format!(
                "{} could not be read to the end: {}. {}",
                text::count(self.unread.len() as u64, "backup"),
                listed(&self.unread),
                self.why_unread.clone().unwrap_or_default()
            );
            let head = (policy_reasons::VERIFICATION_NOT_DONE, true, job);
            policy_report::tell_of(policy, ctx, head, note, now).await?;
        }
        Ok(())
    }
}

fn listed(names: &[String]) -> String {
    let told = names[..names.len().min(MOST_NAMED)].join(", ");
    match names.len().saturating_sub(MOST_NAMED) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidelock_protocol::ItemFault;

    use super::*;

    fn job(uids: &str) -> Job {
        let mut job = Job::default();
        job.metadata.name = Some("nightly-verify".to_owned());
        job.metadata.annotations = Some(BTreeMap::from([(
            VERIFIES_ANNOTATION.to_owned(),
            uids.to_owned(),
        )]));
        job
    }

    fn report(verdicts: &str) -> VerifyReport {
        VerifyReport {
            verdicts: verdicts.to_owned(),
            faults: vec![ItemFault {
                item: 2,
                message: "member 4 at byte 99 is damaged".to_owned(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn each_verdict_and_fault_goes_to_its_backup() {
        let items = items(&job("u-a,u-b,u-c,u-d,u-e"), &report("gmbn?")).unwrap();
        let told: Vec<_> = items.iter().map(|i| (i.uid.as_str(), i.verdict)).collect();
        let expected = [
            ("u-a", ItemVerdict::Good),
            ("u-b", ItemVerdict::Missing),
            ("u-c", ItemVerdict::Bad),
            ("u-d", ItemVerdict::NotChecked),
            ("u-e", ItemVerdict::NotChecked),
        ];
        assert_eq!(told, expected);
        assert_eq!(items[2].message, "Member 4 at byte 99 is damaged.");
        assert!(items[1].message.contains("logs job/nightly-verify"));
    }

    #[test]
    fn a_report_that_does_not_fit_the_batch_is_not_believed() {
        assert!(items(&job("u-a,u-b"), &report("g")).is_none());
        assert!(items(&job("u-a"), &report("gg")).is_none());
        assert!(items(&Job::default(), &report("g")).is_none());
    }

    #[test]
    fn only_a_newer_verdict_that_is_not_of_the_future_keeps_another_out() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(is_newer(at(20), at(10), at(30)));
        assert!(!is_newer(at(10), at(10), at(30)));
        assert!(!is_newer(at(5), at(10), at(30)));
        assert!(!is_newer(at(99), at(10), at(30)));
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<String> = (0..12).map(|n| format!("b{n}")).collect();
        assert_eq!(listed(&names[..2]), "b0, b1");
        assert!(listed(&names).ends_with("b9 and 2 more"));
    }
}
