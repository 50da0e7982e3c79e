//! Medians and their spread.

use crate::{MOVER, Record, Turn};

/// The order that trees are shown in; others follow.
pub const TREES: [&str; 5] = ["S", "M", "L", "D", "X"];

/// A median, and the least and the most that it was made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// Of all turns of a record; none when it has none.
    pub fn of(record: &Record, figure: impl Fn(&Turn) -> f64) -> Option<Self> {
        let mut values: Vec<f64> = record.turns.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            // The median of an even number of turns lies between the two in the middle.
            0 => (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0,
            _ => *values.get(middle)?,
        };
        Some(Self {
            least: *values.first()?,
            median,
            most: *values.last()?,
        })
    }

    /// Two figures after the point, and the spread where there is one.
    pub fn told(self) -> String {
        let Self {
            least,
            median,
            most,
        } = self;
        let spread = format!("{least:.2}–{most:.2}");
        if spread == format!("{median:.2}–{median:.2}") {
            return format!("{median:.2}");
        }
        format!("{median:.2} ({spread})")
    }
}

impl Record {
    /// Whether it is the mover that others are compared with.
    pub(crate) fn is_movers(&self) -> bool {
        self.contestant == MOVER
    }

    /// How many times as long as the mover it took, as the median of the turns.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Spread::of(self, |turn| turn.against_mover).map(|spread| spread.median)
    }
}

/// Records in the order of the trees, the mover before the others.
pub fn in_order<'r>(records: impl IntoIterator<Item = &'r Record>) -> Vec<&'r Record> {
    let mut all: Vec<&Record> = records.into_iter().collect();
    let place = |tree: &str| TREES.iter().position(|known| *known == tree);
    // Stable: contestants stay in the order they were measured in.
    all.sort_by_key(|record| {
        let place = place(&record.tree).unwrap_or(TREES.len());
        (place, record.tree.clone(), !record.is_movers())
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    fn of(ratios: &[f64]) -> Option<Spread> {
        Spread::of(&record("S", "gzip", ratios), |turn| turn.against_mover)
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 9.0]).unwrap().told(), "3.00 (1.00–9.00)");
        assert_eq!(of(&[3.0, 1.0]).unwrap().told(), "2.00 (1.00–3.00)");
        assert_eq!(of(&[3.0]).unwrap().told(), "3.00");
    }

    #[test]
    fn trees_have_their_order_and_the_mover_is_first() {
        let records = ["X", "/usr", "L", "S"].map(|tree| record(tree, "gzip", &[1.0]));
        let mover = record("S", MOVER, &[1.0]);
        let ordered = in_order(records.iter().chain([&mover]));
        let told: Vec<_> = ordered
            .iter()
            .map(|record| (record.tree.as_str(), record.contestant.as_str()))
            .collect();
        let expected = [
            ("S", MOVER),
            ("S", "gzip"),
            ("L", "gzip"),
            ("X", "gzip"),
            ("/usr", "gzip"),
        ];
        assert_eq!(told, expected);
    }
}
