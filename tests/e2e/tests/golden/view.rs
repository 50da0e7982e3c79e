//! What a person sees of an object, without what differs between two runs that did the same.

use anyhow::Result;
use regex::Regex;
use tidelock_e2e::Story;

/// What stands for the story's namespace, whose name is different each time.
const NAMESPACE: &str = "shop";
/// What differs from run to run, and what stands for it, in the order of replacement.
const VOLATILE: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uid>"),
    (r"[0-9a-f]{64}", "<digest>"),
    (r"\b\d{8}-\d{6}\b", "<slot>"),
    (r"(Resource Version: +)\d+", "${1}<number>"),
    (r"((?:Bytes|Bytes Per Second): +)\d+", "${1}<number>"),
    (r"-(backup|restore)-[a-z0-9]{5}\b", "-$1-<pod>"),
    (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", "<size>"),
    (r"\b(\d+(\.\d+)?(ms|s|m|h|d))+\b", "<duration>"),
    (r"<duration> \(x\d+ over <duration>\)", "<duration>"),
    (r"\b\d+%", "<n>%"),
    // Times are in the archive, and compress to more or less.
    (r"\barchive bytes \d+\.\.\d+", "archive bytes <range>"),
    // Which step of a restore is under way is a matter of luck.
    (
        r"(?m)^  Progress:\n(?:    .*\n)*    Step: +(?:Preparing|Checking|Restoring)\n(?:    .*\n)*",
        "  Progress:\n    <how far it is>\n",
    ),
    (r"^(?:Preparing|Checking|Restoring) .*$", "<how far it is>"),
];
/// Between two columns.
const GAP: &str = "   ";

/// What `kubectl get`, `get --output=wide` and `describe` show of one object.
pub fn of(story: &Story, kind: &str, name: &str) -> Result<String> {
    let plain = Plain::new(story)?;
    let mut text = String::new();
    for more in [&[][..], &["--output=wide"]] {
        let arguments = [&["get", kind, name], more].concat();
        let shown = plain.table(&story.kubectl(&arguments)?);
        text.push_str(&format!("$ kubectl {}\n{shown}\n", arguments.join(" ")));
    }
    let described = plain.sentences(&story.kubectl(&["describe", kind, name])?);
    text.push_str(&format!("$ kubectl describe {kind} {name}\n{described}"));
    Ok(text)
}

/// Makes the texts of two runs alike.
struct Plain<'a> {
    story: &'a Story,
    volatile: Vec<(Regex, &'static str)>,
    wide: Regex,
}

impl<'a> Plain<'a> {
    fn new(story: &'a Story) -> Result<Self> {
        let compiled = VOLATILE
            .iter()
            .map(|(pattern, stands_for)| Ok((Regex::new(pattern)?, *stands_for)));
        Ok(Self {
            story,
            volatile: compiled.collect::<Result<_>>()?,
            wide: Regex::new(r"(\S) {2,}")?,
        })
    }

    fn words(&self, text: &str) -> String {
        let text = text.replace(&self.story.namespace, NAMESPACE);
        let replaced = |text: String, (pattern, stands_for): &(Regex, &str)| {
            pattern.replace_all(&text, *stands_for).into_owned()
        };
        self.volatile.iter().fold(text, replaced)
    }

    /// With two spaces where more follow a word: how many depends on what was replaced.
    fn sentences(&self, text: &str) -> String {
        let words = self.words(text);
        let closed_up = self.wide.replace_all(&words, "$1  ");
        closed_up.lines().map(trimmed).collect()
    }

    /// With columns as wide as what stands in them now.
    fn table(&self, text: &str) -> String {
        let starts = text.lines().next().map(columns).unwrap_or_default();
        let row = |line: &str| -> Vec<String> {
            let cells = cells(line, &starts).into_iter();
            cells.map(|cell| self.words(cell.trim())).collect()
        };
        let rows: Vec<Vec<String>> = text.lines().map(row).collect();
        let width = |column: usize| {
            let lengths = rows.iter().map(|row| row[column].chars().count());
            lengths.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..starts.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let padded = row.iter().zip(&widths);
            let padded = padded.map(|(cell, width)| format!("{cell:width$}{GAP}"));
            trimmed(&padded.collect::<String>())
        };
        rows.iter().map(line).collect()
    }
}

/// A line of text without the spaces at its end.
fn trimmed(line: &str) -> String {
    format!("{}\n", line.trim_end())
}

/// Where each column begins, in letters: no header has more than one space in it.
fn columns(header: &str) -> Vec<usize> {
    let letters: Vec<char> = header.chars().collect();
    let begins = |at: &usize| {
        let after_gap = *at >= 2 && letters[at - 2..*at] == [' ', ' '];
        letters[*at] != ' ' && (*at == 0 || after_gap)
    };
    (0..letters.len()).filter(begins).collect()
}

fn cells(line: &str, starts: &[usize]) -> Vec<String> {
    let letters: Vec<char> = line.chars().collect();
    let ends = starts.iter().skip(1).copied().chain([letters.len()]);
    let cell = |(start, end): (&usize, usize)| letters.iter().take(end).skip(*start).collect();
    starts.iter().zip(ends).map(cell).collect()
}
