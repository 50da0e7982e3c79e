//! What is wrong with a bucket, as a person reads it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupStorage};
use tidelock_e2e::outcome::{backup_failure, completed, says};
use tidelock_e2e::s3::{self, S3};
use tidelock_e2e::{Story, tell, tree};
use tidelock_test_s3::{Fault, Request};

/// How a storage is judged.
struct Judged {
    /// Its name.
    storage: &'static str,
    /// What its spec has of its own.
    own: Value,
    reason: &'static str,
    /// What the message ends with, or holds where that differs from machine to machine.
    words: &'static str,
}

fn judged(storage: &'static str, own: Value, reason: &'static str, words: &'static str) -> Judged {
    Judged {
        storage,
        own,
        reason,
        words,
    }
}

/// Makes all storages at `server`, and waits until each is judged as it should.
async fn all_judged(story: &Story, server: &S3, cases: &[Judged]) -> Result<()> {
    for case in cases {
        let spec = server.spec(case.own.clone());
        story.make::<BackupStorage>(case.storage, spec).await?;
    }
    for case in cases {
        let what = format!("to be {}: {}", case.reason, case.words);
        let is_so = |storage: &BackupStorage| {
            let conditions = &storage.status.as_ref()?.conditions;
            let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
            Some(ready.reason == case.reason && ready.message.contains(case.words))
        };
        let found = story.wait_for(case.storage, &what, is_so).await?;
        let conditions = found.status.context("no status")?.conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready");
        println!("{}: {}", case.storage, ready.context("gone")?.message);
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_not_there_or_not_known_is_told_in_its_words() -> Result<()> {
    tell("storage-away", |story| async move {
        let server = S3::start_with_tls(&story).await?;
        s3::secret(&story, None).await?;
        let trusted = json!({"configMapName": s3::CERTIFICATES});
        let cases = [
            judged(
                "known",
                json!({"caBundle": trusted}),
                "StorageReady",
                "Wrote, read",
            ),
            judged(
                "unknown-issuer",
                json!({}),
                "StorageUnavailable",
                ": invalid peer certificate: UnknownIssuer",
            ),
            judged(
                "no-bucket",
                json!({"caBundle": trusted, "bucket": "nowhere"}),
                "StorageDenied",
                "NoSuchBucket: The specified bucket does not exist",
            ),
            judged(
                "no-locks",
                json!({"caBundle": trusted, "objectLock": {"mode": "Compliance", "days": 30}}),
                "StorageDenied",
                "ObjectLockConfigurationNotFoundError",
            ),
            judged(
                "nobody",
                json!({"endpoint": "http://127.0.0.1:1"}),
                "StorageUnavailable",
                "http://127.0.0.1:1: Connection refused",
            ),
            judged(
                "no-name",
                json!({"endpoint": "http://no-such-host.invalid"}),
                "StorageUnavailable",
                "http://no-such-host.invalid: ",
            ),
        ];
        all_judged(&story, &server, &cases).await
    })
    .await
}

/// What a store answers that refuses only this, by the prefix of the storage.
fn refuse(request: &Request) -> Option<Fault> {
    let is_in = |prefix: &str| request.uri.contains(&format!("/{prefix}/"));
    let answer = |status, code| Some(Fault::Answer(status, code));
    match request.what() {
        "DeleteObject" if is_in("kept") => answer(403, "AccessDenied"),
        "PutObject" if is_in("full") => answer(403, "QuotaExceeded"),
        "PutObject" if is_in("expired") => answer(400, "ExpiredToken"),
        _ => None,
    }
}

#[tokio::test]
async fn what_a_store_refuses_is_told_in_its_words_and_loses_nothing() -> Result<()> {
    tell("storage-refuses", |story| async move {
        let data = story.volume("data").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let server = S3::start(&story).await?;
        s3::secret(&story, None).await?;
        let proxy = server.behind(refuse)?;
        let own = |prefix: &str| {
            json!({"prefix": prefix, "endpoint": format!("http://{}", proxy.address)})
        };
        let cases = [
            judged("kept", own("kept"), "StorageDenied", "AccessDenied: As a test wants it."),
            judged("full", own("full"), "StorageFull", "QuotaExceeded: As a test wants it."),
            judged("expired", own("expired"), "StorageDenied", "ExpiredToken: As a test wants it."),
        ];
        all_judged(&story, &server, &cases).await?;

        // A backup says the same.
        for case in &cases {
            let storage = json!({"storage": {"name": case.storage}});
            story.backup(case.storage, storage).await?;
        }
        for case in &cases[1..] {
            let backup = story.wait_backup(case.storage).await?;
            says(backup_failure(&backup)?, case.reason, &[case.words])?;
        }
        // What may not be deleted stays, is told, and goes once it may.
        completed(&story.wait_backup("kept").await?)?;
        story.kubectl(&["delete", "backup/kept", "--wait=false"])?;
        let note = story.wait_event("CleanupFailed").await?;
        ensure!(note.contains("AccessDenied: As a test wants it."), "{note}");
        ensure!(server.objects()?.iter().any(|key| key.ends_with("kept.tar.gz")));
        proxy.with(|_| None);
        story.wait_gone::<Backup>("kept").await?;
        let left = server.objects()?;
        ensure!(!left.iter().any(|key| key.contains("/data/kept")), "{left:?}");
        Ok(())
    })
    .await
}
