//! A Restore as a run.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{Backup, Overwrite, PUT_BACK_ANNOTATION, Restore};
use tidelock_core::names;
use tidelock_core::queue::Kind;
use tidelock_core::run::Readiness;
use tidelock_protocol::Outcome;

use crate::context::Context;
use crate::convert;
use crate::error::{Error, is_status};
use crate::placement::{self, DataOwner, Placement, Volume, Wanted};
use crate::restore::outcome;
use crate::restore::plan::{self, RestorePlan};
use crate::run::kind::{Fields, Load, Progress, Run, Settled, Words, fields, progress};
use crate::run::report::RunFailure;
use crate::run::tell;
use crate::store::{self, Store, Use};
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

    const TURN: Kind = Kind::Restore;

    type Plan = RestorePlan;

    fn load(plan: &RestorePlan) -> Load {
        Load {
            node: plan.placement.pin.as_ref().map(|pin| pin.node.clone()),
            storage: plan.store.key(),
        }
    }

    fn placement(plan: &mut RestorePlan) -> &mut Placement {
        &mut plan.placement
    }

    fn fields(&mut self) -> Fields<'_> {
        fields!(self)
    }

    fn progress(&self) -> Progress<'_> {
        progress!(self)
    }

    fn start_deadline_seconds(&self, _ctx: &Context) -> u32 {
        self.spec.start_deadline_seconds
    }

    fn job_name(&self) -> String {
        names::restore_job_name(&self.name_any())
    }

    /// What a Restore relies on — the Backup, the claims — is read from the API server itself.
    async fn plan(&self, ctx: &Context) -> Result<(Option<RestorePlan>, Readiness), Error> {
        let namespace = convert::namespace(self)?;
        let backup_name = &plan::backup_name(self).unwrap_or_default();
        let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
        let backup = api
            .get_opt(backup_name)
            .await
            .map_err(Error::api(format!("read Backup {namespace}/{backup_name}")))?;
        let mut plan = match plan::resolve(self, backup.as_ref())? {
            Ok(plan) => plan,
            Err(readiness) => return Ok((None, readiness)),
        };
        let store = match store::find(ctx, &namespace, &plan.store).await? {
            Ok(store) => store,
            Err(not_ready) => return Ok((Some(plan), not_ready)),
        };
        let target = volume::get(ctx, &namespace, &plan.target_pvc).await?;
        let readiness = volume::all([
            store.readiness(Use::Read),
            target_readiness(&plan, target.as_ref(), &convert::uid(self)?),
        ]);
        if readiness != Readiness::Ready {
            return Ok((Some(plan), readiness));
        }
        let placed = place(self, ctx, &plan, &store, target.as_ref()).await?;
        let readiness = placement::settle(&mut plan.placement, placed);
        plan.found = Some(store);
        Ok((Some(plan), readiness))
    }

    fn record(&mut self, plan: &RestorePlan) -> String {
        let status = self.status.get_or_insert_default();
        status.backup_name = Some(plan.backup_name.clone());
        status.target_pvc = Some(plan.target_pvc.clone());
        status.security_context = placement::to_status(&plan.placement.security).map(Box::new);
        status.recovery_point = plan.recovery_point.clone();
        let doing = if self.spec.dry_run {
            "Comparing"
        } else {
            "Restoring"
        };
        format!(
            "{doing} Backup {} into PersistentVolumeClaim {}",
            plan.backup_name, plan.target_pvc
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

    fn cancelled(&self) -> Option<String> {
        if self.spec.cancel {
            Some("spec.cancel is true.".to_owned())
        } else if self.metadata.deletion_timestamp.is_some() {
            Some("The Restore was deleted before it had ended.".to_owned())
        } else {
            None
        }
    }

    /// A target that was empty when the restore claimed it, and may be in use meanwhile, is not
    /// emptied: what stands there may be another's.
    fn needs_undo(&self, failure: &RunFailure) -> bool {
        let writes = !self.spec.dry_run && failure.target_touched != Some(false);
        let may_be_shared = self.spec.allow_in_use && self.spec.overwrite == Overwrite::Never;
        writes && !may_be_shared
    }

    async fn undo_job(&self, ctx: &Context, name: &str) -> Result<Result<Job, Readiness>, Error> {
        undo_job(self, ctx, name, false).await
    }

    fn undone(&mut self, outcome: &Outcome) -> String {
        outcome::undone(self, outcome)
    }

    fn undo_pending(&mut self) -> Option<String> {
        self.status.get_or_insert_default().undo_pending = true;
        let by_hand = by_hand(self);
        // One that fails because it was deleted is gone in a moment.
        if self.metadata.deletion_timestamp.is_some() {
            return Some(by_hand);
        }
        Some(format!(
            "To have the target put back after all, which takes all that was put into it since the restore began, annotate this Restore with {PUT_BACK_ANNOTATION}=true and delete it. {by_hand}"
        ))
    }

    fn fail(&mut self, failure: &RunFailure) {
        outcome::fail(self, failure);
    }

    fn settle(
        &mut self,
        _ctx: &Context,
        outcome: Outcome,
        _now: Timestamp,
    ) -> Result<Settled, RunFailure> {
        outcome::settle(self, outcome)
    }
}

/// Where and as whom the restore runs, and whether its target is free: in a restricted namespace as
/// the user of the target, else as the backup ran, else as the user of what was backed up.
async fn place(
    restore: &Restore,
    ctx: &Context,
    plan: &RestorePlan,
    store: &Store,
    target: Option<&PersistentVolumeClaim>,
) -> Result<Result<Placement, Readiness>, Error> {
    let mut owners = vec![DataOwner::PodsOf(&plan.target_pvc)];
    owners.extend(plan.backed_up_as.as_ref().map(DataOwner::Recorded));
    owners.push(DataOwner::PodsOf(&plan.source_pvc));
    let target = Volume::of(&plan.target_pvc, target);
    let volumes: Vec<_> = store.volume().into_iter().chain([target]).collect();
    let wanted = Wanted {
        namespace: &convert::namespace(restore)?,
        volumes: &volumes,
        unused: (!restore.spec.allow_in_use).then_some(&*plan.target_pvc),
        mover: &plan.mover,
        data: &plan.target_pvc,
        owners: &owners,
    };
    placement::place(ctx, &wanted).await
}

/// How a person puts the target of `restore` back.
pub fn by_hand(restore: &Restore) -> String {
    let uid = restore.uid().unwrap_or_default();
    match restore.spec.overwrite {
        Overwrite::Never => {
            "To do it by hand, empty the volume; it was empty before.".to_owned()
        }
        Overwrite::Merge => {
            "To do it by hand, remove what has a name that starts with .tidelock-; what was merged stays.".to_owned()
        }
        Overwrite::Replace => format!(
            "To do it by hand, remove all but .tidelock-replaced-{uid} and .tidelock-restore-{uid} from the volume's root, move back what lies in the former, and remove both."
        ),
    }
}

/// The Job that takes back what `restore` half wrote, where no pod that stays uses its target.
pub async fn undo_job_of_unused(
    restore: &Restore,
    ctx: &Context,
    name: &str,
) -> Result<Result<Job, Readiness>, Error> {
    undo_job(restore, ctx, name, !restore.spec.allow_in_use).await
}

async fn undo_job(
    restore: &Restore,
    ctx: &Context,
    name: &str,
    only_unused: bool,
) -> Result<Result<Job, Readiness>, Error> {
    let placement = match place_undo(restore, ctx, only_unused).await? {
        Ok(placement) => placement,
        Err(not_ready) => return Ok(Err(not_ready)),
    };
    plan::undo_job(restore, &placement, name, &ctx.mover_image).map(Ok)
}

/// Where and as whom what was half restored is taken back: as the restore ran.
async fn place_undo(
    restore: &Restore,
    ctx: &Context,
    only_unused: bool,
) -> Result<Result<Placement, Readiness>, Error> {
    let namespace = convert::namespace(restore)?;
    let name = plan::target_name(restore);
    let target = volume::get(ctx, &namespace, name).await?;
    let status = restore.status.as_ref();
    let recorded = status.and_then(|status| status.security_context.as_deref());
    let recorded = recorded.map(placement::recorded);
    let mut owners: Vec<DataOwner<'_>> = recorded.iter().map(DataOwner::Recorded).collect();
    owners.push(DataOwner::PodsOf(name));
    let wanted = Wanted {
        namespace: &namespace,
        volumes: &[Volume::of(name, target.as_ref())],
        unused: only_unused.then_some(name),
        mover: &restore.spec.mover.clone().unwrap_or_default(),
        data: name,
        owners: &owners,
    };
    placement::place(ctx, &wanted).await
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
