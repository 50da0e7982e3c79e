//! Backups by hand and by schedule, and what is kept of them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::follow::Follower;
use super::shop;
use super::stage::Stage;

/// Name in `examples/backup.yaml`.
const BY_HAND: &str = "before-upgrade";
/// Name in `examples/policy.yaml`.
const POLICY: &str = "minutely";
/// A backup takes seconds; this only bounds a broken cluster.
const ONE_RUN: Duration = Duration::from_secs(120);
/// Two slots of the policy, and time for their backups.
const TWO_SLOTS: Duration = Duration::from_secs(240);
/// Lists what is stored.
const LIST_STORAGE: &str = "cd $VOLUMES/backup-storage/shop/data && stat --format='%9s  %n' *";

/// One backup at once.
pub fn on_demand(stage: &mut Stage<'_>, events: &mut Follower) -> Result<()> {
    stage.act("A backup, now");
    stage.tell(
        "Seven lines of YAML name the claim; the operator starts a mover Job, and tells each step\n\
         as an Event. The shop goes on selling.",
    );
    stage.show("grep -v '^ *#' examples/backup.yaml")?;
    stage.show("kubectl apply -f examples/backup.yaml")?;
    let object = format!("Backup/{BY_HAND}");
    events.until(stage, "the backup by hand to complete", ONE_RUN, |told| {
        told.reason == "BackupCompleted" && told.object == object
    })?;
    wait_for_completed(stage, BY_HAND)?;
    stage.show("kubectl get backups").map(|_| ())
}

/// A policy, and the first backup's story while its first slot comes; returns the name of the
/// first of two scheduled backups.
pub fn schedule(stage: &mut Stage<'_>, events: &mut Follower) -> Result<String> {
    stage.act("A policy: back up every minute, keep the last two");
    stage.show("grep -v '^ *#' examples/policy.yaml")?;
    stage.show("kubectl apply -f examples/policy.yaml")?;
    stage.show(&format!(
        "kubectl wait --for=condition=Ready backuppolicy/{POLICY} --timeout=60s"
    ))?;
    stage.tell(
        "Its first backup is due at the next full minute. Until then, a closer look at the one made\n\
         by hand: where the bytes went, how many, their digest, and what happened when …",
    );
    stage.show(&format!(
        "kubectl describe backup {BY_HAND} | sed -n '/^Spec:/,$p'"
    ))?;
    stage.tell(
        "… and its files. No tool of ours is needed to check or to read them: the archive is a\n\
         tar.gz, with its digest beside it.",
    );
    stage.show(LIST_STORAGE)?;
    stage.show(&format!(
        "cd $VOLUMES/backup-storage/shop/data && sha256sum -c {BY_HAND}.tar.gz.sha256"
    ))?;
    stage.tell("Now the schedule. The shop still sells:");
    stage.show(shop::COUNT_ORDERS)?;
    let completed = complete(stage, events, 2)?;
    stage.show("kubectl get tidelock")?;
    completed
        .into_iter()
        .next()
        .context("no scheduled backup has completed")
}

/// The third scheduled backup, which is one too many; returns the name of the newest.
pub fn retention(stage: &mut Stage<'_>, events: &mut Follower, oldest: &str) -> Result<String> {
    stage.act("Retention: the third scheduled backup is one too many");
    stage.tell("Stored now, before it runs:");
    stage.show(LIST_STORAGE)?;
    events.until(stage, "retention", TWO_SLOTS, |told| {
        told.reason == "CleanupTriggered" && told.object == format!("BackupPolicy/{POLICY}")
    })?;
    stage.show(&format!(
        "kubectl wait --for=delete backup/{oldest} --timeout=120s"
    ))?;
    stage.tell(
        "Gone is the oldest scheduled backup: first its data, then the object that speaks of it. The\n\
         one made by hand names no policy, so no retention touches it.",
    );
    stage.show(LIST_STORAGE)?;
    stage.tell("The minute schedule has shown enough:");
    stage.show(&format!(
        "kubectl patch backuppolicy {POLICY} --type=merge --patch='{{\"spec\":{{\"suspend\":true}}}}'"
    ))?;
    stage.show("kubectl get tidelock")?;
    check_retention(stage, oldest)
}

/// Shows Events until `count` scheduled backups have completed; returns their names.
fn complete(stage: &Stage<'_>, events: &mut Follower, count: usize) -> Result<BTreeSet<String>> {
    let mut completed = BTreeSet::new();
    events.until(stage, "scheduled backups", TWO_SLOTS, |told| {
        let scheduled = told.object.strip_prefix("Backup/");
        let scheduled = scheduled.filter(|name| name.starts_with(POLICY));
        if let Some(name) = scheduled.filter(|_| told.reason == "BackupCompleted") {
            completed.insert(name.to_owned());
        }
        completed.len() == count
    })?;
    for name in &completed {
        wait_for_completed(stage, name)?;
    }
    Ok(completed)
}

/// The Event comes just before the status.
fn wait_for_completed(stage: &Stage<'_>, backup: &str) -> Result<()> {
    stage
        .ask(&format!(
            "kubectl wait --for=jsonpath='{{.status.phase}}'=Completed backup/{backup} --timeout=60s"
        ))
        .map(|_| ())
}

/// Backups with a manifest in storage, oldest first among those of one policy.
fn stored(stage: &Stage<'_>) -> Result<BTreeSet<String>> {
    let names = stage
        .ask("cd $VOLUMES/backup-storage/shop/data && ls | sed -n 's/\\.manifest\\.json$//p'")?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Compares what the API server and the storage hold with what the policy promises.
fn check_retention(stage: &Stage<'_>, oldest: &str) -> Result<String> {
    let stored = stored(stage)?;
    let left = stage.ask(&format!(
        "cd $VOLUMES/backup-storage && find . -name '*{oldest}*'"
    ))?;
    ensure!(left.is_empty(), "data of {oldest} is still there: {left}");
    ensure!(
        stored.contains(BY_HAND),
        "retention removed the backup made by hand"
    );
    let completed = stage.ask(&format!(
        "kubectl get backups --selector=tidelock.dev/policy={POLICY} --output=jsonpath=\
         '{{range .items[?(@.status.phase==\"Completed\")]}}{{.metadata.name}}{{\"\\n\"}}{{end}}'"
    ))?;
    let completed: BTreeSet<&str> = completed.lines().collect();
    ensure!(
        completed.len() >= 2 && completed.iter().all(|name| stored.contains(*name)),
        "the two newest backups should be kept: the API server has {completed:?}, the storage {stored:?}"
    );
    let newest = completed.last().context("no backup is left")?;
    Ok((*newest).to_owned())
}
