//! What becomes of a Backup that is being deleted, and of its data.

use jiff::{SignedDuration, Timestamp};

use crate::fact::lock_ends;
use crate::run::STOP_PATIENCE;

/// How long after the first deletion a batch is closed; deletions that retention makes together
/// then share one Job.
pub const GATHER: SignedDuration = SignedDuration::from_secs(2);

/// How long a delete Job is waited for before the facts are looked at again.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// Who stands behind the deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The Backup stands alone; a person deleted it.
    None,
    /// Its policy lives: retention or a person deleted this Backup.
    Alive,
    /// Its policy is gone or going: this deletion is a cascade that nobody aimed at the data.
    Leaving,
}

/// What is known of the Job that removes the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteJob {
    /// None covers this Backup.
    Absent,
    /// At work.
    Active,
    /// Done, and this Backup's data is gone.
    Done,
    /// Ended, and this Backup's data is still there: why, and when.
    Failed {
        /// In words.
        message: String,
        /// When it ended.
        ended: Timestamp,
        /// How many tries were made before it.
        attempt: u32,
    },
}

/// What is known of a Backup that is being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalFacts {
    /// Whether it may have data in storage: its Job was asked for at some time.
    pub may_have_data: bool,
    /// Whether it ever completed: what a run half wrote is nobody's backup.
    pub completed: bool,
    /// Whether the user wants the data kept.
    pub retain: bool,
    /// Who stands behind the deletion.
    pub owner: Owner,
    /// What may still write the data, in words: a Job that is not at its end, or a pod.
    pub active_run: Option<String>,
    /// When it was deleted.
    pub deleted: Timestamp,
    /// The Restore that reads the data, if one does.
    pub held_by: Option<String>,
    /// Until when the storage lets nobody remove the data.
    pub locked_until: Option<Timestamp>,
    /// Whether the storage is there; what is wrong with it otherwise.
    pub storage_gone: Option<String>,
    /// Whether the whole namespace is going: no Job can be made in it any more.
    pub namespace_is_leaving: bool,
    /// When the oldest Backup of the batch was deleted.
    pub batch_since: Timestamp,
    /// The Job that removes the data.
    pub delete_job: DeleteJob,
}

/// What to do about a Backup that is being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovalDecision {
    /// Let the object go; what is left behind, in words, where something is.
    Release(Option<String>),
    /// Stop the Job that writes the data, wait until its pods are gone, and look again then at the
    /// latest.
    StopRun(Timestamp),
    /// Wait for others to be deleted along.
    Gather(Timestamp),
    /// Make a Job that removes the data; this is its try's number.
    Remove(u32),
    /// Wait until what holds it has ended; why.
    Hold(String),
    /// Wait until its storage lets go of it.
    Locked(Timestamp),
    /// Wait for the Job, and look again then at the latest: what it waits for may be gone for
    /// good.
    Await(Timestamp),
    /// Say why the last try failed, and try again then.
    Retry {
        /// Why it failed.
        message: String,
        /// When to try again.
        wake_at: Timestamp,
    },
}

/// Decides what becomes of a Backup that is being deleted.
///
/// # Guarantees
/// The data of a backup that completed goes only when this very Backup was meant: not when it falls
/// with its policy or with its namespace. What a run half wrote goes with its Backup in any case but
/// the last. The object always goes in the end: where the data cannot be reached for good, or its
/// mover does not end, it is left and that is said.
pub fn decide(facts: &RemovalFacts, now: Timestamp) -> RemovalDecision {
    if facts.namespace_is_leaving {
        return release("its namespace is being deleted");
    }
    if let Some(active) = &facts.active_run {
        return stop(active, facts.deleted, now);
    }
    if !facts.may_have_data || facts.delete_job == DeleteJob::Done {
        return RemovalDecision::Release(None);
    }
    if let Some(restore) = &facts.held_by {
        return RemovalDecision::Hold(format!(
            "Restore {restore} is reading it; it goes when that has ended"
        ));
    }
    if facts.retain && facts.completed {
        return release("deletionPolicy is Retain");
    }
    if facts.owner == Owner::Leaving && facts.completed {
        return release("its BackupPolicy was deleted");
    }
    if let Some(gone) = &facts.storage_gone {
        return release(gone);
    }
    if let Some(end) = lock_ends(facts.locked_until).filter(|end| now < *end)
        && facts.delete_job != DeleteJob::Active
    {
        return RemovalDecision::Locked(end);
    }
    match &facts.delete_job {
        DeleteJob::Done => RemovalDecision::Release(None),
        DeleteJob::Active => RemovalDecision::Await(after(now, PATIENCE)),
        DeleteJob::Absent => {
            let closes = after(facts.batch_since, GATHER);
            // A deletion that lies ahead was stamped by another clock; waiting for it could take
            // days.
            let is_ahead = facts.batch_since > after(now, GATHER);
            if now < closes && !is_ahead {
                RemovalDecision::Gather(closes)
            } else {
                RemovalDecision::Remove(0)
            }
        }
        DeleteJob::Failed {
            message,
            ended,
            attempt,
        } => {
            let wake_at = after(*ended, back_off(*attempt));
            if now < wake_at {
                RemovalDecision::Retry {
                    message: message.clone(),
                    wake_at,
                }
            } else {
                RemovalDecision::Remove(attempt.saturating_add(1))
            }
        }
    }
}

/// Waits for what may still write for as long as a stopped run has. A deletion that lies further
/// ahead than that was stamped by another clock; waiting for it could take days.
fn stop(active: &str, deleted: Timestamp, now: Timestamp) -> RemovalDecision {
    let stop_by = after(deleted, STOP_PATIENCE);
    let is_ahead = deleted > after(now, STOP_PATIENCE);
    if now < stop_by && !is_ahead {
        return RemovalDecision::StopRun(stop_by);
    }
    release(&format!(
        "{active} does not end, its node may be lost; once it is known to be gone, remove by hand what it wrote"
    ))
}

fn release(why: &str) -> RemovalDecision {
    RemovalDecision::Release(Some(why.to_owned()))
}

/// Ten seconds, doubled with each try, at most an hour.
fn back_off(attempt: u32) -> SignedDuration {
    SignedDuration::from_secs((10i64 << attempt.min(9)).min(3600))
}

fn after(start: Timestamp, length: SignedDuration) -> Timestamp {
    start.checked_add(length).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts() -> RemovalFacts {
        RemovalFacts {
            may_have_data: true,
            completed: true,
            retain: false,
            owner: Owner::Alive,
            active_run: None,
            deleted: at(0),
            held_by: None,
            locked_until: None,
            storage_gone: None,
            namespace_is_leaving: false,
            batch_since: at(0),
            delete_job: DeleteJob::Absent,
        }
    }

    #[test]
    fn data_that_is_locked_is_waited_for_and_nothing_is_tried_before() {
        let mut locked = RemovalFacts {
            locked_until: Some(at(10_000)),
            ..facts()
        };
        let until = RemovalDecision::Locked(at(10_060));
        assert_eq!(decide(&locked, at(5_000)), until);
        assert_eq!(decide(&locked, at(10_030)), until);
        assert!(matches!(
            decide(&locked, at(10_060)),
            RemovalDecision::Remove(_)
        ));
        locked.namespace_is_leaving = true;
        assert!(matches!(
            decide(&locked, at(5_000)),
            RemovalDecision::Release(Some(_))
        ));
    }

    #[test]
    fn a_deleted_backup_takes_its_data_along() {
        assert_eq!(decide(&facts(), at(1)), RemovalDecision::Gather(at(2)));
        assert_eq!(decide(&facts(), at(2)), RemovalDecision::Remove(0));
        let done = RemovalFacts {
            delete_job: DeleteJob::Done,
            ..facts()
        };
        assert_eq!(decide(&done, at(9)), RemovalDecision::Release(None));
    }

    #[test]
    fn a_cascade_from_the_policy_leaves_the_data() {
        let cascade = RemovalFacts {
            owner: Owner::Leaving,
            ..facts()
        };
        assert!(matches!(
            decide(&cascade, at(9)),
            RemovalDecision::Release(Some(_))
        ));
    }

    #[test]
    fn retain_leaves_the_data() {
        let retain = RemovalFacts {
            retain: true,
            ..facts()
        };
        assert!(matches!(
            decide(&retain, at(9)),
            RemovalDecision::Release(Some(_))
        ));
    }

    #[test]
    fn a_running_backup_is_stopped_before_anything_is_removed() {
        let running = RemovalFacts {
            active_run: Some("Pod p".into()),
            ..facts()
        };
        let stop_by = at(STOP_PATIENCE.as_secs());
        assert_eq!(decide(&running, at(9)), RemovalDecision::StopRun(stop_by));
    }

    #[test]
    fn a_mover_that_never_ends_does_not_hold_the_object_for_ever() {
        let mut silent = RemovalFacts {
            active_run: Some("Pod p".into()),
            completed: false,
            ..facts()
        };
        let mut goes = |deleted, now| {
            silent.deleted = at(deleted);
            match decide(&silent, at(now)) {
                RemovalDecision::Release(Some(left)) => {
                    assert!(left.contains("Pod p does not end"), "{left}");
                    true
                }
                other => {
                    assert!(matches!(other, RemovalDecision::StopRun(_)), "{other:?}");
                    false
                }
            }
        };
        assert!(!goes(0, 299) && goes(0, 300));
        // By a clock that is a little ahead of this one, and by one that is days ahead.
        assert!(!goes(200, 0) && goes(200_000, 0));
    }

    #[test]
    fn what_a_run_half_wrote_goes_whatever_becomes_of_finished_backups() {
        for (retain, owner) in [
            (true, Owner::None),
            (false, Owner::Leaving),
            (true, Owner::Leaving),
        ] {
            let half_written = RemovalFacts {
                completed: false,
                retain,
                owner,
                ..facts()
            };
            assert_eq!(decide(&half_written, at(9)), RemovalDecision::Remove(0));
            let with_its_namespace = RemovalFacts {
                namespace_is_leaving: true,
                ..half_written
            };
            assert!(matches!(
                decide(&with_its_namespace, at(9)),
                RemovalDecision::Release(Some(_))
            ));
        }
    }

    #[test]
    fn a_backup_that_a_restore_reads_is_held() {
        let held = RemovalFacts {
            held_by: Some("back".into()),
            ..facts()
        };
        assert!(matches!(decide(&held, at(9)), RemovalDecision::Hold(why) if why.contains("back")));
    }

    #[test]
    fn nothing_wedges_the_deletion() {
        let gone = RemovalFacts {
            storage_gone: Some("PVC backup-storage is gone".into()),
            ..facts()
        };
        assert!(matches!(
            decide(&gone, at(9)),
            RemovalDecision::Release(Some(_))
        ));
        let leaving = RemovalFacts {
            namespace_is_leaving: true,
            active_run: Some("Pod p".into()),
            ..facts()
        };
        assert!(matches!(
            decide(&leaving, at(9)),
            RemovalDecision::Release(Some(_))
        ));
    }

    #[test]
    fn a_clock_that_is_behind_does_not_hold_up_a_deletion() {
        let mut removal = facts();
        removal.batch_since = at(1_000_000);
        assert_eq!(decide(&removal, at(0)), RemovalDecision::Remove(0));
        removal.batch_since = at(1);
        assert!(matches!(
            decide(&removal, at(0)),
            RemovalDecision::Gather(_)
        ));
    }

    #[test]
    fn a_failed_try_is_repeated_with_growing_pauses() {
        let failed = |attempt| RemovalFacts {
            delete_job: DeleteJob::Failed {
                message: "denied".into(),
                ended: at(100),
                attempt,
            },
            ..facts()
        };
        assert!(
            matches!(decide(&failed(0), at(109)), RemovalDecision::Retry { wake_at, .. } if wake_at == at(110))
        );
        assert_eq!(decide(&failed(0), at(110)), RemovalDecision::Remove(1));
        assert!(matches!(
            decide(&failed(1), at(119)),
            RemovalDecision::Retry { .. }
        ));
        assert_eq!(decide(&failed(40), at(3700)), RemovalDecision::Remove(41));
    }
}
