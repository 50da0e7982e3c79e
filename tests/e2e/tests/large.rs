//! A great deal of data through a small mover: two million files, each in a folder of its own, and one
//! file that is larger than any memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidelock_api::{Backup, Phase, Restore};
use tidelock_e2e::cluster::run;
use tidelock_e2e::outcome::{completed, pods_of_job, restored};
use tidelock_e2e::{Story, tell, tell_in_a_bucket};

/// Folders of folders, and folders with one file in each of these.
const GROUPS: usize = 1_000;
const FOLDERS: usize = 2_000;
/// Far longer than any of it takes.
const DEADLINE: Duration = Duration::from_secs(7_200);

/// Makes the tree, and says how far it is.
fn fill(root: &Path) -> Result<()> {
    for group in 0..GROUPS {
        let group_folder = root.join(format!("g{group:04}"));
        fs::create_dir(&group_folder)?;
        for number in 0..FOLDERS {
            let folder = group_folder.join(format!("d{number:04}"));
            fs::create_dir(&folder)?;
            let content = format!("{:0>100}", group * FOLDERS + number);
            fs::write(folder.join("file"), content)?;
        }
        if (group + 1) % 100 == 0 {
            println!("{} files are made", (group + 1) * FOLDERS);
        }
    }
    Ok(())
}

/// Counts the files whose content is what was made.
fn count(root: &Path) -> Result<usize> {
    let mut found = 0;
    for group in 0..GROUPS {
        for number in 0..FOLDERS {
            let file = root.join(format!("g{group:04}/d{number:04}/file"));
            let expected = format!("{:0>100}", group * FOLDERS + number);
            found +=
                usize::from(fs::read(file).is_ok_and(|content| content == expected.as_bytes()));
        }
    }
    Ok(found)
}

/// The mover's last line, which tells its peak memory.
fn peak(story: &Story, job: &str) -> Result<String> {
    let log = story.kubectl(&["logs", &format!("job/{job}"), "--tail=1"])?;
    let start = log.find("peak_memory_kib").unwrap_or(log.len());
    Ok(log[start..].chars().take_while(|c| *c != ',').collect())
}

fn is_end(phase: Option<Phase>) -> Option<bool> {
    Some(matches!(phase?, Phase::Completed | Phase::Failed))
}

/// What was killed for its memory, and done by a pod after it, does not fit.
async fn one_pod(story: &Story, job: &str) -> Result<()> {
    let pods = pods_of_job(story, job).await?;
    ensure!(pods.len() == 1, "{job} took {} pods", pods.len());
    Ok(())
}

/// A mover with one processor and so much memory.
fn small(memory: &str) -> Value {
    json!({"resources": {
        "requests": {"cpu": "1", "memory": memory},
        "limits": {"cpu": "1", "memory": memory},
    }})
}

/// Backs up the claim `data` and restores it to `target` through `mover`, and tells how long it takes and
/// how much memory; the files and bytes that were backed up.
async fn there_and_back(story: &Story, mover: &Value) -> Result<(i64, i64)> {
    let started = Instant::now();
    story.backup("now", json!({"mover": mover})).await?;
    let ended = |backup: &Backup| is_end(backup.status.as_ref()?.phase);
    let backup = story
        .wait_longer_for(DEADLINE, "now", "to end", ended)
        .await?;
    completed(&backup)?;
    one_pod(story, "now-backup").await?;
    let size = backup.status.and_then(|status| status.size);
    let size = size.context("no size")?;
    println!(
        "saved and read back in {} s, {}",
        started.elapsed().as_secs(),
        peak(story, "now-backup")?
    );
    let started = Instant::now();
    let spec = json!({"backupName": "now", "targetPVC": "target", "mover": mover});
    story.make::<Restore>("back", spec).await?;
    let ended = |restore: &Restore| is_end(restore.status.as_ref()?.phase);
    let restore = story
        .wait_longer_for(DEADLINE, "back", "to end", ended)
        .await?;
    restored(&restore)?;
    one_pod(story, "back-restore").await?;
    println!(
        "restored in {} s, {}",
        started.elapsed().as_secs(),
        peak(story, "back-restore")?
    );
    Ok((size.files, size.stored_bytes))
}

#[tokio::test]
async fn two_million_files_fit_through_one_processor_and_128_mebibytes() -> Result<()> {
    tell("large", |story| async move {
        let data = story.volume("data").await?;
        let target = story.volume("target").await?;
        story.volume("backup-storage").await?;
        fill(&data)?;
        let (files, _) = there_and_back(&story, &small("128Mi")).await?;
        ensure!(usize::try_from(files).ok() == Some(GROUPS * FOLDERS));
        let whole = count(&target)?;
        ensure!(whole == GROUPS * FOLDERS, "{whole} files came back whole");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn four_gibibytes_go_to_a_bucket_and_back_through_96_mebibytes() -> Result<()> {
    tell_in_a_bucket("large-bucket", |story| async move {
        let data = story.volume("data").await?;
        let target = story.volume("target").await?;
        story.backup_storage().await?;
        // Nothing of it compresses, so that the archive is as large.
        let file = data.join("noise.bin");
        run(
            "sh",
            &[
                "-ec",
                &format!("head -c 4G /dev/urandom > '{}'", file.display()),
            ],
        )?;
        let mut mover = small("96Mi");
        mover["resources"]["limits"]["cpu"] = json!("2");
        let (_, stored) = there_and_back(&story, &mover).await?;
        ensure!(stored >= 4 << 30, "{stored} bytes were stored");
        let back = target.join("noise.bin");
        run("cmp", &[&file.to_string_lossy(), &back.to_string_lossy()]).map(|_| ())
    })
    .await
}
