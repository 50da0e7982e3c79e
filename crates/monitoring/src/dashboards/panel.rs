//! One panel.

use serde_json::{Value, json};

/// One query of a panel.
pub struct Query {
    /// The query.
    pub expr: String,
    legend: String,
}

/// How a panel shows its values.
enum Form {
    /// The values of now, large.
    Stat,
    /// Over time.
    Lines,
    /// The values of now, a line for each object, the largest first.
    Table,
}

/// One panel.
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// Its queries.
    pub queries: Vec<Query>,
    /// Columns of Grafana's grid.
    pub width: u32,
    /// Rows of Grafana's grid.
    pub height: u32,
    form: Form,
    unit: &'static str,
    description: &'static str,
    alarming: bool,
}

/// The data source that a person chose.
pub fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Panel {
    fn new(title: &'static str, form: Form, (width, height): (u32, u32)) -> Self {
        Self {
            title,
            queries: Vec::new(),
            width,
            height,
            form,
            unit: "short",
            description: "",
            alarming: false,
        }
    }

    /// Values of now, large.
    pub fn stat(title: &'static str) -> Self {
        Self::new(title, Form::Stat, (4, 4))
    }

    /// Over time.
    pub fn lines(title: &'static str) -> Self {
        Self::new(title, Form::Lines, (12, 8))
    }

    /// A line for each object.
    pub fn table(title: &'static str) -> Self {
        Self::new(title, Form::Table, (12, 8))
    }

    /// Shows `expr` as `legend`, where `{{label}}` stands for a label.
    pub fn shows(mut self, expr: impl Into<String>, legend: &str) -> Self {
        self.queries.push(Query {
            expr: expr.into(),
            legend: legend.to_owned(),
        });
        self
    }

    /// In Grafana's unit of that name.
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// With a sentence behind the information mark.
    pub fn about(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Red when it is above zero.
    pub fn alarming(mut self) -> Self {
        self.alarming = true;
        self
    }

    /// As Grafana has it, at that place.
    pub fn to_value(&self, id: u32, x: u32, y: u32) -> Value {
        let instant = !matches!(self.form, Form::Lines);
        let targets: Vec<Value> = self
            .queries
            .iter()
            .zip('A'..='Z')
            .map(|(query, letter)| self.target(query, letter, instant))
            .collect();
        let steps = if self.alarming {
            json!([{"color": "green", "value": null}, {"color": "red", "value": 1}])
        } else {
            json!([{"color": "text", "value": null}])
        };
        let mut panel = json!({
            "id": id,
            "type": match self.form {
                Form::Stat => "stat",
                Form::Lines => "timeseries",
                Form::Table => "table",
            },
            "title": self.title,
            "description": self.description,
            "datasource": source(),
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": targets,
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    "thresholds": {"mode": "absolute", "steps": steps},
                },
                "overrides": [],
            },
        });
        match self.form {
            Form::Stat => {
                panel["options"] = json!({
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                    "colorMode": "background", "graphMode": "none", "textMode": "auto",
                });
            }
            Form::Lines => {
                panel["options"] = json!({
                    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                });
            }
            Form::Table => {
                panel["transformations"] = json!([
                    {"id": "organize", "options": {"excludeByName": {"Time": true}}},
                    {"id": "sortBy", "options": {"sort": [{"field": "Value", "desc": true}]}},
                ]);
            }
        }
        panel
    }

    fn target(&self, query: &Query, letter: char, instant: bool) -> Value {
        json!({
            "refId": letter.to_string(),
            "datasource": source(),
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": instant,
            "range": !instant,
            "format": if matches!(self.form, Form::Table) { "table" } else { "time_series" },
        })
    }
}
