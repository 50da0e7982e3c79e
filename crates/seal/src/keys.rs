//! Who can open what is written, and what opens what is read.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor, Encryptor};

/// Longest file of identities that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A key that cannot be used. It never holds what was secret.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKey {
    /// Not a recipient.
    #[error("recipient {0:?} is not one of age: it must start with age1 and be copied whole")]
    Recipient(String),
    /// Nobody could open what is written.
    #[error("there is no recipient, so nobody could open the backup")]
    NoRecipient,
    /// Not an identity.
    #[error(
        "line {line} of {file} is no identity of age (AGE-SECRET-KEY-1…), no comment and not empty"
    )]
    Identity {
        /// Its path.
        file: String,
        /// From 1.
        line: usize,
    },
    /// There is nothing to open anything with.
    #[error("{0} holds no identity of age (AGE-SECRET-KEY-1…)")]
    NoIdentity(String),
    /// It cannot be read.
    #[error("cannot read {file}: {source}")]
    Unreadable {
        /// Its path.
        file: String,
        /// Why.
        source: io::Error,
    },
}

/// Who can open what is written: all of them, each alone.
#[derive(Clone, Default)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Understands `age1…`, each; one that comes twice counts once.
    pub fn parse(texts: &[String]) -> Result<Self, InvalidKey> {
        let mut all: Vec<Recipient> = Vec::new();
        for text in texts {
            let recipient = Recipient::from_str(text.trim());
            let recipient = recipient.map_err(|_| InvalidKey::Recipient(text.clone()))?;
            if !all
                .iter()
                .any(|known| known.to_string() == recipient.to_string())
            {
                all.push(recipient);
            }
        }
        if all.is_empty() {
            return Err(InvalidKey::NoRecipient);
        }
        Ok(Self(all))
    }

    /// As they are written.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// These and one more, made for the moment; and the identity that opens for that one, which
    /// nobody else ever has.
    pub fn with_one_for_now(mut self) -> (Self, Identities) {
        let identity = Identity::generate();
        self.0.push(identity.to_public());
        (self, Identities(vec![identity]))
    }

    /// Encrypts a short text to them.
    pub fn seal(&self, text: &[u8]) -> io::Result<Vec<u8>> {
        let mut sealed = Vec::new();
        let mut writer = self.encryptor()?.wrap_output(&mut sealed)?;
        writer.write_all(text)?;
        writer.finish()?;
        Ok(sealed)
    }

    pub(crate) fn encryptor(&self) -> io::Result<Encryptor> {
        let recipients = self
            .0
            .iter()
            .map(|recipient| recipient as &dyn age::Recipient);
        Encryptor::with_recipients(recipients).map_err(io::Error::other)
    }
}

/// What opens what is read. Nothing here prints it.
#[derive(Clone, Default)]
pub struct Identities(Vec<Identity>);

impl Identities {
    /// Understands all files in `folder`, as a Secret is mounted: each line an identity, a comment that
    /// starts with `#`, or nothing.
    pub fn of_folder(folder: &Path) -> Result<Self, InvalidKey> {
        let unreadable = |file: &Path, source| InvalidKey::Unreadable {
            file: file.display().to_string(),
            source,
        };
        let entries = fs::read_dir(folder).map_err(|e| unreadable(folder, e))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| unreadable(folder, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // The kubelet keeps a Secret's versions in folders of such names.
            if !name.starts_with("..") && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        let mut all = Vec::new();
        for file in &files {
            let mut text = String::new();
            let opened = fs::File::open(file).map_err(|e| unreadable(file, e))?;
            let mut opened = opened.take(MAX_FILE_BYTES);
            opened
                .read_to_string(&mut text)
                .map_err(|e| unreadable(file, e))?;
            all.extend(parse(&file.display().to_string(), &text)?);
        }
        if all.is_empty() {
            return Err(InvalidKey::NoIdentity(folder.display().to_string()));
        }
        Ok(Self(all))
    }

    /// Decrypts a short text; none where none of them opens it.
    ///
    /// # Errors
    /// When it is not what was encrypted.
    pub fn open(&self, sealed: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let decryptor = Decryptor::new(sealed).map_err(io::Error::other)?;
        let mut reader = match decryptor.decrypt(self.all()) {
            Err(DecryptError::NoMatchingKeys) => return Ok(None),
            other => other.map_err(io::Error::other)?,
        };
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// Who they open for.
    pub fn recipients(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|identity| identity.to_public().to_string())
            .collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| identity as &dyn age::Identity)
    }
}

fn parse(file: &str, text: &str) -> Result<Vec<Identity>, InvalidKey> {
    let mut all = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let identity = Identity::from_str(line).map_err(|_| InvalidKey::Identity {
            file: file.to_owned(),
            line: number,
        })?;
        all.push(identity);
    }
    Ok(all)
}
