//! The index: gzipped JSON lines that tell where everything stands in the archive.

use std::io::{self, BufRead, BufReader, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::codec::Squeezer;
use crate::digest::Hashing;
use crate::entry::EntryKind;
use crate::error::{Corrupt, is_decoders, shown};

/// Longest line: a path and a link target of 1 MiB each, every byte written as `\u0001`.
const MAX_LINE_BYTES: u64 = 13 << 20;

/// Starts the place of every fault in an index.
pub(crate) const PLACE: &str = "index line";

/// How lines of the two kinds start when nobody has put spaces into them.
const ENTRY: &[u8] = br#"{"entry":"#;
const MEMBER: &[u8] = br#"{"member":"#;

/// One line of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Line {
    Entry(IndexEntry),
    Member(IndexMember),
    End(IndexEnd),
}

/// One entry of the tar stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "WireEntry", into = "WireEntry")]
pub(crate) struct IndexEntry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Of a file with holes: bytes of its map and its data, which the stream has instead.
    pub(crate) stored: Option<u64>,
    /// Digest of the content as the stream has it, of files only.
    pub(crate) sha256: Option<String>,
    /// Target of a link.
    pub(crate) link: Option<Vec<u8>>,
    /// Where its first header starts in the tar stream.
    pub(crate) offset: u64,
    /// Headers, content and padding together.
    pub(crate) length: u64,
    /// The file changed while it was read, and the next entry holds it again.
    pub(crate) superseded: bool,
    /// The file changed while it was read, in every try.
    pub(crate) torn: bool,
}

impl IndexEntry {
    /// Bytes that the stream has of its content.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored.unwrap_or(self.size)
    }
}

/// One member of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexMember {
    /// Where it starts in the archive.
    pub(crate) offset: u64,
    /// Its bytes in the archive.
    pub(crate) size: u64,
    /// Where its content starts in the tar stream.
    pub(crate) tar_offset: u64,
    /// Its content's bytes in the tar stream.
    pub(crate) tar_size: u64,
    /// Digest of its bytes in the archive.
    pub(crate) sha256: String,
}

/// The last line: totals of what came before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexEnd {
    pub(crate) entries: u64,
    pub(crate) members: u64,
    pub(crate) tar_bytes: u64,
    pub(crate) archive_bytes: u64,
}

/// An entry as its JSON has it: bytes that are not UTF-8 in Base64.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    r#type: WireKind,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_base64: Option<String>,
    offset: u64,
    length: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    superseded: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", remote = "EntryKind")]
enum EntryKindWire {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
struct WireKind(#[serde(with = "EntryKindWire")] EntryKind);

fn to_wire(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
    }
}

fn from_wire(
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, &'static str> {
    match (text, base64) {
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => BASE64
            .decode(base64)
            .map(Some)
            .map_err(|_| "a path that is not Base64"),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("one path in two forms"),
    }
}

impl From<IndexEntry> for WireEntry {
    fn from(entry: IndexEntry) -> Self {
        let (path, path_base64) = to_wire(entry.path);
        let (link, link_base64) = entry.link.map_or((None, None), to_wire);
        Self {
            path,
            path_base64,
            r#type: WireKind(entry.kind),
            size: entry.size,
            stored: entry.stored,
            sha256: entry.sha256,
            link,
            link_base64,
            offset: entry.offset,
            length: entry.length,
            superseded: entry.superseded,
            torn: entry.torn,
        }
    }
}

impl TryFrom<WireEntry> for IndexEntry {
    type Error = &'static str;

    fn try_from(wire: WireEntry) -> Result<Self, Self::Error> {
        Ok(Self {
            path: from_wire(wire.path, wire.path_base64)?.ok_or("an entry without a path")?,
            kind: wire.r#type.0,
            size: wire.size,
            stored: wire.stored,
            sha256: wire.sha256,
            link: from_wire(wire.link, wire.link_base64)?,
            offset: wire.offset,
            length: wire.length,
            superseded: wire.superseded,
            torn: wire.torn,
        })
    }
}

/// Lines are compressed once they come to this much.
const BLOCK_BYTES: usize = 256 << 10;

/// Writes index lines as they come, a gzip member for every so many.
pub(crate) struct IndexWriter<W: Write> {
    out: Hashing<W>,
    squeezer: Squeezer,
    lines: Vec<u8>,
    end: IndexEnd,
}

impl<W: Write> IndexWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out: Hashing::new(out),
            squeezer: Squeezer::for_index(),
            lines: Vec::new(),
            end: IndexEnd::default(),
        }
    }

    pub(crate) fn entry(&mut self, entry: IndexEntry) -> io::Result<()> {
        self.end.entries += 1;
        self.line(&Line::Entry(entry))
    }

    pub(crate) fn member(&mut self, member: IndexMember) -> io::Result<()> {
        self.end.members += 1;
        self.end.tar_bytes += member.tar_size;
        self.end.archive_bytes += member.size;
        self.line(&Line::Member(member))
    }

    /// Writes the last line; gives the totals, and size and digest of the index.
    pub(crate) fn finish(mut self) -> io::Result<(IndexEnd, u64, String)> {
        let end = self.end;
        self.line(&Line::End(end))?;
        self.close_block()?;
        self.out.flush()?;
        let (bytes, sha256) = self.out.finish();
        Ok((end, bytes, sha256))
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, line)?;
        self.lines.push(b'\n');
        if self.lines.len() >= BLOCK_BYTES {
            self.close_block()?;
        }
        Ok(())
    }

    fn close_block(&mut self) -> io::Result<()> {
        self.squeezer.squeeze(&mut self.lines)?;
        self.out.write_all(&self.lines)?;
        self.lines.clear();
        Ok(())
    }
}

/// Reads index lines one by one, none longer than the format allows.
pub(crate) struct IndexReader<R: Read> {
    lines: BufReader<MultiGzDecoder<R>>,
    line: Vec<u8>,
    number: u64,
}

impl<R: Read> IndexReader<R> {
    pub(crate) fn new(index: R) -> Self {
        Self {
            lines: BufReader::new(MultiGzDecoder::new(index)),
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// An error of the reader below as it is; anything wrong with the index as [`Corrupt`].
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        self.next_but(None)
    }

    /// As [`Self::next`], but passes over lines that start with `passed` unparsed.
    fn next_but(&mut self, passed: Option<&[u8]>) -> io::Result<Option<Line>> {
        while self.read_line()? {
            if passed.is_some_and(|passed| self.line.starts_with(passed)) {
                continue;
            }
            return match serde_json::from_slice(&self.line) {
                Ok(line) => Ok(Some(line)),
                // The words quote the line.
                Err(error) => Err(self.fault(&shown(error.to_string().as_bytes()))),
            };
        }
        Ok(None)
    }

    /// Reads the next line; false at the end.
    fn read_line(&mut self) -> io::Result<bool> {
        self.number += 1;
        self.line.clear();
        let mut limited = (&mut self.lines).take(MAX_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| {
            let is_damage = Corrupt::in_io(&error).is_none() && is_decoders(error.kind());
            if is_damage {
                self.fault(&format!("it does not decompress: {error}"))
            } else {
                error
            }
        });
        if read? == 0 {
            return Ok(false);
        }
        if self.line.last() != Some(&b'\n') {
            return Err(self.fault("a line that is cut or too long"));
        }
        Ok(true)
    }

    /// A fault in the line read last.
    pub(crate) fn fault(&self, what: &str) -> io::Error {
        Corrupt::new(format!("{PLACE} {}", self.number), what).into_io()
    }

    /// The next entry, members skipped; none after the last line.
    ///
    /// # Assumptions
    /// The index was checked: what is skipped is not parsed where it is easily told apart.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<IndexEntry>> {
        loop {
            match self.next_but(Some(MEMBER))? {
                Some(Line::Entry(entry)) => return Ok(Some(entry)),
                Some(Line::Member(_)) => {}
                Some(Line::End(_)) | None => return Ok(None),
            }
        }
    }

    /// The next member, entries skipped; none after the last line.
    ///
    /// # Assumptions
    /// As for [`Self::next_entry`].
    pub(crate) fn next_member(&mut self) -> io::Result<Option<IndexMember>> {
        loop {
            match self.next_but(Some(ENTRY))? {
                Some(Line::Member(member)) => return Ok(Some(member)),
                Some(Line::Entry(_)) => {}
                Some(Line::End(_)) | None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let entry = |path: &[u8]| {
            Line::Entry(IndexEntry {
                path: path.to_vec(),
                kind: EntryKind::File,
                size: 1,
                stored: None,
                sha256: Some("aa".to_owned()),
                link: None,
                offset: 0,
                length: 1_024,
                superseded: false,
                torn: false,
            })
        };
        let member = |offset| {
            Line::Member(IndexMember {
                offset,
                size: 7,
                tar_offset: 0,
                tar_size: 9,
                sha256: "bb".to_owned(),
            })
        };
        vec![
            entry(b"{\"member\":"),
            member(0),
            entry(b"\xff"),
            entry(b"c"),
            member(7),
            member(14),
            Line::End(IndexEnd::default()),
        ]
    }

    fn index(lines: &[Line], write: impl Fn(&Line) -> String) -> Vec<u8> {
        let mut text: Vec<u8> = lines.iter().flat_map(|l| write(l).into_bytes()).collect();
        Squeezer::for_index().squeeze(&mut text).unwrap();
        text
    }

    #[test]
    fn entries_and_members_are_found_however_their_lines_are_spaced() {
        let lines = lines();
        let plain = |line: &Line| serde_json::to_string(line).unwrap() + "\n";
        let spaced = |line: &Line| plain(line).replacen('{', "{ ", 1);
        for index in [index(&lines, plain), index(&lines, spaced)] {
            let mut found = Vec::new();
            let mut entries = IndexReader::new(&index[..]);
            while let Some(entry) = entries.next_entry().unwrap() {
                found.push(Line::Entry(entry));
            }
            let mut members = IndexReader::new(&index[..]);
            while let Some(member) = members.next_member().unwrap() {
                found.push(Line::Member(member));
            }
            let is = |kind: fn(&Line) -> bool| lines.iter().filter(move |line| kind(line));
            let wanted = is(|line| matches!(line, Line::Entry(_)))
                .chain(is(|line| matches!(line, Line::Member(_))));
            assert!(found.iter().eq(wanted), "{found:?}");
        }
    }

    #[test]
    fn lines_are_told_apart_by_how_the_writer_starts_them() {
        for line in lines() {
            let text = serde_json::to_vec(&line).unwrap();
            let start = match line {
                Line::Entry(_) => ENTRY,
                Line::Member(_) => MEMBER,
                Line::End(_) => br#"{"end":"#,
            };
            assert!(text.starts_with(start));
        }
    }
}
