//! The marker of a restore that is not finished.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, EntryKind};
use crate::loss::Losses;
use crate::meta::{Meta, Time};
use crate::unpack::Unpacked;
use crate::xattr::Xattrs;

/// Longest marker: the attributes of the root, in Base64.
pub(crate) const MAX_MARKER_BYTES: u64 = 16 << 20;

/// What may happen to what the target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overwrite {
    /// The target must be empty.
    Never,
    /// Names in the archive are added or replaced, all others stay.
    Merge,
    /// The target becomes equal to the backup; what it held is kept until that is done.
    Replace,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing of the backup is written. With [`Overwrite::Replace`] what the target held is being
    /// moved aside, or back.
    Preparing,
    /// The backup is being written.
    Writing,
    /// All is written and checked; what was moved aside is being removed.
    Finished,
}

/// The content of a marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Marker {
    pub(crate) overwrite: Overwrite,
    pub(crate) stage: Stage,
    /// What the root was like before the restore.
    pub(crate) root: RootBefore,
    /// What was done, once it is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Finished>,
}

/// What a restore that is finished has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finished {
    /// What was written.
    pub unpacked: Unpacked,
    /// What the target refused.
    pub losses: Losses,
    /// Whether the target was read back and compared.
    pub read_back: bool,
    /// Time of the root's last change, which the removal of the marker would alter.
    pub root_mtime: Option<Time>,
}

/// Owner, mode, times and attributes of a target's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RootBefore {
    mode: u32,
    uid: u32,
    gid: u32,
    pub(crate) mtime: Time,
    /// Name and value, both in Base64.
    xattrs: Vec<(String, String)>,
}

impl RootBefore {
    pub(crate) fn new(meta: &Meta, xattrs: &Xattrs) -> Self {
        let encoded =
            |(name, value): &(Vec<u8>, Vec<u8>)| (BASE64.encode(name), BASE64.encode(value));
        Self {
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            xattrs: xattrs.iter().map(encoded).collect(),
        }
    }

    /// As an entry of the root, to be set like one of an archive.
    pub(crate) fn to_entry(&self) -> Result<Entry, base64::DecodeError> {
        let decoded =
            |(name, value): &(String, String)| Ok((BASE64.decode(name)?, BASE64.decode(value)?));
        Ok(Entry {
            path: b".".to_vec(),
            kind: EntryKind::Directory,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            size: 0,
            stored: None,
            link: Vec::new(),
            device: (0, 0),
            xattrs: self.xattrs.iter().map(decoded).collect::<Result<_, _>>()?,
        })
    }
}
