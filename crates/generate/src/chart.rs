//! The generated parts of the Helm chart: all that is known in code. The other templates in
//! `deploy/chart/templates` are written by hand.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};
use tidelock_operator::rbac;

use crate::values::{Setting, settings};
use crate::{Generated, NOTE, yaml};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const KUBE_VERSION: &str = ">=1.30.0-0";

/// The chart's generated files.
pub fn files(crds: &[CustomResourceDefinition]) -> Result<Vec<Generated>> {
    let settings = settings();
    let file = |path: &str, content| Generated::new(path, content);
    Ok(vec![
        file("deploy/chart/Chart.yaml", chart()?),
        file("deploy/chart/values.yaml", values(&settings)?),
        file("deploy/chart/values.schema.json", schema(&settings)?),
        file("deploy/chart/README.md", readme(&settings)?),
        file("deploy/chart/templates/crds.yaml", crd_template(crds)?),
        file(
            "deploy/chart/files/rbac.yaml",
            yaml::list(&rbac::rules(rbac::PERMISSIONS))?,
        ),
        file(
            "deploy/chart/files/rbac-own-namespace.yaml",
            yaml::list(&rbac::rules(rbac::OWN_NAMESPACE))?,
        ),
        file(
            "deploy/chart/files/rbac-view.yaml",
            yaml::list(&rbac::rules(rbac::VIEWERS))?,
        ),
        file(
            "deploy/chart/files/rbac-edit.yaml",
            yaml::list(&rbac::rules(rbac::EDITORS))?,
        ),
    ])
}

fn chart() -> Result<String> {
    yaml::documents(&[json!({
        "apiVersion": "v2",
        "name": "tidelock",
        "description": "Scheduled, retention-aware, proven backups of PersistentVolumeClaims",
        "type": "application",
        "version": VERSION,
        "appVersion": VERSION,
        "kubeVersion": KUBE_VERSION,
        "home": env!("CARGO_PKG_REPOSITORY"),
        "sources": [env!("CARGO_PKG_REPOSITORY")],
        "keywords": ["backup", "restore", "persistentvolumeclaim", "operator"],
        "annotations": {"artifacthub.io/license": "Apache-2.0"},
    })])
}

/// values.yaml: each value below the comment that says what it is.
fn values(settings: &[Setting]) -> Result<String> {
    let mut file = format!("# {NOTE}\n");
    let mut open: Vec<&str> = Vec::new();
    for setting in settings {
        let parts: Vec<&str> = setting.path.split('.').collect();
        let (name, parents) = parts.split_last().context("a path has a name")?;
        let shared = open.iter().zip(parents).take_while(|(a, b)| a == b).count();
        if parents.is_empty() || shared == 0 {
            file.push('\n');
        }
        for (depth, parent) in parents.iter().enumerate().skip(shared) {
            writeln!(file, "{}{parent}:", "  ".repeat(depth))?;
        }
        open = parents.to_vec();
        let indent = "  ".repeat(parents.len());
        for line in wrapped(setting.about, 96 - indent.len()) {
            writeln!(file, "{indent}# {line}")?;
        }
        writeln!(
            file,
            "{indent}{name}:{}",
            default(&setting.default, &indent)?
        )?;
    }
    Ok(file)
}

fn default(value: &Value, indent: &str) -> Result<String> {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if !is_block {
        return Ok(format!(" {value}"));
    }
    let block = yaml::plain(value)?;
    let lines = block.trim_end().lines();
    Ok(lines.map(|line| format!("\n{indent}  {line}")).collect())
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, String::len);
        if line > 0 && line + 1 + word.len() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn schema(settings: &[Setting]) -> Result<String> {
    let mut root = object();
    for setting in settings {
        let mut schema = setting.schema.clone();
        schema["description"] = json!(setting.about);
        let mut place = &mut root;
        let parts: Vec<&str> = setting.path.split('.').collect();
        let (name, parents) = parts.split_last().context("a path has a name")?;
        for parent in parents {
            let fields = fields(place)?;
            place = fields.entry(*parent).or_insert_with(object);
        }
        let before = fields(place)?.insert((*name).to_owned(), schema);
        ensure!(before.is_none(), "{} is there twice", setting.path);
    }
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    // Helm adds it for charts that depend on this one.
    fields(&mut root)?.insert("global".to_owned(), json!({"type": "object"}));
    root["if"] = json!({"properties": {"rbac": {"properties": {"scope": {"const": "Namespace"}}}}});
    root["then"] =
        json!({"properties": {"rbac": {"properties": {"watchNamespaces": {"minItems": 1}}}}});
    root["else"] =
        json!({"properties": {"rbac": {"properties": {"watchNamespaces": {"maxItems": 0}}}}});
    let mut text = serde_json::to_string_pretty(&root)?;
    text.push('\n');
    Ok(text)
}

/// A schema of an object that takes no field it does not know: a slip of the pen is refused.
fn object() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {}})
}

fn fields(schema: &mut Value) -> Result<&mut Map<String, Value>> {
    let fields = schema["properties"].as_object_mut();
    fields.context("a value lies below one that is no object")
}

fn readme(settings: &[Setting]) -> Result<String> {
    let mut page = format!("<!-- {NOTE} -->\n# The chart of Tidelock\n\n");
    page.push_str(
        "How to install it, what it may do and how it is upgraded: \
         [docs/install.md](../../docs/install.md).\n\n## Values\n\n\
         | value | default | what it is |\n|---|---|---|\n",
    );
    for setting in settings {
        let default = setting.default.to_string();
        let about = setting.about.replace('|', "\\|");
        writeln!(page, "| `{}` | `{default}` | {about} |", setting.path)?;
    }
    Ok(page)
}

/// The CRDs as a template, so that an upgrade of the chart is one of them too: Helm never touches
/// what lies in `crds/` again.
fn crd_template(crds: &[CustomResourceDefinition]) -> Result<String> {
    const HEAD: &str = "metadata:\n";
    const ANNOTATIONS: &str =
        "metadata:\n  annotations:\n    {{- include \"tidelock.crdAnnotations\" . | nindent 4 }}\n";
    let mut template = format!("{{{{- /* {NOTE} */ -}}}}\n{{{{- if .Values.crds.install }}}}\n");
    for crd in crds {
        let text = yaml::plain(crd)?;
        ensure!(!text.contains("{{"), "a description holds a template");
        ensure!(
            crd.metadata.annotations.is_none(),
            "a CRD has annotations of its own"
        );
        template.push_str("---\n");
        template.push_str(&text.replacen(HEAD, ANNOTATIONS, 1));
    }
    template.push_str("{{- end }}\n");
    Ok(template)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_value_is_in_the_file_where_its_path_says() {
        let file: Value = serde_saphyr::from_str(&values(&settings()).unwrap()).unwrap();
        for setting in settings() {
            let pointer = format!("/{}", setting.path.replace('.', "/"));
            assert_eq!(file.pointer(&pointer), Some(&setting.default), "{pointer}");
        }
    }

    #[test]
    fn each_crd_gets_its_annotations_once_and_whole() {
        let template = crd_template(&crate::crds::all()).unwrap();
        let included = template.matches("tidelock.crdAnnotations").count();
        assert_eq!(included, crate::crds::all().len());
        assert!(template.contains("name: backups.tidelock.dev"));
    }
}
