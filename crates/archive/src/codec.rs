//! How members are compressed, and how much of the tar stream goes into one.

mod gzip;
mod zstd;

use std::io;

use serde::{Deserialize, Serialize};

/// How the members of an archive are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// A gzip member for each.
    Gzip,
    /// A zstd frame for each.
    Zstd,
}

impl Codec {
    /// Every codec that this build writes and reads.
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// How much of the tar stream becomes one member.
    ///
    /// zstd looks back further than gzip, so a cut costs it more: members of 1.5 MiB make an
    /// archive of source code 10 % larger than one stream, those of 5 MiB less than 2 %.
    pub(crate) fn piece_size(self) -> PieceSize {
        match self {
            Self::Gzip => PieceSize {
                target_bytes: 1 << 20,
                largest_bytes: 3 << 19,
            },
            Self::Zstd => PieceSize {
                target_bytes: 9 << 19,
                largest_bytes: 5 << 20,
            },
        }
    }

    /// What a member of `compressed` bytes holds, when that is exactly `size` bytes.
    ///
    /// # Guarantees
    /// It takes no more memory than `size` and some fixed 200 KiB, whatever `compressed` claims.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn expand(self, compressed: &[u8], size: usize) -> Result<Vec<u8>, String> {
        match self {
            Self::Gzip => gzip::expand(compressed, size),
            Self::Zstd => zstd::expand(compressed, size),
        }
    }
}

/// What is wrong with a member that holds another number of bytes than its index promises.
const OTHER_SIZE: &str = "it holds more or less than the index says";

/// What is wrong with a member that is none.
fn not_expanded(why: impl std::fmt::Display) -> String {
    format!("it does not decompress: {why}")
}

/// Bounds of the pieces that the tar stream is cut into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PieceSize {
    /// What the entries that are read together come to, as far as that is known before.
    pub(crate) target_bytes: usize,
    /// A piece that holds this much is cut off, also inside an entry. Only the headers of a single
    /// entry can make it larger.
    pub(crate) largest_bytes: usize,
}

/// Compresses members one after the other, with the memory of one compressor.
pub(crate) enum Squeezer {
    /// Makes gzip members.
    Gzip(gzip::Squeezer),
    /// Makes zstd frames.
    Zstd(zstd::Squeezer),
}

impl Squeezer {
    /// For members of an archive.
    pub(crate) fn for_members(codec: Codec) -> io::Result<Self> {
        Ok(match codec {
            Codec::Gzip => Self::Gzip(gzip::Squeezer::for_members()),
            Codec::Zstd => Self::Zstd(zstd::Squeezer::new()?),
        })
    }

    /// For the lines of an index, which is gzipped whatever the archive is.
    pub(crate) fn for_index() -> Self {
        Self::Gzip(gzip::Squeezer::for_index())
    }

    /// Puts one member that holds `bytes` in their place; what does not compress grows by next to
    /// nothing.
    pub(crate) fn squeeze(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.squeeze(bytes),
            Self::Zstd(zstd) => zstd.squeeze(bytes),
        }
    }
}

fn not_squeezed(why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("a member cannot be compressed: {why}"))
}

#[cfg(test)]
mod tests {
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

    fn member(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        let mut member = bytes.to_vec();
        let mut squeezer = Squeezer::for_members(codec).unwrap();
        squeezer.squeeze(&mut member).unwrap();
        member
    }

    fn squeezed(codec: Codec, bytes: &[u8]) -> usize {
        let member = member(codec, bytes);
        assert!(codec.expand(&member, bytes.len()).unwrap() == bytes);
        member.len()
    }

    #[test]
    fn noise_is_stored_and_costs_next_to_nothing() {
        for codec in Codec::ALL {
            for length in [1 << 20, codec.piece_size().largest_bytes, 7_654_321] {
                let noise = noise(length);
                let size = squeezed(codec, &noise);
                let limit = length + 200 + length / 10_000;
                assert!((length..limit).contains(&size), "{codec:?}: {size}");
            }
        }
    }

    #[test]
    fn text_between_noise_is_compressed() {
        for codec in Codec::ALL {
            let mut mixed = noise(1 << 20);
            mixed[300_000..1_000_000].fill(b'a');
            assert!(squeezed(codec, &mixed) < 400_000);
        }
    }

    #[test]
    fn little_and_nothing_come_back() {
        for codec in Codec::ALL {
            for bytes in [&b""[..], b"a", &[7; 100], &vec![0; 6 << 20]] {
                squeezed(codec, bytes);
            }
        }
    }

    #[test]
    fn one_squeezer_makes_members_that_do_not_need_each_other() {
        for codec in Codec::ALL {
            let mut squeezer = Squeezer::for_members(codec).unwrap();
            for length in [3_000_000, 10, 0, 1 << 17, 5 << 20, 100_000] {
                let mut bytes = noise(length / 2);
                bytes.extend(vec![b'x'; length - length / 2]);
                let mut member = bytes.clone();
                squeezer.squeeze(&mut member).unwrap();
                assert!(codec.expand(&member, length).unwrap() == bytes);
            }
        }
    }

    #[test]
    fn what_is_not_exactly_one_member_of_the_promised_size_is_refused() {
        let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &[3, 0, 0, 0], b"abc"].concat();
        for codec in Codec::ALL {
            let bytes = noise(5_000);
            let sound = member(codec, &bytes);
            let refused = |member: &[u8], size| codec.expand(member, size).unwrap_err();
            for size in [0, 1, 4_999, 5_001, 8 << 20] {
                assert_eq!(refused(&sound, size), OTHER_SIZE, "{codec:?}: {size}");
            }
            let nothing = member(codec, b"");
            for more in [&b"\0"[..], &sound, &nothing, &skippable] {
                refused(&[&sound, more].concat(), 5_000);
                refused(&[more, &sound].concat(), 5_000);
                refused(&[&sound, more].concat(), 10_000);
            }
            for length in 0..sound.len() {
                refused(&sound[..length], 5_000);
            }
        }
        for codec in Codec::ALL {
            let said = codec.expand(&skippable, 0).unwrap_err();
            assert!(said.contains("does not decompress"), "{said}");
            let said = codec.expand(b"", 0).unwrap_err();
            assert!(said.contains("does not decompress"), "{said}");
        }
    }
}
