//! Two thousand policies with ten completed backups each, in twenty namespaces.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tidelock_api::{
    Backup, BackupPolicy, DEFAULT_STORAGE_PVC, Phase, SizeStatus, VerificationLevel,
    VerificationResult,
};
use tidelock_e2e::Story;
use tidelock_e2e::volumes::STORY_LABEL;
use tidelock_e2e::wait::Watched;
use tidelock_operator::backup::{location, suspicion, verification};
use tidelock_operator::conditions::{Verdict, set_ready};
use tidelock_operator::convert;
use tidelock_operator::policy::build;
use tidelock_operator::telemetry::reasons;

/// How many policies there are.
pub const POLICIES: usize = 2_000;
/// How many Backups each has.
const BACKUPS_EACH: usize = 10;
/// How many Backups there are.
pub const BACKUPS: usize = POLICIES * BACKUPS_EACH;
/// Over how many namespaces they are spread.
const NAMESPACES: usize = 20;
/// How many requests are under way at once.
const AT_ONCE: usize = 24;
/// Due in weeks at the earliest, so that nothing becomes due meanwhile.
const YEARLY: &str = "0 0 1 1 *";
/// How long a backup took.
const TOOK: SignedDuration = SignedDuration::from_secs(42);

/// How long the operator may take to see to all of it once.
const SETTLES_WITHIN: Duration = Duration::from_secs(900);
/// Between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// The objects, and where they are.
pub struct World {
    client: Client,
    /// Those that are made for it, and the story's own.
    places: Vec<Story>,
}

impl World {
    /// With nothing in it; `story` lends its namespace to what is added later.
    pub fn new(story: &Story) -> Self {
        let own = (0..NAMESPACES).map(|number| Story {
            namespace: format!("{}-{number:02}", story.namespace),
            ..story.clone()
        });
        Self {
            client: story.client.clone(),
            places: own.chain([story.clone()]).collect(),
        }
    }

    /// Whether a policy is of this world.
    fn has(&self, policy: &BackupPolicy) -> bool {
        let mut own = self.own().iter();
        own.any(|place| policy.namespace().as_ref() == Some(&place.namespace))
    }

    fn own(&self) -> &[Story] {
        &self.places[..NAMESPACES]
    }

    /// Makes namespaces, policies and Backups, with nobody there who acts on them.
    pub async fn fill(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for place in self.own() {
            let labels = json!({STORY_LABEL: self.places[NAMESPACES].namespace});
            let metadata = json!({"name": place.namespace, "labels": labels});
            let object: Namespace = serde_json::from_value(json!({"metadata": metadata}))?;
            namespaces.create(&PostParams::default(), &object).await?;
        }
        let progress = Progress::of("Backups made", BACKUPS);
        stream::iter(0..POLICIES)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, async |number| {
                let place = &self.own()[number % NAMESPACES];
                policy_with_backups(place, number, &progress).await
            })
            .await
    }

    /// Waits until every policy counts its Backups as good ones.
    ///
    /// # Errors
    /// With the first that does not.
    pub async fn is_counted(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLES_WITHIN;
        let policies: Api<BackupPolicy> = Api::all(self.client.clone());
        let counts = |policy: &BackupPolicy| {
            let status = policy.status.as_ref();
            status.is_some_and(|status| status.good_backups as usize == BACKUPS_EACH)
        };
        loop {
            let mut all = policies.list(&ListParams::default()).await?.items;
            all.retain(|policy| self.has(policy));
            let missing: Vec<_> = all.iter().filter(|policy| !counts(policy)).collect();
            let Some(first) = missing.first() else {
                ensure!(all.len() == POLICIES, "{} policies", all.len());
                return Ok(());
            };
            ensure!(
                Instant::now() < deadline,
                "{} policies are not seen to: {first:#?}",
                missing.len()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Removes everything, finalizers first: there is no data, and nobody may be there who would
    /// make a Job for each Backup.
    pub async fn clear(&self) -> Result<()> {
        let progress = Progress::of("objects released", BACKUPS + POLICIES);
        for place in &self.places {
            remove_all::<Backup>(place, &progress).await?;
            remove_all::<BackupPolicy>(place, &progress).await?;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let ours = self.own().iter().map(|place| place.namespace.as_str());
        for name in ours {
            match namespaces.delete(name, &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                deleted => {
                    deleted.with_context(|| format!("cannot delete namespace {name}"))?;
                }
            }
        }
        Ok(())
    }
}

async fn policy_with_backups(place: &Story, number: usize, made: &Progress) -> Result<()> {
    let more = json!({
        "target": {"pvcName": format!("data-{number:04}")},
        "retention": {"keepLast": BACKUPS_EACH},
    });
    let name = format!("policy-{number:04}");
    let policy = place.policy(&name, YEARLY, more).await?;
    let api = place.api::<Backup>();
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    for age in (1..=BACKUPS_EACH).rev() {
        let slot = now - SignedDuration::from_hours(24 * i64::try_from(age)?);
        let backup = build::backup(&policy, slot)?;
        let mut backup = api.create(&PostParams::default(), &backup).await?;
        complete(&mut backup, &policy, slot)?;
        api.replace_status(&backup.name_any(), &PostParams::default(), &backup)
            .await?;
        made.one_more();
    }
    Ok(())
}

/// Gives `backup` the status that the operator writes when the Job of `slot` has ended well.
fn complete(backup: &mut Backup, policy: &BackupPolicy, slot: Timestamp) -> Result<()> {
    let (name, generation) = (backup.name_any(), backup.metadata.generation);
    let namespace = backup.namespace().context("no namespace")?;
    let pvc = &policy.spec.target.pvc_name;
    let ended = slot + TOOK;
    let format = policy.spec.format;
    let status = backup.status.get_or_insert_default();
    status.phase = Some(Phase::Completed);
    status.observed_generation = generation;
    status.start_time = Some(Time(slot));
    status.completion_time = Some(Time(ended));
    status.duration = Some("42s".to_owned());
    status.pvc_name = Some(pvc.clone());
    status.storage_pvc_name = Some(DEFAULT_STORAGE_PVC.to_owned());
    status.backup_location =
        Some(location(&namespace, pvc, &name)?.archive_key(convert::format(format)));
    status.job_name = Some(format!("{name}-backup"));
    status.format = Some(format);
    status.deletion_policy = Some(policy.spec.deletion_policy);
    status.digest = Some(format!("sha256:{:064x}", slot.as_nanosecond()));
    status.size = Some(SizeStatus {
        logical_bytes: 125_829_120,
        stored_bytes: 12_897_484,
        stored: "12.3 MiB".to_owned(),
        files: 1_234,
        others: 56,
        changed_files: 0,
    });
    let words = "Completed in 42s: 120.0 MiB in 1234 files, 12.3 MiB stored";
    let verdict = Verdict::yes(reasons::COMPLETED, words);
    set_ready(&mut status.conditions, &verdict, generation, ended);
    let passed = VerificationResult::Passed;
    verification::record(backup, VerificationLevel::Full, passed, None, ended);
    let remark = suspicion::take_in(backup, None, ended);
    ensure!(remark.is_none(), "suspicious without a suspicion");
    Ok(())
}

/// Releases and deletes all objects of a kind; those that are gone are as good.
async fn remove_all<K: Watched>(place: &Story, progress: &Progress) -> Result<()> {
    let api = place.api::<K>();
    let all = api.list_metadata(&ListParams::default()).await?.items;
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let (api, release) = (&api, &release);
    stream::iter(all.iter().map(ResourceExt::name_any))
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, async |name| {
            let released = api.patch(&name, &PatchParams::default(), release).await;
            match released {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                released => {
                    released.with_context(|| format!("cannot release {name}"))?;
                }
            }
            progress.one_more();
            anyhow::Ok(())
        })
        .await?;
    api.delete_collection(&DeleteParams::background(), &ListParams::default())
        .await?;
    Ok(())
}

/// Tells how far something long is.
struct Progress {
    what: &'static str,
    all: usize,
    done: AtomicUsize,
}

impl Progress {
    fn of(what: &'static str, all: usize) -> Self {
        let done = AtomicUsize::new(0);
        Self { what, all, done }
    }

    fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(2_000) {
            println!("{done} of {} {}", self.all, self.what);
        }
    }
}
