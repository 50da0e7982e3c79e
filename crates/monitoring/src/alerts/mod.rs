//! The alerts.

mod backups;
pub(crate) mod operator;
mod restores;
mod trust;

use crate::pace::Pace;

/// Who should act, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Now: data would be lost if it were needed.
    Critical,
    /// Today.
    Warning,
    /// When there is time.
    Info,
}

impl Severity {
    /// As the label `severity` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One alert. `{{ $labels.… }}` in its texts stands for a label of what it is about.
pub struct Alert {
    /// Its name; its runbook is `docs/runbooks/<name>.md`.
    pub name: &'static str,
    /// Who should act, and when.
    pub severity: Severity,
    /// How long the expression must hold, in seconds.
    pub holds_for: u64,
    /// The expression at a pace.
    pub expr: fn(Pace) -> String,
    /// One line: what is wrong with what.
    pub summary: &'static str,
    /// What that means, and where to look first.
    pub description: &'static str,
}

impl Alert {
    /// Where its runbook is.
    pub fn runbook_url(&self) -> String {
        let repository = env!("CARGO_PKG_REPOSITORY");
        format!("{repository}/blob/main/docs/runbooks/{}.md", self.name)
    }
}

/// All alerts, in the order of the rules file.
pub fn all() -> Vec<Alert> {
    let mut all = backups::alerts();
    all.extend(trust::alerts());
    all.extend(restores::alerts());
    all.extend(operator::alerts());
    all
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
