//! What happens in the namespace while the operator is killed: together these bring about every
//! write there is.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tidelock_api::{
    Backup, BackupPolicy, BackupStorage, PUT_BACK_ANNOTATION, Phase, Restore, THERE_BY_ANNOTATION,
};
use tidelock_e2e::outcome::pods_of_job;
use tidelock_e2e::pods::{pause_in_replace, resume};
use tidelock_e2e::{Story, tree};

/// A schedule whose slots are far away.
const NEVER: &str = "0 0 1 1 *";
const DAILY: &str = "0 0 * * *";

/// Each begins in a settled namespace, with one act while no operator runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// A backup of a policy runs and completes.
    Backup,
    /// A backup that waits for what is not there, and a backup and a restore that are refused.
    Checks,
    /// A slot that is due, one that is too late, and a schedule that is none.
    Schedules,
    /// A slot is due whose policy replaces the backup before.
    Replaced,
    /// Stored backups are read again.
    Verified,
    /// A policy is deleted, and its backups stay; a Restore that has ended is deleted as well.
    Released,
    /// An old backup goes with its data.
    Retention,
    /// A backup is deleted while its mover runs.
    DeletedWhileRunning,
    /// A backup is cancelled while its mover runs.
    Cancelled,
    /// A claim is made from a template and filled.
    Restore,
    /// The mover refuses to write over what is there; the backup is the latest of a policy.
    RestoreFails,
    /// A restore is cancelled that has moved aside what was there, and it is put back.
    RestoreCancelled,
    /// The same restore is deleted instead.
    RestoreDeleted,
    /// A restore is deleted that has failed, and whose target is not put back yet.
    PutBackLate,
    /// A backup waits for its turn behind another.
    Queued,
    /// A quota takes no Job.
    Forbidden,
    /// A backup is dated by a clock that was ahead.
    Misdated,
    /// A storage is looked at, and what no Backup stands for is found there.
    Discovered,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Backup,
        Self::Checks,
        Self::Schedules,
        Self::Replaced,
        Self::Verified,
        Self::Released,
        Self::Retention,
        Self::DeletedWhileRunning,
        Self::Cancelled,
        Self::Restore,
        Self::RestoreFails,
        Self::RestoreCancelled,
        Self::RestoreDeleted,
        Self::PutBackLate,
        Self::Queued,
        Self::Forbidden,
        Self::Misdated,
        Self::Discovered,
    ];

    /// With what in its environment the operator runs.
    pub fn environment(self) -> Option<(&'static str, &'static str)> {
        (self == Self::Queued).then_some(("MAX_MOVERS", "1"))
    }

    /// Makes what is there before; the operator is at work. Whether it had anything to do.
    pub async fn settle(self, story: &Story) -> Result<bool> {
        let storage = story.backup_storage().await?;
        anyhow::ensure!(storage.is_dir());
        match self {
            Self::Backup => {
                small_data(story).await?;
                story.policy("nightly", NEVER, json!({})).await?;
                scheduled(story, "nightly").await?;
            }
            Self::Checks => {
                story.block_volume("block").await?;
                return Ok(false);
            }
            Self::Schedules => return Ok(false),
            Self::Replaced => {
                let replace = json!({"concurrencyPolicy": "Replace"});
                story.policy("nightly", DAILY, replace).await?;
                let earlier = json!({"policyRef": "nightly"});
                story.backup("earlier", earlier).await?;
                phase(story, "earlier", Phase::Pending).await?;
            }
            Self::Verified => {
                small_data(story).await?;
                let again = json!({"verification": {"schedule": DAILY}});
                story.policy("nightly", NEVER, again).await?;
                story.backup("now", json!({"policyRef": "nightly"})).await?;
                phase(story, "now", Phase::Completed).await?;
            }
            Self::Released => {
                story.policy("nightly", NEVER, json!({})).await?;
                story
                    .backup("waits", json!({"policyRef": "nightly"}))
                    .await?;
                phase(story, "waits", Phase::Pending).await?;
                story.restore("ended", "nothing", "nowhere").await?;
                restore_phase(story, "ended", Phase::Failed).await?;
            }
            Self::Retention | Self::Misdated => {
                small_data(story).await?;
                story.policy("nightly", NEVER, json!({})).await?;
                for name in ["old", "new"] {
                    story.backup(name, json!({"policyRef": "nightly"})).await?;
                    phase(story, name, Phase::Completed).await?;
                }
            }
            Self::DeletedWhileRunning | Self::Cancelled | Self::Queued => {
                let data = story.volume("data").await?;
                tree::long_read(&data, 400)?;
                story.backup("now", json!({})).await?;
                story.wait_job_pod("now-backup").await?;
            }
            Self::Restore => {
                small_data(story).await?;
                story.backup("now", json!({})).await?;
                phase(story, "now", Phase::Completed).await?;
            }
            Self::RestoreFails => {
                small_data(story).await?;
                story.policy("nightly", NEVER, json!({})).await?;
                story.backup("now", json!({"policyRef": "nightly"})).await?;
                phase(story, "now", Phase::Completed).await?;
            }
            Self::Discovered => {
                small_data(story).await?;
                story
                    .backup("now", json!({"deletionPolicy": "Retain"}))
                    .await?;
                phase(story, "now", Phase::Completed).await?;
                delete::<Backup>(story, "now").await?;
                story.wait_gone::<Backup>("now").await?;
            }
            Self::RestoreCancelled | Self::RestoreDeleted => paused_restore(story).await?,
            Self::PutBackLate => {
                small_data(story).await?;
                story.backup("now", json!({})).await?;
                phase(story, "now", Phase::Completed).await?;
                let target = story.volume("used").await?;
                tree::write(&target, "precious", b"the only copy", 0o600)?;
                story.restore("back", "now", "used").await?;
                restore_phase(story, "back", Phase::Failed).await?;
            }
            Self::Forbidden => {
                small_data(story).await?;
                story.kubectl(&["create", "quota", "no-jobs", "--hard=count/jobs.batch=0"])?;
                let counts = |quota: &ResourceQuota| {
                    let hard = quota.status.as_ref()?.hard.as_ref()?;
                    Some(hard.contains_key("count/jobs.batch"))
                };
                story.wait_for("no-jobs", "to be counted", counts).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What starts it; no operator runs.
    pub async fn act(self, story: &Story) -> Result<()> {
        match self {
            Self::Backup => {
                story.backup("now", json!({"policyRef": "nightly"})).await?;
            }
            Self::Checks => {
                story.backup("waits", json!({})).await?;
                let block = json!({"target": {"pvcName": "block"}});
                story.backup("refused", block).await?;
                story.restore("of-nothing", "nothing", "block").await?;
            }
            Self::Schedules => schedules(story).await?,
            Self::Replaced => {
                let status = json!({"status": {"lastScheduleTime": midnights_ago(2)?}});
                patch_status::<BackupPolicy>(story, "nightly", &status).await?;
            }
            Self::Verified => {
                let status = json!({"status": {
                    "lastVerificationScheduleTime": midnights_ago(2)?,
                    "nextVerification": midnights_ago(1)?,
                }});
                patch_status::<BackupPolicy>(story, "nightly", &status).await?;
            }
            Self::Released => {
                delete::<BackupPolicy>(story, "nightly").await?;
                delete::<Restore>(story, "ended").await?;
            }
            Self::Retention => {
                let trim = json!({"spec": {"retention": {"keepLast": 1}}});
                story.patch::<BackupPolicy>("nightly", trim).await?;
            }
            Self::DeletedWhileRunning => delete::<Backup>(story, "now").await?,
            Self::Cancelled => {
                let cancel = json!({"spec": {"cancel": true}});
                story.patch::<Backup>("now", cancel).await?;
            }
            Self::Restore => {
                story.volume_for_later("fresh").await?;
                let spec = json!({
                    "backupName": "now",
                    "targetTemplate": {
                        "metadata": {"name": "fresh"},
                        "spec": {
                            "storageClassName": "",
                            "resources": {"requests": {"storage": "1Gi"}},
                        },
                    },
                });
                story.make::<Restore>("back", spec).await?;
            }
            Self::RestoreFails => {
                let target = story.volume("used").await?;
                tree::write(&target, "precious", b"the only copy", 0o600)?;
                let latest = json!({"from": {"policyName": "nightly"}, "targetPVC": "used"});
                story.make::<Restore>("back", latest).await?;
            }
            Self::RestoreCancelled => {
                let cancel = json!({"spec": {"cancel": true}});
                story.patch::<Restore>("back", cancel).await?;
            }
            Self::RestoreDeleted => delete::<Restore>(story, "back").await?,
            Self::PutBackLate => left_half_written(story).await?,
            Self::Queued => {
                story.backup("second", json!({})).await?;
            }
            Self::Forbidden => {
                story.backup("now", json!({})).await?;
            }
            Self::Discovered => {
                let mut spec = story.archives.spec()?;
                spec["discover"] = json!(true);
                story.make::<BackupStorage>("offsite", spec).await?;
            }
            Self::Misdated => {
                let tomorrow = midnights_ago(-2)?;
                let status = json!({"status": {"startTime": tomorrow}});
                patch_status::<Backup>(story, "new", &status).await?;
            }
        }
        Ok(())
    }

    /// Waits until the operator has dealt with it; small things may still follow.
    pub async fn end(self, story: &Story) -> Result<()> {
        match self {
            Self::Backup => {
                phase(story, "now", Phase::Completed).await?;
                let counts =
                    |policy: &BackupPolicy| Some(policy.status.as_ref()?.completed_backups == 1);
                story.wait_for("nightly", "to count it", counts).await?;
                Ok(())
            }
            Self::Checks => {
                phase(story, "waits", Phase::Pending).await?;
                phase(story, "refused", Phase::Failed).await?;
                restore_phase(story, "of-nothing", Phase::Failed).await
            }
            Self::Schedules => {
                for policy in ["due", "late", "broken"] {
                    scheduled(story, policy).await?;
                }
                Ok(())
            }
            Self::Replaced => {
                phase(story, "earlier", Phase::Failed).await?;
                let active = |policy: &BackupPolicy| {
                    let status = policy.status.as_ref()?;
                    Some(status.active.len() == 1 && status.active[0] != "earlier")
                };
                story.wait_for("nightly", "to run its slot", active).await?;
                Ok(())
            }
            Self::Verified => {
                let read = |policy: &BackupPolicy| {
                    let status = policy.status.as_ref()?;
                    let is_over = status.verification_job.is_none();
                    Some(status.last_verification_time.is_some() && is_over)
                };
                story.wait_for("nightly", "to have read it", read).await?;
                Ok(())
            }
            Self::Released => {
                story.wait_gone::<BackupPolicy>("nightly").await?;
                story.wait_gone::<Restore>("ended").await
            }
            Self::Retention => story.wait_gone::<Backup>("old").await,
            Self::DeletedWhileRunning => story.wait_gone::<Backup>("now").await,
            Self::Cancelled => phase(story, "now", Phase::Failed).await,
            Self::Restore => restore_phase(story, "back", Phase::Completed).await,
            Self::RestoreFails => restore_phase(story, "back", Phase::Failed).await,
            Self::RestoreCancelled => {
                go_on_when_told_to_end(story).await?;
                restore_phase(story, "back", Phase::Failed).await?;
                holds(story, &["precious"])
            }
            Self::RestoreDeleted => {
                go_on_when_told_to_end(story).await?;
                gone_with_its_jobs(story).await?;
                holds(story, &["precious"])
            }
            Self::PutBackLate => {
                gone_with_its_jobs(story).await?;
                holds(story, &[])
            }
            Self::Queued => waits_with(story, "second", "Queued").await,
            Self::Forbidden => waits_with(story, "now", "JobRefused").await,
            Self::Discovered => {
                phase(story, "now", Phase::Completed).await?;
                let all_found = |storage: &BackupStorage| {
                    Some(storage.status.as_ref()?.unknown_archives == Some(0))
                };
                story
                    .wait_for("offsite", "to be looked at", all_found)
                    .await?;
                Ok(())
            }
            Self::Misdated => {
                let marked =
                    |backup: &Backup| Some(backup.annotations().contains_key(THERE_BY_ANNOTATION));
                story.wait_for("new", "to be marked", marked).await?;
                Ok(())
            }
        }
    }
}

/// A restore `back` into `used` that has moved aside what was there, and halts.
async fn paused_restore(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    // Elsewhere: the other cases go on meanwhile.
    tokio::task::spawn_blocking(move || tree::fill_many(&data, 10_000)).await??;
    story.backup("now", json!({})).await?;
    phase(story, "now", Phase::Completed).await?;
    let target = story.volume("used").await?;
    tree::write(&target, "precious", b"the only copy", 0o600)?;
    // Slow enough to be halted before it is done.
    let slow = json!({"resources": {"limits": {"cpu": "200m", "memory": "128Mi"}}});
    let replace = json!({
        "backupName": "now", "targetPVC": "used", "overwrite": "Replace", "mover": slow,
    });
    story.make::<Restore>("back", replace).await?;
    let pod = story.wait_job_pod_made("back-restore").await?;
    // It goes on when it is told to end, so that it is never done before that.
    pause_in_replace(&pod, &target).await
}

async fn go_on_when_told_to_end(story: &Story) -> Result<()> {
    for pod in &pods_of_job(story, "back-restore").await? {
        let told = |pod: &Pod| Some(pod.metadata.deletion_timestamp.is_some());
        story
            .wait_for(&pod.name_any(), "to be told to end", told)
            .await?;
        resume(pod)?;
    }
    Ok(())
}

/// Makes of the failed restore `back` one that had written half of what it should and could not
/// take that back, and deletes it. On its own it comes to that only after minutes without its node.
async fn left_half_written(story: &Story) -> Result<()> {
    let restore = story.api::<Restore>().get("back").await?;
    let uid = restore.uid().context("the Restore has no UID")?;
    let target = story.volumes_folder()?.join("used");
    std::fs::remove_file(target.join("precious"))?;
    tree::write(&target, "half", b"of what should be here", 0o600)?;
    let root = json!({
        "mode": 0o755, "uid": 0, "gid": 0, "mtime": {"seconds": 0, "nanoseconds": 0}, "xattrs": [],
    });
    let marker = json!({"overwrite": "Never", "stage": "Writing", "root": root});
    let name = format!(".tidelock-restore-{uid}");
    tree::write(&target, &name, marker.to_string().as_bytes(), 0o600)?;
    let pending = json!({"status": {"undoPending": true}});
    patch_status::<Restore>(story, "back", &pending).await?;
    let told = json!({"metadata": {"annotations": {PUT_BACK_ANNOTATION: "true"}}});
    story.patch::<Restore>("back", told).await?;
    delete::<Restore>(story, "back").await
}

/// Waits until the garbage collector, too, is done with the restore `back`.
async fn gone_with_its_jobs(story: &Story) -> Result<()> {
    story.wait_gone::<Restore>("back").await?;
    for job in [
        "back-restore",
        "back-restore-undo",
        "back-restore-undo-last",
    ] {
        story.wait_gone::<Job>(job).await?;
    }
    for pod in story.api::<Pod>().list(&ListParams::default()).await? {
        if pod.name_any().starts_with("back-restore") {
            story.wait_gone::<Pod>(&pod.name_any()).await?;
        }
    }
    Ok(())
}

/// The volume `used` holds `names` and nothing else.
fn holds(story: &Story, names: &[&str]) -> Result<()> {
    let target = story.volumes_folder()?.join("used");
    let found = tree::stored(&target, "")?;
    let names: Vec<&Path> = names.iter().map(Path::new).collect();
    anyhow::ensure!(found == names, "{found:?} instead of {names:?}");
    Ok(())
}

async fn small_data(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    tree::write(&data, "file", b"content", 0o644)
}

/// Waits until a Backup is Pending for `reason`.
async fn waits_with(story: &Story, name: &str, reason: &str) -> Result<()> {
    let what = format!("to wait with {reason}");
    let waits = |backup: &Backup| {
        let status = backup.status.as_ref()?;
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
        Some(status.phase == Some(Phase::Pending) && ready.reason == reason)
    };
    story.wait_for(name, &what, waits).await?;
    Ok(())
}

/// Policies that were followed until two days ago.
async fn schedules(story: &Story) -> Result<()> {
    let policies = [
        ("due", DAILY, json!({})),
        ("late", DAILY, json!({"startingDeadlineSeconds": 1})),
        ("broken", "61 0 * * *", json!({})),
    ];
    let status = json!({"status": {
        "lastScheduleTime": midnights_ago(2)?,
        "followedSchedule": format!("{DAILY} UTC"),
    }});
    for (name, schedule, more) in policies {
        story.policy(name, schedule, more).await?;
        patch_status::<BackupPolicy>(story, name, &status).await?;
    }
    Ok(())
}

/// The beginning of a day that many days before today.
fn midnights_ago(days: i32) -> Result<String> {
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let midnight = today.checked_sub(jiff::Span::new().days(days))?;
    let midnight = midnight.to_zoned(jiff::tz::TimeZone::UTC)?;
    Ok(midnight.timestamp().to_string())
}

async fn patch_status<K: tidelock_e2e::wait::Watched>(
    story: &Story,
    name: &str,
    status: &Value,
) -> Result<()> {
    story
        .api::<K>()
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

async fn delete<K: tidelock_e2e::wait::Watched>(story: &Story, name: &str) -> Result<()> {
    story
        .api::<K>()
        .delete(name, &DeleteParams::default())
        .await?;
    Ok(())
}

/// Waits until the operator has said something of a policy.
async fn scheduled(story: &Story, name: &str) -> Result<()> {
    let said = |policy: &BackupPolicy| Some(!policy.status.as_ref()?.conditions.is_empty());
    story.wait_for(name, "to be looked at", said).await?;
    Ok(())
}

async fn phase(story: &Story, name: &str, phase: Phase) -> Result<()> {
    let is_there = |backup: &Backup| Some(backup.status.as_ref()?.phase? == phase);
    let what = format!("to be {phase:?}");
    story.wait_for(name, &what, is_there).await?;
    Ok(())
}

async fn restore_phase(story: &Story, name: &str, phase: Phase) -> Result<()> {
    let is_there = |restore: &Restore| Some(restore.status.as_ref()?.phase? == phase);
    let what = format!("to be {phase:?}");
    story.wait_for(name, &what, is_there).await?;
    Ok(())
}
