use serde::{Deserialize, Serialize};

use crate::{FailureReason, Location, PROTOCOL_VERSION};

/// The kubelet keeps at most this much of a termination message (source: kubelet, 4 KiB).
pub const MAX_REPORT_BYTES: usize = 4096;

/// What one mover run did; the pod's termination message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// [`PROTOCOL_VERSION`] of the writer.
    pub version: u32,
    /// UID of the object the run worked for; a report of another run is not believed.
    pub run_uid: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Outcome {
    /// The archive is published.
    BackedUp(BackupReport),
    /// The target holds what the archive holds.
    Restored(RestoreReport),
    /// Every item was looked at; some may have failed.
    Deleted(DeleteReport),
    /// Nothing of the task may be relied on.
    Failed(Failure),
}

/// What a finished backup wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupReport {
    /// Where the archive is.
    pub location: Location,
    /// `sha256:` and 64 hex digits, over the stored archive.
    pub digest: String,
    /// Size of the archive in storage.
    pub stored_bytes: u64,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
    /// Regular files, each name of a hard-linked file counted.
    pub files: u64,
    /// Everything else that was archived: directories, links, FIFOs, device nodes.
    pub others: u64,
    /// Files that changed while they were read, and still did after the retries.
    pub torn: PathSample,
    /// What is not in the archive: sockets, and the content of other file systems mounted inside.
    pub skipped: PathSample,
    /// Milliseconds from the first read to the published manifest.
    pub duration_ms: u64,
}

/// What a finished restore wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreReport {
    /// Sum of the sizes of the regular files written.
    pub logical_bytes: u64,
    /// Regular files written, each name of a hard-linked file counted.
    pub files: u64,
    /// Everything else that was made.
    pub others: u64,
    /// Milliseconds from the first check to the last time set.
    pub duration_ms: u64,
}

/// What a delete run removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteReport {
    /// Items whose data is gone now, also when it was gone before.
    pub deleted: u64,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// The first items that are still there, with the reason.
    pub failed: Vec<DeleteFailure>,
    /// How many items are still there in all.
    pub failed_total: u64,
}

/// One item that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteFailure {
    /// Which one.
    pub location: Location,
    /// Why, in words for a person.
    pub message: String,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// The stable word.
    pub reason: FailureReason,
    /// What happened, to what, and what to do.
    pub message: String,
    /// The paths it happened to.
    pub paths: PathSample,
    /// For a restore: whether anything was written into the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_touched: Option<bool>,
}

/// The first few of many paths, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathSample {
    /// How many in all.
    pub total: u64,
    /// The first ones, relative to the volume's root; bytes that are not printable UTF-8 are
    /// escaped as `\xNN`, long ones shortened in the middle.
    pub first: Vec<String>,
}

impl PathSample {
    /// How many paths a sample holds.
    pub const MAX_FIRST: usize = 10;
    /// Longest path kept, in bytes; ten of them fit a termination message beside the rest.
    pub const MAX_PATH_BYTES: usize = 160;

    /// Counts a path and keeps it while there is room.
    pub fn push(&mut self, path: &[u8]) {
        self.total += 1;
        if self.first.len() < Self::MAX_FIRST {
            self.first.push(printable(path));
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// `path` as one printable line of bounded length.
fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' || c == '"' {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shorten_middle(&text, PathSample::MAX_PATH_BYTES)
}

/// `text` in at most `max` bytes: its start, `…`, its end.
fn shorten_middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let half = (max - '…'.len_utf8()) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}…{}", &text[..head], &text[tail..])
}

/// A termination message that is not a report of this run.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReport {
    /// Longer than the kubelet ever keeps.
    #[error(
        "the report has {0} bytes, more than the {MAX_REPORT_BYTES} that a termination message holds"
    )]
    TooLong(usize),
    /// Not JSON of the expected shape.
    #[error("the report is not valid: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error("the report has version {0}, this operator knows version {PROTOCOL_VERSION}")]
    UnknownVersion(u32),
    /// Written for another object.
    #[error("the report is of run {found}, not of run {expected}")]
    OtherRun {
        /// UID in the report.
        found: String,
        /// UID that was asked for.
        expected: String,
    },
}

impl Report {
    /// A report of this version.
    pub fn new(run_uid: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            run_uid: run_uid.into(),
            outcome,
        }
    }

    /// Reads a termination message and checks that it is of the run `expected_uid`.
    pub fn from_termination_message(text: &str, expected_uid: &str) -> Result<Self, InvalidReport> {
        if text.len() > MAX_REPORT_BYTES {
            return Err(InvalidReport::TooLong(text.len()));
        }
        let report: Self = serde_json::from_str(text)?;
        if report.version != PROTOCOL_VERSION {
            return Err(InvalidReport::UnknownVersion(report.version));
        }
        if report.run_uid != expected_uid {
            return Err(InvalidReport::OtherRun {
                found: report.run_uid,
                expected: expected_uid.to_owned(),
            });
        }
        Ok(report)
    }

    /// The report as JSON in at most [`MAX_REPORT_BYTES`], samples and messages cut as needed;
    /// counts stay true.
    pub fn to_termination_message(&self) -> Result<String, serde_json::Error> {
        let mut report = self.clone();
        loop {
            let json = serde_json::to_string(&report)?;
            if json.len() <= MAX_REPORT_BYTES || !report.outcome.shrink() {
                return Ok(json);
            }
        }
    }
}

impl Outcome {
    /// Drops the least needed detail; false when there is none left to drop.
    fn shrink(&mut self) -> bool {
        match self {
            Self::BackedUp(report) => {
                report.skipped.first.pop().is_some() || report.torn.first.pop().is_some()
            }
            Self::Restored(_) => false,
            Self::Deleted(report) => report.failed.pop().is_some(),
            Self::Failed(failure) => {
                if failure.paths.first.pop().is_some() {
                    return true;
                }
                let half = failure.message.len() / 2;
                let shorter = half > 64;
                if shorter {
                    failure.message = shorten_middle(&failure.message, half);
                }
                shorter
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(message: String, paths: &[Vec<u8>]) -> Report {
        let mut sample = PathSample::default();
        paths.iter().for_each(|path| sample.push(path));
        Report::new(
            "u-1",
            Outcome::Failed(Failure {
                reason: FailureReason::SourceUnreadable,
                message,
                paths: sample,
                target_touched: None,
            }),
        )
    }

    #[test]
    fn a_report_keeps_its_wire_form() {
        let report = Report::new(
            "u-1",
            Outcome::BackedUp(BackupReport {
                location: Location::new("shop", "data", "nightly-1").unwrap(),
                digest: format!("sha256:{}", "0".repeat(64)),
                stored_bytes: 10,
                logical_bytes: 20,
                files: 2,
                others: 1,
                torn: PathSample::default(),
                skipped: PathSample::default(),
                duration_ms: 6000,
            }),
        );
        insta::assert_json_snapshot!(report);
        insta::assert_json_snapshot!(failed("cannot read".into(), &[b"a\n\xff".to_vec()]));
    }

    #[test]
    fn a_report_of_another_run_is_not_believed() {
        let json = failed(String::new(), &[]).to_termination_message().unwrap();
        assert!(Report::from_termination_message(&json, "u-1").is_ok());
        assert!(Report::from_termination_message(&json, "u-2").is_err());
    }

    proptest! {
        #[test]
        fn a_report_fits_and_reads_back_whatever_the_paths(
            message in ".{0,6000}",
            paths in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5000), 0..40),
        ) {
            let report = failed(message, &paths);
            let json = report.to_termination_message().unwrap();
            prop_assert!(json.len() <= MAX_REPORT_BYTES);
            let back = Report::from_termination_message(&json, "u-1").unwrap();
            let Outcome::Failed(failure) = back.outcome else { panic!("not a failure") };
            prop_assert_eq!(failure.paths.total, paths.len() as u64);
            prop_assert!(failure.paths.first.iter().all(|p| !p.contains('\n')));
        }

        #[test]
        fn no_termination_message_makes_the_reader_panic(text in ".{0,300}") {
            let _ = Report::from_termination_message(&text, "u-1");
        }
    }
}
