//! The API reference: every field of every kind, from the CRDs' schemas.

use std::fmt::Write;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps,
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use crate::NOTE;

/// Fields whose type is Kubernetes' own and described there.
const KNOWN_ELSEWHERE: [&str; 1] = ["conditions"];

/// The reference as one Markdown page.
pub fn page(crds: &[CustomResourceDefinition]) -> Result<String> {
    let mut page = format!("<!-- {NOTE} -->\n# API reference\n\n");
    page.push_str(
        "Group `tidelock.dev`, version `v1alpha1`; every kind is namespaced. `kubectl get tidelock` \
         lists all of them, and `kubectl explain backuppolicy.spec` tells what stands here.\n",
    );
    for crd in crds {
        kind(&mut page, crd)?;
    }
    Ok(page)
}

fn kind(page: &mut String, crd: &CustomResourceDefinition) -> Result<()> {
    let name = &crd.spec.names.kind;
    let version = crd.spec.versions.first().context("a CRD has a version")?;
    let schema = version.schema.as_ref();
    let root = schema
        .and_then(|schema| schema.open_api_v3_schema.as_ref())
        .with_context(|| format!("{name} has no schema"))?;
    writeln!(page, "\n## {name}\n\n{}\n", description(root))?;
    let short = crd.spec.names.short_names.iter().flatten();
    let short: Vec<String> = short.map(|short| format!("`{short}`")).collect();
    writeln!(page, "Short name: {}.\n", short.join(", "))?;
    rules(page, "The whole object", root)?;
    for part in ["spec", "status"] {
        let fields = root.properties.as_ref().and_then(|all| all.get(part));
        let Some(fields) = fields else { continue };
        writeln!(page, "### {name} {part}\n")?;
        rules(page, &format!("`{part}`"), fields)?;
        writeln!(
            page,
            "| Field | Type | Default | Description | Validation |"
        )?;
        writeln!(page, "|---|---|---|---|---|")?;
        rows(page, "", fields)?;
        page.push('\n');
    }
    columns(page, version)
}

fn rules(page: &mut String, what: &str, schema: &JSONSchemaProps) -> Result<()> {
    for rule in messages(schema) {
        writeln!(page, "{what}: {rule}.\n")?;
    }
    Ok(())
}

fn rows(page: &mut String, prefix: &str, schema: &JSONSchemaProps) -> Result<()> {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{prefix}{name}");
        writeln!(
            page,
            "| `{path}` | {} | {} | {} | {} |",
            type_name(field),
            default(field),
            cell(&description(field)),
            cell(&validation(field, required.contains(name))),
        )?;
        if KNOWN_ELSEWHERE.contains(&name.as_str()) {
            continue;
        }
        rows(page, &format!("{path}."), field)?;
        if let Some(items) = items(field) {
            rows(page, &format!("{path}[]."), items)?;
        }
    }
    Ok(())
}

fn columns(page: &mut String, version: &CustomResourceDefinitionVersion) -> Result<()> {
    writeln!(page, "### What `kubectl get` shows\n")?;
    writeln!(page, "| Column | Meaning |\n|---|---|")?;
    for column in version.additional_printer_columns.iter().flatten() {
        let wide = if column.priority.unwrap_or(0) > 0 {
            " (with `-o wide`)"
        } else {
            ""
        };
        let meaning = column.description.as_deref().unwrap_or("How old it is");
        writeln!(page, "| {} | {meaning}{wide} |", column.name)?;
    }
    Ok(())
}

fn description(schema: &JSONSchemaProps) -> String {
    schema.description.clone().unwrap_or_default()
}

fn type_name(schema: &JSONSchemaProps) -> String {
    if let Some(items) = items(schema) {
        return match items.description.as_deref() {
            Some(text) if text.starts_with("Condition ") => "list of Condition".to_owned(),
            _ => format!("list of {}", type_name(items)),
        };
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        return format!("map of {}", type_name(values));
    }
    let plain = schema.type_.as_deref().unwrap_or("any");
    match schema.format.as_deref() {
        Some("date-time") => "time".to_owned(),
        _ => plain.to_owned(),
    }
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

fn default(schema: &JSONSchemaProps) -> String {
    match &schema.default {
        Some(default) => format!("`{}`", plain(&default.0)),
        None => String::new(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn validation(schema: &JSONSchemaProps, required: bool) -> String {
    let mut all = Vec::new();
    if required {
        all.push("required".to_owned());
    }
    if let Some(values) = &schema.enum_ {
        let values: Vec<String> = values
            .iter()
            .map(|v| format!("`{}`", plain(&v.0)))
            .collect();
        all.push(format!("one of {}", values.join(", ")));
    }
    all.extend(bounds("", schema.minimum, schema.maximum));
    let whole = |count: Option<i64>| count.map(|count| count as f64);
    all.extend(bounds(
        " characters",
        whole(schema.min_length),
        whole(schema.max_length),
    ));
    all.extend(bounds(
        " items",
        whole(schema.min_items),
        whole(schema.max_items),
    ));
    all.extend(bounds(
        " entries",
        whole(schema.min_properties),
        whole(schema.max_properties),
    ));
    if let Some(pattern) = &schema.pattern {
        all.push(format!("matches `{pattern}`"));
    }
    all.extend(messages(schema));
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        all.extend(messages(values).map(|message| format!("each {message}")));
    }
    all.join("; ")
}

fn bounds(unit: &str, low: Option<f64>, high: Option<f64>) -> Option<String> {
    match (low, high) {
        (Some(low), Some(high)) => Some(format!("{low} to {high}{unit}")),
        (Some(low), None) => Some(format!("at least {low}{unit}")),
        (None, Some(high)) => Some(format!("at most {high}{unit}")),
        (None, None) => None,
    }
}

fn messages(schema: &JSONSchemaProps) -> impl Iterator<Item = String> {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    rules.filter_map(|rule| rule.message.clone())
}

/// `text` as the cell of a table.
pub fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
