//! Results as a picture: how many times as long as the mover others take, with cold caches.

use std::fmt::Write as _;

use crate::figures::in_order;
use crate::{Cache, Contest, Format, READING_BACK, Record, Results};

/// Width of a panel, of the names in it, and of what stands right of the longest bar.
const PANEL: f64 = 475.0;
const NAMES: f64 = 165.0;
const FIGURES: f64 = 50.0;
/// Heights of a panel's title, of a bar with the room below it, and the room between trees.
const TITLE: f64 = 34.0;
const LINE: f64 = 17.0;
const GAP: f64 = 9.0;
/// Room around all of it, and for the explanation above.
const MARGIN: f64 = 12.0;
const HEADING: f64 = 44.0;

/// Colours that can be read on white, and others on black: whoever looks has one of both.
const STYLE: &str = "<style>\
    text{font-family:system-ui,sans-serif;font-size:12px;fill:#24292f}\
    .head{font-size:15px;font-weight:600}\
    .tree{font-weight:600}\
    .peer{fill:#8c6d31}\
    .own{fill:#2f6fb5}\
    .one{stroke:#57606a;stroke-dasharray:3 3}\
    @media(prefers-color-scheme:dark){\
    text{fill:#d7dde4}.peer{fill:#c9a35a}.own{fill:#6ea8e8}.one{stroke:#9aa4af}}\
    </style>";

/// The picture as SVG.
pub fn picture(results: &Results) -> String {
    let rows = [Contest::Backup, Contest::Restore].map(|contest| {
        [Format::TarGz, Format::TarZst].map(|format| Panel::new(results, contest, format))
    });
    let longest = rows
        .iter()
        .flatten()
        .map(Panel::longest)
        .fold(1.0, f64::max);
    let scale = (PANEL - NAMES - FIGURES) / longest;
    let mut body = String::new();
    let mut top = MARGIN + HEADING;
    for row in &rows {
        for (at, panel) in row.iter().enumerate() {
            let left = MARGIN + at as f64 * (PANEL + MARGIN);
            panel.draw(&mut body, left, top, scale);
        }
        top += row.iter().map(Panel::height).fold(0.0, f64::max) + MARGIN;
    }
    let (width, height) = (2.0 * PANEL + 3.0 * MARGIN, top);
    let heading = write_text(
        MARGIN,
        MARGIN + 14.0,
        "head",
        "How many times as long as the mover others take",
    );
    let note = match &results.machine {
        Some(machine) => format!(
            "Cold caches, medians of ratios within a turn; the dashed line is the mover. {} processors.",
            machine.cores
        ),
        None => "Nothing was measured yet.".into(),
    };
    let note = write_text(MARGIN, MARGIN + 32.0, "", &note);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>How many times as long as the mover others take</title>\n{STYLE}\n{heading}{note}{body}</svg>\n"
    )
}

/// A contest with one format: all trees, and a bar for each contestant but the mover.
struct Panel<'r> {
    title: String,
    /// Name of the tree, and its bars.
    trees: Vec<(&'r str, Vec<(&'r Record, f64)>)>,
}

impl<'r> Panel<'r> {
    fn new(results: &'r Results, contest: Contest, format: Format) -> Self {
        let of_these = results.records.iter().filter(|record| {
            (record.contest, record.format, record.cache) == (contest, format, Cache::Cold)
                && !record.is_movers()
        });
        let mut trees: Vec<(&str, Vec<(&Record, f64)>)> = Vec::new();
        for record in in_order(of_these) {
            let Some(ratio) = record.ratio() else {
                continue;
            };
            match trees.last_mut() {
                Some((tree, bars)) if *tree == record.tree => bars.push((record, ratio)),
                _ => trees.push((&record.tree, vec![(record, ratio)])),
            }
        }
        Self {
            title: format!("{}, {}", contest.name(), format.name()),
            trees,
        }
    }

    fn longest(&self) -> f64 {
        let bars = self.trees.iter().flat_map(|(_, bars)| bars);
        bars.map(|(_, ratio)| *ratio).fold(1.0, f64::max)
    }

    /// Without bars there is no panel.
    fn height(&self) -> f64 {
        let of_tree = |bars: &Vec<_>| GAP + LINE * (1.0 + bars.len() as f64);
        match self.trees.is_empty() {
            true => 0.0,
            false => {
                TITLE
                    + self
                        .trees
                        .iter()
                        .map(|(_, bars)| of_tree(bars))
                        .sum::<f64>()
            }
        }
    }

    fn draw(&self, body: &mut String, left: f64, top: f64, scale: f64) {
        if self.trees.is_empty() {
            return;
        }
        *body += &write_text(left, top + 16.0, "head", &self.title);
        let mut line = top + TITLE;
        for (tree, bars) in &self.trees {
            *body += &write_text(left, line + 12.0, "tree", tree);
            line += LINE;
            for (record, ratio) in bars {
                bar(body, (left, line), record, *ratio, scale);
                line += LINE;
            }
            line += GAP;
        }
        let (at, end) = (left + NAMES + scale, top + self.height() - GAP);
        let _ = writeln!(
            body,
            "<line class=\"one\" x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{end:.1}\"/>",
            top + TITLE
        );
    }
}

fn bar(body: &mut String, (left, top): (f64, f64), record: &Record, ratio: f64, scale: f64) {
    let class = match record.contestant == READING_BACK {
        true => "own",
        false => "peer",
    };
    let width = ratio * scale;
    *body += &write_text(left, top + 12.0, "", &record.contestant);
    let _ = writeln!(
        body,
        "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
        left + NAMES,
        top + 2.0,
        LINE - 4.0
    );
    // Right of the dashed line also where the bar ends left of it.
    *body += &write_text(
        left + NAMES + width.max(scale) + 5.0,
        top + 12.0,
        "",
        &format!("{ratio:.2}"),
    );
}

fn write_text(left: f64, base: f64, class: &str, text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<text class=\"{class}\" x=\"{left:.1}\" y=\"{base:.1}\">{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    #[test]
    fn each_contestant_but_the_mover_has_a_bar_as_long_as_its_ratio() {
        let results = Results {
            records: vec![
                record("S", crate::MOVER, &[1.0]),
                record("S", "tar | gzip -6", &[5.0]),
                record("S", "a <tree> & more", &[2.5]),
            ],
            ..Results::default()
        };
        let picture = picture(&results);
        assert_eq!(picture.matches("<rect").count(), 2);
        // The longest takes all the room, and half as much half of it.
        assert!(picture.contains("width=\"260.0\""), "{picture}");
        assert!(picture.contains("width=\"130.0\""), "{picture}");
        assert!(picture.contains("a &lt;tree&gt; &amp; more"), "{picture}");
    }
}
