//! Writes an OCI image layout as one tar file; the same input gives the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Image;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a path in the image is.
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

/// The files of an image, by path without a leading slash.
#[derive(Default)]
pub struct Files(BTreeMap<String, Entry>);

impl Files {
    /// Adds a folder and those above it.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::Folder { mode });
    }

    /// Adds a file and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        let content = content.into();
        self.0
            .insert(path.to_owned(), Entry::File { mode, content });
    }

    /// Adds a file of this machine.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, mode, content);
        Ok(())
    }

    /// Adds a symbolic link and the folders above it.
    pub fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        let target = target.to_owned();
        self.0.insert(path.to_owned(), Entry::Link { target });
    }

    /// Whether the path exists already.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn parents(&mut self, path: &str) {
        let mut end = 0;
        while let Some(next) = path[end..].find('/') {
            end += next;
            self.0
                .entry(path[..end].to_owned())
                .or_insert(Entry::Folder { mode: 0o755 });
            end += 1;
        }
    }

    fn to_tar(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            match entry {
                Entry::Folder { mode } => {
                    header.set_mode(*mode);
                    header.set_entry_type(tar::EntryType::Directory);
                    tar.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Entry::File { mode, content } => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content.as_slice())?;
                }
                Entry::Link { target } => {
                    header.set_mode(0o777);
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(tar.into_inner()?)
    }
}

/// How a container of the image starts.
pub struct Start<'a> {
    /// `uid:gid`.
    pub user: &'a str,
    /// The program.
    pub entrypoint: &'a [&'a str],
    /// Arguments that a pod can replace.
    pub command: &'a [&'a str],
}

/// Writes the image and returns its name, digest and path.
///
/// # Guarantees
/// The archive appears under its name whole or not at all.
pub fn write(name: &str, files: &Files, start: &Start<'_>, archive: &Path) -> Result<Image> {
    let layer = files.to_tar()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    gzip.write_all(&layer)?;
    let packed = gzip.finish()?;
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": start.user,
            "Env": ["PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"],
            "Entrypoint": start.entrypoint,
            "Cmd": start.command,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image"}],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, &config),
        "layers": [descriptor(LAYER_TYPE, &packed)],
    }))?;
    let mut described = descriptor(MANIFEST_TYPE, &manifest);
    described["platform"] = json!({"architecture": "amd64", "os": "linux"});
    described["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
    });
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [described],
    }))?;

    let mut layout = Files::default();
    layout.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    layout.file("index.json", 0o644, index);
    let image_digest = digest(&manifest);
    for blob in [config, manifest, packed] {
        let path = format!("blobs/{}", digest(&blob).replace(':', "/"));
        layout.file(&path, 0o644, blob);
    }
    if let Some(parent) = archive.parent() {
        fs::create_dir_all(parent)?;
    }
    let partial = archive.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, layout.to_tar()?)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, archive)?;
    Ok(Image {
        name: name.to_owned(),
        digest: image_digest,
        archive: archive.to_owned(),
    })
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_in_another_order_give_the_same_image() {
        let folder = std::env::temp_dir().join(format!("tidelock-oci-{}", std::process::id()));
        let start = Start {
            user: "1:1",
            entrypoint: &["/a"],
            command: &[],
        };
        let mut one = Files::default();
        one.file("usr/bin/a", 0o755, "a");
        one.link("bin", "usr/bin");
        let mut other = Files::default();
        other.link("bin", "usr/bin");
        other.file("usr/bin/a", 0o755, "a");
        let written: Vec<(String, Vec<u8>)> = [(&one, "one.tar"), (&other, "other.tar")]
            .into_iter()
            .map(|(files, name)| {
                let image = write("example.org/a:b", files, &start, &folder.join(name)).unwrap();
                (image.digest, fs::read(image.archive).unwrap())
            })
            .collect();
        assert_eq!(written[0], written[1]);
        other.file("usr/bin/a", 0o755, "b");
        let changed = write("example.org/a:b", &other, &start, &folder.join("x.tar")).unwrap();
        assert_ne!(changed.digest, written[0].0);
        fs::remove_dir_all(folder).unwrap();
    }
}
