//! The files of the toolbox image, taken from this machine's Debian packages.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::oci::Files;
use crate::run;

/// Packages whose programs the image carries, with the libraries they need.
const PACKAGES: &[&str] = &[
    "acl",
    "attr",
    "coreutils",
    "diffutils",
    "findutils",
    "sqlite3",
    "tar",
];
const BUSYBOX: &str = "usr/bin/busybox";

/// Adds busybox with a link for each applet, and the packages' programs.
pub fn fill(files: &mut Files) -> Result<()> {
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        files.link(link, target);
        files.folder(target, 0o755);
    }
    let mut libraries = BTreeSet::new();
    for package in PACKAGES {
        for path in programs_of(package)? {
            add_program(files, &path, &mut libraries)?;
        }
    }
    for library in libraries {
        files.copy(&inner(&library), 0o755, Path::new(&library))?;
    }
    files.copy(BUSYBOX, 0o755, Path::new("/bin/busybox"))?;
    let applets = run::output(&mut run::command("/bin/busybox", ["--list"]))?;
    for applet in applets.lines() {
        let path = format!("usr/bin/{applet}");
        if !files.has(&path) {
            files.link(&path, "busybox");
        }
    }
    files.folder("root", 0o700);
    Ok(())
}

fn programs_of(package: &str) -> Result<Vec<String>> {
    let list = run::output(&mut run::command("dpkg-query", ["--listfiles", package]))?;
    Ok(list
        .lines()
        .filter(|path| {
            ["/bin/", "/usr/bin/"]
                .iter()
                .any(|folder| path.starts_with(folder))
        })
        .map(str::to_owned)
        .collect())
}

fn add_program(files: &mut Files, path: &str, libraries: &mut BTreeSet<String>) -> Result<()> {
    let kind = fs::symlink_metadata(path).with_context(|| format!("cannot read {path}"))?;
    if kind.is_symlink() {
        let target = fs::read_link(path)?;
        files.link(&inner(path), &target.to_string_lossy());
    } else if kind.is_file() {
        let mode = kind.permissions().mode() & 0o777;
        files.copy(&inner(path), mode, Path::new(path))?;
        libraries.extend(libraries_of(path));
    }
    Ok(())
}

/// What `ldd` resolves; scripts and static programs have none.
fn libraries_of(program: &str) -> Vec<String> {
    run::output(&mut run::command("ldd", [program]))
        .map(|printed| parse_libraries(&printed))
        .unwrap_or_default()
}

fn parse_libraries(printed: &str) -> Vec<String> {
    printed
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with('/'))
                .map(str::to_owned)
        })
        .collect()
}

/// Debian's list still names the folders of before /usr took them in.
fn inner(path: &str) -> String {
    let path = path.trim_start_matches('/');
    if path.starts_with("usr/") {
        path.to_owned()
    } else {
        format!("usr/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernels_page_is_not() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            parse_libraries(printed),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(inner("/lib64/ld.so"), "usr/lib64/ld.so");
        assert_eq!(inner("/usr/bin/tar"), "usr/bin/tar");
    }
}
