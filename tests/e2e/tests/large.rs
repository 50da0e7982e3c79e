//! Two million files, each in a folder of its own, through a small mover.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tidelock_api::{Backup, Phase, Restore};
use tidelock_e2e::outcome::{completed, restored};
use tidelock_e2e::{Story, tell};

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

#[tokio::test]
async fn two_million_files_fit_through_one_processor_and_128_mebibytes() -> Result<()> {
    tell("large", |story| async move {
        let data = story.volume("data").await?;
        let target = story.volume("target").await?;
        story.volume("backup-storage").await?;
        fill(&data)?;
        let small = json!({"resources": {
            "requests": {"cpu": "1", "memory": "128Mi"},
            "limits": {"cpu": "1", "memory": "128Mi"},
        }});
        let started = Instant::now();
        story.backup("now", json!({"mover": small})).await?;
        let ended = |backup: &Backup| is_end(backup.status.as_ref()?.phase);
        let backup = story
            .wait_longer_for(DEADLINE, "now", "to end", ended)
            .await?;
        completed(&backup)?;
        let size = backup.status.and_then(|status| status.size);
        ensure!(
            size.is_some_and(|size| usize::try_from(size.files).ok() == Some(GROUPS * FOLDERS))
        );
        println!(
            "saved and read back in {} s, {}",
            started.elapsed().as_secs(),
            peak(&story, "now-backup")?
        );
        let started = Instant::now();
        let spec = json!({"backupName": "now", "targetPVC": "target", "mover": small});
        story.make::<Restore>("back", spec).await?;
        let ended = |restore: &Restore| is_end(restore.status.as_ref()?.phase);
        let restore = story
            .wait_longer_for(DEADLINE, "back", "to end", ended)
            .await?;
        restored(&restore)?;
        println!(
            "restored in {} s, {}",
            started.elapsed().as_secs(),
            peak(&story, "back-restore")?
        );
        let whole = count(&target)?;
        ensure!(whole == GROUPS * FOLDERS, "{whole} files came back whole");
        Ok(())
    })
    .await
}
