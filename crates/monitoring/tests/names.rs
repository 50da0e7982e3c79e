//! What alerts, dashboards, runbooks and documents name is exported, and what is exported is
//! documented.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidelock_monitoring::alerts::Alert;
use tidelock_monitoring::pace::Pace;
use tidelock_monitoring::{alerts, cases, dashboards, names, rules};
use tidelock_operator::telemetry::metrics::table;

fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `folder` whose name ends in `ending`.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn stems(folder: &str, ending: &str) -> BTreeSet<String> {
    let all = files(&checkout().join(folder), ending).into_iter();
    all.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// The alerts that have tests: each has a file of its name, and may have one more for each variant
/// of its rule, as `<alert>-<variant>`. The folder of those rules is no test.
fn tested_alerts() -> BTreeSet<String> {
    let rules = checkout().join("tests/alerts/rules");
    let all = files(&checkout().join("tests/alerts"), ".yaml").into_iter();
    all.filter(|path| !path.starts_with(&rules))
        .map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            stem.split('-').next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// All expressions that an alert has: as it is, and as the chart makes it for single namespaces.
fn expressions(alert: &Alert) -> Vec<String> {
    let mut all = vec![(alert.expr)(Pace::REAL)];
    let variants = rules::of_namespaces(&cases::NAMESPACES);
    for rule in variants["groups"][0]["rules"].as_array().unwrap() {
        if rule["alert"] == alert.name {
            all.push(rule["expr"].as_str().unwrap().to_owned());
        }
    }
    all
}

fn alert_names() -> BTreeSet<String> {
    let all = alerts::all().into_iter();
    all.map(|alert| alert.name.to_owned()).collect()
}

#[test]
fn every_metric_in_an_alert_or_a_dashboard_is_exported() {
    for alert in alerts::all() {
        let named = names::named(&(alert.expr)(Pace::REAL));
        assert!(!named.is_empty(), "{} asks for nothing of ours", alert.name);
        assert_eq!(names::unknown(&named), Vec::<&str>::new(), "{}", alert.name);
    }
    for asked in dashboards::queries() {
        let named = names::named(&asked.expr);
        assert!(
            !named.is_empty(),
            "{} asks for nothing of ours",
            asked.place
        );
        assert_eq!(
            names::unknown(&named),
            Vec::<&str>::new(),
            "{}",
            asked.place
        );
    }
}

#[test]
fn every_metric_in_a_file_is_exported() {
    let mut all = files(&checkout().join("docs"), ".md");
    all.extend(files(&checkout().join("deploy"), ".yaml"));
    all.extend(files(&checkout().join("deploy"), ".json"));
    all.push(checkout().join("README.md"));
    for path in all {
        let named = names::named(&read(&path));
        assert_eq!(
            names::unknown(&named),
            Vec::<&str>::new(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn every_exported_metric_is_documented() {
    let page = read(&checkout().join("docs/reference/metrics.md"));
    for metric in table::ALL {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", metric.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not documented", metric.name));
        for label in metric.labels {
            assert!(row.contains(&format!("`{label}`")), "{row} lacks {label}");
        }
    }
}

#[test]
fn every_alert_has_its_tests_and_its_runbook_and_nothing_else_has() {
    assert_eq!(tested_alerts(), alert_names());
    assert_eq!(stems("docs/runbooks", ".md"), alert_names());
    for name in alert_names() {
        let text = read(&checkout().join(format!("docs/runbooks/{name}.md")));
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        let mut at = 0;
        for heading in [
            "## What it means",
            "## How to check",
            "## How to fix",
            "## How to silence",
        ] {
            let found = text[at..].find(heading);
            at += found.unwrap_or_else(|| panic!("{name} lacks {heading:?}, in this order"));
        }
        assert!(text.contains("```sh\n"), "{name} has no command");
    }
}

#[test]
fn every_alert_fires_and_clears_in_a_story_on_a_real_cluster() {
    let stories = files(&checkout().join("tests/e2e/tests/metrics"), ".rs");
    let code: String = stories.iter().map(|path| read(path)).collect();
    let code: String = code.split_whitespace().collect();
    for name in alert_names() {
        for wait in ["fires", "clears"] {
            let told = code.contains(&format!("prometheus.{wait}(\"{name}\","));
            assert!(told, "no story waits until {name} {wait}");
        }
    }
}

#[test]
fn every_label_in_the_text_of_an_alert_is_one_that_its_query_leaves() {
    for alert in alerts::all() {
        let all = expressions(&alert);
        for text in [alert.summary, alert.description] {
            for part in text.split("{{").skip(1) {
                let label = part.split("}}").next().unwrap().trim();
                let label = label.strip_prefix("$labels.").unwrap_or_else(|| {
                    panic!(
                        "{}: {label} is not a label, and the tests fill in labels",
                        alert.name
                    )
                });
                assert!(
                    all.iter().any(|expr| expr.contains(label)),
                    "{}: {label}",
                    alert.name
                );
            }
        }
    }
}

#[test]
fn what_is_deployed_is_what_the_code_says() {
    let parse =
        |path: &str| -> Value { serde_saphyr::from_str(&read(&checkout().join(path))).unwrap() };
    let plain = parse("deploy/alerts.yaml");
    let told = "run `cargo xtask generate`";
    assert!(
        plain == tidelock_monitoring::rules::file(Pace::REAL),
        "{told}"
    );
    assert!(
        parse("deploy/prometheusrule.yaml")["spec"] == plain,
        "{told}"
    );
}
