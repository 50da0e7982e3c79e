//! Which entries of an archive a restore takes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use sha2::{Digest, Sha256};

use crate::entry::{EntryKind, is_within};
use crate::error::RestoreError;
use crate::index::{IndexEntry, IndexReader, Line};
use crate::needed::{Marker, Needed};

/// Files that are left out and linked to; beyond this, memory would not be bounded.
const MAX_LEFT_OUT: usize = 500_000;

/// The paths that a restore takes: everything, or what globs pick.
///
/// `*` and `?` stay inside one part of a path, `**` goes over parts. A glob that matches a folder
/// takes all below it. Folders above what is taken are made, so that it has its place.
#[derive(Debug)]
pub struct Selection {
    globs: Vec<String>,
    /// For each glob itself, then what is below it; none takes everything.
    set: Option<GlobSet>,
}

/// A glob that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {glob:?} {what}")]
pub struct InvalidGlob {
    /// As it was given.
    pub glob: String,
    /// What is wrong with it.
    pub what: String,
}

impl Selection {
    /// Takes what the globs pick; everything when there are none.
    ///
    /// # Errors
    /// The first glob that is absolute, leaves the root, has an empty part or is malformed.
    pub fn new(globs: &[String]) -> Result<Self, InvalidGlob> {
        if globs.is_empty() {
            return Ok(Self {
                globs: Vec::new(),
                set: None,
            });
        }
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let fault = |what: String| InvalidGlob {
                glob: glob.clone(),
                what,
            };
            let plain = normal(glob).map_err(|what| fault(what.to_owned()))?;
            for pattern in [plain.clone(), format!("{plain}/**")] {
                set.add(
                    compiled(&pattern).map_err(|e| fault(format!("is no glob: {}", e.kind())))?,
                );
            }
        }
        let set = set.build().map_err(|e| InvalidGlob {
            glob: globs.join(" "),
            what: format!("cannot be followed: {}", e.kind()),
        })?;
        Ok(Self {
            globs: globs.to_vec(),
            set: Some(set),
        })
    }

    /// Whether it takes everything.
    pub fn is_all(&self) -> bool {
        self.set.is_none()
    }

    /// Whether the entry of this path is taken for its own sake.
    pub(crate) fn takes(&self, path: &[u8]) -> bool {
        match &self.set {
            None => true,
            // The root is above everything, so it is never taken for a glob's sake.
            Some(_) if path == b"." => false,
            Some(set) => set.is_match(OsStr::from_bytes(path)),
        }
    }

    /// Looks through an index, of which `lines` and `ahead` are readers, for what is taken; unread
    /// where that is everything.
    pub fn survey<I: Read>(
        &self,
        [lines, ahead]: [I; 2],
        stop: &AtomicBool,
    ) -> Result<Survey, RestoreError> {
        let mut survey = Survey::default();
        if self.is_all() {
            return Ok(survey);
        }
        let mut hits = vec![false; self.globs.len()];
        let mut lines = IndexReader::new(lines);
        let mut picker = Picker::new(self, ahead);
        let mut marker = Marker::new();
        while let Some(line) = lines.next()? {
            if stop.load(Ordering::Relaxed) {
                return Err(RestoreError::Stopped);
            }
            let entry = match line {
                Line::Entry(entry) => entry,
                Line::Member(member) => {
                    marker.member(&member);
                    continue;
                }
                Line::End(_) => break,
            };
            marker.entry(&entry, picker.pick(&entry)? != Pick::Left);
            if !self.note_hits(&entry.path, &mut hits) {
                continue;
            }
            if let (EntryKind::HardLink, Some(link)) = (entry.kind, &entry.link)
                && !self.takes(link)
            {
                survey.links.add(link)?;
            }
        }
        let missed = self.globs.iter().zip(hits).filter(|(_, hit)| !hit);
        survey.missed = missed.map(|(glob, _)| glob.clone()).collect();
        // What is left out but linked to stands before it is known to be.
        if survey.links.is_empty() {
            survey.needed = marker.finish();
        }
        Ok(survey)
    }

    /// Notes which globs take the entry; true when any does.
    fn note_hits(&self, path: &[u8], hits: &mut [bool]) -> bool {
        let Some(set) = self.set.as_ref().filter(|_| path != b".") else {
            return false;
        };
        let matches = set.matches_candidate(&Candidate::new(OsStr::from_bytes(path)));
        for index in &matches {
            hits[index / 2] = true;
        }
        !matches.is_empty()
    }
}

/// What a selection takes of one archive.
#[derive(Debug, Default)]
pub struct Survey {
    /// Globs that match nothing.
    pub missed: Vec<String>,
    /// Files that are left out, but for links to them that are taken.
    pub(crate) links: LeftOut,
    /// The members that hold it.
    pub(crate) needed: Needed,
}

impl Survey {
    /// Whether the whole archive has to be read.
    pub fn needs_all(&self) -> bool {
        self.needed.is_all()
    }
}

/// Files that are left out and that something taken links to.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    files: HashSet<LeftOutName>,
}

/// The first half of the SHA-256 digest of a path.
type LeftOutName = [u8; 16];

impl LeftOut {
    fn add(&mut self, path: &[u8]) -> Result<(), RestoreError> {
        if self.files.len() == MAX_LEFT_OUT {
            return Err(RestoreError::Selection(format!(
                "the paths take links to more than {MAX_LEFT_OUT} files that they leave out; take the folders of these files as well"
            )));
        }
        self.files.insert(name_for(path));
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A name for the file, when it is one of these.
    pub(crate) fn name_of(&self, path: &[u8]) -> Option<String> {
        if self.files.is_empty() {
            return None;
        }
        let name = name_for(path);
        self.files.contains(&name).then(|| hex::encode(name))
    }
}

fn name_for(path: &[u8]) -> LeftOutName {
    let digest: [u8; 32] = Sha256::digest(path).into();
    let mut name = LeftOutName::default();
    name.copy_from_slice(&digest[..16]);
    name
}

fn compiled(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
}

/// The glob without a leading `./` and trailing slashes.
fn normal(glob: &str) -> Result<String, &'static str> {
    if glob.starts_with('/') {
        return Err("starts with \"/\"; paths are relative to the volume's root");
    }
    if glob.contains('\0') {
        return Err("holds a NUL byte");
    }
    let mut plain = glob.trim_end_matches('/');
    while let Some(rest) = plain.strip_prefix("./") {
        plain = rest;
    }
    if plain == "." {
        return Ok("**".to_owned());
    }
    for part in plain.split('/') {
        match part {
            "" => return Err("is empty, or has an empty part"),
            "." | ".." => return Err("has a part \".\" or \"..\""),
            _ => {}
        }
    }
    Ok(plain.to_owned())
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// It is taken.
    Taken,
    /// It is a folder above something that is taken.
    Above,
    /// It is left out.
    Left,
}

/// Tells for one entry after the other whether it is taken.
///
/// It reads the index ahead up to the next entry that is taken, so that it knows of a folder
/// whether anything in it will be, and holds one path for that.
pub(crate) struct Picker<'s, I: Read> {
    selection: &'s Selection,
    ahead: IndexReader<I>,
    /// Entries read ahead.
    read: u64,
    /// Entries judged.
    judged: u64,
    /// The next one that is taken; none when there is no other.
    next: Option<Vec<u8>>,
}

impl<'s, I: Read> Picker<'s, I> {
    pub(crate) fn new(selection: &'s Selection, ahead: I) -> Self {
        Self {
            selection,
            ahead: IndexReader::new(ahead),
            read: 0,
            judged: 0,
            next: None,
        }
    }

    /// Judges the next entry of the index.
    pub(crate) fn pick(&mut self, entry: &IndexEntry) -> io::Result<Pick> {
        if self.selection.is_all() {
            return Ok(Pick::Taken);
        }
        self.judged += 1;
        if self.read < self.judged {
            self.find_next()?;
        }
        Ok(match &self.next {
            Some(_) if self.read == self.judged => Pick::Taken,
            Some(_) if entry.path == b"." => Pick::Above,
            Some(next) if entry.kind == EntryKind::Directory && is_within(next, &entry.path) => {
                Pick::Above
            }
            _ => Pick::Left,
        })
    }

    fn find_next(&mut self) -> io::Result<()> {
        while let Some(entry) = self.ahead.next_entry()? {
            self.read += 1;
            if self.selection.takes(&entry.path) {
                self.next = Some(entry.path);
                return Ok(());
            }
        }
        self.next = None;
        self.read = u64::MAX;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(globs: &[&str]) -> Result<Selection, InvalidGlob> {
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        Selection::new(&globs)
    }

    #[test]
    fn a_glob_takes_what_it_matches_and_all_below() {
        for (glob, taken, left) in [
            ("a", &["a", "a/b", "a/b/c"][..], &["ab", "b/a", "."][..]),
            ("./a/", &["a", "a/b"], &["b"]),
            ("a/*", &["a/b", "a/b/c"], &["a", "b/a"]),
            ("*.txt", &["x.txt", "x.txt/y"], &["d/x.txt"]),
            ("**/*.txt", &["x.txt", "d/e/x.txt"], &["x.tx"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab"]),
            ("?", &["a", "a/b"], &[".", "ab"]),
            ("{a,b}/c", &["a/c", "b/c/d"], &["a", "c"]),
            ("a\\*", &["a*"], &["ab"]),
            ("*", &[".hidden", "a/b"], &["."]),
            (".", &["a", "a/b"], &["."]),
        ] {
            let selection = selection(&[glob]).unwrap();
            for path in taken {
                assert!(selection.takes(path.as_bytes()), "{glob} takes {path}");
            }
            for path in left {
                assert!(!selection.takes(path.as_bytes()), "{glob} leaves {path}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_match_a_star() {
        assert!(selection(&["d/*"]).unwrap().takes(b"d/\xff\xfe"));
    }

    #[test]
    fn a_glob_that_cannot_be_followed_is_named() {
        for (glob, word) in [
            ("/a", "relative"),
            ("a/../b", "\"..\""),
            ("..", "\"..\""),
            ("a//b", "empty part"),
            ("", "empty"),
            ("a/./b", "\".\""),
            ("[a", "no glob"),
            ("a\\", "no glob"),
            ("{a", "no glob"),
            ("a\0", "NUL"),
        ] {
            let error = selection(&["fine", glob]).unwrap_err();
            assert_eq!(error.glob, glob);
            assert!(error.what.contains(word), "{error}");
        }
    }
}
