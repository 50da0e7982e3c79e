//! A Backup as a run.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use tidelock_api::{Backup, SizeStatus};
use tidelock_core::progress::Expected;
use tidelock_core::queue::Kind;
use tidelock_core::run::{CANCELLED, Readiness};
use tidelock_core::{names, text};
use tidelock_protocol::{BackupReport, Outcome};

use crate::backup::placing;
use crate::backup::plan::{self, BackupPlan};
use crate::backup::{household, suspicion, verification};
use crate::context::Context;
use crate::convert::{self, to_i64};
use crate::error::Error;
use crate::fact;
use crate::placement::{self, DataOwner, Placement, Volume, Wanted};
use crate::run::kind::{Fields, Load, Progress, Remark, Run, Settled, Words, fields, progress};
use crate::run::report::RunFailure;
use crate::store::{self, Store, Use};
use crate::telemetry::reasons;
use crate::volume;

impl Run for Backup {
    const WORDS: Words = Words {
        kind: "Backup",
        doing: "backing up the volume",
        started: reasons::BACKUP_STARTED,
        waiting: reasons::BACKUP_WAITING,
        completed: reasons::BACKUP_COMPLETED,
        failed: reasons::BACKUP_FAILED,
    };

    const TURN: Kind = Kind::Backup;

    type Plan = BackupPlan;

    fn load(plan: &BackupPlan) -> Load {
        Load {
            node: plan.placement.pin.as_ref().map(|pin| pin.node.clone()),
            storage: plan.store.key(),
        }
    }

    fn placement(plan: &mut BackupPlan) -> &mut Placement {
        &mut plan.placement
    }

    fn fields(&mut self) -> Fields<'_> {
        fields!(self)
    }

    fn progress(&self) -> Progress<'_> {
        progress!(self)
    }

    /// What the newest completed Backup of the same claim held.
    fn expected(&self, ctx: &Context) -> Expected {
        let claim = self.status.as_ref().and_then(|s| s.pvc_name.as_deref());
        let held = |backup: &Backup| {
            let status = backup.status.as_ref()?;
            let same =
                backup.namespace() == self.namespace() && status.pvc_name.as_deref() == claim;
            let size = status.size.as_ref().filter(|_| same)?;
            Some((
                status.completion_time.as_ref()?.0,
                size.logical_bytes,
                size.files,
            ))
        };
        let backups = ctx.caches.backups.state();
        let Some((_, bytes, files)) = backups.iter().filter_map(|backup| held(backup)).max() else {
            return Expected::default();
        };
        Expected {
            bytes: bytes.try_into().ok(),
            files: files.try_into().ok(),
            is_guess: true,
        }
    }

    fn start_deadline_seconds(&self, ctx: &Context) -> u32 {
        plan::start_deadline_seconds(self, super::policy(self, ctx).as_deref())
    }

    fn job_name(&self) -> String {
        names::backup_job_name(&self.name_any())
    }

    async fn plan(&self, ctx: &Context) -> Result<(Option<BackupPlan>, Readiness), Error> {
        let namespace = convert::namespace(self)?;
        let policy = super::find_policy(self, ctx).await?;
        let mut plan = match plan::resolve(self, policy.as_deref())? {
            Ok(plan) => plan,
            Err(readiness) => return Ok((None, readiness)),
        };
        let source = volume::get(ctx, &namespace, &plan.pvc).await?;
        let store = match store::find(ctx, &namespace, &plan.store).await? {
            Ok(store) => store,
            Err(not_ready) => return Ok((Some(plan), not_ready)),
        };
        let readiness = volume::all([
            volume::source(&plan.pvc, source.as_ref()),
            apart(&plan.pvc, &store),
            store.readiness(Use::Write),
        ]);
        let household = household::household(ctx, &namespace, &plan.pvc, &plan.store);
        plan.household = household;
        if readiness != Readiness::Ready {
            return Ok((Some(plan), readiness));
        }
        let source = Volume::of(&plan.pvc, source.as_ref());
        let volumes: Vec<_> = [source].into_iter().chain(store.volume()).collect();
        let placed = placement::place(
            ctx,
            &Wanted {
                namespace: &namespace,
                volumes: &volumes,
                unused: None,
                mover: &plan.mover,
                data: &plan.pvc,
                owners: &[DataOwner::PodsOf(&plan.pvc)],
            },
        )
        .await?;
        let readiness = placement::settle(&mut plan.placement, placed);
        plan.found = Some(store.clone());
        Ok((Some(plan), readiness))
    }

    fn record(&mut self, plan: &BackupPlan) -> String {
        let encrypted = plan.found.as_ref().is_some_and(Store::is_encrypted);
        let format = convert::format(plan.format);
        let archive = plan.location.stored_archive_key(format, encrypted);
        let status = self.status.get_or_insert_default();
        status.pvc_name = Some(plan.pvc.clone());
        plan.store.record(status);
        status.backup_location = Some(archive.clone());
        status.format = Some(plan.format);
        status.deletion_policy = Some(plan.deletion_policy);
        status.security_context = placement::to_status(&plan.placement.security).map(Box::new);
        format!(
            "Backing up PersistentVolumeClaim {} to {archive} on {}",
            plan.pvc,
            plan.store.told()
        )
    }

    async fn prepare(
        &self,
        _ctx: &Context,
        _plan: &BackupPlan,
        _now: Timestamp,
    ) -> Result<Option<RunFailure>, Error> {
        Ok(None)
    }

    fn job(&self, plan: &BackupPlan, image: &str) -> Result<Job, Error> {
        plan::job(self, plan, image)
    }

    fn cancelled(&self) -> Option<String> {
        self.spec.cancel.then(|| match fact::replaced_for(self) {
            Some(slot) => format!(
                "It was still active when the backup of {slot} was due (concurrencyPolicy Replace). If that happens again and again, no backup is ever made: make the schedule rarer, or take Forbid."
            ),
            None => "spec.cancel is true.".to_owned(),
        })
    }

    /// A mover that fails by itself leaves nothing; what a killed one leaves is swept later.
    fn needs_undo(&self, failure: &RunFailure) -> bool {
        failure.reason == CANCELLED
    }

    async fn undo_job(&self, ctx: &Context, name: &str) -> Result<Result<Job, Readiness>, Error> {
        let (store, placement) = match placing::on_storage(self, ctx).await? {
            Ok(both) => both,
            Err(not_ready) => return Ok(Err(not_ready)),
        };
        let policy = super::policy(self, ctx);
        plan::undo_job(
            self,
            policy.as_deref(),
            &store,
            &placement,
            name,
            &ctx.mover_image,
        )
        .map(Ok)
    }

    fn undone(&mut self, _outcome: &Outcome) -> String {
        "What it half wrote is removed from storage.".to_owned()
    }

    fn settle(
        &mut self,
        ctx: &Context,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<Settled, RunFailure> {
        let Outcome::BackedUp(done) = outcome else {
            return Err(RunFailure::new(
                reasons::REPORT_MISMATCH,
                format!(
                    "The mover was asked for a backup and reports something else ({outcome:?})."
                ),
            ));
        };
        check(self, &done)?;
        let size = size(&done);
        let summary = format!(
            "{} in {}, {} stored",
            text::bytes(done.logical_bytes),
            text::count(done.files, "file"),
            size.stored
        );
        let mut remarks = remarks(&done);
        let suspicion = suspicion::judge(self, ctx, &done);
        let status = self.status.get_or_insert_default();
        status.digest = Some(done.digest.clone());
        status.locked_until = done.locked_until.and_then(convert::time);
        status.size = Some(size);
        status.folder = done
            .folder
            .as_ref()
            .map(|folder| household::folder_status(folder, now).into());
        verification::take_in(self, &done, now);
        remarks.extend(suspicion::take_in(self, suspicion, now));
        Ok(Settled { summary, remarks })
    }
}

/// Refuses a storage that stands on the volume it would save.
fn apart(pvc: &str, store: &Store) -> Readiness {
    match store.volume() {
        Some(volume) if volume.name == pvc => volume::refused(
            reasons::STORAGE_IS_TARGET,
            format!(
                "{} stands on PersistentVolumeClaim {pvc}; a backup inside the volume it saves is lost with it. Name another storage.",
                store.reference
            ),
        ),
        _ => Readiness::Ready,
    }
}

/// Takes a report only where it speaks of the archive that was asked for and states what a restore
/// will rely on.
fn check(backup: &Backup, done: &BackupReport) -> Result<(), RunFailure> {
    let mismatch = |what: String| Err(RunFailure::new(reasons::REPORT_MISMATCH, what));
    let asked = backup
        .status
        .as_ref()
        .and_then(|status| status.backup_location.as_deref());
    let format = convert::format(plan::format(backup, None));
    let reported = done.location.stored_archive_key(format, done.encrypted);
    if asked != Some(&reported) {
        return mismatch(format!(
            "The mover reports an archive at {reported}, not at {}.",
            asked.unwrap_or_default()
        ));
    }
    let digest = done.digest.strip_prefix("sha256:").unwrap_or_default();
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return mismatch(format!(
            "The mover reports the malformed digest {:?}.",
            done.digest
        ));
    }
    Ok(())
}

fn size(done: &BackupReport) -> SizeStatus {
    SizeStatus {
        logical_bytes: to_i64(done.logical_bytes),
        stored_bytes: to_i64(done.stored_bytes),
        stored: text::bytes(done.stored_bytes),
        files: to_i64(done.files),
        others: to_i64(done.others),
        changed_files: to_i64(done.torn.total),
    }
}

/// What is not in the archive as it was at one moment.
fn remarks(done: &BackupReport) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if !done.torn.is_empty() {
        remarks.push(Remark {
            warning: true,
            reason: reasons::FILES_CHANGED,
            note: format!(
                "{} changed while being read, again and again; the copies may mix old and new content: {}",
                text::count(done.torn.total, "file"),
                done.torn.first.join(", ")
            ),
        });
    }
    if !done.skipped.is_empty() {
        remarks.push(Remark {
            warning: false,
            reason: reasons::FILES_SKIPPED,
            note: format!(
                "{} left out, as tar --one-file-system leaves them out (sockets, nested mounts): {}",
                text::count(done.skipped.total, "path"),
                done.skipped.first.join(", ")
            ),
        });
    }
    remarks
}

#[cfg(test)]
mod tests {
    use tidelock_api::{BackupSpec, BackupStatus};
    use tidelock_protocol::{Location, PathSample, VerificationLevel};

    use super::*;

    fn backup() -> Backup {
        let spec: BackupSpec =
            serde_json::from_value(serde_json::json!({"target": {"pvcName": "data"}})).unwrap();
        let mut backup = Backup::new("now", spec);
        backup.status = Some(BackupStatus {
            backup_location: Some("shop/data/now.tar.gz".into()),
            ..Default::default()
        });
        backup
    }

    fn report(location: &str, digest: &str) -> BackupReport {
        BackupReport {
            location: Location::try_from(location.to_owned()).unwrap(),
            digest: digest.to_owned(),
            stored_bytes: 1,
            logical_bytes: 2,
            files: 1,
            others: 1,
            torn: PathSample::default(),
            skipped: PathSample::default(),
            duration_ms: 1,
            encrypted: false,
            verification: VerificationLevel::Full,
            verification_ms: 1,
            locked_until: None,
            folder: None,
        }
    }

    #[test]
    fn a_fitting_report_is_believed() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(check(&backup(), &report("shop/data/now", &digest)).is_ok());
    }

    #[test]
    fn a_report_is_held_against_the_archive_of_the_format_that_was_asked_for() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let report = report("shop/data/now", &digest);
        let mut backup = backup();
        backup.spec.format = Some(tidelock_api::Format::TarZst);
        assert!(check(&backup, &report).is_err());
        let status = backup.status.get_or_insert_default();
        status.backup_location = Some("shop/data/now.tar.zst".into());
        assert!(check(&backup, &report).is_ok());
    }

    #[test]
    fn a_report_of_another_archive_or_without_a_digest_is_not_believed() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(check(&backup(), &report("shop/data/other", &digest)).is_err());
        for digest in [
            "",
            "sha256:",
            "md5:00",
            &format!("sha256:{}", "z".repeat(64)),
        ] {
            assert!(check(&backup(), &report("shop/data/now", digest)).is_err());
        }
    }
}
