//! Log lines, and the fields that stand in each line of a reconcile.

use std::sync::atomic::{AtomicU64, Ordering};

use kube::{Resource, ResourceExt};
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::clock::moment;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object for each line; what a reconcile is about stands in `span`.
    Json,
    /// For a person at a terminal.
    Text,
}

/// Logs to standard error from now on, as `filter` says.
///
/// # Errors
/// When `filter` is none.
pub fn start(format: Format, filter: &str) -> Result<(), ParseError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_writer(std::io::stderr);
    match format {
        Format::Json => lines.json().with_span_list(false).init(),
        Format::Text => lines.init(),
    }
    Ok(())
}

/// Names reconciles: by when this process began, and a count, so that also those of two processes
/// are told apart.
pub struct ReconcileIds {
    process: u64,
    next: AtomicU64,
}

impl Default for ReconcileIds {
    fn default() -> Self {
        let process = moment().as_duration().as_nanos();
        Self {
            process: u64::try_from(process).unwrap_or_default(),
            next: AtomicU64::new(1),
        }
    }
}

impl ReconcileIds {
    /// The next one.
    pub fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number}", self.process)
    }
}

/// What every line of the reconcile `id` of `object` carries. Its level is that of errors, so that no
/// filter that lets a line through drops what it is about. The object's name is `object`: `name` in a
/// line's span is the span's own.
pub fn span<K: Resource<DynamicType = ()>>(object: &K, id: &str) -> Span {
    tracing::error_span!(
        "reconcile",
        kind = %K::kind(&()),
        namespace = object.namespace(),
        object = object.name_any(),
        uid = object.uid(),
        reconcile = id,
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use kube::api::ObjectMeta;
    use tidelock_api::Backup;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Page {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn each_line_of_a_reconcile_says_what_it_is_about() {
        let page = Page::default();
        let lines = tracing_subscriber::fmt()
            .json()
            .with_span_list(false)
            .with_writer(page.clone())
            // Also when only errors are logged.
            .with_env_filter(EnvFilter::try_new("error").unwrap());
        let mut backup = Backup::new("now", serde_json::from_str("{}").unwrap());
        backup.metadata = ObjectMeta {
            namespace: Some("shop".to_owned()),
            uid: Some("cd45076b".to_owned()),
            ..backup.metadata
        };
        tracing::subscriber::with_default(lines.finish(), || {
            span(&backup, "5f-7").in_scope(|| tracing::error!("it rains"));
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["fields"]["message"], "it rains");
        let about = serde_json::json!({
            "kind": "Backup", "namespace": "shop", "object": "now", "uid": "cd45076b",
            "reconcile": "5f-7",
        });
        for (field, value) in about.as_object().unwrap() {
            assert_eq!(&line["span"][field], value, "{text}");
        }
    }

    #[test]
    fn reconciles_have_names_of_their_own() {
        let ids = ReconcileIds::default();
        assert_ne!(ids.next(), ids.next());
    }
}
