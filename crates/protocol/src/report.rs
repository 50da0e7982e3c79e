use serde::{Deserialize, Serialize};

use crate::paths::shorten_middle;
use crate::{
    BackupReport, Changes, CheckReport, DeleteReport, Failure, PROTOCOL_VERSION, RestoreReport,
    UndoReport, VerifyReport,
};

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

/// The part of a report that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Outcome {
    /// The archive is published.
    BackedUp(BackupReport),
    /// The target holds what was asked for.
    Restored(RestoreReport),
    /// What a restore would do; nothing was written.
    Compared(Changes),
    /// What was left of a restore is taken back.
    Undone(UndoReport),
    /// Every item was looked at, or the reason why not stands beside it.
    Verified(VerifyReport),
    /// Every item was looked at; some may have failed.
    Deleted(DeleteReport),
    /// The storage was looked at.
    Checked(CheckReport),
    /// Nothing of the task may be relied on.
    Failed(Failure),
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
        // What another version has besides its number is not of the expected shape.
        let Version { version } = serde_json::from_str(text)?;
        if version != PROTOCOL_VERSION {
            return Err(InvalidReport::UnknownVersion(version));
        }
        let report: Self = serde_json::from_str(text)?;
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
                let unknown = report.folder.as_mut().map(|folder| &mut folder.unknown);
                unknown.is_some_and(|sample| sample.first.pop().is_some())
                    || report.skipped.first.pop().is_some()
                    || report.torn.first.pop().is_some()
            }
            Self::Restored(report) => report.losses.paths.first.pop().is_some(),
            Self::Compared(changes) => changes.shrink(),
            Self::Undone(_) => false,
            Self::Verified(report) => {
                let unknown = report.folder.as_mut().map(|folder| &mut folder.unknown);
                unknown.is_some_and(|sample| sample.first.pop().is_some())
                    || report.faults.pop().is_some()
            }
            Self::Deleted(report) => report.failed.pop().is_some(),
            Self::Checked(report) => {
                let shorter =
                    report.unreadable.first.pop().is_some() || report.unknown.first.pop().is_some();
                // What is left out is asked for by the next look.
                report.more |= !shorter && !report.described.is_empty();
                shorter || report.described.pop().is_some()
            }
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
    use crate::{FailureReason, FolderReport, Location, PathSample, VerificationLevel};

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
                done: None,
            }),
        )
    }

    #[test]
    fn a_report_keeps_its_wire_form() {
        let report = Report::new(
            "u-1",
            Outcome::BackedUp(BackupReport {
                encrypted: false,
                location: Location::new("shop", "data", "nightly-1").unwrap(),
                digest: format!("sha256:{}", "0".repeat(64)),
                stored_bytes: 10,
                logical_bytes: 20,
                files: 2,
                others: 1,
                torn: PathSample::default(),
                skipped: PathSample::default(),
                duration_ms: 6000,
                verification: VerificationLevel::Full,
                verification_ms: 1000,
                locked_until: None,
                folder: Some(FolderReport::default()),
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

    #[test]
    fn a_report_of_another_version_is_told_by_its_number_whatever_else_it_holds() {
        let json = r#"{"version":1,"runUid":"u-1","outcome":{"backedUp":{"digest":"x"}}}"#;
        let error = Report::from_termination_message(json, "u-1").unwrap_err();
        assert!(matches!(error, InvalidReport::UnknownVersion(1)), "{error}");
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
