use serde::{Deserialize, Serialize};

/// TCP port on which a mover tells its [`ProgressReport`] to whoever asks by HTTP.
pub const PROGRESS_PORT: u16 = 8089;
/// Longest answer: a reader takes no more.
pub const MAX_PROGRESS_BYTES: usize = 1024;

/// How far a run under way is; a mover answers every GET on [`PROGRESS_PORT`] with it.
///
/// # Guarantees
/// It holds numbers and no name: anybody who reaches the pod may read it. Nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProgressReport {
    /// UID of the object the run works for.
    pub run_uid: String,
    /// What is being done.
    pub step: Step,
    /// Bytes done in this step: of files where files are written or read, else of storage.
    pub bytes: u64,
    /// How many it will be, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Files done in this step.
    pub files: u64,
    /// How many it will be, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_files: Option<u64>,
}

/// What a run does one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Looks at storage, source or target.
    Preparing,
    /// Reads the source and writes the archive.
    Saving,
    /// Reads back what was stored.
    Verifying,
    /// Reads the stored backup before a restore.
    Checking,
    /// Writes the target.
    Restoring,
    /// Compares the target with the backup.
    Comparing,
}

impl ProgressReport {
    /// The report in `text`, of the run with this UID.
    ///
    /// # Errors
    /// None: what is not one is nothing to go by.
    pub fn parse(text: &[u8], run_uid: &str) -> Option<Self> {
        let report: Self =
            serde_json::from_slice(text.get(..MAX_PROGRESS_BYTES.min(text.len()))?).ok()?;
        (report.run_uid == run_uid).then_some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_only_for_its_run() {
        let report = ProgressReport {
            run_uid: "u-1".into(),
            step: Step::Saving,
            bytes: u64::MAX,
            total_bytes: None,
            files: 3,
            total_files: Some(4),
        };
        let text = serde_json::to_vec(&report).unwrap();
        assert!(text.len() < MAX_PROGRESS_BYTES);
        assert_eq!(ProgressReport::parse(&text, "u-1"), Some(report));
        assert_eq!(ProgressReport::parse(&text, "u-2"), None);
        assert_eq!(ProgressReport::parse(b"\xff", "u-1"), None);
        assert_eq!(ProgressReport::parse(&vec![b' '; 9000], "u-1"), None);
    }
}
