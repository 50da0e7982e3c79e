use serde::{Deserialize, Serialize};

/// Why a mover run failed: the stable word that becomes the reason of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureReason {
    /// The request is malformed, or of a version this mover does not know.
    InvalidRequest,
    /// Something in the source cannot be read; the report names it.
    SourceUnreadable,
    /// An archive of another Backup stands under the same name.
    ArchiveConflict,
    /// What is stored is not what was written: digest, index or manifest do not match.
    ArchiveCorrupt,
    /// The archive, or its manifest, is not in storage.
    ArchiveNotFound,
    /// The archive needs a newer mover: its format version or a feature of it is unknown here.
    UnsupportedFormat,
    /// The volume to restore into holds files.
    TargetNotEmpty,
    /// The target refused a write, an owner, a mode, a time or an extended attribute.
    TargetUnwritable,
    /// The backup is encrypted, and nothing given opens it.
    KeyMissing,
    /// Storage has no space or quota left.
    StorageFull,
    /// The target has no space or quota left.
    TargetFull,
    /// Storage failed in a way that may pass: I/O error, stale handle, time-out.
    StorageUnavailable,
    /// Storage refuses this mover: read-only or permission denied.
    StorageDenied,
    /// What was read back is not what was written: storage lost or changed it.
    VerificationFailed,
    /// The target has too little space or too few inodes for what is coming; nothing was written.
    TargetTooSmall,
    /// A name in the target is of a type that stands in the way; nothing was written.
    TargetConflict,
    /// A path that was asked for matches nothing in the archive; nothing was written.
    NothingMatched,
    /// A path that was asked for is not a glob that can be followed.
    InvalidPath,
    /// The target refused owners, modes, times or attributes, and that was not allowed.
    MetadataLoss,
    /// Nothing moved for the stall time-out.
    Stalled,
    /// The run was told to stop (SIGTERM).
    Interrupted,
    /// A fault of the mover itself; worth a bug report.
    Internal,
}

impl FailureReason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 22] = [
        Self::InvalidRequest,
        Self::SourceUnreadable,
        Self::ArchiveConflict,
        Self::ArchiveCorrupt,
        Self::ArchiveNotFound,
        Self::UnsupportedFormat,
        Self::TargetNotEmpty,
        Self::TargetUnwritable,
        Self::KeyMissing,
        Self::StorageFull,
        Self::TargetFull,
        Self::StorageUnavailable,
        Self::StorageDenied,
        Self::VerificationFailed,
        Self::TargetTooSmall,
        Self::TargetConflict,
        Self::NothingMatched,
        Self::InvalidPath,
        Self::MetadataLoss,
        Self::Stalled,
        Self::Interrupted,
        Self::Internal,
    ];

    /// The exit code that tells the Job controller whether another try can help.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::StorageUnavailable | Self::VerificationFailed | Self::Stalled => {
                ExitCode::Transient
            }
            Self::Interrupted => ExitCode::Interrupted,
            Self::Internal => ExitCode::Internal,
            _ => ExitCode::Permanent,
        }
    }

    /// The word as it stands in conditions and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "InvalidRequest",
            Self::SourceUnreadable => "SourceUnreadable",
            Self::ArchiveConflict => "ArchiveConflict",
            Self::ArchiveCorrupt => "ArchiveCorrupt",
            Self::ArchiveNotFound => "ArchiveNotFound",
            Self::UnsupportedFormat => "UnsupportedFormat",
            Self::TargetNotEmpty => "TargetNotEmpty",
            Self::TargetUnwritable => "TargetUnwritable",
            Self::KeyMissing => "KeyMissing",
            Self::StorageFull => "StorageFull",
            Self::TargetFull => "TargetFull",
            Self::StorageUnavailable => "StorageUnavailable",
            Self::StorageDenied => "StorageDenied",
            Self::VerificationFailed => "VerificationFailed",
            Self::TargetTooSmall => "TargetTooSmall",
            Self::TargetConflict => "TargetConflict",
            Self::NothingMatched => "NothingMatched",
            Self::InvalidPath => "InvalidPath",
            Self::MetadataLoss => "MetadataLoss",
            Self::Stalled => "Stalled",
            Self::Interrupted => "Interrupted",
            Self::Internal => "Internal",
        }
    }
}

/// How a mover process ends; the Job's podFailurePolicy is built from this table.
///
/// The numbers keep clear of those that shells (1, 2, 126, 127), Rust panics (101) and signals
/// (128 + n) use, so that an accident never looks like a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// The task is done and the report says what was done.
    Success = 0,
    /// Trying again cannot help; the Job fails at once.
    Permanent = 40,
    /// Trying again may help; the Job retries with back-off.
    Transient = 41,
    /// The pod was told to stop; the Job retries.
    Interrupted = 42,
    /// A fault of the mover; the Job retries, as another node may fare better.
    Internal = 43,
}

impl ExitCode {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The codes after which the Job controller must not try again.
    pub const NO_RETRY: [Self; 1] = [Self::Permanent];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_as_the_word_it_is_written_as() {
        for reason in FailureReason::ALL {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.as_str()));
            assert_eq!(
                serde_json::from_str::<FailureReason>(&json).unwrap(),
                reason
            );
        }
    }

    #[test]
    fn no_exit_code_collides_with_shells_panics_or_signals() {
        for reason in FailureReason::ALL {
            let code = reason.exit_code().code();
            assert!(
                (3..101).contains(&code),
                "{reason:?} ends with the ambiguous code {code}"
            );
        }
    }
}
