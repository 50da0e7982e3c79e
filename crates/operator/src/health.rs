//! Whether this process does its work: what the kubelet's probes are answered with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelock_core::lease::Moment;
use tokio::sync::watch;

use crate::clock::moment;

/// So long without any answer from the API server, and the process is started anew: what is wrong
/// may be a connection of its own. Watches are answered every five minutes at least, so
/// that a quiet cluster never comes near; and a control plane that flaps or is upgraded is back
/// before, so that it brings no storm of restarts.
const SILENT_FOR: Duration = Duration::from_secs(600);
/// No reconcile takes this long: each of its requests is answered or given up within a minute.
const STUCK_AFTER: Duration = Duration::from_secs(1800);

/// What is known of the process's health. Clones share it.
#[derive(Clone)]
pub struct Health(Arc<State>);

struct State {
    filled: watch::Sender<bool>,
    /// When the API server answered last, in seconds of [`moment`].
    answered: AtomicU64,
    at_work: Mutex<HashMap<String, Moment>>,
}

/// A reconcile that is at work for as long as this lives.
pub struct AtWork {
    health: Health,
    id: String,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.health.at_work().remove(&self.id);
    }
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(State {
            filled: watch::Sender::new(false),
            answered: AtomicU64::new(moment().as_duration().as_secs()),
            at_work: Mutex::default(),
        }))
    }
}

impl Health {
    /// The caches are filled: from now on this process is ready, to work or to take over.
    pub fn set_filled(&self) {
        self.0.filled.send_replace(true);
    }

    /// Ends when the caches are filled.
    pub async fn filled(&self) {
        let mut changes = self.0.filled.subscribe();
        // The sender lives as long as this.
        let _ = changes.wait_for(|filled| *filled).await;
    }

    /// The API server answered, whatever it said.
    pub fn answered(&self) {
        let now = moment().as_duration().as_secs();
        self.0.answered.store(now, Ordering::Relaxed);
    }

    /// Notes that the reconcile `id` is at work until the answer is dropped.
    pub fn at_work_on(&self, id: &str) -> AtWork {
        self.at_work().insert(id.to_owned(), moment());
        AtWork {
            health: self.clone(),
            id: id.to_owned(),
        }
    }

    fn at_work(&self) -> MutexGuard<'_, HashMap<String, Moment>> {
        self.0
            .at_work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once the caches are filled, whether this process leads or stands by.
    ///
    /// # Errors
    /// What is waited for.
    pub fn ready(&self) -> Result<(), String> {
        if *self.0.filled.borrow() {
            return Ok(());
        }
        Err("the caches are not filled yet".to_owned())
    }

    /// Alive while the API server is heard of and reconciles come to an end. Loops and watches that
    /// end end the process themselves.
    ///
    /// # Errors
    /// What is wrong.
    pub fn alive(&self) -> Result<(), String> {
        self.alive_at(moment())
    }

    fn alive_at(&self, now: Moment) -> Result<(), String> {
        let answered = Duration::from_secs(self.0.answered.load(Ordering::Relaxed));
        let silent = now.since(Moment::since_start(answered));
        if silent > SILENT_FOR {
            return Err(format!(
                "no answer from the API server for {} s",
                silent.as_secs()
            ));
        }
        let at_work = self.at_work();
        let oldest = at_work.iter().min_by_key(|(_, since)| **since);
        match oldest {
            Some((id, since)) if now.since(*since) > STUCK_AFTER => Err(format!(
                "reconcile {id} is at work for {} s",
                now.since(*since).as_secs()
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_the_caches_are_filled() {
        let health = Health::default();
        assert!(health.ready().is_err());
        health.clone().set_filled();
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_silence_of_minutes_is_lived_through_and_one_of_more_is_not() {
        let health = Health::default();
        let later = |seconds| moment() + Duration::from_secs(seconds);
        assert_eq!(health.alive_at(later(599)), Ok(()));
        let error = health.alive_at(later(603)).unwrap_err();
        assert!(error.contains("no answer from the API server"), "{error}");
        health.answered();
        assert_eq!(health.alive_at(later(0)), Ok(()));
    }

    #[test]
    fn a_reconcile_that_never_ends_is_named_and_one_that_ended_is_not() {
        let health = Health::default();
        let ended = health.at_work_on("a-1");
        let stuck = health.at_work_on("a-2");
        drop(ended);
        let late = moment() + Duration::from_secs(1801);
        let answered = late.as_duration().as_secs();
        health.0.answered.store(answered, Ordering::Relaxed);
        let error = health.alive_at(late).unwrap_err();
        assert!(error.contains("a-2"), "{error}");
        drop(stuck);
        assert_eq!(health.alive_at(late), Ok(()));
    }
}
