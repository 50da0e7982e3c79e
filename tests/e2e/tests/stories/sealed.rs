//! Encrypted backups.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidelock_api::{Backup, BackupStorage, VerificationLevel};
use tidelock_e2e::age::{self, Key};
use tidelock_e2e::outcome::{completed, restore_failure, restored, says};
use tidelock_e2e::s3::{self, S3};
use tidelock_e2e::{Story, tell, tree};

#[tokio::test]
async fn an_encrypted_backup_needs_no_key_to_be_made_and_opens_for_each_of_its_own() -> Result<()> {
    tell("sealed", |story| async move {
        let server = S3::start(&story).await?;
        s3::secret(&story, None).await?;
        let keys = story.volumes_folder()?;
        let (own, offline) = (Key::at(&keys.join("own"))?, Key::at(&keys.join("offline"))?);
        let data = story.volume("data").await?;
        tree::fill_sample(&data)?;
        let mut spec = server.spec(json!({}));
        spec["encryption"] = json!({"recipients": [own.recipient, offline.recipient]});
        story.make::<BackupStorage>("offsite", spec).await?;
        story
            .backup("now", json!({"storage": {"name": "offsite"}}))
            .await?;
        let backup = story.wait_backup("now").await?;
        completed(&backup)?;
        let status = backup.status.context("no status")?;
        let location = format!("{}/data/now.tar.gz.age", story.namespace);
        ensure!(
            status.backup_location.as_deref() == Some(&*location),
            "{status:#?}"
        );
        let proof = status.verification.context("nothing was read back")?;
        ensure!(proof.level == VerificationLevel::Full, "{proof:?}");
        let objects = server.objects()?;
        ensure!(
            objects.contains(&location) && objects.len() == 4,
            "{objects:?}"
        );

        let target = story.volume("target").await?;
        story.restore("locked-out", "now", "target").await?;
        let locked_out = story.wait_restore("locked-out").await?;
        let words = [own.recipient.as_str(), "encryption.identitySecretRef"];
        says(restore_failure(&locked_out)?, "KeyMissing", &words)?;
        ensure!(std::fs::read_dir(&target)?.next().is_none());

        // The key that was kept offline is enough.
        age::secret(&story, "identities", &[&offline]).await?;
        with_identities(&story, &[&own.recipient, &offline.recipient]).await?;
        story.restore("back", "now", "target").await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;
        opens_by_hand(&server, &location, &keys.join("own"))?;

        // New backups to new keys; the old ones keep theirs.
        let next = Key::at(&keys.join("next"))?;
        with_identities(&story, &[&next.recipient]).await?;
        story
            .backup("later", json!({"storage": {"name": "offsite"}}))
            .await?;
        completed(&story.wait_backup("later").await?)?;
        let again = story.volume("again").await?;
        story.restore("old", "now", "again").await?;
        restored(&story.wait_restore("old").await?)?;
        tree::compare(&data, &again)?;
        let other = story.volume("other").await?;
        story.restore("new", "later", "other").await?;
        let new = story.wait_restore("new").await?;
        says(
            restore_failure(&new)?,
            "KeyMissing",
            &[next.recipient.as_str()],
        )?;
        ensure!(std::fs::read_dir(&other)?.next().is_none());

        story.kubectl(&["delete", "backup/now", "backup/later"])?;
        for name in ["now", "later"] {
            story.wait_gone::<Backup>(name).await?;
        }
        ensure!(server.objects()?.is_empty(), "{:?}", server.objects()?);
        Ok(())
    })
    .await
}

/// Lets the storage encrypt to `recipients`, and what reads it have the Secret `identities`.
async fn with_identities(story: &Story, recipients: &[&str]) -> Result<()> {
    let encryption = json!({
        "recipients": recipients, "identitySecretRef": {"name": "identities"},
    });
    let patch = json!({"spec": {"encryption": encryption}});
    story.patch::<BackupStorage>("offsite", patch).await?;
    Ok(())
}

/// Lists what the archive holds with age and tar alone.
fn opens_by_hand(server: &S3, location: &str, identity: &std::path::Path) -> Result<()> {
    let listed = Command::new("bash")
        .args(["-c", "set -o pipefail; age -d -i \"$0\" \"$1\" | tar -tz"])
        .arg(identity)
        .arg(server.bucket().join(location))
        .output()?;
    let names = String::from_utf8_lossy(&listed.stdout);
    ensure!(
        listed.status.success() && names.contains("./readme.txt"),
        "{listed:?}"
    );
    Ok(())
}
