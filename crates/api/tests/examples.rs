//! The manifests in `examples/`: each is what it says it is, and has no field that the API does not
//! know. (`make e2e SUITE=chart` asks a real API server as well.)

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidelock_api::{Backup, BackupPolicy, BackupStorage, Restore};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// What the type makes of a manifest.
fn understood<K: DeserializeOwned + Serialize>(manifest: &Value) -> Value {
    let object: K = serde_json::from_value(manifest.clone()).unwrap();
    serde_json::to_value(object).unwrap()
}

/// Each field of `written` is in `understood`, with its value.
fn assert_within(written: &Value, understood: &Value, place: &str) {
    match (written, understood) {
        (Value::Object(fields), Value::Object(others)) => {
            for (name, field) in fields {
                let place = format!("{place}.{name}");
                let other = others.get(name);
                let other = other.unwrap_or_else(|| panic!("{place} is not a field"));
                assert_within(field, other, &place);
            }
        }
        _ => assert_eq!(written, understood, "{place}"),
    }
}

#[test]
fn each_example_is_of_its_kind_and_has_no_unknown_field() {
    let mut kinds = BTreeSet::new();
    for path in examples() {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(text.starts_with("# "), "{name} does not say what it is for");
        let manifest: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(manifest["apiVersion"], "tidelock.dev/v1alpha1", "{name}");
        let kind = manifest["kind"].as_str().unwrap().to_owned();
        let object = match kind.as_str() {
            "BackupPolicy" => understood::<BackupPolicy>(&manifest),
            "Backup" => understood::<Backup>(&manifest),
            "Restore" => understood::<Restore>(&manifest),
            "BackupStorage" => understood::<BackupStorage>(&manifest),
            other => panic!("{name}: no kind {other}"),
        };
        assert_within(&manifest, &object, &name);
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}
