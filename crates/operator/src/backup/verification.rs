//! What reading a Backup back told.

use jiff::Timestamp;
use tidelock_api::{Backup, VERIFIED, VerificationLevel, VerificationResult, VerificationStatus};
use tidelock_protocol::BackupReport;

use crate::conditions::{self, Verdict};
use crate::convert;
use crate::telemetry::reasons;

/// Takes in what was read back before the backup was published.
pub fn take_in(backup: &mut Backup, done: &BackupReport, now: Timestamp) {
    let level = convert::to_api_level(done.verification);
    if level == VerificationLevel::None {
        let verdict = Verdict::unknown(
            reasons::NOT_VERIFIED,
            "Nothing was read back (verification.onBackup None)",
        );
        return set(backup, None, &verdict, now);
    }
    record(backup, level, VerificationResult::Passed, None, now);
}

/// Records what a reading back came to.
pub fn record(
    backup: &mut Backup,
    level: VerificationLevel,
    result: VerificationResult,
    message: Option<String>,
    now: Timestamp,
) {
    let verdict = match result {
        VerificationResult::Passed => Verdict::yes(
            reasons::READ_BACK,
            match level {
                VerificationLevel::Full => "What is stored was read back, and every entry compared",
                VerificationLevel::Digest | VerificationLevel::None => {
                    "What is stored was read back, and its digests compared"
                }
            },
        ),
        VerificationResult::Failed => Verdict::no(
            reasons::ARCHIVE_DAMAGED,
            message.clone().unwrap_or_default(),
        ),
        VerificationResult::Missing => Verdict::no(
            reasons::ARCHIVE_MISSING,
            message.clone().unwrap_or_default(),
        ),
    };
    let status = VerificationStatus {
        time: convert::whole_seconds(now),
        level,
        result,
        message,
    };
    set(backup, Some(status), &verdict, now);
}

fn set(backup: &mut Backup, status: Option<VerificationStatus>, verdict: &Verdict, now: Timestamp) {
    let generation = backup.metadata.generation;
    let of_backup = backup.status.get_or_insert_default();
    of_backup.verification = status;
    conditions::set(
        &mut of_backup.conditions,
        VERIFIED,
        verdict,
        generation,
        now,
    );
}
