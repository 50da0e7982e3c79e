//! Where things live: the checkout, the cache, build output and state.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The folders that every subcommand works with.
#[derive(Clone, Debug)]
pub struct Place {
    /// The checkout this program was built from.
    pub checkout: PathBuf,
    /// Downloads and builds that outlive a checkout.
    pub cache: PathBuf,
    /// Cargo's build output.
    pub target: PathBuf,
    /// Running clusters and collected evidence.
    pub state: PathBuf,
}

impl Place {
    /// Reads the folders from the environment, following the XDG base directories.
    pub fn find() -> Result<Self> {
        let home = PathBuf::from(env::var_os("HOME").context("HOME is not set")?);
        let base = |name: &str, default: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| home.join(default))
                .join("tidelock")
        };
        let cache = base("XDG_CACHE_HOME", ".cache");
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the xtask package lies in a checkout")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR").map(PathBuf::from) {
            Some(path) if path.is_absolute() => path,
            Some(path) => env::current_dir()?.join(path),
            None => cache.join("target"),
        };
        Ok(Self {
            checkout,
            cache,
            target,
            state: base("XDG_STATE_HOME", ".local/state"),
        })
    }

    /// A short name for a cluster, distinct for each checkout and each `--name`.
    pub fn cluster_id(&self, name: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.checkout.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(name.as_bytes());
        hex::encode(&hash.finalize()[..4])
    }
}
