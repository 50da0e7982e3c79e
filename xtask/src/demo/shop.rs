//! A shop with data that is worth keeping.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::stage::Stage;
use crate::run;

const MANIFESTS: &str = include_str!("shop.yaml");
/// A tree of fewer files would not tell much.
const LEAST_FILES: usize = 2000;
/// The user that the shop runs as in `shop.yaml`.
const SHOP_USER: u32 = 1000;
/// What a backup must keep beside bytes: names, links, owners, modes, times, attributes.
const ODD_FILES: &str = "cd $VOLUMES/data/odd
mkdir empty-folder
echo private > $'two\\nlines'
ln $'two\\nlines' hard-link
ln -s ../library/go.mod symbolic-link
chown 1234:5678 hard-link
chmod 4711 hard-link
setfattr --name=user.origin --value='made by hand' hard-link
touch --date='2001-02-03 04:05:06.123456789Z' hard-link
ls -lA --quoting-style=c --time-style=full-iso";
/// Counts the orders in the database while the shop writes on.
pub const COUNT_ORDERS: &str = "kubectl exec deployment/shop -- \
    sqlite3 -readonly /data/db/shop.db 'SELECT count(*) FROM orders'";

/// Fills the volume and starts the shop; returns where its files come from.
pub fn open(stage: &mut Stage<'_>) -> Result<PathBuf> {
    let source = source_tree()?;
    prepare_folders(&stage.volumes)?;
    stage.act("A shop that keeps its data on a volume");
    stage.tell(
        "A real Kubernetes runs on this machine, with Tidelock's operator in it. A shop moves in:\n\
         thousands of files of this machine, some odd ones, and a SQLite database with an order a\n\
         second. $VOLUMES is the folder with the disks behind its PersistentVolumes.",
    );
    stage.show("kubectl get nodes && kubectl --namespace tidelock-system get pods")?;
    stage.show(&format!(
        "tar --create --exclude=./cmd --directory={} . | tar --extract --preserve-permissions --directory=$VOLUMES/data/library",
        source.display()
    ))?;
    stage.show(ODD_FILES)?;
    let files = stage.show("find $VOLUMES/data -type f -printf . | wc -c")?;
    let count: usize = files.trim().parse().context("find counted no files")?;
    ensure!(
        count > LEAST_FILES,
        "only {count} files in the volume: {} holds too few",
        source.display()
    );
    let manifest = stage.running.cluster.dir.join("shop.yaml");
    fs::write(
        &manifest,
        MANIFESTS.replace("VOLUMES", &stage.volumes.to_string_lossy()),
    )?;
    stage.ask(&format!("kubectl apply -f {}", manifest.display()))?;
    stage.ask("kubectl config set-context --current --namespace=shop")?;
    stage.ask("kubectl rollout status deployment/shop --timeout=120s")?;
    stage.show("kubectl get pods,persistentvolumeclaims")?;
    stage.show(COUNT_ORDERS)?;
    Ok(source)
}

/// Makes the folders behind the volumes.
fn prepare_folders(volumes: &Path) -> Result<()> {
    for folder in [
        "data/library",
        "data/odd",
        "data/db",
        "backup-storage",
        "restored",
        "second-try",
    ] {
        let folder = volumes.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let database = volumes.join("data/db");
    chown(&database, Some(SHOP_USER), Some(SHOP_USER))
        .with_context(|| format!("cannot give away {}", database.display()))
}

/// A tree of real files: the first of several places with enough of them.
fn source_tree() -> Result<PathBuf> {
    let go = run::output(&mut run::command("go", ["env", "GOROOT"])).unwrap_or_default();
    let places = [
        Path::new(go.trim()).join("src"),
        PathBuf::from("/usr/share/doc"),
        PathBuf::from("/usr/share"),
    ];
    places
        .into_iter()
        .find(|place| place.is_absolute() && count_files(place) > LEAST_FILES)
        .context("neither Go's source nor /usr/share holds enough files to back up")
}

/// Regular files below a folder, without what cannot be read.
fn count_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            Ok(kind) if kind.is_file() => 1,
            _ => 0,
        })
        .sum()
}
