use std::fs::OpenOptions;

use super::*;
use crate::ahead::Loaded;
use crate::index::IndexMember;

fn loaded(content: Vec<u8>) -> Arc<Loaded> {
    let member = IndexMember {
        offset: 0,
        size: 0,
        tar_offset: 0,
        tar_size: content.len() as u64,
        sha256: String::new(),
    };
    Arc::new(Loaded { member, content })
}

fn part(file: &Arc<File>, at: u64, content: Piece) -> Work {
    Work::Part(Part {
        file: Arc::clone(file),
        path: b"dir/large"[..].into(),
        at,
        content,
    })
}

#[test]
fn parts_stand_where_they_belong_once_their_mark_is_past() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("large");
    let file = Arc::new(File::create(&path).unwrap());
    let meter = Meter::default();
    with_crew(&meter, |crew| {
        let mut foreman = Foreman::new(crew);
        for number in 0..200_u8 {
            let loaded = loaded(vec![number; 30_000]);
            let content = Piece::new(loaded, 0..30_000);
            foreman.add(part(&file, u64::from(number) * 30_000, content));
            foreman.take(None, |_| ()).unwrap();
        }
        let mark = foreman.mark();
        foreman.take(Some(mark), |_| ()).unwrap();
        assert!(foreman.is_past(mark));
        let written = std::fs::read(&path).unwrap();
        let wanted = (0..200).flat_map(|number| vec![number; 30_000]);
        assert!(written.into_iter().eq(wanted));
    });
    assert_eq!(meter.bytes(), 6_000_000);
}

#[test]
fn a_part_that_cannot_be_written_fails_the_restore_by_its_path() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("large");
    File::create(&path).unwrap();
    let unwritable = Arc::new(OpenOptions::new().read(true).open(&path).unwrap());
    with_crew(&Meter::default(), |crew| {
        let mut foreman = Foreman::new(crew);
        let loaded = loaded(vec![1; 10]);
        foreman.add(part(&unwritable, 0, Piece::new(loaded, 0..10)));
        let mark = foreman.mark();
        let failure = foreman.take(Some(mark), |_| ()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "cannot write \"dir/large\" in the target"
        );
    });
}

#[test]
fn a_batch_keeps_one_member_in_memory() {
    let place = tempfile::tempdir().unwrap();
    let file = Arc::new(File::create(place.path().join("large")).unwrap());
    with_crew(&Meter::default(), |crew| {
        let mut foreman = Foreman::new(crew);
        for number in 0..100 {
            let member = loaded(vec![1; 10]);
            let kept = Arc::downgrade(&member);
            let piece = Piece::new(member, 0..5);
            foreman.add(part(&file, number, piece.clone()));
            foreman.add(part(&file, number, piece));
            assert_eq!(kept.strong_count(), 2, "both wait in the batch");
            assert_eq!(
                foreman.batch.len(),
                2,
                "what is of another member was handed out"
            );
        }
        let mark = foreman.mark();
        foreman.take(Some(mark), |_| ()).unwrap();
    });
}
