//! A Restore as a run.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{Backup, Restore};
use tidelock_core::run::Readiness;
use tidelock_core::{names, text};
use tidelock_protocol::Outcome;

use crate::context::Context;
use crate::convert::{self, to_i64};
use crate::error::{Error, is_status};
use crate::restore::plan::{self, RestorePlan};
use crate::run::kind::{Fields, Progress, Run, Settled, Words, fields, progress};
use crate::run::report::RunFailure;
use crate::run::tell;
use crate::telemetry::reasons;
use crate::volume;

impl Run for Restore {
    const WORDS: Words = Words {
        kind: "Restore",
        doing: "restoring the volume",
        started: reasons::RESTORE_STARTED,
        waiting: reasons::RESTORE_WAITING,
        completed: reasons::RESTORE_COMPLETED,
        failed: reasons::RESTORE_FAILED,
    };

    type Plan = RestorePlan;

    fn fields(&mut self) -> Fields<'_> {
        fields!(self)
    }

    fn progress(&self) -> Progress<'_> {
        progress!(self)
    }

    fn start_deadline_seconds(&self) -> u32 {
        self.spec.start_deadline_seconds
    }

    fn job_name(&self) -> String {
        names::restore_job_name(&self.name_any())
    }

    /// What a Restore relies on — the Backup, the claims — is read from the API server itself.
    async fn plan(&self, ctx: &Context) -> Result<(Option<RestorePlan>, Readiness), Error> {
        let namespace = convert::namespace(self)?;
        let backup_name = &self.spec.backup_name;
        let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
        let backup = api
            .get_opt(backup_name)
            .await
            .map_err(Error::api(format!("read Backup {namespace}/{backup_name}")))?;
        let plan = match plan::resolve(self, backup.as_ref())? {
            Ok(plan) => plan,
            Err(readiness) => return Ok((None, readiness)),
        };
        let storage = volume::get(ctx, &namespace, &plan.storage_pvc).await?;
        let target = volume::get(ctx, &namespace, &plan.target_pvc).await?;
        let readiness = volume::all([
            volume::storage(&plan.storage_pvc, storage.as_ref()),
            target_readiness(&plan, target.as_ref(), &convert::uid(self)?),
        ]);
        Ok((Some(plan), readiness))
    }

    fn record(&mut self, plan: &RestorePlan) -> String {
        let status = self.status.get_or_insert_default();
        status.target_pvc = Some(plan.target_pvc.clone());
        status.recovery_point = plan.recovery_point.clone();
        format!(
            "Restoring Backup {} into PersistentVolumeClaim {}",
            self.spec.backup_name, plan.target_pvc
        )
    }

    /// Makes the claim of the template unless it is there.
    async fn prepare(
        &self,
        ctx: &Context,
        plan: &RestorePlan,
        now: Timestamp,
    ) -> Result<Option<RunFailure>, Error> {
        let Some(claim) = &plan.claim_to_make else {
            return Ok(None);
        };
        let namespace = convert::namespace(self)?;
        let name = &plan.target_pvc;
        let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &namespace);
        match api.create(&PostParams::default(), claim).await {
            Ok(_) => {
                let note = format!("Created PersistentVolumeClaim {name}");
                tell(self, ctx, (reasons::TARGET_CREATED, false, ""), note, now).await?;
                Ok(None)
            }
            // Whose it is was observed; one that came in between is caught by the mover, which
            // takes an empty volume only.
            Err(error) if is_status(&error, 409) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 422 || status.code == 403 => {
                let message = format!(
                    "The API server refuses the PersistentVolumeClaim of targetTemplate: {}",
                    status.message
                );
                Ok(Some(RunFailure::new(reasons::TARGET_REFUSED, message)))
            }
            Err(error) => Err(Error::api(format!(
                "create PersistentVolumeClaim {namespace}/{name}"
            ))(error)),
        }
    }

    fn job(&self, plan: &RestorePlan, image: &str) -> Result<Job, Error> {
        plan::job(self, plan, image)
    }

    fn unsettle(&mut self) {
        if let Some(status) = &mut self.status {
            status.recovery_point = None;
        }
    }

    fn settle(&mut self, outcome: Outcome) -> Result<Settled, RunFailure> {
        let Outcome::Restored(done) = outcome else {
            return Err(RunFailure::new(
                reasons::REPORT_MISMATCH,
                format!(
                    "The mover was asked for a restore and reports something else ({outcome:?})."
                ),
            ));
        };
        let restored = text::bytes(done.logical_bytes);
        let files = text::count(done.files, "file");
        let status = self.status.get_or_insert_default();
        status.restored_bytes = Some(to_i64(done.logical_bytes));
        status.restored = Some(restored.clone());
        status.restored_files = Some(to_i64(done.files));
        Ok(Settled {
            summary: format!("{restored} in {files}, each compared with its digest"),
            remarks: Vec::new(),
        })
    }
}

fn target_readiness(
    plan: &RestorePlan,
    claim: Option<&PersistentVolumeClaim>,
    uid: &str,
) -> Readiness {
    match (&plan.claim_to_make, claim) {
        (Some(_), None) => Readiness::Ready,
        (Some(_), Some(claim)) if volume::made_by_restore(claim).is_none_or(|by| by != uid) => {
            volume::refused(
                reasons::TARGET_EXISTS,
                format!(
                    "PersistentVolumeClaim {} of targetTemplate exists and was not made by this Restore; choose another name, or name it in targetPVC if it is empty.",
                    plan.target_pvc
                ),
            )
        }
        _ => volume::target(&plan.target_pvc, claim),
    }
}
