//! Keys of age, made by its own tool.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

use crate::Story;

/// An identity in a file.
pub struct Key {
    file: PathBuf,
    /// `age1…`
    pub recipient: String,
}

impl Key {
    /// Makes one in the file `file`, or takes the one that is there.
    pub fn at(file: &Path) -> Result<Self> {
        if !file.exists() {
            let mut tool = Command::new("age-keygen");
            let made = tool.arg("-o").arg(file).output();
            let made = made.context("cannot start age-keygen")?;
            ensure!(made.status.success(), "age-keygen: {made:?}");
        }
        let told = Command::new("age-keygen").arg("-y").arg(file).output()?;
        ensure!(told.status.success(), "age-keygen: {told:?}");
        Ok(Self {
            file: file.to_path_buf(),
            recipient: String::from_utf8(told.stdout)?.trim().to_owned(),
        })
    }

    /// The file, as `age-keygen` wrote it.
    pub fn text(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.file)?)
    }
}

/// Makes the Secret `name` with these keys.
pub async fn secret(story: &Story, name: &str, keys: &[&Key]) -> Result<()> {
    let mut data = serde_json::Map::new();
    for (key, nth) in keys.iter().zip(1..) {
        data.insert(format!("key-{nth}.txt"), json!(key.text()?));
    }
    let object: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "stringData": data,
    }))?;
    let api = story.api::<Secret>();
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}
