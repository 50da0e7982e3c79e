//! How a member is compressed.

use std::io;

use libdeflater::{CompressionLvl, Compressor};

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

/// Makes gzip members, with the memory of one compressor.
pub(crate) struct Squeezer {
    best: Compressor,
    probe: Compressor,
    store: Compressor,
    sample: Vec<u8>,
}

fn compressor(level: i32) -> Compressor {
    Compressor::new(CompressionLvl::new(level).unwrap_or_default())
}

impl Squeezer {
    /// For members of an archive.
    pub(crate) fn for_members() -> Self {
        Self::at(MEMBER_LEVEL)
    }

    /// For the lines of an index.
    pub(crate) fn for_index() -> Self {
        Self::at(INDEX_LEVEL)
    }

    fn at(level: i32) -> Self {
        Self {
            best: compressor(level),
            probe: compressor(PROBE_LEVEL),
            store: compressor(0),
            sample: Vec::new(),
        }
    }

    /// Puts `bytes` into `out` as one gzip member; what does not compress is stored as it is.
    pub(crate) fn squeeze(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let compressor = if self.is_incompressible(bytes, out)? {
            &mut self.store
        } else {
            &mut self.best
        };
        gzip(compressor, bytes, out)
    }

    fn is_incompressible(&mut self, bytes: &[u8], scratch: &mut Vec<u8>) -> io::Result<bool> {
        if bytes.len() < LEAST_PROBED_BYTES {
            return Ok(false);
        }
        self.sample.clear();
        for part in 0..PROBES {
            let start = (bytes.len() - PROBE_BYTES) / (PROBES - 1) * part;
            self.sample
                .extend_from_slice(&bytes[start..start + PROBE_BYTES]);
        }
        gzip(&mut self.probe, &self.sample, scratch)?;
        Ok(scratch.len() * 100 > self.sample.len() * INCOMPRESSIBLE_PERCENT)
    }
}

fn gzip(compressor: &mut Compressor, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.resize(compressor.gzip_compress_bound(bytes.len()), 0);
    let written = compressor
        .gzip_compress(bytes, out)
        .map_err(|e| io::Error::other(format!("a member cannot be compressed: {e:?}")))?;
    out.truncate(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::GzDecoder;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn squeezed(bytes: &[u8]) -> usize {
        let mut out = Vec::new();
        Squeezer::for_members().squeeze(bytes, &mut out).unwrap();
        let mut back = Vec::new();
        let mut gzip = GzDecoder::new(&out[..]);
        gzip.read_to_end(&mut back).unwrap();
        assert!(back == bytes && gzip.into_inner().is_empty());
        out.len()
    }

    #[test]
    fn noise_is_stored_and_costs_next_to_nothing() {
        let noise = noise(1 << 20);
        let size = squeezed(&noise);
        assert!((noise.len()..noise.len() + 200).contains(&size), "{size}");
    }

    #[test]
    fn text_between_noise_is_compressed() {
        let mut mixed = noise(1 << 20);
        mixed[300_000..1_000_000].fill(b'a');
        assert!(squeezed(&mixed) < 400_000);
    }

    #[test]
    fn little_and_nothing_come_back() {
        for bytes in [&b""[..], b"a", &[7; 100]] {
            squeezed(bytes);
        }
    }
}
