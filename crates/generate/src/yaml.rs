//! Objects as a YAML stream.

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
        let document = serde_saphyr::to_string(object).context("cannot be written as YAML")?;
        file.push_str(document.trim_end());
        file.push('\n');
    }
    Ok(file)
}
