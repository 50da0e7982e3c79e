//! Members as gzip has them.

use std::io;
use std::mem;

use libdeflater::{CompressionLvl, Compressor};
use tidelock_gunzip::{Gunzip, NotOneMember};

use super::{OTHER_SIZE, not_expanded, not_squeezed};

/// Level of the members: about as small as `gzip -6`, at twice its speed (measured:
/// docs/benchmarks.md).
const MEMBER_LEVEL: i32 = 6;
/// Level of the index, whose lines are half digests.
const INDEX_LEVEL: i32 = 4;
/// Level that a sample is tried at.
const PROBE_LEVEL: i32 = 1;
/// Less than this is compressed without a look at a sample.
const LEAST_PROBED_BYTES: usize = 64 << 10;
/// Parts of a sample, spread evenly.
const PROBES: usize = 4;
const PROBE_BYTES: usize = 4 << 10;
/// A sample that stays larger than this share of itself is not worth compressing.
const INCOMPRESSIBLE_PERCENT: usize = 98;

/// Makes gzip members.
pub(crate) struct Squeezer {
    best: Compressor,
    probe: Compressor,
    store: Compressor,
    sample: Vec<u8>,
    out: Vec<u8>,
}

fn compressor(level: i32) -> Compressor {
    Compressor::new(CompressionLvl::new(level).unwrap_or_default())
}

impl Squeezer {
    /// For members of an archive.
    pub(super) fn for_members() -> Self {
        Self::at(MEMBER_LEVEL)
    }

    /// For the lines of an index.
    pub(super) fn for_index() -> Self {
        Self::at(INDEX_LEVEL)
    }

    fn at(level: i32) -> Self {
        Self {
            best: compressor(level),
            probe: compressor(PROBE_LEVEL),
            store: compressor(0),
            sample: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Puts one member that holds `bytes` in their place; what does not compress is stored as it
    /// is.
    pub(super) fn squeeze(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let compressor = if self.is_incompressible(bytes)? {
            &mut self.store
        } else {
            &mut self.best
        };
        gzip(compressor, bytes, &mut self.out)?;
        mem::swap(bytes, &mut self.out);
        Ok(())
    }

    fn is_incompressible(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if bytes.len() < LEAST_PROBED_BYTES {
            return Ok(false);
        }
        self.sample.clear();
        for part in 0..PROBES {
            let start = (bytes.len() - PROBE_BYTES) / (PROBES - 1) * part;
            self.sample
                .extend_from_slice(&bytes[start..start + PROBE_BYTES]);
        }
        gzip(&mut self.probe, &self.sample, &mut self.out)?;
        Ok(self.out.len() * 100 > self.sample.len() * INCOMPRESSIBLE_PERCENT)
    }
}

fn gzip(compressor: &mut Compressor, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.resize(compressor.gzip_compress_bound(bytes.len()), 0);
    let written = compressor
        .gzip_compress(bytes, out)
        .map_err(|e| not_squeezed(format!("{e:?}")))?;
    out.truncate(written);
    Ok(())
}

/// What the one gzip member `compressed` holds.
pub(super) fn expand(compressed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let mut content = vec![0; size];
    let expanded = Gunzip::new().and_then(|mut gunzip| gunzip.member(compressed, &mut content));
    match expanded {
        Ok(()) => Ok(content),
        Err(NotOneMember::OtherSize) => Err(OTHER_SIZE.to_owned()),
        Err(other) => Err(not_expanded(other)),
    }
}
