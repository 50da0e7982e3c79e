//! Restores: one that works, and one that must not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::follow::Follower;
use super::stage::Stage;

/// A restore takes seconds; this only bounds a broken cluster.
const ONE_RUN: Duration = Duration::from_secs(120);

/// What was restored.
pub struct Restored {
    /// Regular files, as the Restore counts them.
    pub files: usize,
    /// The moment whose state was restored.
    pub recovery_point: String,
}

/// Restores the newest scheduled backup into a claim that the Restore makes.
pub fn into_new_volume(
    stage: &mut Stage<'_>,
    events: &mut Follower,
    newest: &str,
) -> Result<Restored> {
    stage.act("A restore into a new volume");
    stage.tell(
        "The Restore makes its own claim from targetTemplate, so nothing that exists can be\n\
         overwritten. The archive's digest is checked before the first byte is written, and each\n\
         file's digest as it is written.",
    );
    stage.show("grep -v '^ *#' examples/restore.yaml")?;
    stage.show(&format!(
        "sed s/before-upgrade/{newest}/ examples/restore.yaml | kubectl apply -f -"
    ))?;
    events.until(stage, "the restore to complete", ONE_RUN, |told| {
        told.reason == "RestoreCompleted" && told.object == "Restore/data-restored"
    })?;
    stage.ask(
        "kubectl wait --for=jsonpath='{.status.phase}'=Completed restore/data-restored --timeout=60s",
    )?;
    stage.show("kubectl get restores,persistentvolumeclaims")?;
    let told = stage.ask(
        "kubectl get restore data-restored --output=jsonpath='{.status.restoredFiles} {.status.recoveryPoint}'",
    )?;
    let (files, recovery_point) = told
        .split_once(' ')
        .context("the Restore does not say what it restored")?;
    let restored = Restored {
        files: files.parse()?,
        recovery_point: recovery_point.to_owned(),
    };
    let found: usize = stage
        .ask("find $VOLUMES/restored -type f -printf . | wc -c")?
        .parse()?;
    ensure!(
        found == restored.files,
        "the Restore counts {} files, find counts {found}",
        restored.files
    );
    Ok(restored)
}

/// Damages a stored archive and tries to restore it.
pub fn refuse_damage(stage: &mut Stage<'_>, events: &mut Follower) -> Result<()> {
    stage.act("And Tidelock itself? A restore from a damaged archive");
    stage.leave_volumes();
    stage.tell("Two bytes go wrong in the middle of the archive of the very first backup:");
    stage.show(
        "cd $VOLUMES/backup-storage/shop/data && archive=before-upgrade.tar.gz
printf '\\377\\0' | dd of=$archive bs=1 seek=$(($(stat -c %s $archive) / 2)) conv=notrunc status=none",
    )?;
    stage.show("sed s/data-restored/second-try/ examples/restore.yaml | kubectl apply -f -")?;
    events.until(stage, "the restore to be refused", ONE_RUN, |told| {
        told.reason == "RestoreFailed" && told.object == "Restore/second-try"
    })?;
    stage.ask(
        "kubectl wait --for=jsonpath='{.status.phase}'=Failed restore/second-try --timeout=60s",
    )?;
    stage.show("kubectl get restores")?;
    let written = stage.show("find $VOLUMES/second-try -mindepth 1 -printf . | wc -c")?;
    ensure!(
        written.trim() == "0",
        "a damaged archive was restored in part: {written} paths"
    );
    stage.tell("Refused before the first byte was written.");
    Ok(())
}
