//! Where the backups of a story go: a volume, or a bucket. The test sees either as a folder, with the
//! same files at the same places.

use std::env;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tidelock_api::BackupStorage;

use crate::Story;
use crate::s3::{self, S3};

/// Which of both, for all stories that do not say it themselves: `volume` or `bucket`.
const VARIABLE: &str = "TIDELOCK_E2E_STORAGE";
/// Name of the claim or the BackupStorage.
const NAME: &str = "backup-storage";

/// What keeps the backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The claim `backup-storage`, which is used where nothing is said.
    Volume,
    /// A bucket, by a BackupStorage of that name.
    Bucket,
}

impl Kind {
    /// What the environment says; a volume where it says nothing.
    pub fn chosen() -> Result<Self> {
        match env::var(VARIABLE).as_deref() {
            Err(_) | Ok("" | "volume") => Ok(Self::Volume),
            Ok("bucket") => Ok(Self::Bucket),
            Ok(other) => bail!("{VARIABLE} is {other:?}: it takes volume or bucket"),
        }
    }
}

/// Where a story's backups go.
#[derive(Clone)]
pub struct Archives {
    kind: Kind,
    /// Ends with the last copy of the story.
    server: Arc<OnceLock<S3>>,
}

impl Archives {
    pub(crate) fn of(kind: Kind) -> Self {
        Self {
            kind,
            server: Arc::default(),
        }
    }

    /// What a policy or a backup of the story says about its storage.
    pub(crate) fn reference(&self) -> Option<Value> {
        self.server.get().map(|_| json!({"name": NAME}))
    }

    /// The spec of a BackupStorage for the same place, once that is made.
    pub fn spec(&self) -> Result<Value> {
        if self.kind == Kind::Volume {
            return Ok(json!({"pvc": {"claimName": NAME}}));
        }
        let server = self.server.get().context("no bucket was made")?;
        Ok(spec_of(server))
    }
}

fn spec_of(server: &S3) -> Value {
    server.spec(json!({"caBundle": {"configMapName": s3::CERTIFICATES}}))
}

impl Story {
    /// The folder of the files at the place for the story's backups, which is there.
    pub fn archives_folder(&self) -> Result<PathBuf> {
        match self.archives.server.get() {
            Some(server) => Ok(server.bucket()),
            None => Ok(self.volumes_folder()?.join(NAME)),
        }
    }

    /// Makes the place for the story's backups, which its policies and backups use from now on; the folder
    /// of their files.
    pub async fn backup_storage(&self) -> Result<PathBuf> {
        if self.archives.kind == Kind::Volume {
            return self.volume(NAME).await;
        }
        let server = S3::start_with_tls(self).await?;
        s3::secret(self, None).await?;
        self.make::<BackupStorage>(NAME, spec_of(&server)).await?;
        let is_ready = |storage: &BackupStorage| {
            let conditions = &storage.status.as_ref()?.conditions;
            let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
            Some(ready.status == "True")
        };
        self.wait_for(NAME, "to be usable", is_ready).await?;
        let folder = server.bucket();
        let is_first = self.archives.server.set(server).is_ok();
        is_first
            .then_some(folder)
            .context("a story has one place for backups")
    }
}
