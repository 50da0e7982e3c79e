//! Objects as YAML.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::NOTE;

/// `objects` as one YAML file with a document each.
pub fn documents<T: Serialize>(objects: &[T]) -> Result<String> {
    let mut file = format!("# {NOTE}\n");
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            file.push_str("---\n");
        }
        file.push_str(&plain(object)?);
    }
    Ok(file)
}

/// `items` as one YAML file that is a list.
pub fn list<T: Serialize>(items: &[T]) -> Result<String> {
    Ok(format!("# {NOTE}\n{}", plain(&items)?))
}

/// One value, with a line's end at its end.
pub fn plain<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_saphyr::to_string(value).context("cannot be written as YAML")?;
    Ok(format!("{}\n", text.trim_end()))
}
