//! What is known of one Backup, and when it counts as a good one.

use jiff::{SignedDuration, Timestamp};

use crate::Phase;

/// How far a backup may lie in the future and still be of now: clocks of API server and operator
/// differ by as much.
pub const CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(5);

/// How much later than told a lock of a storage is taken to end: the clock of the storage may differ.
const LOCK_SLACK: SignedDuration = SignedDuration::from_mins(1);

/// When a storage that locks something `until` then can be asked to remove it.
pub fn lock_ends(until: Option<Timestamp>) -> Option<Timestamp> {
    until.map(|until| until.checked_add(LOCK_SLACK).unwrap_or(Timestamp::MAX))
}

/// What reading a backup back has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The last time it was read back, it was whole.
    Verified,
    /// The last time it was read back, it was not what had been stored.
    Refuted,
    /// It was never read back.
    Unknown,
}

/// What makes a backup a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// It completed, and has been read back whole: verification is on.
    Verified,
    /// It completed, and nothing is known against it: verification is off.
    Completed,
}

/// How much a backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Regular files.
    pub files: u64,
    /// Everything else, the root directory included.
    pub others: u64,
    /// Sum of the sizes of the files.
    pub logical_bytes: u64,
}

/// What is known of one Backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFact {
    /// Name of the Backup.
    pub name: String,
    /// Where it stands; none before the operator has seen it.
    pub phase: Option<Phase>,
    /// Whether it is being deleted already.
    pub leaving: bool,
    /// The moment whose state it holds, by the clock of then: when it was started.
    pub taken_at: Timestamp,
    /// A moment by which it was there already, where the clock of then was found to be ahead.
    pub there_by: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// What reading it back has shown.
    pub proof: Proof,
    /// When it was last read back, whatever that showed.
    pub proved_at: Option<Timestamp>,
    /// Whether it was found suspicious and nobody has accepted it.
    pub suspicious: bool,
    /// The claim that holds its archive; empty where that is not known.
    pub storage: String,
    /// How much it holds; none where that is not known.
    pub holdings: Option<Holdings>,
    /// Until when its storage lets nobody remove it.
    pub locked_until: Option<Timestamp>,
}

impl BackupFact {
    /// Whether its data is in storage and meant to stay there.
    pub fn is_stored(&self) -> bool {
        self.phase == Some(Phase::Completed) && !self.leaving
    }

    /// Whether it is still on its way.
    pub fn is_active(&self) -> bool {
        !self.leaving && !self.phase.is_some_and(Phase::is_terminal)
    }

    /// Whether it can be relied on.
    ///
    /// # Guarantees
    /// A suspicious backup is never good, nor is one that was found damaged, whatever the standard.
    pub fn is_good(&self, standard: Standard) -> bool {
        let proved = match self.proof {
            Proof::Verified => true,
            Proof::Refuted => false,
            Proof::Unknown => standard == Standard::Completed,
        };
        self.is_stored() && !self.suspicious && proved
    }

    /// The moment whose state it holds, as far as it is known.
    pub fn taken(&self) -> Timestamp {
        self.there_by
            .map_or(self.taken_at, |by| by.min(self.taken_at))
    }

    /// Where it stands in time among the others of its policy.
    pub fn age_order(&self) -> (Timestamp, Timestamp, &str) {
        (self.taken(), self.taken_at, &self.name)
    }

    /// Whether its storage does not let go of it yet.
    pub fn is_locked(&self, now: Timestamp) -> bool {
        lock_ends(self.locked_until).is_some_and(|end| now < end)
    }

    /// Whether its date lies ahead of `now`, by more than clocks differ.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        self.taken().duration_since(now) > CLOCK_SLACK
    }
}

/// A fact to vary in tests: completed, verified, taken at `second`.
#[cfg(test)]
pub(crate) fn completed(name: &str, second: i64) -> BackupFact {
    let at = Timestamp::from_second(second).unwrap();
    BackupFact {
        name: name.to_owned(),
        phase: Some(Phase::Completed),
        leaving: false,
        taken_at: at,
        there_by: None,
        completed_at: Some(at),
        proof: Proof::Verified,
        proved_at: Some(at),
        suspicious: false,
        storage: "backup-storage".to_owned(),
        holdings: None,
        locked_until: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_backup_is_completed_trusted_and_as_proved_as_the_standard_asks() {
        let verified = completed("a", 1);
        let unread = BackupFact {
            proof: Proof::Unknown,
            ..verified.clone()
        };
        assert!(verified.is_good(Standard::Verified));
        assert!(verified.is_good(Standard::Completed));
        assert!(!unread.is_good(Standard::Verified));
        assert!(unread.is_good(Standard::Completed));
    }

    #[test]
    fn nothing_makes_a_doubtful_backup_good() {
        let good = completed("a", 1);
        let doubtful = [
            BackupFact {
                suspicious: true,
                ..good.clone()
            },
            BackupFact {
                proof: Proof::Refuted,
                ..good.clone()
            },
            BackupFact {
                leaving: true,
                ..good.clone()
            },
            BackupFact {
                phase: Some(Phase::Running),
                ..good.clone()
            },
            BackupFact {
                phase: Some(Phase::Failed),
                ..good.clone()
            },
            BackupFact {
                phase: None,
                ..good
            },
        ];
        for fact in doubtful {
            assert!(!fact.is_good(Standard::Verified), "{fact:?}");
            assert!(!fact.is_good(Standard::Completed), "{fact:?}");
        }
    }
}
