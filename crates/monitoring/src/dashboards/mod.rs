//! The Grafana dashboards.

mod fleet;
mod panel;
mod policy;

use serde_json::{Value, json};

pub use panel::{Panel, Query};

/// One dashboard.
pub struct Dashboard {
    /// Its file below `deploy/dashboards/`, without the ending, and its identity in Grafana.
    pub name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Variables a person chooses, and the query that lists their values.
    variables: Vec<(&'static str, String)>,
    /// Rows of panels, from top to bottom.
    pub rows: Vec<(&'static str, Vec<Panel>)>,
}

/// Grafana's grid has so many columns.
const COLUMNS: u32 = 24;

/// All dashboards.
pub fn all() -> Vec<Dashboard> {
    vec![fleet::dashboard(), policy::dashboard()]
}

/// One query of a dashboard, with what it is for.
pub struct Asked {
    /// Dashboard and panel, for a person.
    pub place: String,
    /// The query; `$namespace` and `$policy` stand for what a person chose.
    pub expr: String,
}

/// Every query of every dashboard, those of variables included.
pub fn queries() -> Vec<Asked> {
    let mut all = Vec::new();
    for dashboard in self::all() {
        for (variable, query) in &dashboard.variables {
            all.push(Asked {
                place: format!("{}: variable {variable}", dashboard.name),
                expr: inner_of_label_values(query).to_owned(),
            });
        }
        for panel in dashboard.rows.iter().flat_map(|(_, panels)| panels) {
            for query in &panel.queries {
                all.push(Asked {
                    place: format!("{}: {}", dashboard.name, panel.title),
                    expr: query.expr.clone(),
                });
            }
        }
    }
    all
}

/// The query within Grafana's `label_values(<query>, <label>)`.
fn inner_of_label_values(query: &str) -> &str {
    let inner = query.strip_prefix("label_values(");
    inner
        .and_then(|inner| inner.rsplit_once(','))
        .map_or(query, |(inner, _)| inner)
}

impl Dashboard {
    /// As Grafana imports it.
    pub fn to_value(&self) -> Value {
        let source = json!({
            "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source",
        });
        let variables = self.variables.iter().map(|(name, query)| {
            json!({
                "name": name, "type": "query", "query": query, "refresh": 2, "sort": 1,
                "datasource": panel::source(),
            })
        });
        let list: Vec<Value> = std::iter::once(source).chain(variables).collect();
        json!({
            "uid": format!("tidelock-{}", self.name),
            "title": self.title,
            "description": self.description,
            "tags": ["tidelock"],
            "timezone": "browser",
            "editable": true,
            "graphTooltip": 1,
            "refresh": "1m",
            "time": {"from": "now-7d", "to": "now"},
            "schemaVersion": 39,
            "version": 1,
            "templating": {"list": list},
            "panels": self.panels(),
        })
    }

    fn panels(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let (mut id, mut y) = (0, 0);
        for (title, panels) in &self.rows {
            id += 1;
            all.push(json!({
                "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in panels {
                if x + panel.width > COLUMNS {
                    y += height;
                    (x, height) = (0, 0);
                }
                id += 1;
                all.push(panel.to_value(id, x, y));
                x += panel.width;
                height = height.max(panel.height);
            }
            y += height;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn panels_do_not_overlap_and_none_is_empty() {
        for dashboard in all() {
            let mut taken = BTreeSet::new();
            for panel in dashboard.panels() {
                let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
                assert!(at("x") + at("w") <= u64::from(COLUMNS));
                for x in at("x")..at("x") + at("w") {
                    for y in at("y")..at("y") + at("h") {
                        assert!(
                            taken.insert((x, y)),
                            "{}: {}",
                            dashboard.name,
                            panel["title"]
                        );
                    }
                }
                let queries = panel["targets"].as_array();
                assert!(panel["type"] == "row" || queries.is_some_and(|all| !all.is_empty()));
            }
        }
    }

    #[test]
    fn the_query_of_a_variable_is_one_that_prometheus_knows() {
        let query = "label_values(a{b=\"c\"}, policy)";
        assert_eq!(inner_of_label_values(query), "a{b=\"c\"}");
    }
}
