//! ACLs as text, which GNU tar and bsdtar write beside the kernel's form or instead of it.

use crate::error::shown;
use crate::pax::parse;

/// Version of the kernel's form (source: linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
/// Whom an entry is for (source: linux/posix_acl.h).
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The ID of an entry that is for no user or group by name.
const NO_ID: u32 = u32::MAX;

/// One line of an ACL, ordered as the kernel wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AclEntry {
    tag: u16,
    id: u32,
    permissions: u16,
}

/// A POSIX ACL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<AclEntry>);

impl Acl {
    /// Reads `user::rw-,user:1234:r--,mask::r--,…`, with commas or line ends, in any order. bsdtar
    /// puts the ID behind an entry that has a name.
    ///
    /// # Errors
    /// What is wrong with it, in words. A name without an ID is an error: whose name it is only the
    /// machine knows that it comes from.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let lines = text.split(|b| matches!(b, b',' | b'\n'));
        let lines = lines.filter(|line| !line.is_empty());
        let mut entries = lines.map(entry).collect::<Result<Vec<_>, _>>()?;
        entries.sort_unstable();
        let acl = Self(entries);
        let one = |tag| acl.0.iter().filter(|entry| entry.tag == tag).count() == 1;
        let has_named = acl.0.iter().any(|entry| entry.id != NO_ID);
        let mut pairs = acl.0.windows(2);
        let is_whole = [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(one)
            && (one(MASK) || !has_named)
            && pairs.all(|two| (two[0].tag, two[0].id) != (two[1].tag, two[1].id));
        is_whole
            .then_some(acl)
            .ok_or_else(|| format!("an ACL that is not whole: {}", shown(text)))
    }

    /// The kernel's form, as the extended attribute has it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend_from_slice(&entry.tag.to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&entry.id.to_le_bytes());
        }
        bytes
    }

    /// Whether it says no more than a file's mode does.
    pub(crate) fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The permissions that the mode of its file has.
    pub(crate) fn permissions(&self) -> u32 {
        let of = |tag| self.0.iter().find(|entry| entry.tag == tag);
        let group = of(MASK).or_else(|| of(GROUP_OBJ));
        let all = [of(USER_OBJ), group, of(OTHER)];
        let bits = all.map(|entry| entry.map_or(0, |entry| u32::from(entry.permissions)));
        bits[0] << 6 | bits[1] << 3 | bits[2]
    }
}

fn entry(line: &[u8]) -> Result<AclEntry, String> {
    let bad = || format!("an ACL with {:?}", shown(line));
    let text = std::str::from_utf8(line).map_err(|_| bad())?;
    let parts: Vec<&str> = text.splitn(5, ':').collect();
    let (kind, name, permissions, told) = match parts[..] {
        [kind, name, permissions] => (kind, name, permissions, None),
        [kind, name, permissions, id] => (kind, name, permissions, Some(id)),
        _ => return Err(bad()),
    };
    let tag = match (kind, name.is_empty()) {
        ("user", true) => USER_OBJ,
        ("user", false) => USER,
        ("group", true) => GROUP_OBJ,
        ("group", false) => GROUP,
        ("mask", true) => MASK,
        ("other", true) => OTHER,
        _ => return Err(bad()),
    };
    let id = match (name, told) {
        ("", None) => NO_ID,
        ("", Some(_)) => return Err(bad()),
        (name, told) => {
            let id = parse(Ok(told.unwrap_or(name))).filter(|id| *id != NO_ID);
            id.ok_or_else(|| {
                format!(
                    "an ACL for the {kind} {:?}, a name that means nothing elsewhere; GNU tar \
                     writes numbers as well with --xattrs",
                    shown(name.as_bytes())
                )
            })?
        }
    };
    let permissions = bits(permissions).ok_or_else(bad)?;
    Ok(AclEntry {
        tag,
        id,
        permissions,
    })
}

/// `r-x` as a number.
fn bits(text: &str) -> Option<u16> {
    let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
    let mut bits = 0;
    for (byte, set) in bytes.into_iter().zip(*b"rwx") {
        bits = bits << 1 | u16::from(byte == set);
        if byte != set && byte != b'-' {
            return None;
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: &[u8] =
        b"user::rw-\nuser:1234:rw-\nuser:1:r--\ngroup::r--\ngroup:99:--x\nmask::rw-\nother::r--\n\n";

    #[test]
    fn text_becomes_the_form_of_the_kernel_in_its_order() {
        let acl = Acl::parse(NAMED).unwrap();
        let line = |tag: u8, bits: u8, id: u32| {
            let mut line = vec![tag, 0, bits, 0];
            line.extend_from_slice(&id.to_le_bytes());
            line
        };
        let expected = [
            vec![2, 0, 0, 0],
            line(1, 6, u32::MAX),
            line(2, 4, 1),
            line(2, 6, 1234),
            line(4, 4, u32::MAX),
            line(8, 1, 99),
            line(16, 6, u32::MAX),
            line(32, 4, u32::MAX),
        ];
        assert_eq!(acl.encode(), expected.concat());
        assert_eq!((acl.permissions(), acl.is_mode()), (0o664, false));
        let bsdtar = b"user::rw-,group::r--,other::r--,user:daemon:r--:1,user:1234:rw-,\
                       group:99:--x,mask::rw-";
        assert_eq!(Acl::parse(bsdtar).unwrap(), acl);
        let plain = Acl::parse(b"user::rwx,group::r-x,other::--x").unwrap();
        assert_eq!((plain.permissions(), plain.is_mode()), (0o751, true));
    }

    #[test]
    fn a_name_alone_is_refused_by_name() {
        let text = b"user::rw-,user:ann\x1b:r--,group::r--,mask::r--,other::r--";
        let said = Acl::parse(text).unwrap_err();
        assert!(said.contains("the user \"ann"), "{said}");
        assert!(said.contains("--xattrs"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn an_acl_that_means_nothing_is_refused() {
        for bad in [
            &b""[..],
            b"user::rw-,group::r--",
            b"user::rw-,group::r--,other::r--,user:5:r--",
            b"user::rw-,group::r--,other::r--,other::r--",
            b"user::rw-,group::r--,other::r--,mask::r--,user:5:r--,user:5:r--",
            b"user::rw-,group::r--,other:4:r--",
            b"user::rw-,group::r--,other::r--:4",
            b"user::rw-,group::r--,other::r",
            b"user::rw-,group::r--,other::rxw",
            b"user::rw-,group::r--,mask::r--,user:4294967295:r--,other::r--",
            b"user::rw-,group::r--,mask::r--,user:+5:r--,other::r--",
            b"user::rw-,group::r--,other::r--,default::r--",
            b"owner@:rw-------------:-------:allow",
            b"user::rw-,group::r--,\xff::r--",
        ] {
            assert!(Acl::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
