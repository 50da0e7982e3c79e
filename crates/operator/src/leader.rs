//! Leader election: of several operators, one works, and the others are ready to.
//!
//! [`tidelock_core::lease`] decides; here the Lease is read and written, and the fence set. See
//! `docs/adr/0012-leader-election-and-fencing.md`.

pub mod fence;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tidelock_core::lease::{Elector, Lost, Moment, Record, Step, Timing, Versioned};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::moment;
use crate::error::{is_status, words};
use crate::leader::fence::Fence;

/// How long an operator that stops tries to free the lease; after that the others wait it out.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);

/// Whether this process leads. Clones share it.
#[derive(Clone)]
pub struct Leading(watch::Sender<bool>);

impl Leading {
    /// For a process that leads, or does not.
    pub fn new(leads: bool) -> Self {
        Self(watch::Sender::new(leads))
    }

    /// Whether it does now.
    pub fn is_leading(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it does.
    pub async fn wait(&self) {
        let mut changes = self.0.subscribe();
        // The sender lives as long as this.
        let _ = changes.wait_for(|leads| *leads).await;
    }

    /// From now on it leads, or does not.
    pub(crate) fn set(&self, leads: bool) {
        self.0.send_replace(leads);
    }
}

/// Where the lease is, and who asks for it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who asks: unique among all processes that ever do.
    pub identity: String,
}

/// This process's part in the election.
pub struct Election {
    leases: Api<Lease>,
    candidate: Candidate,
    timing: Timing,
    elector: Elector,
    fence: Fence,
    leading: Leading,
}

/// What came of a request about the lease.
enum Answer {
    Seen(Option<Versioned>),
    Written(Versioned),
    Conflict,
    Unknown(String),
}

impl Election {
    /// Takes part through `client`, which no fence holds up, and opens `fence` while it leads.
    pub fn new(
        client: Client,
        candidate: Candidate,
        timing: Timing,
        fence: Fence,
        leading: Leading,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, &candidate.namespace),
            elector: Elector::new(candidate.identity.clone(), timing, moment()),
            candidate,
            timing,
            fence,
            leading,
        }
    }

    /// Asks for the lease and keeps it; ends only when it is lost, and then the process has to end.
    ///
    /// # Guarantees
    /// `fence` is open only while the lease is held, counted from when the last renewal was sent.
    pub async fn keep(&mut self) -> Lost {
        let mut told = None;
        loop {
            let now = moment();
            match self.elector.next(now, Timestamp::now()) {
                Step::Wait(until) => self.sleep(until.since(now)).await,
                Step::StepDown(lost) => {
                    self.close();
                    return lost;
                }
                step => {
                    self.ask(step, now).await;
                    self.tell_holder(&mut told);
                }
            }
        }
    }

    /// Sleeps, but not past a write that was refused: then the term is over, and this process slept
    /// through its end.
    async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.fence.refused(), if self.leading.is_leading() => {}
        }
    }

    /// Does one step, and takes the answer in.
    async fn ask(&mut self, step: Step, sent: Moment) {
        // Nothing is waited for past the end of the term.
        let left = self.elector.writes_until().map(|end| end.since(sent));
        let patience = self.timing.patience();
        let patience = left.map_or(patience, |left| left.min(patience));
        let answer = tokio::time::timeout(patience, self.send(step)).await;
        match answer.unwrap_or_else(|_| Answer::Unknown("no answer in time".to_owned())) {
            Answer::Seen(lease) => self.elector.saw(lease, moment()),
            Answer::Written(lease) => {
                self.elector.wrote(lease, sent);
                self.fence.set(self.elector.writes_until());
                if !self.leading.is_leading() {
                    let Candidate { name, identity, .. } = &self.candidate;
                    tracing::info!(lease = name, identity, "this operator leads from now on");
                    self.leading.set(true);
                }
            }
            Answer::Conflict => self.elector.conflicted(moment()),
            Answer::Unknown(error) => {
                let lease = &self.candidate.name;
                tracing::warn!(
                    lease,
                    error,
                    "the lease can be neither read nor renewed now"
                );
                self.elector.failed(sent);
            }
        }
    }

    async fn send(&self, step: Step) -> Answer {
        let name = &self.candidate.name;
        let replaces = matches!(
            &step,
            Step::Write {
                version: Some(_),
                ..
            }
        );
        let answer = match step {
            Step::Write { record, version } => {
                let lease = self.lease(record, version.clone());
                let params = PostParams::default();
                let written = match version {
                    Some(_) => self.leases.replace(name, &params, &lease).await,
                    None => self.leases.create(&params, &lease).await,
                };
                written.map(|lease| versioned(lease).map(Answer::Written))
            }
            _ => match self.leases.get_opt(name).await {
                Ok(None) => return Answer::Seen(None),
                Ok(Some(lease)) => Ok(versioned(lease).map(|lease| Answer::Seen(Some(lease)))),
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => Answer::Unknown("the Lease has no resourceVersion".to_owned()),
            Err(error) if is_status(&error, 409) => Answer::Conflict,
            // That it is gone is as much news as that it has changed. One that cannot be made lacks
            // its namespace, and that is told.
            Err(error) if replaces && is_status(&error, 404) => Answer::Conflict,
            Err(error) => Answer::Unknown(words(&error)),
        }
    }

    fn lease(&self, record: Record, version: Option<String>) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.candidate.name.clone()),
                namespace: Some(self.candidate.namespace.clone()),
                resource_version: version,
                ..Default::default()
            },
            spec: Some(spec(record)),
        }
    }

    fn tell_holder(&self, told: &mut Option<String>) {
        let holder = self.elector.holder();
        if holder == told.as_deref() || holder == Some(&self.candidate.identity) {
            return;
        }
        let lease = &self.candidate.name;
        match holder {
            Some(holder) => tracing::info!(lease, holder, "standing by: another operator leads"),
            None => tracing::info!(lease, "nobody leads"),
        }
        *told = holder.map(str::to_owned);
    }

    fn close(&self) {
        self.fence.set(None);
        self.leading.set(false);
    }

    /// Stops leading, and frees the lease so that another operator takes over at once.
    ///
    /// # Crash window
    /// One that dies before the lease is free leaves the others to wait for as long as it lasts.
    pub async fn resign(mut self) {
        if self.elector.writes_until().is_none() {
            return;
        }
        self.close();
        let released = tokio::time::timeout(RELEASE_WITHIN, self.release()).await;
        let lease = &self.candidate.name;
        match released {
            Ok(true) => tracing::info!(lease, "the lease is free for another operator"),
            Ok(false) => tracing::info!(lease, "the lease is not this operator's any more"),
            Err(_) => tracing::warn!(
                lease,
                "the lease could not be freed; others wait for its end"
            ),
        }
    }

    /// Writes the lease free until that worked; false where it is not ours.
    async fn release(&mut self) -> bool {
        loop {
            let Some((record, version)) = self.elector.release(Timestamp::now()) else {
                return false;
            };
            let step = Step::Write {
                record,
                version: Some(version),
            };
            if let Answer::Written(_) = self.send(step).await {
                return true;
            }
            // A renewal that was cut off may have arrived.
            match self.send(Step::Look).await {
                Answer::Seen(lease) => self.elector.saw(lease, moment()),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

/// An election that goes on in a task of its own: no work of this process, however long, holds up
/// a renewal. Without an election it is the one of a process that always leads.
pub struct Keeper(Option<Kept>);

struct Kept {
    resign: oneshot::Sender<()>,
    task: JoinHandle<Option<Lost>>,
}

/// Why the election has ended, and the process has to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The lease is lost.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Nobody keeps it any more.
    #[error("the election has ended: {0}")]
    Broken(String),
}

impl Keeper {
    /// Keeps `election` going, where there is one, once `ready` ends.
    pub fn start(
        election: Option<Election>,
        ready: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self(election.map(|mut election| {
            let (resign, resigned) = oneshot::channel();
            let task = tokio::spawn(async move {
                let keeping = async {
                    ready.await;
                    election.keep().await
                };
                let told = tokio::select! {
                    lost = keeping => return Some(lost),
                    told = resigned => told.is_ok(),
                };
                // Where nobody is left to say so, the process ends with an error, and others wait
                // the lease out.
                if told {
                    election.resign().await;
                }
                None
            });
            Kept { resign, task }
        }))
    }

    /// Ends when the election does, and then the process has to.
    pub async fn ended(&mut self) -> Ended {
        let Some(kept) = &mut self.0 else {
            return std::future::pending().await;
        };
        match (&mut kept.task).await {
            Ok(Some(lost)) => Ended::Lost(lost),
            Ok(None) => Ended::Broken("it was given up".to_owned()),
            Err(error) => Ended::Broken(error.to_string()),
        }
    }

    /// Stops leading, closes the fence, and then frees the lease; ends when that is done.
    ///
    /// # Crash window
    /// As that of [`Election::resign`].
    pub async fn resign(self) {
        let Some(kept) = self.0 else { return };
        // It may have ended by itself just now.
        let _ = kept.resign.send(());
        if let Err(error) = kept.task.await {
            tracing::warn!(%error, "the election did not end in order");
        }
    }
}

fn versioned(lease: Lease) -> Option<Versioned> {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok());
    Some(Versioned {
        record: Record {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            lasts: seconds.map(Duration::from_secs),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or(0),
        },
        version: lease.metadata.resource_version?,
    })
}

fn spec(record: Record) -> LeaseSpec {
    let seconds = record.lasts.map(|lasts| lasts.as_secs());
    LeaseSpec {
        holder_identity: record.holder,
        lease_duration_seconds: seconds.and_then(|seconds| i32::try_from(seconds).ok()),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_keeps_what_it_says_on_its_way_there_and_back() {
        let record = Record {
            holder: Some("a".to_owned()),
            lasts: Some(Duration::from_secs(15)),
            acquired: Some(Timestamp::from_microsecond(1_800_000_000_000_001).unwrap()),
            renewed: Some(Timestamp::from_microsecond(1_800_000_000_000_002).unwrap()),
            transitions: 3,
        };
        for record in [
            record.clone(),
            Record {
                holder: None,
                ..record
            },
        ] {
            let lease = Lease {
                metadata: ObjectMeta {
                    resource_version: Some("7".to_owned()),
                    ..Default::default()
                },
                spec: Some(spec(record.clone())),
            };
            let text = serde_json::to_string(&lease).unwrap();
            let read = versioned(serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!((read.record, read.version.as_str()), (record, "7"));
        }
    }

    #[tokio::test]
    async fn whoever_waits_to_lead_is_woken_once_it_does() {
        let leading = Leading::new(false);
        let other = leading.clone();
        let waiting = tokio::spawn(async move { other.wait().await });
        leading.set(true);
        waiting.await.unwrap();
        assert!(leading.is_leading());
    }
}
