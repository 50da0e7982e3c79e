//! The story that `make demo` tells: a shop, its backups, a restore, and proof by other tools.

mod backups;
mod compare;
mod follow;
mod restore;
mod shop;
mod stage;

use std::time::Instant;

use anyhow::Result;

use crate::cluster::{self, Cluster, Running};
use crate::e2e;
use crate::place::Place;
use crate::run;
use follow::Follower;
use stage::Stage;

/// The demo's cluster: never one that a person works with, since the demo removes it.
const NAME: &str = "demo";

/// Tells the story on a cluster made for it.
///
/// # Guarantees
/// Every command line that is shown is run as it is shown, and its output is its own.
///
/// # Errors
/// Anything that is not as promised ends the demo.
pub fn run(place: &Place, mut options: e2e::Options) -> Result<()> {
    options.name = if options.name.is_empty() {
        NAME.to_owned()
    } else {
        format!("{}-{NAME}", options.name)
    };
    if Cluster::named(place, &options.name)?.dir.exists() {
        run::say("removing the cluster of an earlier demo");
        cluster::down(place, &options.name)?;
    }
    e2e::on_cluster(place, &options, |running| tell(running, &options))
}

fn tell(running: &Running, options: &e2e::Options) -> Result<()> {
    let started = Instant::now();
    let mut stage = Stage::set(running)?;
    let source = shop::open(&mut stage)?;
    let mut events = Follower::start(&stage)?;
    backups::on_demand(&mut stage, &mut events)?;
    let oldest = backups::schedule(&mut stage, &mut events)?;
    let newest = backups::retention(&mut stage, &mut events, &oldest)?;
    let restored = restore::into_new_volume(&mut stage, &mut events, &newest)?;
    compare::files(&mut stage, &newest, &restored)?;
    let rows = compare::database(&mut stage, &restored)?;
    compare::would_anybody_notice(&mut stage, &newest)?;
    restore::refuse_damage(&mut stage, &mut events)?;

    stage.heading("All of it held");
    stage.tell(&format!(
        "{} files, most of them from {}, and a database in use were backed up once\n\
         by hand and three times by schedule; the oldest of these went when its time had come, with its\n\
         data. What was restored is what sha256sum, tar, diff and sqlite3 say it must be, to the\n\
         nanosecond and to the last of {rows} orders; what was damaged was refused. That took {} s.",
        restored.files,
        source.display(),
        started.elapsed().as_secs()
    ));
    next_steps(&stage, running, options);
    Ok(())
}

/// What a person can try now.
fn next_steps(stage: &Stage<'_>, running: &Running, options: &e2e::Options) {
    if !options.keep {
        stage.tell(
            "The cluster goes now. What to try next:\n\n\
             \x20 make demo KEEP=1                the same, and the cluster stays up for you\n\
             \x20 make help                       all there is\n\
             \x20 less examples/*.yaml            the manifests you have just seen at work\n\
             \x20 less docs/reference/api.md      every field of them",
        );
        return;
    }
    stage.tell(&format!(
        "The cluster stays up. What to try next:\n\n\
         \x20 {}\n\
         \x20 export PATH={}:$PATH\n\
         \x20 kubectl get tidelock\n\
         \x20 kubectl explain backuppolicy.spec\n\
         \x20 kubectl patch backuppolicy minutely --type merge --patch '{{\"spec\":{{\"suspend\":false}}}}'\n\
         \x20 kubectl get backups --watch\n\
         \x20 kubectl scale deployment/shop --replicas=1\n\
         \x20 kubectl delete backup before-upgrade    its archive, now damaged, goes with it\n\
         \x20 ls {}\n\
         \x20 TIDELOCK_CLUSTER={} make cluster-down",
        running.cluster.export_line(),
        stage.kubectl_folder.display(),
        stage.volumes.display(),
        options.name
    ));
}
