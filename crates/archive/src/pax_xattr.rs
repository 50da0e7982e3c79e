//! Extended attributes and ACLs in an extended header, in each of the forms that tools write.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::acl::Acl;
use crate::error::shown;
use crate::xattr::{ACL, DEFAULT_ACL, Xattrs, is_kept};

/// Prefix of the form that this writer, GNU tar and bsdtar write.
const PREFIX: &[u8] = b"SCHILY.xattr.";
/// Prefix of the form that bsdtar writes before each of the other one, in Base64.
const LIBARCHIVE_PREFIX: &[u8] = b"LIBARCHIVE.xattr.";
/// ACLs as text.
const TEXT_ACL: &[u8] = b"SCHILY.acl.access";
const TEXT_DEFAULT_ACL: &[u8] = b"SCHILY.acl.default";

/// Bytes of all keys together: the kernel's list of names has 64 KiB, an escaped byte takes three,
/// and each may come in two forms and has a prefix.
const MAX_NAMES_BYTES: usize = 1 << 20;
/// Bytes of an ACL as text: the kernel's form has 8 bytes for each entry, in 64 KiB.
const MAX_ACL_BYTES: usize = 1 << 20;

/// The key of an attribute.
pub(crate) fn key_of(name: &[u8]) -> Vec<u8> {
    [PREFIX, &escape_name(name)].concat()
}

/// What an extended header tells of attributes, as it is found there.
#[derive(Default)]
pub(crate) struct FoundXattrs<'h> {
    plain: Vec<(&'h [u8], &'h [u8])>,
    libarchive: Xattrs,
    acl: Option<&'h [u8]>,
    default_acl: Option<&'h [u8]>,
    /// Bytes of all names.
    names: usize,
}

impl<'h> FoundXattrs<'h> {
    /// Takes a record; false when it tells nothing of attributes.
    pub(crate) fn take(&mut self, key: &'h [u8], value: &'h [u8]) -> Result<bool, String> {
        match key {
            TEXT_ACL => once(&mut self.acl, key, value)?,
            TEXT_DEFAULT_ACL => once(&mut self.default_acl, key, value)?,
            _ => {
                self.names += key.len();
                if self.names > MAX_NAMES_BYTES {
                    return Err("more extended attributes than a file can have".to_owned());
                }
                if let Some(name) = key.strip_prefix(PREFIX) {
                    self.plain.push((name, value));
                } else if let Some(name) = key.strip_prefix(LIBARCHIVE_PREFIX) {
                    let name = unescape_name(name, |_| true).ok_or_else(|| bad(key))?;
                    let value = STANDARD_NO_PAD.decode(value).map_err(|_| bad(key))?;
                    self.libarchive.push((name, value));
                } else {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The attributes, and the permissions of the mode where an ACL as text tells them.
    pub(crate) fn finish(self) -> Result<(Xattrs, Option<u32>), String> {
        let mut xattrs = self.libarchive;
        if xattrs.is_empty() {
            for (name, value) in self.plain {
                let is_escape = |digits: &[u8]| matches!(digits, b"25" | b"3D");
                let name = unescape_name(name, is_escape).ok_or_else(|| bad(name))?;
                xattrs.push((name, value.to_vec()));
            }
        } else if !self.plain.is_empty() {
            let mut both = xattrs.iter().zip(&self.plain);
            let is_same = xattrs.len() == self.plain.len()
                && both
                    .all(|((name, value), (plain, other))| value == other && is_name(plain, name));
            if !is_same {
                return Err("extended attributes in two forms that differ".to_owned());
            }
        }
        check(&xattrs)?;
        let mut permissions = None;
        for (name, text) in [(ACL, self.acl), (DEFAULT_ACL, self.default_acl)] {
            // The kernel's own form needs no names.
            let Some(text) = text.filter(|_| !xattrs.iter().any(|(other, _)| other == name)) else {
                continue;
            };
            let acl = Acl::parse(text)?;
            if name == ACL {
                // bsdtar writes the bits of the group where the mode has those of the mask.
                permissions = Some(acl.permissions());
            }
            if name == DEFAULT_ACL || !acl.is_mode() {
                xattrs.push((name.to_vec(), acl.encode()));
            }
        }
        Ok((xattrs, permissions))
    }
}

/// Whether it is the plain form of a name: how much of it is escaped depends on the version of bsdtar.
fn is_name(mut plain: &[u8], name: &[u8]) -> bool {
    let mut out = Vec::with_capacity(plain.len());
    let raw = plain;
    while let Some((first, rest)) = plain.split_first() {
        let digits = rest.get(..2).filter(|_| *first == b'%');
        match digits.and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                out.extend(byte);
                plain = &rest[2..];
            }
            None => {
                out.push(*first);
                plain = rest;
            }
        }
    }
    raw == name || out == name
}

/// Keeps an ACL as text, which comes once and is no longer than any that a file can have.
fn once<'h>(slot: &mut Option<&'h [u8]>, key: &[u8], value: &'h [u8]) -> Result<(), String> {
    if slot.is_some() || value.len() > MAX_ACL_BYTES {
        return Err(bad(key));
    }
    *slot = Some(value);
    Ok(())
}

/// Refuses attributes that are not kept, or come twice.
fn check(xattrs: &Xattrs) -> Result<(), String> {
    let mut names: Vec<_> = xattrs.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    if let Some(name) = names.iter().find(|name| !is_kept(name)) {
        return Err(format!(
            "the extended attribute {:?}, which is not kept; an archive must be written without it",
            shown(name)
        ));
    }
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!(
            "the extended attribute {:?} twice",
            shown(twice[0])
        ));
    }
    Ok(())
}

fn bad(key: &[u8]) -> String {
    format!("the malformed extended attribute {:?}", shown(key))
}

/// A record's key ends at the first `=`, so GNU tar writes `=` and `%` in names as `%3D`, `%25`.
fn escape_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => out.extend_from_slice(b"%25"),
            b'=' => out.extend_from_slice(b"%3D"),
            other => out.push(*other),
        }
    }
    out
}

/// The name with the bytes that stand as `%` and two digits; none when they are not such digits.
fn unescape_name(mut name: &[u8], is_escape: fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len());
    while let Some((first, rest)) = name.split_first() {
        name = rest;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, rest) = name.split_at_checked(2)?;
        if !is_escape(digits) {
            return None;
        }
        out.extend(hex::decode(digits).ok()?);
        name = rest;
    }
    (!out.is_empty() && !out.contains(&0)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = Result<(Xattrs, Option<u32>), String>;

    fn told(records: &[(&str, &[u8])]) -> Told {
        let mut found = FoundXattrs::default();
        for (key, value) in records {
            assert!(found.take(key.as_bytes(), value)?, "{key}");
        }
        found.finish()
    }

    #[test]
    fn a_name_in_two_forms_is_that_of_the_one_that_is_clear() {
        let records = [
            ("LIBARCHIVE.xattr.user.a%3D%C3%BC%25", &b"dgAKPXc"[..]),
            ("SCHILY.xattr.user.a=%C3%BC%", b"v\0\n=w"),
        ];
        let name = "user.a=ü%".as_bytes().to_vec();
        let expected = (vec![(name, b"v\0\n=w".to_vec())], None);
        assert_eq!(told(&records), Ok(expected.clone()));
        assert_eq!(told(&records[..1]), Ok(expected));
    }

    #[test]
    fn two_forms_that_differ_are_refused() {
        let one = ("LIBARCHIVE.xattr.user.a", &b"dg"[..]);
        let other: [&[(&str, &[u8])]; 3] = [
            &[("SCHILY.xattr.user.a", b"w")],
            &[("SCHILY.xattr.user.b", b"v")],
            &[("SCHILY.xattr.user.a", b"v"), ("SCHILY.xattr.user.b", b"v")],
        ];
        for other in other {
            let said = told(&[&[one], other].concat()).unwrap_err();
            assert!(said.contains("differ"), "{said}");
        }
        for bad in [
            ("LIBARCHIVE.xattr.user.a%", &b"dg"[..]),
            ("LIBARCHIVE.xattr.user.a%0", b"dg"),
            ("LIBARCHIVE.xattr.user.a%00", b"dg"),
            ("LIBARCHIVE.xattr.user.a%xx", b"dg"),
            ("LIBARCHIVE.xattr.", b"dg"),
            ("LIBARCHIVE.xattr.user.a", b"dg=="),
            ("SCHILY.xattr.user.50%", b"v"),
            ("SCHILY.xattr.user.%C3", b"v"),
        ] {
            let said = told(&[bad]).unwrap_err();
            assert!(said.contains("malformed"), "{said}");
        }
        let said = told(&[("LIBARCHIVE.xattr.trusted.a", b"dg")]).unwrap_err();
        assert!(said.contains("not kept"), "{said}");
    }

    #[test]
    fn an_acl_as_text_is_kept_where_there_is_no_other() {
        let text = &b"user::rw-,group::---,group:7:rwx,mask::r--,other::---"[..];
        let (xattrs, permissions) = told(&[("SCHILY.acl.access", text)]).unwrap();
        let acl = Acl::parse(text).unwrap().encode();
        assert_eq!(
            (xattrs, permissions),
            (vec![(ACL.to_vec(), acl)], Some(0o640))
        );
        let (xattrs, permissions) = told(&[("SCHILY.acl.default", text)]).unwrap();
        assert_eq!((&xattrs[0].0[..], permissions), (DEFAULT_ACL, None));
        // What the mode says is no ACL, but a default one is.
        let mode = &b"user::rw-\ngroup::r--\nother::---\n"[..];
        let none = told(&[("SCHILY.acl.access", mode)]);
        assert_eq!(none, Ok((Vec::new(), Some(0o640))));
        let twice = ("SCHILY.acl.access", mode);
        assert!(told(&[twice, twice]).is_err());
        let long = b":".repeat(MAX_ACL_BYTES + 1);
        assert!(told(&[("SCHILY.acl.access", &long)]).is_err());
        assert_eq!(told(&[("SCHILY.acl.default", mode)]).unwrap().0.len(), 1);
    }

    #[test]
    fn an_acl_with_names_is_taken_from_the_form_that_has_none() {
        let text = &b"user::rw-,user:ann:r--,group::r--,mask::r--,other::r--"[..];
        let kernel = ("SCHILY.xattr.system.posix_acl_access", &b"acl"[..]);
        let both = told(&[("SCHILY.acl.access", text), kernel]);
        assert_eq!(both, Ok((vec![(ACL.to_vec(), b"acl".to_vec())], None)));
        assert!(told(&[("SCHILY.acl.access", text)]).is_err());
    }

    #[test]
    fn names_beyond_any_list_of_the_kernel_are_refused() {
        let mut found = FoundXattrs::default();
        let taken = (0..1 << 20).find(|_| found.take(b"SCHILY.xattr.user.a", b"").is_err());
        assert_eq!(taken, Some(MAX_NAMES_BYTES / b"SCHILY.xattr.user.a".len()));
    }

    #[test]
    fn what_tells_nothing_of_attributes_is_left() {
        let mut found = FoundXattrs::default();
        for key in ["path", "SCHILY.acl.ace", "SCHILY.acl.", "SCHILY.fflags"] {
            assert_eq!(found.take(key.as_bytes(), b"x"), Ok(false));
        }
    }
}
