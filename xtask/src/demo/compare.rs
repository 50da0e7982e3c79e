//! What other people's tools say about a restore.

use anyhow::{Context, Result, ensure};

use super::restore::Restored;
use super::stage::Stage;

/// Everything but bytes: type, mode, owner, links, time, name, target; then attributes.
const LIST: &str = r"list() { (cd $1 && shift
  find . $@ -printf '%y %m %U:%G %n %T@ %p -> %l\0' | sort -z | tr '\0\n' '\n\\'
  find . $@ -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex) }";

/// Compares the restored volume with what plain tar makes of the archive, and with the source.
pub fn files(stage: &mut Stage<'_>, backup: &str, restored: &Restored) -> Result<()> {
    stage.act("Is it the same? Ask sha256sum, tar and diff");
    stage.tell("The shop closes, so that its volume holds still. From here on, no Tidelock:");
    stage.show(
        "kubectl scale deployment/shop --replicas=0\n\
         kubectl wait --for=delete pod --selector=app=shop --timeout=60s",
    )?;
    stage.enter_volumes();
    stage.show(&format!(
        "cd backup-storage/shop/data && sha256sum -c {backup}.tar.gz.sha256"
    ))?;
    stage.show(&format!(
        "mkdir plain && tar xzf backup-storage/shop/data/{backup}.tar.gz --xattrs --xattrs-include='*' -C plain"
    ))?;
    stage.tell("The restored volume against the archive as plain tar unpacks it, bytes first:");
    stage.show("diff -r --no-dereference plain restored && echo identical")?;
    stage.tell("Then everything else: modes, owners, links, times to the nanosecond, attributes:");
    stage.define(LIST);
    let listed = stage.show("list restored | wc -l")?;
    let listed: usize = listed.trim().parse().context("the listing has no length")?;
    ensure!(
        listed > restored.files,
        "the listing has {listed} lines for {} files",
        restored.files
    );
    let odd = stage.show("list restored | grep -e ./odd/ -e user.origin")?;
    ensure!(
        odd.contains("981173106.1234567890") && odd.contains("user.origin"),
        "the odd files are not listed with time and attribute:\n{odd}"
    );
    stage.show("diff <(list plain) <(list restored) && echo identical")?;
    stage.tell(
        "And the source against the restored volume, all but the database that has moved on:",
    );
    stage.show(
        "diff -r --no-dereference data/library restored/library && echo identical\n\
         diff -r --no-dereference data/odd restored/odd && echo identical\n\
         diff <(list data -path ./db -prune -o) <(list restored -path ./db -prune -o) && echo identical",
    )?;
    Ok(())
}

/// Looks into the restored database; returns its number of orders.
pub fn database(stage: &mut Stage<'_>, restored: &Restored) -> Result<u64> {
    stage.act("And the database that was written to all the time?");
    stage.tell(
        "To be honest about it: a volume's files are read one after the other, not at one instant.\n\
         SQLite in WAL mode stands that while it makes no checkpoint (this shop makes none): a commit\n\
         only appends to a log, and a copy is what a power cut would have left. A database that\n\
         rewrites its files does not: stop it, or dump it, before it is backed up. A file that changes\n\
         while it is read is read again, up to three times; one that changed each time is counted here\n\
         and named in an Event:",
    );
    stage.show("kubectl get backups --output=custom-columns=NAME:.metadata.name,FILES:.status.size.files,CHANGED:.status.size.changedFiles")?;
    stage
        .show("cp -a restored/db then && cp -a data/db now && ls -lAn --time-style=+%T then now")?;
    let integrity = stage.show("sqlite3 then/shop.db 'PRAGMA integrity_check'")?;
    ensure!(
        integrity.trim() == "ok",
        "the restored database is damaged: {integrity}"
    );
    let found = stage.show(&format!(
        "sqlite3 -line then/shop.db \"ATTACH 'now/shop.db' AS live;
SELECT (SELECT count(*) FROM main.orders)                           AS restored_orders,
       (SELECT count(*) FROM live.orders)                           AS live_orders,
       (SELECT count(*) FROM live.orders
         WHERE at < datetime('{}'))             AS orders_before_the_backup,
       (SELECT count(*) FROM (SELECT * FROM main.orders
         EXCEPT SELECT * FROM live.orders))                         AS orders_nobody_made,
       (SELECT sum(cents) FROM main.orders)                         AS cents_ordered,
       (SELECT cents FROM main.till)                                AS cents_in_the_till\"",
        restored.recovery_point
    ))?;
    let number = |name: &str| -> Result<u64> {
        let line = found
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name));
        let value = line.and_then(|line| line.split_whitespace().last());
        value
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("no {name} in:\n{found}"))
    };
    let rows = number("restored_orders")?;
    ensure!(
        rows > 0 && rows <= number("live_orders")?,
        "the restored database has orders that the live one lacks"
    );
    ensure!(
        rows >= number("orders_before_the_backup")?,
        "orders made before the backup are missing in the restored database"
    );
    ensure!(
        number("orders_nobody_made")? == 0,
        "the restored database has orders that nobody made"
    );
    ensure!(
        number("cents_ordered")? == number("cents_in_the_till")?,
        "half a transaction was restored"
    );
    stage.tell(&format!(
        "Sound, and a point in time: all {rows} orders up to the backup, none that nobody made, and the\n\
         till holds what the orders say to the cent."
    ));
    Ok(rows)
}

/// Damages copies, to see that the same comparisons find it.
pub fn would_anybody_notice(stage: &mut Stage<'_>, backup: &str) -> Result<()> {
    stage.act("Would these checks notice?");
    stage.tell(
        "Some bytes of a file, one second of a time, some bytes of an archive, all of them copies:",
    );
    stage.show(&format!(
        "victim=$(find plain/library -type f -size +8k | sort | sed -n 1p)
printf '\\377\\0' | dd of=$victim bs=1 seek=4000 conv=notrunc status=none
touch --date='2001-02-03 04:05:07.123456789Z' plain/odd/hard-link
cp backup-storage/shop/data/{backup}.tar.gz* .
printf '\\377\\0' | dd of={backup}.tar.gz bs=1 seek=100000 conv=notrunc status=none"
    ))?;
    stage.show_failing("diff -rq --no-dereference plain restored")?;
    stage.show_failing(
        "diff <(list plain -path ./library -prune -o) <(list restored -path ./library -prune -o)",
    )?;
    stage.show_failing(&format!("sha256sum -c {backup}.tar.gz.sha256"))?;
    stage.tell("They do.");
    Ok(())
}
