//! Reasons that only BackupPolicies, and the re-verification they start, tell.

/// A schedule of re-verification that cannot be followed; backups go on.
pub const INVALID_VERIFICATION_SCHEDULE: &str = "InvalidVerificationSchedule";
/// A policy is no longer suspended.
pub const RESUMED: &str = "Resumed";
/// Event: what is stored was read again and is as it was written.
pub const VERIFIED: &str = "Verified";
/// Event: what is stored was read again and is damaged or gone.
pub const VERIFICATION_FAILED: &str = "VerificationFailed";
/// Event: stored backups were to be read again and could not be.
pub const VERIFICATION_NOT_DONE: &str = "VerificationNotDone";
/// Event: slots passed without a run.
pub const SLOTS_SKIPPED: &str = "SlotsSkipped";
/// Event: what is recorded of slots lies in the future.
pub const CLOCK_STEPPED_BACK: &str = "ClockSteppedBack";
/// Event: what retention would delete is locked by its storage.
pub const CLEANUP_WAITS: &str = "CleanupWaits";
/// Event: a Backup is dated in the future.
pub const BACKUP_MISDATED: &str = "BackupMisdated";
/// Event: a Backup was cancelled to make room for the next.
pub const BACKUP_REPLACED: &str = "BackupReplaced";
