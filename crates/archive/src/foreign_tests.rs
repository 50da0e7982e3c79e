//! Archives that GNU tar, bsdtar and Python write are restored, apart from what these cannot tell.

use std::path::{Path, PathBuf};

use crate::foreign::{make_everything, make_huge, run, seal, verify};
use crate::restore_place::{Place, Tree};
use crate::tree::{Seen, snapshot};
use crate::{Codec, Overwrite};

/// A tool, and how it is called.
struct Writer {
    name: &'static str,
    /// Writes the stream of the directory that it runs in.
    script: &'static str,
    /// Whether the tree has a file of over 8 GiB, which is holes but for some bytes.
    huge: bool,
    /// Whether it ends well.
    is_complete: bool,
    /// Makes of the tree what the tool tells of it.
    tells: fn(&mut Tree),
}

/// bsdtar and its arguments, for entries in the order that the format asks for.
macro_rules! bsdtar {
    ($arguments:literal) => {
        concat!(
            "find . -print0 | sort -z | bsdtar --null -n -T - -cf - ",
            $arguments
        )
    };
}

/// Python and a format, for what it can write of a tree.
macro_rules! python {
    ($format:literal) => {
        concat!(
            "python3 -c '",
            include_str!("foreign_tests.py"),
            "' ",
            $format
        )
    };
}

const WRITERS: [Writer; 15] = [
    Writer {
        name: "GNU tar, pax",
        script: "tar --format=posix --xattrs --acls --sparse --sort=name -cf - .",
        huge: true,
        is_complete: true,
        tells: |_| {},
    },
    Writer {
        name: "GNU tar, pax, ACLs as text alone",
        script: "tar --format=posix --acls --sort=name --pax-option=comment=all -cf - .",
        huge: false,
        is_complete: true,
        tells: |tree| {
            for seen in tree.values_mut() {
                let is_acl = |name: &str| name.starts_with("system.posix_acl");
                seen.xattrs.retain(|name, _| is_acl(name.to_str().unwrap()));
            }
        },
    },
    Writer {
        name: "GNU tar, pax, by default",
        script: "tar --format=posix -cf - .",
        huge: false,
        is_complete: true,
        tells: without_xattrs,
    },
    Writer {
        name: "bsdtar, pax",
        script: bsdtar!("--format=pax"),
        huge: true,
        is_complete: true,
        tells: one_second_early,
    },
    Writer {
        name: "bsdtar, pax where needed",
        script: bsdtar!("--format=paxr --numeric-owner"),
        huge: true,
        is_complete: true,
        tells: |tree| {
            one_second_early(tree);
            fractions_beside_other_records(tree);
        },
    },
    Writer {
        name: "bsdtar, pax, its own form of attributes alone",
        script: bsdtar!("--format=pax --options pax:xattrheader=LIBARCHIVE"),
        huge: false,
        is_complete: true,
        tells: one_second_early,
    },
    Writer {
        name: "Python, pax",
        script: python!("PAX_FORMAT"),
        huge: false,
        is_complete: true,
        tells: |tree| {
            of_python(tree);
            for seen in tree.values_mut() {
                seen.mtime = as_float(seen.mtime);
            }
        },
    },
    Writer {
        name: "GNU tar, its own format",
        script: "tar --format=gnu --sort=name -cf - .",
        huge: false,
        is_complete: true,
        tells: |tree| {
            without_xattrs(tree);
            whole_seconds(tree);
        },
    },
    Writer {
        name: "bsdtar, GNU tar's format",
        script: bsdtar!("--format=gnutar"),
        huge: false,
        is_complete: true,
        tells: |tree| {
            of_bsdtar_without_acls(tree);
            for seen in tree.values_mut() {
                // It has eleven octal digits for a time there.
                seen.mtime.0 = seen.mtime.0.clamp(0, 0o77_777_777_777);
            }
        },
    },
    Writer {
        name: "Python, GNU tar's format",
        script: python!("GNU_FORMAT"),
        huge: false,
        is_complete: true,
        tells: |tree| {
            of_python(tree);
            // Towards 1970.
            let old = tree.get_mut(Path::new("old")).unwrap();
            old.mtime.0 += 1;
            whole_seconds(tree);
        },
    },
    Writer {
        name: "GNU tar, ustar",
        script: "tar --format=ustar --sort=name -cf - .",
        huge: false,
        is_complete: false,
        tells: |tree| {
            without_xattrs(tree);
            in_ustar(tree);
            of_gnu_tar_too_long(tree);
        },
    },
    Writer {
        name: "bsdtar, ustar",
        script: bsdtar!("--format=ustar"),
        huge: false,
        is_complete: true,
        tells: |tree| {
            of_bsdtar_without_acls(tree);
            in_ustar(tree);
            // It keeps a digit of an owner for the end of the field.
            without(tree, &["sized-511", "deep/long link", "zz-long-again"]);
        },
    },
    Writer {
        name: "Python, ustar",
        script: python!("USTAR_FORMAT"),
        huge: false,
        is_complete: false,
        tells: |tree| {
            of_python(tree);
            in_ustar(tree);
            without(tree, &["deep/long link", "zz-long-again"]);
        },
    },
    Writer {
        name: "GNU tar, v7",
        script: "tar --format=v7 --sort=name -cf - .",
        huge: false,
        is_complete: false,
        tells: |tree| {
            without_xattrs(tree);
            in_ustar(tree);
            of_gnu_tar_too_long(tree);
            in_v7(tree);
        },
    },
    Writer {
        name: "bsdtar, v7",
        script: bsdtar!("--format=v7"),
        huge: false,
        is_complete: true,
        tells: |tree| {
            of_bsdtar_without_acls(tree);
            in_ustar(tree);
            in_v7(tree);
            without(tree, &["sized-511", "deep/long link", "zz-long-again"]);
            // And one of names.
            without(tree, &["deep/link of 100", &"e".repeat(98)]);
        },
    },
];

fn without_xattrs(tree: &mut Tree) {
    for seen in tree.values_mut() {
        seen.xattrs.clear();
    }
}

fn whole_seconds(tree: &mut Tree) {
    for seen in tree.values_mut() {
        seen.mtime.1 = 0;
    }
}

/// bsdtar 3.6 writes a second and a fraction before 1970 as if both counted backwards.
fn one_second_early(tree: &mut Tree) {
    tree.get_mut(Path::new("old")).unwrap().mtime.0 -= 1;
}

/// bsdtar writes the rights of the group into the mode, where the mode has those of the ACL's mask.
fn of_bsdtar_without_acls(tree: &mut Tree) {
    without_xattrs(tree);
    whole_seconds(tree);
    let file = tree.get_mut(Path::new("attributes")).unwrap();
    file.mode &= !0o020;
}

/// Python knows no attributes, and no hard links to symbolic links.
fn of_python(tree: &mut Tree) {
    without_xattrs(tree);
    let link = tree.get_mut(Path::new("zz-link-again")).unwrap();
    link.same_as = PathBuf::from("zz-link-again");
}

/// Python's times are floating point numbers, written with as many digits as these need.
fn as_float((seconds, nanoseconds): (i64, i64)) -> (i64, i64) {
    let time = seconds as f64 + nanoseconds as f64 * 1e-9;
    let seconds = time.floor();
    let digits = time.to_string();
    let fraction = digits.split_once('.').map_or("", |(_, fraction)| fraction);
    let fraction = format!("{fraction:0<9}")[..9].parse().unwrap();
    match time < 0.0 && fraction > 0 {
        true => (seconds as i64, 1_000_000_000 - fraction),
        false => (seconds as i64, fraction),
    }
}

fn without(tree: &mut Tree, names: &[&str]) {
    for name in names {
        assert!(tree.remove(Path::new(name)).is_some(), "{name}");
    }
}

/// bsdtar has fractions of a second only where an extended header is needed for something else.
fn fractions_beside_other_records(tree: &mut Tree) {
    for (path, seen) in tree {
        let name = path.to_string_lossy();
        let is_odd = seen.largest_owner() >= 1 << 18 || !seen.xattrs.is_empty() || !name.is_ascii();
        let is_long = name.len() >= 200 || seen.same_as.as_os_str().len() > 200;
        let others = [
            "old",
            "huge",
            "hole",
            "deep/sparse",
            "deep/long link",
            "deep/odd link",
        ];
        if !is_odd && !is_long && !others.contains(&&*name) && name != "future" {
            seen.mtime.1 = 0;
        }
    }
}

/// What has no place in the fields of an ustar header is left out: the tools say so.
fn in_ustar(tree: &mut Tree) {
    whole_seconds(tree);
    without(
        tree,
        &["old", "older", "future", "sized-512", "deep/er/empty"],
    );
    let long = "n".repeat(200);
    tree.retain(|path, _| !path.starts_with(&long));
}

/// Nor are there devices, FIFOs, and paths in two fields.
fn in_v7(tree: &mut Tree) {
    without(tree, &["fifo", "null", "disk"]);
    let split = Path::new(&"a".repeat(80)).join("b".repeat(80));
    tree.retain(|path, _| !path.starts_with(&split));
}

/// GNU tar 1.34 says of a target that is too long that it is not dumped, and writes what fits. The
/// second name of a file whose first is too long becomes the file.
fn of_gnu_tar_too_long(tree: &mut Tree) {
    let link = tree.get_mut(Path::new("deep/long link")).unwrap();
    link.content.truncate(100);
    let file = tree.get_mut(Path::new("zz-long-again")).unwrap();
    file.same_as = PathBuf::from("zz-long-again");
}

/// The first paths that differ, each with what the target has and what was told.
fn differences(found: &Tree, told: &Tree) -> Vec<String> {
    let mut paths: Vec<_> = found.keys().chain(told.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| found.get(*path) != told.get(*path));
    let short = |seen: Option<&Seen>| {
        let mut short = seen.cloned();
        if let Some(seen) = &mut short {
            seen.content.truncate(20);
        }
        format!("{short:?}")
    };
    let lines = paths.iter().take(5).map(|path| {
        let (found, told) = (short(found.get(*path)), short(told.get(*path)));
        format!("{path:?}: {found} but {told}")
    });
    lines.collect()
}

/// Restores what the tool writes of a tree, and gives what is not as it told.
fn restored(writer: &Writer, codec: Codec) -> Vec<String> {
    let make = |root: &Path| {
        if writer.huge {
            make_huge(root);
        }
        make_everything(root);
    };
    let place = Place::written(codec, make, |source| {
        let (tar, ended_well) = run(writer.script, source);
        assert_eq!(ended_well, writer.is_complete, "{}", writer.name);
        seal(codec, &tar)
    });
    verify(codec, &place.archive, &place.index).unwrap();
    assert!(place.plan(Overwrite::Never).bytes > 0);
    place.restore(Overwrite::Never).unwrap();
    let mut told = snapshot(&place.source());
    (writer.tells)(&mut told);
    differences(&snapshot(&place.target()), &told)
}

#[test]
fn what_other_tools_write_is_restored_as_it_was() {
    for (nth, writer) in WRITERS.iter().enumerate() {
        let differ = restored(writer, Codec::ALL[nth % 2]);
        assert!(differ.is_empty(), "{}: {differ:#?}", writer.name);
    }
}
