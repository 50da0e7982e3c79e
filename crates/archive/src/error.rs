use std::borrow::Cow;
use std::io;

/// Stored data that is not what was written, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Corrupt {
    /// Object, member, offset or path.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl Corrupt {
    /// Something wrong at a place.
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }

    /// The fault as an `io::Error`, for readers.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self)
    }

    /// The fault that an `io::Error` carries.
    pub(crate) fn in_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// A path as one printable line, cut where it is very long.
pub(crate) fn shown(path: &[u8]) -> String {
    const MAX_SHOWN_BYTES: usize = 200;
    let cut = &path[..path.len().min(MAX_SHOWN_BYTES)];
    let dots = if cut.len() < path.len() { "…" } else { "" };
    let mut text = String::new();
    for chunk in cut.utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(|c| {
            let escape = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escape.into_iter().flatten().chain(plain)
        }));
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    format!("{text}{dots}")
}

/// A step in the target that failed, as a verb, and the operating system's words.
pub(crate) type Refused = (Cow<'static, str>, io::Error);

/// Why a stored backup could not be checked or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What is stored is not what was written.
    #[error("the backup is damaged: {0}")]
    Corrupt(Corrupt),
    /// Storage could not be read.
    #[error("the backup cannot be read")]
    Read(#[source] io::Error),
    /// The target refused something.
    #[error("cannot {action} {path:?} in the target")]
    Target {
        /// What was tried, as a verb.
        action: Cow<'static, str>,
        /// Where, relative to the target.
        path: String,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
    /// What is to be restored cannot be.
    #[error("{0}")]
    Selection(String),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl From<Corrupt> for RestoreError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt)
    }
}

impl RestoreError {
    /// A refusal of the target.
    pub(crate) fn target(
        action: impl Into<Cow<'static, str>>,
        path: &[u8],
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Target {
            action: action.into(),
            path: shown(path),
            source: source.into(),
        }
    }
}

/// Sorts out what a failed read means: damage that a reader found, an early end, or storage.
impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        match Corrupt::in_io(&error) {
            Some(corrupt) => Self::Corrupt(corrupt.clone()),
            None if is_decoders(error.kind()) => {
                Self::Corrupt(Corrupt::new("compressed data", error.to_string()))
            }
            None => Self::Read(error),
        }
    }
}

/// Whether the kind is one that gzip and the readers here use for data that means nothing.
pub(crate) fn is_decoders(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}
