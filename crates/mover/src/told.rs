//! What a backup tells of single paths, gathered for the report and logged in moderation.

use tidelock_archive::Notice;
use tidelock_protocol::PathSample;

/// Log lines of one kind; a million vanished files must not make a million lines.
const MAX_LINES_PER_KIND: u64 = 20;

/// Paths that a backup had something to tell of.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) unreadable: PathSample,
    pub(crate) torn: PathSample,
    /// Sockets and mounts of other file systems.
    pub(crate) skipped: PathSample,
    others: u64,
    first_reason: Option<String>,
}

impl Told {
    /// Takes one notice.
    pub(crate) fn take(&mut self, path: &[u8], notice: &Notice) {
        let sample = match notice {
            Notice::Unreadable(error) => {
                self.first_reason.get_or_insert_with(|| error.to_string());
                &mut self.unreadable
            }
            Notice::Torn => &mut self.torn,
            Notice::Socket | Notice::OtherMount => &mut self.skipped,
            Notice::Vanished | Notice::XattrsLeftOut(_) | Notice::HardLinkSplit => {
                self.others += 1;
                if self.others <= MAX_LINES_PER_KIND {
                    log(path, notice);
                }
                return;
            }
        };
        sample.push(path);
        if sample.total <= MAX_LINES_PER_KIND {
            log(path, notice);
        }
    }

    /// The operating system's words on the first unreadable path.
    pub(crate) fn first_reason(&self) -> &str {
        self.first_reason.as_deref().unwrap_or("unknown")
    }
}

fn log(path: &[u8], notice: &Notice) {
    let path = path.escape_ascii().to_string();
    match notice {
        Notice::Unreadable(error) => tracing::error!(path, %error, "cannot be read"),
        Notice::Torn => tracing::warn!(path, "changed during every try to read it"),
        Notice::Socket => tracing::info!(path, "is a socket and was left out"),
        Notice::OtherMount => tracing::warn!(path, "another file system is mounted; left out"),
        Notice::Vanished => tracing::info!(path, "was deleted before it was read"),
        Notice::XattrsLeftOut(count) => {
            tracing::info!(path, count, "has extended attributes that are not kept");
        }
        Notice::HardLinkSplit => tracing::warn!(path, "is archived as a file of its own"),
    }
}
