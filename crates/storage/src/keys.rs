//! What a key and a run may be called.

use std::hash::{BuildHasher, RandomState};

use crate::StorageError;

/// Starts every temporary name; no key part may start with a dot.
pub(crate) const TEMPORARY_PREFIX: &str = ".tidelock-";

/// The directories of a key, and its file name.
pub(crate) fn split_key<'k>(
    action: &'static str,
    key: &'k str,
) -> Result<(Vec<&'k str>, &'k str), StorageError> {
    let mut parts: Vec<&str> = key.split('/').collect();
    let valid = |part: &&str| {
        !part.is_empty() && !part.starts_with('.') && !part.chars().any(char::is_control)
    };
    if !parts.iter().all(valid) {
        return Err(StorageError::invalid_key(
            action,
            key,
            "no part of a key may be empty, start with '.' or hold a control character",
        ));
    }
    let name = parts.pop().unwrap_or_default();
    Ok((parts, name))
}

/// Refuses what cannot stand in a temporary name.
pub(crate) fn check_run(key: &str, run: &str) -> Result<(), StorageError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if run.is_empty() || run.len() > 64 || !run.bytes().all(valid) {
        return Err(StorageError::invalid_key(
            "write",
            key,
            "a run's UID is 1 to 64 letters, digits, '-', '_' or '.'",
        ));
    }
    Ok(())
}

/// A number that another process of the same run does not draw as well.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A new temporary name of `run`.
pub(crate) fn temporary_of(run: &str) -> String {
    format!("{TEMPORARY_PREFIX}{run}-{:016x}", random())
}

/// Ends the name of an object that is to become a part of another.
const PIECE: &str = ".piece";

/// A new name of an object of `run` that is to become a part of another.
pub(crate) fn piece_of(run: &str) -> String {
    format!("{}{PIECE}", temporary_of(run))
}

/// The run that a piece of that name belongs to; none for other names.
pub(crate) fn owner_of_piece(name: &str) -> Option<&str> {
    owner_of(name.strip_suffix(PIECE)?)
}

/// The run that a temporary name belongs to; none for other names.
pub(crate) fn owner_of(name: &str) -> Option<&str> {
    let (run, random) = name.strip_prefix(TEMPORARY_PREFIX)?.rsplit_once('-')?;
    let is_random = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
    (is_random && !run.is_empty()).then_some(run)
}
