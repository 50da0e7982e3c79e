//! The state of a story's namespace, without what differs between two runs that did the same.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupPolicy, BackupStorage, Restore};

use crate::wait::Watched;
use crate::{Story, normal, tree};

/// Who publishes the operator's Events.
const COMPONENT: &str = "tidelock.dev/operator";
/// Fields whose values differ from run to run: identity, times, and what an archive with other
/// times in it comes to.
const VOLATILE: [&str; 13] = [
    "uid",
    "resourceVersion",
    "managedFields",
    "generation",
    "deletionGracePeriodSeconds",
    "duration",
    "storedBytes",
    "freeBytes",
    "stored",
    "digest",
    "recoveryPoint",
    "nextScheduledBackup",
    "followedSchedule",
];

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The objects, by kind and name.
    pub objects: BTreeMap<String, Value>,
    /// The files of the storage.
    pub stored: Vec<String>,
    /// Events that should worry a person: about what, and why.
    pub warnings: BTreeSet<String>,
    /// The other Events.
    pub news: BTreeSet<String>,
}

impl Snapshot {
    /// What there is now.
    pub async fn take(story: &Story) -> Result<Self> {
        let mut taken = Self {
            objects: BTreeMap::new(),
            stored: stored(story)?,
            warnings: BTreeSet::new(),
            news: BTreeSet::new(),
        };
        let plain = Plain {
            namespace: &story.namespace,
        };
        for policy in list::<BackupPolicy>(story).await? {
            taken.add("BackupPolicy", &policy, plain.object(&policy)?);
        }
        for backup in list::<Backup>(story).await? {
            taken.add("Backup", &backup, plain.object(&backup)?);
        }
        for restore in list::<Restore>(story).await? {
            taken.add("Restore", &restore, plain.object(&restore)?);
        }
        for storage in list::<BackupStorage>(story).await? {
            taken.add("BackupStorage", &storage, plain.object(&storage)?);
        }
        for job in list::<Job>(story).await? {
            taken.add("Job", &job, plain.job(&job)?);
        }
        for claim in list::<PersistentVolumeClaim>(story).await? {
            let phase = claim.status.as_ref().and_then(|s| s.phase.clone());
            taken.add("PersistentVolumeClaim", &claim, json!({"phase": phase}));
        }
        taken.count_pods(&list::<Pod>(story).await?);
        for event in list::<Event>(story).await? {
            taken.tell(&event);
        }
        Ok(taken)
    }

    fn add<K: ResourceExt>(&mut self, kind: &str, object: &K, value: Value) {
        let key = format!("{kind} {}", normal::name(&object.name_any()));
        self.objects.insert(key, value);
    }

    /// Names of pods are random; how many of a Job ended how is not.
    fn count_pods(&mut self, pods: &[Pod]) {
        let mut counted: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for pod in pods {
            let job = pod.labels().get("batch.kubernetes.io/job-name");
            let job = normal::name(job.map_or("", String::as_str));
            let phase = pod.status.as_ref().and_then(|s| s.phase.clone());
            let phases = counted.entry(job).or_default();
            *phases.entry(phase.unwrap_or_default()).or_default() += 1;
        }
        for (job, phases) in counted {
            self.objects.insert(format!("Pods of {job}"), json!(phases));
        }
    }

    fn tell(&mut self, event: &Event) {
        if event.reporting_component.as_deref() != Some(COMPONENT) {
            return;
        }
        let about = &event.involved_object;
        let told = format!(
            "{} {}: {}",
            about.kind.as_deref().unwrap_or_default(),
            normal::name(about.name.as_deref().unwrap_or_default()),
            event.reason.as_deref().unwrap_or_default(),
        );
        if event.type_.as_deref() == Some("Warning") {
            self.warnings.insert(told);
        } else {
            self.news.insert(told);
        }
    }

    /// What is otherwise here than in `expected`, a line each; nothing where a run may be called
    /// equal. News may be missing: an Event that tells what an object says as well is told once at
    /// most, a warning exactly once.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let keys: BTreeSet<_> = self.objects.keys().chain(expected.objects.keys()).collect();
        for key in keys {
            let (here, there) = (self.objects.get(key), expected.objects.get(key));
            if here != there {
                let text = |value: Option<&Value>| {
                    value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:#}"))
                };
                found.extend(lines(key, &text(here), &text(there)));
            }
        }
        if self.stored != expected.stored {
            found.push(format!(
                "storage holds {:?} instead of {:?}",
                self.stored, expected.stored
            ));
        }
        for lost in expected.warnings.difference(&self.warnings) {
            found.push(format!("the warning {lost} was lost"));
        }
        for more in self.warnings.difference(&expected.warnings) {
            found.push(format!("the warning {more} is told without cause"));
        }
        for more in self.news.difference(&expected.news) {
            found.push(format!("the Event {more} is told without cause"));
        }
        found
    }
}

/// The lines that stand in one of two texts only.
fn lines(key: &str, here: &str, there: &str) -> Vec<String> {
    let only = |text: &str, other: &str, sign: &'static str| {
        let others: BTreeSet<&str> = other.lines().collect();
        let only = text.lines().filter(|line| !others.contains(line));
        only.map(|line| format!("{key}: {sign} {}", line.trim()))
            .collect::<Vec<_>>()
    };
    let mut found = only(here, there, "has");
    found.extend(only(there, here, "lacks"));
    if found.is_empty() {
        found.push(format!("{key}: has the same lines in another order"));
    }
    found
}

async fn list<K: Watched>(story: &Story) -> Result<Vec<K>> {
    Ok(story.api::<K>().list(&ListParams::default()).await?.items)
}

fn stored(story: &Story) -> Result<Vec<String>> {
    let mut names: Vec<String> = tree::stored(&story.archives_folder()?, "")?
        .iter()
        .map(|path| {
            let path = path.to_string_lossy();
            let path = match path.split_once("/.tidelock-") {
                Some((folder, _)) => format!("{folder}/<temporary>"),
                None => path.into_owned(),
            };
            normal::name(&path.replace(&story.namespace, "<namespace>"))
        })
        .collect();
    names.sort();
    Ok(names)
}

/// Takes out of objects what differs from run to run.
struct Plain<'a> {
    namespace: &'a str,
}

impl Plain<'_> {
    fn object<K: Watched>(&self, object: &K) -> Result<Value> {
        let mut value = serde_json::to_value(object)?;
        self.clean(&mut value);
        Ok(value)
    }

    fn job(&self, job: &Job) -> Result<Value> {
        let whole = serde_json::to_value(job)?;
        let conditions = whole["status"]["conditions"].as_array();
        let ends = conditions.into_iter().flatten();
        let ends = ends.filter(|condition| condition["status"] == "True");
        let mut value = json!({
            "metadata": whole["metadata"],
            "ttlSecondsAfterFinished": whole["spec"]["ttlSecondsAfterFinished"],
            "succeeded": whole["status"]["succeeded"],
            "failed": whole["status"]["failed"],
            "is": ends.map(|condition| condition["type"].clone()).collect::<Vec<_>>(),
        });
        self.clean(&mut value);
        Ok(value)
    }

    fn clean(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !VOLATILE.contains(&name.as_str()) && !is_uid_label(name));
                for (name, field) in fields {
                    if name.ends_with("Time") || name.ends_with("Timestamp") {
                        *field = json!("<time>");
                    } else if let ("message", Value::String(text)) = (name.as_str(), &mut *field) {
                        *text = normal::sentence(&text.replace(self.namespace, "<namespace>"));
                    } else {
                        self.clean(field);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean(item)),
            Value::String(text) => {
                let plain = normal::without_uids(&text.replace(self.namespace, "<namespace>"));
                *text = normal::name(&plain);
                if text.parse::<jiff::Timestamp>().is_ok() {
                    "<time>".clone_into(text);
                }
            }
            _ => {}
        }
    }
}

/// Labels and annotations that hold a UID.
fn is_uid_label(name: &str) -> bool {
    name.ends_with("-uid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(warnings: &[&str], news: &[&str]) -> Snapshot {
        let set = |told: &[&str]| told.iter().map(|told| (*told).to_owned()).collect();
        Snapshot {
            objects: BTreeMap::from([("Backup now".to_owned(), json!({"phase": "Failed"}))]),
            stored: Vec::new(),
            warnings: set(warnings),
            news: set(news),
        }
    }

    #[test]
    fn a_lost_warning_and_a_warning_too_many_are_differences() {
        let expected = snapshot(&["Backup now: BackupFailed"], &["Backup now: JobCreated"]);
        assert!(expected.differences(&expected).is_empty());
        assert_eq!(snapshot(&[], &[]).differences(&expected).len(), 1);
        assert_eq!(expected.differences(&snapshot(&[], &[])).len(), 2);
    }

    #[test]
    fn a_field_that_differs_is_named() {
        let expected = snapshot(&[], &[]);
        let mut other = expected.clone();
        other
            .objects
            .insert("Backup now".to_owned(), json!({"phase": "Completed"}));
        let found = other.differences(&expected).join("\n");
        assert!(
            found.contains("Backup now: has \"phase\": \"Completed\""),
            "{found}"
        );
        assert!(
            found.contains("Backup now: lacks \"phase\": \"Failed\""),
            "{found}"
        );
    }
}
