//! Sources that change while they are read, and sources that cannot be read.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidelock_e2e::outcome::{backup_failure, completed_once, one_backup_stored, says};
use tidelock_e2e::{tell, tree};

/// Shrinks, grows, replaces, renames and deletes files as fast as a shell can.
const RESTLESS: &str = r#"
cd /data
while true; do
  for n in 0 1 2 3 4 5 6 7 8 9; do
    : > shrinking-$n
    cat /data/still/noise > shrinking-$n
    echo more >> growing-$n
    cp still/noise new && mv new replaced-$n
    rm -f deleted-$n
    echo here > deleted-$n
  done
done
"#;

#[tokio::test]
async fn files_that_shrink_grow_move_and_go_while_read_make_a_readable_archive_and_are_told()
-> Result<()> {
    tell("restless", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "still/noise", &tree::noise(3_000_000), 0o644)?;
        for number in 0..40 {
            tree::write(
                &data,
                &format!("still/f{number:02}"),
                &tree::noise(4 << 20),
                0o644,
            )?;
        }
        tree::write(&data, "log", &tree::noise(48 << 20), 0o644)?;
        // Grows all the time, so that no try to read it finds it at rest.
        let busy = "(while true; do echo line >> /data/log; done) &";
        let script = format!("{busy}\n{RESTLESS}");
        story.workload("worker", "data", &script).await?;
        story.backup("now", json!({})).await?;
        let backup = completed_once(&story, "now").await?;

        let status = backup.status.clone().context("no status")?;
        let size = status.size.context("no size")?;
        ensure!(size.changed_files > 0, "{size:?} tells of no change");
        ensure!(size.files >= 41, "{size:?} lacks files that never changed");
        let events = story.events(&backup).await?;
        let told = events
            .iter()
            .find(|event| event.reason.as_deref() == Some("FilesChanged"));
        let told = told.and_then(|event| event.note.clone());
        let told = told.context("FilesChanged was not told")?;
        ensure!(told.contains("changed while being read"), "{told}");
        ensure!(told.contains("log"), "{told}");

        one_backup_stored(&storage)?;
        let location = status.backup_location.context("no location")?;
        let by_hand = story.volumes_folder()?.join("by-hand");
        tree::unpack_by_hand(&storage, &location, &by_hand)?;
        let still = [data.join("still"), by_hand.join("still")];
        tree::compare(&still[0], &still[1])
    })
    .await
}

#[tokio::test]
async fn a_file_on_a_bad_disk_fails_the_backup_and_is_named() -> Result<()> {
    tell("bad-disk", |story| async move {
        let storage = story.volume("backup-storage").await?;
        let data = story.small_volume("data", 64).await?;
        tree::write(&data.volume(), "good", b"content", 0o644)?;
        tree::write(
            &data.volume(),
            "db/rotten.bin",
            &tree::noise(40 << 20),
            0o644,
        )?;
        data.lose_beyond(20).await?;
        let rotten = data.volume().join("db/rotten.bin");
        let read = std::fs::read(&rotten);
        ensure!(read.is_err(), "the disk is good after all");

        story.backup("now", json!({})).await?;
        let backup = story.wait_backup("now").await?;
        let failure = backup_failure(&backup)?;
        says(failure, "SourceUnreadable", &["Input/output error"])?;
        ensure!(failure.paths == ["db/rotten.bin"], "{failure:#?}");
        ensure!(failure.paths_total == 1, "{failure:#?}");
        let described = story.kubectl(&["describe", "backup", "now"])?;
        ensure!(described.contains("db/rotten.bin"), "{described}");
        let left = tree::stored(&storage, "")?;
        ensure!(left.is_empty(), "{left:?} stayed behind");
        let dump = story.kubectl(&["logs", "job/now-backup"])?;
        ensure!(dump.contains("db/rotten.bin"), "{dump}");
        Ok(())
    })
    .await
}
