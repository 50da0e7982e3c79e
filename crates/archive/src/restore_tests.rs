//! Restores into targets that hold something, undone and repeated at every step.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use crate::restore_place::{Place, Tree};
use crate::steps::deaths::die_at;
use crate::tree::{build, nodes, set_mtime, snapshot};
use crate::{Changes, Codec, Content, Overwrite, Reading, RestoreError, Target, Undone, undo};

/// The differences alone.
fn clean(mut changes: Changes) -> Changes {
    changes.unchanged = 0;
    changes
}

/// Runs `act` so that it dies at its `nth` step; none when it has fewer.
fn dying<T>(nth: u32, act: impl FnOnce() -> Result<T, RestoreError>) -> Option<T> {
    die_at(Some(nth));
    let ended = act();
    die_at(None);
    match ended {
        Ok(done) => Some(done),
        Err(RestoreError::Stopped) => None,
        Err(other) => panic!("{other:?}"),
    }
}

/// Undoes after a death at the `nth` step of the undo; the target is then `before`, or `after`
/// when the restore was done.
fn assert_undone(place: &Place, before: &Tree, after: &Tree, nth: u32) {
    let first = dying(nth, || place.undo());
    let undone = first.unwrap_or_else(|| place.undo().unwrap());
    let found = place.look();
    match undone {
        Undone::Restored => assert!(found == *after, "{found:?} is not {after:?}"),
        _ => assert!(found == *before, "{undone:?}: {found:?} is not {before:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_replace_that_dies_anywhere_is_undone_without_a_trace(
        source in nodes(2),
        target in nodes(2),
        in_undo in 0..12_u32,
    ) {
        for nth in 0.. {
            let place = Place::of(&source, &target);
            let before = place.look();
            let after = { let mut tree = snapshot(&place.source()); tree.get_mut(Path::new("")).unwrap().mtime = (0, 0); tree };
            if dying(nth, || place.restore(Overwrite::Replace)).is_some() {
                prop_assert_eq!(snapshot(&place.target()), snapshot(&place.source()));
                break;
            }
            assert_undone(&place, &before, &after, in_undo);
            prop_assert_eq!(place.open().content().unwrap() == Content::Nothing, place.look().len() == 1);
        }
    }

    #[test]
    fn a_replace_that_dies_anywhere_is_finished_by_its_next_try(
        source in nodes(2),
        target in nodes(2),
        again in 0..25_u32,
    ) {
        for nth in 0.. {
            let place = Place::of(&source, &target);
            let is_done = dying(nth, || place.restore(Overwrite::Replace)).is_some();
            if !is_done {
                let second = dying(again, || place.restore(Overwrite::Replace));
                if second.is_none() {
                    place.restore(Overwrite::Replace).unwrap();
                }
            }
            prop_assert_eq!(snapshot(&place.target()), snapshot(&place.source()));
            if is_done {
                break;
            }
        }
    }

    #[test]
    fn a_restore_into_an_empty_target_that_dies_leaves_it_empty(
        source in nodes(2),
        in_undo in 0..12_u32,
    ) {
        for nth in 0.. {
            let place = Place::of(&source, &[]);
            let before = place.look();
            let after = { let mut tree = snapshot(&place.source()); tree.get_mut(Path::new("")).unwrap().mtime = (0, 0); tree };
            if dying(nth, || place.restore(Overwrite::Never)).is_some() {
                prop_assert_eq!(snapshot(&place.target()), snapshot(&place.source()));
                break;
            }
            assert_undone(&place, &before, &after, in_undo);
        }
    }

    #[test]
    fn a_merge_takes_what_the_archive_has_and_leaves_the_rest(
        source in nodes(0),
        target in nodes(0),
        nth in 0..20_u32,
    ) {
        let place = Place::of(&source, &target);
        let (from, before) = (snapshot(&place.source()), snapshot(&place.target()));
        let clashes = from.iter().filter(|(path, seen)| {
            before.get(*path).is_some_and(|old| old.is_dir() != seen.is_dir())
        });
        prop_assert_eq!(place.plan(Overwrite::Merge).conflicts.total, clashes.count() as u64);
        if place.plan(Overwrite::Merge).conflicts.total > 0 {
            return Ok(());
        }
        let told = place.compare(Overwrite::Merge, Reading::Cached).unwrap();
        prop_assert_eq!(snapshot(&place.target()), before.clone());
        let added = from.keys().filter(|path| !before.contains_key(*path)).count();
        prop_assert_eq!(told.added.paths.total, added as u64);
        if dying(nth, || place.restore(Overwrite::Merge)).is_none() {
            place.restore(Overwrite::Merge).unwrap();
        }
        let mut expected = before;
        expected.extend(from);
        prop_assert_eq!(snapshot(&place.target()), expected);
        let told = place.compare(Overwrite::Merge, Reading::Cached).unwrap();
        prop_assert_eq!(clean(told), Changes::default());
    }

    #[test]
    fn a_merge_that_dies_and_is_undone_leaves_nothing_of_its_own(
        source in nodes(2),
        target in nodes(2),
        nth in 0..40_u32,
        in_undo in 0..4_u32,
    ) {
        let place = Place::of(&source, &target);
        prop_assume!(place.plan(Overwrite::Merge).conflicts.total == 0);
        let (from, before) = (snapshot(&place.source()), snapshot(&place.target()));
        dying(nth, || place.restore(Overwrite::Merge));
        if dying(in_undo, || place.undo()).is_none() {
            place.undo().unwrap();
        }
        let found = snapshot(&place.target());
        let known = |path: &PathBuf| from.contains_key(path) || before.contains_key(path);
        prop_assert!(found.keys().all(known), "{:?}", found.keys());
        for (path, old) in before.iter().filter(|(_, old)| !old.is_dir()) {
            let new = from.get(path).map(|seen| &seen.content);
            let content = &found[path].content;
            prop_assert!(*content == old.content || Some(content) == new, "{path:?}");
        }
    }

    #[test]
    fn a_dry_run_tells_what_a_replace_then_does(source in nodes(0), target in nodes(0)) {
        let place = Place::of(&source, &target);
        let (from, before) = (snapshot(&place.source()), snapshot(&place.target()));
        let told = place.compare(Overwrite::Replace, Reading::Cached).unwrap();
        prop_assert_eq!(snapshot(&place.target()), before.clone());
        let alone = |a: &Tree, b: &Tree| a.keys().filter(|path| !b.contains_key(*path)).count() as u64;
        prop_assert_eq!(told.added.paths.total, alone(&from, &before));
        prop_assert_eq!(told.removed.paths.total, alone(&before, &from));
        let alike = from.iter().filter(|(path, seen)| before.get(*path) == Some(seen)).count();
        prop_assert_eq!(told.unchanged, alike as u64);
    }

    #[test]
    fn paths_take_what_tar_takes(
        codec in prop::sample::select(&Codec::ALL[..]),
        source in nodes(0),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut place = Place::with(codec, |path| build(path, &source));
        let all = snapshot(&place.source());
        let names: Vec<&PathBuf> = all.keys().filter(|path| path.as_os_str() != "").collect();
        prop_assume!(!names.is_empty());
        let picked: Vec<&str> = picks.iter().map(|pick| pick.get(&names).to_str().unwrap()).collect();
        place.select(&picked);
        prop_assert!(place.survey.missed.is_empty());
        place.restore(Overwrite::Never).unwrap();
        let plain = place.dir.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let file = place.dir.path().join("archive");
        fs::write(&file, &place.archive).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C"]).arg(&plain).arg("-xpf").arg(&file);
        // It complains of a member that it took with a folder before.
        tar.args(picked.iter().map(|path| format!("./{path}"))).output().unwrap();
        let (ours, theirs) = (snapshot(&place.target()), snapshot(&plain));
        prop_assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (path, seen) in &ours {
            if picked.iter().any(|pick| path.starts_with(pick)) {
                prop_assert_eq!(Some(seen), theirs.get(path));
            } else {
                // tar makes folders above anew; here they have what the archive says.
                prop_assert_eq!(Some(seen), all.get(path));
            }
        }
    }
}

#[test]
fn a_link_to_a_file_that_is_left_out_becomes_the_file() {
    let mut place = Place::new(|source| {
        fs::create_dir_all(source.join("b/c")).unwrap();
        fs::write(source.join("a"), b"content").unwrap();
        fs::hard_link(source.join("a"), source.join("b/one")).unwrap();
        fs::hard_link(source.join("a"), source.join("b/c/two")).unwrap();
        symlink("nowhere", source.join("aa")).unwrap();
        fs::hard_link(source.join("aa"), source.join("b/link")).unwrap();
        set_mtime(&source.join("a"), 1_000_000_007);
    });
    place.select(&["b"]);
    for overwrite in [Overwrite::Never, Overwrite::Merge] {
        let done = place.restore(overwrite).unwrap();
        assert_eq!(done.unpacked.files, 2);
        let (from, to) = (snapshot(&place.source()), snapshot(&place.target()));
        assert_eq!(to.len(), from.len() - 2);
        assert_eq!(fs::read(place.target().join("b/one")).unwrap(), b"content");
        let inode = |name: &str| {
            std::os::unix::fs::MetadataExt::ino(
                &fs::symlink_metadata(place.target().join(name)).unwrap(),
            )
        };
        assert_eq!(inode("b/one"), inode("b/c/two"));
        let changes = place.compare(overwrite, Reading::Cached).unwrap();
        assert_eq!(clean(changes), Changes::default());
    }
    fs::write(place.target().join("b/one"), b"changed").unwrap();
    set_mtime(&place.target().join("b/one"), 1_000_000_007);
    let changes = place.compare(Overwrite::Merge, Reading::Cached).unwrap();
    assert_eq!(changes.changed.paths.first, ["b/c/two", "b/one"]);
}

#[test]
fn a_merge_of_one_file_leaves_the_folders_above_it_as_they_are() {
    let mut place = Place::new(|source| {
        fs::create_dir(source.join("a")).unwrap();
        fs::write(source.join("a/file"), b"new").unwrap();
        fs::write(source.join("a/other"), b"new").unwrap();
    });
    place.select(&["a/file"]);
    fs::create_dir(place.target().join("a")).unwrap();
    fs::set_permissions(
        place.target().join("a"),
        std::os::unix::fs::PermissionsExt::from_mode(0o1711),
    )
    .unwrap();
    fs::write(place.target().join("a/other"), b"old").unwrap();
    let mode = |path: PathBuf| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions())
    };
    let before = (mode(place.target()), mode(place.target().join("a")));
    place.restore(Overwrite::Merge).unwrap();
    assert_eq!(
        (mode(place.target()), mode(place.target().join("a"))),
        before
    );
    assert_eq!(fs::read(place.target().join("a/other")).unwrap(), b"old");
    assert_eq!(fs::read(place.target().join("a/file")).unwrap(), b"new");
}

#[test]
fn a_link_in_the_target_where_the_archive_has_a_folder_is_a_conflict() {
    let place = Place::new(|source| {
        fs::create_dir(source.join("a")).unwrap();
        fs::write(source.join("a/file"), b"new").unwrap();
    });
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, place.target().join("a")).unwrap();
    assert_eq!(place.plan(Overwrite::Merge).conflicts.first, ["a"]);
    assert!(place.restore(Overwrite::Merge).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_merge_needs_room_for_what_it_adds_and_for_one_file_twice() {
    let place = Place::new(|source| {
        fs::write(source.join("a"), vec![1; 5000]).unwrap();
        fs::write(source.join("b"), vec![1; 3000]).unwrap();
    });
    assert_eq!(
        (
            place.plan(Overwrite::Never).bytes,
            place.plan(Overwrite::Never).inodes
        ),
        (8000, 2)
    );
    fs::write(place.target().join("a"), vec![2; 5000]).unwrap();
    assert_eq!(
        (
            place.plan(Overwrite::Merge).bytes,
            place.plan(Overwrite::Merge).inodes
        ),
        (5000, 1)
    );
    fs::hard_link(place.target().join("a"), place.target().join("z")).unwrap();
    assert_eq!(place.plan(Overwrite::Merge).bytes, 8000);
}

#[test]
fn a_tree_deeper_than_any_stack_is_removed() {
    let place = Place::new(|_| {});
    let mut target = place.open();
    target.claim(Overwrite::Never).unwrap();
    target.begin().unwrap();
    drop(target);
    let script = "for i in $(seq 700); do mkdir d; : > f; cd -P d; done";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(place.target())
        .status();
    assert!(made.unwrap().success());
    assert_eq!(place.undo().unwrap(), Undone::Emptied);
    assert_eq!(fs::read_dir(place.target()).unwrap().count(), 0);
}

#[test]
fn an_undo_touches_nothing_of_another_restore() {
    let place = Place::new(|source| fs::write(source.join("a"), b"x").unwrap());
    let mut target = place.open();
    target.claim(Overwrite::Never).unwrap();
    target.begin().unwrap();
    drop(target);
    fs::write(place.target().join("half"), b"x").unwrap();
    let before = snapshot(&place.target());
    let mut other = Target::open(&place.target(), "r-2").unwrap();
    assert_eq!(undo(&mut other).unwrap(), Undone::Untouched);
    assert_eq!(snapshot(&place.target()), before);
    let left = Content::ForeignLeftOver(".tidelock-restore-r-1".to_owned());
    assert_eq!(other.content().unwrap(), left);
}

#[test]
fn a_marker_that_means_nothing_is_left_alone() {
    let place = Place::new(|source| fs::write(source.join("a"), b"x").unwrap());
    fs::write(place.target().join(".tidelock-restore-r-1"), b"{").unwrap();
    fs::write(place.target().join("precious"), b"x").unwrap();
    let before = snapshot(&place.target());
    assert!(place.undo().is_err());
    assert!(place.restore(Overwrite::Never).is_err());
    assert_eq!(snapshot(&place.target()), before);
}

#[test]
fn a_merge_that_dies_anywhere_leaves_a_file_as_it_was_or_as_it_will_be() {
    for nth in 0.. {
        let place = Place::new(|source| {
            fs::write(source.join("a"), b"new").unwrap();
            fs::hard_link(source.join("a"), source.join("b")).unwrap();
        });
        for name in ["a", "b"] {
            fs::write(place.target().join(name), b"old").unwrap();
        }
        let is_done = dying(nth, || place.restore(Overwrite::Merge)).is_some();
        for name in ["a", "b"] {
            let content = fs::read(place.target().join(name)).unwrap();
            let is_whole = content == b"new" || (content == b"old" && !is_done);
            assert!(is_whole, "{name} after {nth} steps");
        }
        if is_done {
            break;
        }
    }
}
