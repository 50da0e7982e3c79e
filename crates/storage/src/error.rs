use std::io;

use rustix::io::Errno;

/// What a storage fault means for the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// No such object.
    NotFound,
    /// The key is taken.
    AlreadyExists,
    /// No space or quota left.
    Full,
    /// Read-only, or not permitted.
    Denied,
    /// What is stored is not what was written.
    Damaged,
    /// The key could lead outside the store, or cannot be stored.
    InvalidKey,
    /// A fault that may pass: I/O error, stale handle, time-out.
    Unavailable,
}

/// A step on an object that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {key:?} in storage")]
pub struct StorageError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The key it was tried on.
    pub key: String,
    /// What it means.
    pub class: ErrorClass,
    /// The store's own words.
    #[source]
    pub source: io::Error,
}

impl StorageError {
    /// Classifies an error of the operating system.
    pub fn of_os(action: &'static str, key: &str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let class = match Errno::from_io_error(&source) {
            Some(Errno::NOENT) => ErrorClass::NotFound,
            Some(Errno::EXIST) => ErrorClass::AlreadyExists,
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => ErrorClass::Full,
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ErrorClass::Denied,
            Some(Errno::NAMETOOLONG | Errno::LOOP | Errno::XDEV) => ErrorClass::InvalidKey,
            _ => ErrorClass::Unavailable,
        };
        Self {
            action,
            key: key.to_owned(),
            class,
            source,
        }
    }

    /// Whether the medium could not give or take the bytes. Nobody can tell by it alone whether
    /// that passes: a bad sector says the same as a disk or file server that is away.
    pub fn is_of_medium(&self) -> bool {
        Errno::from_io_error(&self.source) == Some(Errno::IO)
    }

    pub(crate) fn invalid_key(action: &'static str, key: &str, why: &'static str) -> Self {
        Self {
            action,
            key: key.to_owned(),
            class: ErrorClass::InvalidKey,
            source: io::Error::new(io::ErrorKind::InvalidInput, why),
        }
    }

    /// The error in the clothes that [`io::Read`] and [`io::Write`] ask for.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

/// The [`StorageError`] that an `io::Error` of a reader or upload carries.
pub fn storage_error_in(error: &io::Error) -> Option<&StorageError> {
    error.get_ref()?.downcast_ref()
}
