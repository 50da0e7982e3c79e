//! What becomes of an object when requests fail, and when a run is killed between any two.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidelock_storage::{Bucket, Composition, ErrorClass, ObjectInfo, Storage, StorageError};

use crate::{KEY, keys, read};
use tidelock_test_s3::{self as s3, Fault, Proxy, Request, Server};

const PASSING: [Fault; 4] = [
    Fault::Reset,
    Fault::LoseAnswer,
    Fault::Answer(500, "InternalError"),
    Fault::Answer(503, "SlowDown"),
];
/// Of one part and of three.
const SIZES: [usize; 2] = [1_000, 20 << 20];

/// A part of a bucket, as it is and behind a proxy.
struct Place {
    _server: Arc<Server>,
    proxy: Proxy,
    straight: Bucket,
    behind: Bucket,
}

/// Some bytes in one part, in three, and in three of which two are first a piece of their own.
#[derive(Clone, Copy)]
struct Case {
    bytes: usize,
    composition: Composition,
}

const COMPOSED: Case = Case {
    bytes: 28 << 20,
    composition: Composition {
        direct: 1,
        piece: 2,
    },
};

fn cases() -> [Case; 3] {
    let plain = |bytes| Case {
        bytes,
        composition: Composition::default(),
    };
    [plain(SIZES[0]), plain(SIZES[1]), COMPOSED]
}

fn place() -> Place {
    place_of(Composition::default())
}

fn place_of(composition: Composition) -> Place {
    let server = s3::server();
    let proxy = Proxy::before(server.address);
    let mut config = server.config(&s3::fresh_prefix());
    config.composition = composition;
    let straight = Bucket::open(&config).unwrap();
    config.endpoint = Some(format!("http://{}", proxy.address));
    let behind = Bucket::open(&config).unwrap();
    Place {
        _server: server,
        proxy,
        straight,
        behind,
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n / 7 % 251) as u8).collect()
}

fn write(store: &Bucket, bytes: usize) -> Result<ObjectInfo, StorageError> {
    let mut upload = store.put(KEY, "u-1")?;
    upload.write_all(&content(bytes)).map_err(|error| {
        let told = tidelock_storage::storage_error_in(&error).unwrap();
        StorageError {
            action: told.action,
            key: told.key.clone(),
            class: told.class,
            source: std::io::Error::other(told.source.to_string()),
        }
    })?;
    upload.commit()
}

/// The kinds of requests that an undisturbed upload makes.
fn requests(case: Case) -> BTreeSet<&'static str> {
    let place = place_of(case.composition);
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let seeing = Arc::clone(&seen);
    place.proxy.with(move |request: &Request| {
        seeing.lock().unwrap().insert(request.what());
        None
    });
    write(&place.behind, case.bytes).unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn a_fault_that_passes_costs_nothing() {
    let mut known = BTreeSet::new();
    for of in cases() {
        let bytes = of.bytes;
        // What an object made of pieces needs besides.
        let all = requests(of).into_iter();
        let new: Vec<_> = all
            .filter(|what| bytes < COMPOSED.bytes || !known.contains(what))
            .collect();
        known.extend(new.iter().copied());
        for what in new {
            for fault in PASSING {
                let place = place_of(of.composition);
                let mut is_first = true;
                place.proxy.with(move |request: &Request| {
                    let meant = is_first && request.what() == what;
                    is_first &= !meant;
                    meant.then_some(fault)
                });
                let case = format!("{bytes} bytes, {fault:?} for {what}");
                let info = write(&place.behind, bytes).unwrap_or_else(|e| panic!("{case}: {e:?}"));
                assert_eq!(info.bytes, bytes as u64, "{case}");
                assert!(read(&place.straight, KEY, None) == content(bytes), "{case}");
                assert_eq!(keys(&place.straight, ""), [KEY], "{case}");
                // What is forgotten of an upload that nobody heard of has no part, and goes by age.
                assert_eq!(place.straight.sweep(KEY, "u-1").unwrap(), 0, "{case}");
            }
        }
    }
}

#[test]
fn a_run_that_is_killed_anywhere_leaves_an_object_or_what_is_swept() {
    for of in cases() {
        let bytes = of.bytes;
        let mut is_whole = false;
        let mut at = 0;
        while !is_whole {
            at += 1;
            let place = place_of(of.composition);
            // From there on nothing comes through, and what was begun is forgotten.
            place.proxy.with(move |request: &Request| {
                (request.number >= at).then_some(Fault::Answer(403, "AccessDenied"))
            });
            is_whole = write(&place.behind, bytes).is_ok();
            let found = keys(&place.straight, "");
            if found.is_empty() {
                assert!(!is_whole, "{bytes} bytes, killed at {at}");
            } else {
                assert!(
                    read(&place.straight, KEY, None) == content(bytes),
                    "killed at {at}"
                );
            }
            place.straight.sweep(KEY, "u-1").unwrap();
            std::thread::sleep(Duration::from_millis(1_100));
            let dead = |_: &str| false;
            place
                .straight
                .sweep_dead(KEY, "u-2", Duration::ZERO, &dead)
                .unwrap();
            assert_eq!(
                place
                    .straight
                    .sweep_dead(KEY, "u-2", Duration::ZERO, &dead)
                    .unwrap(),
                0
            );
            assert_eq!(keys(&place.straight, ""), found, "killed at {at}");
            assert!(at < 40, "{bytes} bytes: an upload of 40 requests");
        }
    }
}

#[test]
fn a_large_object_is_made_of_pieces_that_leave_nothing() {
    let composition = Composition {
        direct: 2,
        piece: 2,
    };
    for bytes in [16 << 20, 17 << 20, 48 << 20, 50 << 20, 57 << 20] {
        let place = place_of(composition);
        let copies = Arc::new(Mutex::new(0));
        let counting = Arc::clone(&copies);
        place.proxy.with(move |request: &Request| {
            *counting.lock().unwrap() += usize::from(request.what() == "UploadPartCopy");
            None
        });
        let info = write(&place.behind, bytes).unwrap();
        assert_eq!(info.bytes, bytes as u64);
        assert!(
            read(&place.straight, KEY, None) == content(bytes),
            "{bytes}"
        );
        assert_eq!(keys(&place.straight, ""), [KEY]);
        assert_eq!(place.straight.sweep(KEY, "u-1").unwrap(), 0, "{bytes}");
        let beyond = (bytes >> 20).saturating_sub(16_usize);
        assert_eq!(*copies.lock().unwrap(), beyond.div_ceil(16), "{bytes}");
    }
}

#[test]
fn a_store_that_composes_nothing_is_told_in_its_words() {
    let place = place_of(COMPOSED.composition);
    place.proxy.with(|request: &Request| {
        (request.what() == "UploadPartCopy").then_some(Fault::Answer(501, "NotImplemented"))
    });
    let error = write(&place.behind, COMPOSED.bytes).unwrap_err();
    let words = error.source.to_string();
    assert!(words.starts_with("NotImplemented"), "{words}");
    assert!(keys(&place.straight, "").is_empty());
    assert_eq!(place.straight.sweep(KEY, "u-1").unwrap(), 0);
}

#[test]
fn what_arrives_as_something_else_is_refused_by_the_store() {
    for (bytes, what) in [(1_000, "PutObject"), (20 << 20, "UploadPart")] {
        let place = place();
        let mut is_first = true;
        place.proxy.with(move |request: &Request| {
            let meant = is_first && request.what() == what;
            is_first &= !meant;
            meant.then_some(Fault::Flip)
        });
        match write(&place.behind, bytes) {
            // Small ones are sent again.
            Ok(_) => assert!(read(&place.straight, KEY, None) == content(bytes), "{what}"),
            Err(_) => assert!(keys(&place.straight, "").is_empty(), "{what}"),
        }
        assert_eq!(place.straight.sweep(KEY, "u-1").unwrap(), 0, "{what}");
    }
}

#[test]
fn a_body_that_breaks_off_is_read_further_or_called_a_fault() {
    let place = place();
    write(&place.straight, 20 << 20).unwrap();
    let mut cuts = 0;
    place.proxy.with(move |request: &Request| {
        cuts += 1;
        (request.what() == "GetObject" && cuts <= 2).then_some(Fault::CutAnswer(5 << 20))
    });
    assert!(read(&place.behind, KEY, None) == content(20 << 20));
    place
        .proxy
        .with(|request: &Request| (request.what() == "GetObject").then_some(Fault::CutAnswer(0)));
    let mut bytes = Vec::new();
    let told = match place.behind.get(KEY, Some(5..100)) {
        Ok(mut reader) => {
            let error = reader.read_to_end(&mut bytes).unwrap_err();
            tidelock_storage::storage_error_in(&error).unwrap().class
        }
        Err(error) => error.class,
    };
    assert_eq!(told, ErrorClass::Unavailable);
}

#[test]
fn a_listing_that_breaks_off_is_asked_for_again() {
    let place = place();
    write(&place.straight, 1_000).unwrap();
    let mut faults = [
        Fault::CutAnswer(40),
        Fault::Answer(503, "SlowDown"),
        Fault::Reset,
    ]
    .into_iter();
    place
        .proxy
        .with(move |request: &Request| match request.what() {
            "ListObjects" => faults.next(),
            _ => None,
        });
    assert_eq!(keys(&place.behind, ""), [KEY]);
}

#[test]
fn what_the_store_forbids_is_told_in_its_words() {
    let cases = [
        ("DeleteObject", 403, "AccessDenied", ErrorClass::Denied),
        ("PutObject", 403, "AccessDenied", ErrorClass::Denied),
        ("PutObject", 400, "ExpiredToken", ErrorClass::Denied),
        ("PutObject", 403, "RequestTimeTooSkewed", ErrorClass::Denied),
        ("PutObject", 403, "QuotaExceeded", ErrorClass::Full),
        ("UploadPart", 507, "XMinioStorageFull", ErrorClass::Full),
    ];
    for (what, status, code, class) in cases {
        let place = place();
        if what == "DeleteObject" {
            write(&place.straight, 1_000).unwrap();
        }
        place.proxy.with(move |request: &Request| {
            (request.what() == what).then_some(Fault::Answer(status, code))
        });
        let error = match what {
            "DeleteObject" => place.behind.delete(KEY).unwrap_err(),
            "PutObject" => write(&place.behind, 1_000).unwrap_err(),
            _ => write(&place.behind, 20 << 20).unwrap_err(),
        };
        assert_eq!(error.class, class, "{error:?}");
        let words = format!("{code}: As a test wants it.");
        assert_eq!(error.source.to_string(), words);
    }
}

#[test]
fn who_is_not_there_is_named() {
    let server = s3::server();
    let mut config = server.config(&s3::fresh_prefix());
    config.endpoint = Some("http://127.0.0.1:1".to_owned());
    let error = Bucket::open(&config).err().unwrap();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(
        error.source.to_string().contains("Connection refused"),
        "{error:?}"
    );
    config.endpoint = Some("http://no-such-host.invalid".to_owned());
    let error = Bucket::open(&config).err().unwrap();
    assert_eq!(error.class, ErrorClass::Unavailable);
    let words = error.source.to_string();
    assert!(words.contains("lookup"), "{words}");
}
