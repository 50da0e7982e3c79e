//! Extended header records (POSIX pax): what does not fit a tar header.

use crate::meta::Time;
use crate::pax_xattr::{FoundXattrs, key_of};
use crate::xattr::Xattrs;

/// Prefix of the records of files with holes.
const SPARSE_PREFIX: &[u8] = b"GNU.sparse.";
/// Keys of what is not kept, which other tools write: further times, names of owners, inode flags.
const NOT_KEPT: [&[u8]; 8] = [
    b"atime",
    b"ctime",
    b"comment",
    b"gname",
    b"hdrcharset",
    b"uname",
    b"LIBARCHIVE.creationtime",
    b"SCHILY.fflags",
];

/// Values that override or complete a tar header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PaxRecords {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<Time>,
    /// Name and size of a file with holes (source: GNU tar manual, "PAX Format, Version 1.0").
    pub(crate) sparse: Option<(Vec<u8>, u64)>,
    pub(crate) xattrs: Xattrs,
    /// Of the mode, where an ACL as text tells them; never written.
    pub(crate) permissions: Option<u32>,
}

/// Appends `<length> <key>=<value>\n`, where the length counts itself.
fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

impl PaxRecords {
    /// The records as the content of an extended header; empty when there are none.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let number = |n: u64| n.to_string().into_bytes();
        let values = [
            (&b"path"[..], self.path.clone()),
            (b"linkpath", self.link.clone()),
            (b"size", self.size.map(number)),
            (b"uid", self.uid.map(|id| number(id.into()))),
            (b"gid", self.gid.map(|id| number(id.into()))),
            (b"mtime", self.mtime.map(|time| encode_time(time).into())),
        ];
        for (key, value) in values {
            if let Some(value) = value {
                push_record(&mut out, key, &value);
            }
        }
        if let Some((name, size)) = &self.sparse {
            push_record(&mut out, b"GNU.sparse.major", b"1");
            push_record(&mut out, b"GNU.sparse.minor", b"0");
            push_record(&mut out, b"GNU.sparse.name", name);
            push_record(&mut out, b"GNU.sparse.realsize", &number(*size));
        }
        for (name, value) in &self.xattrs {
            push_record(&mut out, &key_of(name), value);
        }
        out
    }

    /// Reads the content of an extended header.
    ///
    /// # Errors
    /// What is wrong with it, in words. A key that this reader does not know is an error: the
    /// format names all keys, and an unknown one could change what the entry means.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let mut records = Self::default();
        let mut sparse = SparseRecords::default();
        let mut xattrs = FoundXattrs::default();
        while !bytes.is_empty() {
            let (key, value, rest) = split_record(bytes).ok_or("a malformed extended header")?;
            bytes = rest;
            match key.strip_prefix(SPARSE_PREFIX) {
                Some(key) => sparse.take(key, value)?,
                None if xattrs.take(key, value)? => {}
                None => records.take(key, value)?,
            }
        }
        records.sparse = sparse.finish()?;
        (records.xattrs, records.permissions) = xattrs.finish()?;
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let bad = || {
            let key = key.escape_ascii();
            let value = value[..value.len().min(64)].escape_ascii();
            format!("the extended header value {key}={value}")
        };
        let text = std::str::from_utf8(value);
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(parse(text).ok_or_else(bad)?),
            b"uid" => self.uid = Some(parse(text).filter(is_id).ok_or_else(bad)?),
            b"gid" => self.gid = Some(parse(text).filter(is_id).ok_or_else(bad)?),
            b"mtime" => {
                self.mtime = Some(text.ok().and_then(decode_time).ok_or_else(bad)?);
            }
            _ if NOT_KEPT.contains(&key) => {}
            _ => {
                let bad = bad();
                return Err(format!("{bad}, which may change what the entry means"));
            }
        }
        Ok(())
    }
}

/// What the records tell of a file with holes.
#[derive(Default)]
struct SparseRecords {
    major: bool,
    minor: bool,
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl SparseRecords {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match (key, value) {
            (b"major", b"1") => self.major = true,
            (b"minor", b"0") => self.minor = true,
            (b"name", _) => self.name = Some(value.to_vec()),
            (b"realsize", _) => self.size = parse(std::str::from_utf8(value)),
            _ => {
                let key = key.escape_ascii();
                return Err(format!(
                    "an unknown form of files with holes, GNU.sparse.{key}; GNU tar writes the known \
                     one with --format=posix --sparse-version=1.0"
                ));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<(Vec<u8>, u64)>, String> {
        match (self.major, self.minor, self.name, self.size) {
            (false, false, None, None) => Ok(None),
            (true, true, Some(name), Some(size)) => Ok(Some((name, size))),
            _ => Err("a file with holes that is not told in full".to_owned()),
        }
    }
}

/// Whether it is the number of an owner: to the kernel, the largest one means that none is told.
pub(crate) fn is_id(id: &u32) -> bool {
    *id != u32::MAX
}

/// Digits and nothing else: no sign, no space.
pub(crate) fn parse<T: std::str::FromStr>(text: Result<&str, std::str::Utf8Error>) -> Option<T> {
    let text = text.ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Key, value and what follows of the first record.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = parse(std::str::from_utf8(&bytes[..space]))?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// Decimal seconds, with a fraction where there is one: `-1.5` is half a second before -1.
pub(crate) fn encode_time(time: Time) -> String {
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (whole, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    format!("{sign}{whole}.{fraction:09}")
}

/// Reads decimal seconds; digits beyond the ninth are cut.
fn decode_time(text: &str) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let padded = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction));
    let magnitude = whole
        .parse::<i128>()
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(padded.parse().ok()?)?;
    let nanos = if negative { -magnitude } else { magnitude };
    Some(Time {
        seconds: i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?,
        nanoseconds: u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let mut out = Vec::new();
        push_record(&mut out, b"path", b"a");
        assert_eq!(out, b"9 path=a\n");
        for length in 0..1100 {
            out.clear();
            push_record(&mut out, b"path", &vec![b'x'; length]);
            let digits = out.iter().position(|b| *b == b' ').unwrap();
            let told: usize = String::from_utf8_lossy(&out[..digits]).parse().unwrap();
            assert_eq!(told, out.len());
        }
    }

    #[test]
    fn an_attribute_that_is_not_kept_or_comes_twice_is_refused() {
        let decoded = |names: &[&[u8]]| {
            let xattrs = names.iter().map(|name| (name.to_vec(), vec![0])).collect();
            let records = PaxRecords {
                xattrs,
                ..PaxRecords::default()
            };
            PaxRecords::decode(&records.encode())
        };
        assert!(decoded(&[b"user.a", b"system.posix_acl_access"]).is_ok());
        for name in [&b"trusted.\x1b"[..], b"security.selinux", b"a"] {
            let said = decoded(&[name]).unwrap_err();
            assert!(said.contains("not kept"), "{said}");
            assert!(!said.contains('\u{1b}'), "{said}");
        }
        let said = decoded(&[b"user.a", b"user.b", b"user.a"]).unwrap_err();
        assert!(said.contains("twice"), "{said}");
    }

    #[test]
    fn a_number_is_digits_alone() {
        let decoded = |value: &[u8]| {
            let mut out = Vec::new();
            push_record(&mut out, b"uid", value);
            PaxRecords::decode(&out).map(|records| records.uid)
        };
        assert_eq!(decoded(b"17"), Ok(Some(17)));
        for value in [&b"+17"[..], b"-17", b" 17", b"17 ", b"0x17", b""] {
            assert!(decoded(value).is_err(), "{}", value.escape_ascii());
        }
        assert!(PaxRecords::decode(b"+9 uid=17\n").is_err());
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let time = |seconds, nanoseconds| Time {
            seconds,
            nanoseconds,
        };
        assert_eq!(encode_time(time(-2, 500_000_000)), "-1.500000000");
        assert_eq!(decode_time("-1.5"), Some(time(-2, 500_000_000)));
        assert_eq!(decode_time("-0.000000001"), Some(time(-1, 999_999_999)));
        assert_eq!(decode_time("1.0000000019"), Some(time(1, 1)));
        for bad in [
            "",
            "-",
            ".5",
            "1e3",
            "--1",
            "1.-5",
            "99999999999999999999999",
        ] {
            assert_eq!(decode_time(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn records_read_back_as_written(
            path in proptest::option::of(proptest::collection::vec(1u8.., 1..300)),
            size in proptest::option::of(any::<u64>()),
            uid in proptest::option::of(any::<u32>()),
            mtime in proptest::option::of((any::<i64>(), 0u32..1_000_000_000)),
            sparse in proptest::option::of((proptest::collection::vec(1u8.., 1..300), any::<u64>())),
            xattrs in proptest::collection::btree_map(
                proptest::collection::vec(1u8.., 1..40),
                proptest::collection::vec(any::<u8>(), 0..99),
                0..4,
            ),
        ) {
            let records = PaxRecords {
                path,
                size,
                uid,
                sparse,
                mtime: mtime.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds }),
                xattrs: xattrs
                    .into_iter()
                    .map(|(name, value)| ([b"user.", &name[..]].concat(), value))
                    .collect(),
                ..PaxRecords::default()
            };
            prop_assert_eq!(PaxRecords::decode(&records.encode()).unwrap(), records);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PaxRecords::decode(&bytes);
        }
    }
}
