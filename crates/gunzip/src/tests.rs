//! Compared with another decoder.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use crate::{Gunzip, NotOneMember};

fn gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(level));
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

fn gunzip(member: &[u8], size: usize) -> Result<Vec<u8>, NotOneMember> {
    let mut content = vec![0; size];
    Gunzip::new()?.member(member, &mut content)?;
    Ok(content)
}

/// What another decoder says of the same: the content, if it is one member of that size.
fn other(member: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let mut gzip = GzDecoder::new(member);
    let mut most = (&mut gzip).take(size as u64 + 1);
    most.read_to_end(&mut content).ok()?;
    (content.len() == size && gzip.into_inner().is_empty()).then_some(content)
}

#[test]
fn what_follows_a_member_is_told() {
    let sound = gzip(b"content", 6);
    assert_eq!(gunzip(&sound, 7).unwrap(), b"content");
    let twice = [&sound[..], &sound].concat();
    assert_eq!(gunzip(&twice, 7), Err(NotOneMember::Followed(sound.len())));
    for size in [0, 6, 8, 14] {
        assert_eq!(gunzip(&sound, size), Err(NotOneMember::OtherSize));
        assert_eq!(gunzip(&twice, size), Err(NotOneMember::OtherSize));
    }
    assert_eq!(gunzip(b"", 0), Err(NotOneMember::Damaged));
}

#[test]
fn one_decompressor_takes_members_that_come_after_damaged_ones() {
    let mut gunzip = Gunzip::new().unwrap();
    let sound = gzip(&[b'a'; 100_000], 6);
    let mut content = vec![0; 100_000];
    for length in 0..sound.len() {
        assert!(gunzip.member(&sound[..length], &mut content).is_err());
        gunzip.member(&sound, &mut content).unwrap();
    }
    assert!(content.iter().all(|byte| *byte == b'a'));
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::collection::vec(prop::sample::select(b"abcd \n".to_vec()), 0..5_000);
    let noise = prop::collection::vec(any::<u8>(), 0..3_000);
    prop_oneof![
        text,
        noise,
        (0..200_000_usize).prop_map(|length| vec![7; length])
    ]
}

proptest! {
    #[test]
    fn members_come_back(content in content(), level in 0..10_u32) {
        let member = gzip(&content, level);
        prop_assert!(gunzip(&member, content.len()) == Ok(content));
    }

    /// Damage anywhere is seen by both or by neither: a flipped bit of the time in the header
    /// changes nothing.
    #[test]
    fn damaged_members_mean_what_they_mean_to_another_decoder(
        content in content(),
        at in any::<prop::sample::Index>(),
        flipped in 1..=255_u8,
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut member = gzip(&content, 6);
        let at = at.index(member.len());
        member[at] ^= flipped;
        if is_cut {
            member.truncate(cut.index(member.len()));
        }
        // What the flags of the header promise is read a little otherwise by each decoder.
        prop_assume!(at != 3);
        prop_assert_eq!(gunzip(&member, content.len()).ok(), other(&member, content.len()));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2_000), size in 0..5_000_usize) {
        let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        member.extend(&bytes);
        prop_assert_eq!(gunzip(&member, size).ok(), other(&member, size));
        prop_assert_eq!(gunzip(&bytes, size).ok(), other(&bytes, size));
    }
}
