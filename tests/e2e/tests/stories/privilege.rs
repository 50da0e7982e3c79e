//! As whom movers run, in namespaces that enforce the Pod Security Standards, over data of one odd
//! user that nobody else may read; and what a restore does about a target in use.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tidelock_api::{Backup, Phase, Restore};
use tidelock_e2e::workloads::Workload;
use tidelock_e2e::{Story, tell, tree};

use crate::support::{backup_failure, completed, jobs_by_kind, restore_failure, restored, says};

/// Owner of the data.
const ODD_USER: u32 = 12_345;

/// Waits until the Backup `now` says `reason` while it is Pending; its words.
async fn pending_with(story: &Story, reason: &str) -> Result<String> {
    let what = format!("to be Pending with {reason}");
    let backup = story.wait_for("now", &what, |backup: &Backup| {
        let status = backup.status.as_ref()?;
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
        Some(status.phase == Some(Phase::Pending) && ready.reason == reason)
    });
    let status = backup.await?.status.context("no status")?;
    let ready = status.conditions.into_iter().find(|c| c.type_ == "Ready");
    Ok(ready.context("no condition")?.message)
}

/// A volume `name` whose root and files belong to [`ODD_USER`] alone.
async fn odd_volume(story: &Story, name: &str) -> Result<PathBuf> {
    let folder = story.volume(name).await?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    chown(&folder, Some(ODD_USER), Some(ODD_USER))?;
    Ok(folder)
}

/// The claim `data` with files of [`ODD_USER`] that nobody else may read.
async fn odd_data(story: &Story) -> Result<PathBuf> {
    let data = odd_volume(story, "data").await?;
    tree::write(&data, "secret", b"for one user alone", 0o600)?;
    tree::write(&data, "folder/deep", &tree::noise(200_000), 0o600)?;
    for path in ["secret", "folder", "folder/deep"] {
        chown(data.join(path), Some(ODD_USER), Some(ODD_USER))?;
    }
    fs::set_permissions(data.join("folder"), fs::Permissions::from_mode(0o700))?;
    Ok(data)
}

/// The user that the pod of `job` ran as.
async fn ran_as(story: &Story, job: &str) -> Result<i64> {
    let own = ListParams::default().labels(&format!("job-name={job}"));
    let pods = story.api::<Pod>().list(&own).await?;
    let spec = pods.items.into_iter().next().and_then(|pod| pod.spec);
    let security = spec.and_then(|spec| spec.security_context);
    security
        .and_then(|security| security.run_as_user)
        .with_context(|| format!("no pod of {job} says as whom it runs"))
}

/// Saves and restores the odd data where root may.
async fn as_root_under(level: &'static str) -> Result<()> {
    tell(level, |story| async move {
        story.enforce(level).await?;
        let data = odd_data(&story).await?;
        story.volume("backup-storage").await?;
        let target = story.volume("target").await?;
        story.backup("now", json!({})).await?;
        completed(&story.wait_backup("now").await?)?;
        story.restore("back", "now", "target").await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;
        for job in ["now-backup", "back-restore"] {
            ensure!(ran_as(&story, job).await? == 0, "{job}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_privileged_namespace_has_its_data_saved_and_restored() -> Result<()> {
    as_root_under("privileged").await
}

#[tokio::test]
async fn a_baseline_namespace_has_its_data_saved_and_restored() -> Result<()> {
    as_root_under("baseline").await
}

#[tokio::test]
async fn a_restricted_namespace_has_its_data_saved_restored_and_removed_by_its_own_user()
-> Result<()> {
    tell("restricted", |story| async move {
        story.enforce("restricted").await?;
        let data = odd_data(&story).await?;
        let storage = story.volume("backup-storage").await?;
        let target = odd_volume(&story, "target").await?;
        let workload = Workload::of_user("app", "data", ODD_USER.into());
        story.start(&workload).await?;

        story.backup("now", json!({})).await?;
        let backup = story.wait_backup("now").await?;
        completed(&backup)?;
        let recorded = backup.status.and_then(|status| status.security_context);
        ensure!(recorded.is_some_and(|own| own.run_as_user == i64::from(ODD_USER)));

        // Nobody is left to tell the user: what the backup recorded does.
        let pods = story.api::<Pod>();
        pods.delete("app", &DeleteParams::default()).await?;
        story.wait_gone::<Pod>("app").await?;
        story.restore("back", "now", "target").await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;
        for job in ["now-backup", "back-restore"] {
            ensure!(ran_as(&story, job).await? == i64::from(ODD_USER), "{job}");
        }

        story
            .api::<Backup>()
            .delete("now", &DeleteParams::default())
            .await?;
        story.wait_gone::<Backup>("now").await?;
        ensure!(
            tree::archives(&storage)?.is_empty(),
            "the data is still there"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_pod_that_tells_the_user_the_setting_that_does_is_named_and_works() -> Result<()>
{
    tell("user-unknown", |story| async move {
        story.enforce("restricted").await?;
        odd_data(&story).await?;
        story.volume("backup-storage").await?;
        story
            .backup("now", json!({"startDeadlineSeconds": 3}))
            .await?;
        let words = pending_with(&story, "PrivilegeUnknown").await?;
        ensure!(words.contains("mover.runAsUser"), "{words}");
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "PrivilegeUnknown",
            &[
                "restricted",
                "PersistentVolumeClaim data",
                "mover.runAsUser",
            ],
        )?;
        ensure!(jobs_by_kind(&story).await?.is_empty(), "a Job for nothing");

        let named = json!({"mover": {"runAsUser": ODD_USER, "runAsGroup": ODD_USER}});
        story.backup("named", named).await?;
        completed(&story.wait_backup("named").await?)
    })
    .await
}

#[tokio::test]
async fn a_user_that_may_not_read_the_data_fails_with_the_path_and_the_setting() -> Result<()> {
    tell("wrong-user", |story| async move {
        story.enforce("restricted").await?;
        let data = odd_data(&story).await?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755))?;
        let storage = story.volume("backup-storage").await?;
        story
            .backup("now", json!({"mover": {"runAsUser": 54_321}}))
            .await?;
        let backup = story.wait_backup("now").await?;
        let failure = backup_failure(&backup)?;
        says(
            failure,
            "SourceUnreadable",
            &["user 54321", "mover.runAsUser", "Permission denied"],
        )?;
        ensure!(
            failure.paths.iter().any(|path| path == "secret"),
            "{failure:#?}"
        );
        ensure!(tree::archives(&storage)?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn storage_that_the_user_may_not_write_to_fails_with_the_setting() -> Result<()> {
    tell("storage-denied", |story| async move {
        story.enforce("restricted").await?;
        odd_data(&story).await?;
        let storage = story.volume("backup-storage").await?;
        fs::set_permissions(&storage, fs::Permissions::from_mode(0o755))?;
        let mover = json!({"mover": {"runAsUser": ODD_USER}});
        story.backup("now", mover).await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "StorageDenied",
            &["user 12345", "mover.fsGroup", "mover.supplementalGroups"],
        )?;

        // The setting that it names.
        chown(&storage, None, Some(4_242))?;
        fs::set_permissions(&storage, fs::Permissions::from_mode(0o2770))?;
        let group = json!({"runAsUser": ODD_USER, "supplementalGroups": [4_242]});
        story.backup("grouped", json!({"mover": group})).await?;
        completed(&story.wait_backup("grouped").await?)
    })
    .await
}

#[tokio::test]
async fn two_users_of_one_group_share_a_storage() -> Result<()> {
    tell("two-users", |story| async move {
        story.enforce("restricted").await?;
        odd_data(&story).await?;
        let other = story.volume("other").await?;
        tree::write(&other, "file", b"of another user", 0o644)?;
        let storage = story.volume("backup-storage").await?;
        chown(&storage, None, Some(4_242))?;
        fs::set_permissions(&storage, fs::Permissions::from_mode(0o2770))?;
        let mover = |user: u32| json!({"runAsUser": user, "supplementalGroups": [4_242]});
        story
            .backup("now", json!({"mover": mover(ODD_USER)}))
            .await?;
        completed(&story.wait_backup("now").await?)?;
        let spec = json!({"target": {"pvcName": "other"}, "mover": mover(54_321)});
        story.backup("beside", spec).await?;
        completed(&story.wait_backup("beside").await?)?;
        no_one_else_may_read(&storage)
    })
    .await
}

/// Archives hold whatever the volume holds.
fn no_one_else_may_read(storage: &Path) -> Result<()> {
    for archive in tree::archives(storage)? {
        let mode = fs::metadata(storage.join(&archive))?.mode();
        ensure!(mode & 0o007 == 0, "{} has mode {mode:o}", archive.display());
    }
    Ok(())
}

#[tokio::test]
async fn root_in_a_restricted_namespace_is_refused_at_once() -> Result<()> {
    tell("root-refused", |story| async move {
        story.enforce("restricted").await?;
        odd_data(&story).await?;
        story.volume("backup-storage").await?;
        story
            .backup("now", json!({"mover": {"privilege": "Root"}}))
            .await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "PrivilegeForbidden",
            &["restricted", "mover.privilege Auto or Unprivileged"],
        )?;
        ensure!(jobs_by_kind(&story).await?.is_empty(), "a Job for nothing");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn unprivileged_is_an_ordinary_user_in_any_namespace() -> Result<()> {
    tell("unprivileged", |story| async move {
        let data = odd_data(&story).await?;
        story.volume("backup-storage").await?;
        let target = odd_volume(&story, "target").await?;
        let mover =
            json!({"privilege": "Unprivileged", "runAsUser": ODD_USER, "runAsGroup": ODD_USER});
        story.backup("now", json!({"mover": mover})).await?;
        completed(&story.wait_backup("now").await?)?;
        let spec = json!({"backupName": "now", "targetPVC": "target", "mover": mover});
        story.make::<Restore>("back", spec).await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;
        ensure!(ran_as(&story, "now-backup").await? == i64::from(ODD_USER));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_target_in_use_is_refused_unless_that_is_allowed() -> Result<()> {
    tell("target-in-use", |story| async move {
        let data = odd_data(&story).await?;
        story.volume("backup-storage").await?;
        let target = story.volume("target").await?;
        story.backup("now", json!({})).await?;
        completed(&story.wait_backup("now").await?)?;
        story
            .start(&Workload::of_user("app", "target", 1000))
            .await?;

        story.restore("back", "now", "target").await?;
        let restore = story.wait_restore("back").await?;
        says(
            restore_failure(&restore)?,
            "TargetInUse",
            &["PersistentVolumeClaim target", "pod app", "allowInUse"],
        )?;
        ensure!(fs::read_dir(&target)?.next().is_none(), "it was written to");

        let spec = json!({"backupName": "now", "targetPVC": "target", "allowInUse": true});
        story.make::<Restore>("anyway", spec).await?;
        restored(&story.wait_restore("anyway").await?)?;
        tree::compare(&data, &target)
    })
    .await
}

#[tokio::test]
async fn a_volume_for_one_pod_is_waited_for_and_its_pod_named() -> Result<()> {
    tell("one-pod", |story| async move {
        let data = story.volume_with_mode("data", "ReadWriteOncePod").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.volume("backup-storage").await?;
        story.start(&Workload::of_user("app", "data", 1000)).await?;
        story.backup("now", json!({})).await?;
        let words = pending_with(&story, "VolumeInUse").await?;
        ensure!(
            words.contains("pod app") && words.contains("ReadWriteOncePod"),
            "{words}"
        );
        let pods = story.api::<Pod>();
        pods.delete("app", &DeleteParams::default()).await?;
        completed(&story.wait_backup("now").await?)
    })
    .await
}

#[tokio::test]
async fn a_volume_that_waits_for_its_first_consumer_is_bound_by_a_restore_and_never_by_a_backup()
-> Result<()> {
    tell("first-consumer", |story| async move {
        let data = odd_data(&story).await?;
        story.volume("backup-storage").await?;
        story.backup("full", json!({})).await?;
        completed(&story.wait_backup("full").await?)?;
        let target = story.volume_for_first_consumer("late").await?;

        let never = json!({"target": {"pvcName": "late"}, "startDeadlineSeconds": 3});
        story.backup("now", never).await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "PVCNotBound",
            &["late is Pending"],
        )?;
        let phase = |claim: PersistentVolumeClaim| claim.status.and_then(|status| status.phase);
        let claims = story.api::<PersistentVolumeClaim>();
        ensure!(phase(claims.get("late").await?).as_deref() == Some("Pending"));

        story.restore("back", "full", "late").await?;
        restored(&story.wait_restore("back").await?)?;
        ensure!(phase(claims.get("late").await?).as_deref() == Some("Bound"));
        tree::compare(&data, &target)
    })
    .await
}
