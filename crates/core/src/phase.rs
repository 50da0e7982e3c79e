//! Where a run stands, and which way it may go.

/// Where a Backup or a Restore stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not started.
    Pending,
    /// Its Job exists.
    Running,
    /// Done and checked.
    Completed,
    /// Ended without success.
    Failed,
}

impl Phase {
    /// Whether no further change is possible.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// Whether a run may move from `self` to `next`; terminal phases absorb.
    pub fn may_become(self, next: Self) -> bool {
        self == next
            || matches!(
                (self, next),
                (Self::Pending, _) | (Self::Running, Self::Completed | Self::Failed)
            )
    }
}

#[cfg(test)]
mod tests {
    use super::Phase::{self, *};

    #[test]
    fn terminal_phases_absorb() {
        for end in [Completed, Failed] {
            for next in [Pending, Running, Completed, Failed] {
                assert_eq!(Phase::may_become(end, next), end == next);
            }
        }
    }

    #[test]
    fn a_running_run_never_goes_back_to_pending() {
        assert!(!Running.may_become(Pending));
    }
}
