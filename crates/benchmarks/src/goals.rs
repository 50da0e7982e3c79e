//! What the mover is to reach, beside what it reaches; with cold caches and trees of full size.

use std::fmt::Write as _;

use crate::figures::TREES;
use crate::{Cache, Contest, Format, MOVER, READING_BACK, Record};

/// One row: what is compared, and where the bound lies for each tree that it is about.
struct Goal {
    what: &'static str,
    measure: Measure,
    contest: Contest,
    format: Format,
    /// The best of them counts.
    peers: &'static [&'static str],
    bounds: [Option<f64>; 5],
}

#[derive(Clone, Copy)]
enum Measure {
    /// How many times as long as the mover the best of the peers takes, at least.
    Times,
    /// How much more than the peer's the mover's archive takes, in percent at most. Its index,
    /// which the peers have none of, is told beside it.
    Size,
    /// The same with all that the mover stores.
    SizeWithIndex,
    /// Share of reading back in the whole run, in percent at most.
    ReadingBack,
}

fn of(bounds: [f64; 4]) -> [Option<f64>; 5] {
    let [s, m, l, d] = bounds.map(Some);
    [s, m, l, d, None]
}

fn goals() -> Vec<Goal> {
    let times = |what, contest, format, peers, bounds| Goal {
        what,
        measure: Measure::Times,
        contest,
        format,
        peers,
        bounds,
    };
    let size = |what, format, peers, bound| Goal {
        measure: Measure::Size,
        ..times(what, Contest::Backup, format, peers, of([bound; 4]))
    };
    let back = |what, format| Goal {
        measure: Measure::ReadingBack,
        ..times(
            what,
            Contest::Backup,
            format,
            &[READING_BACK],
            of([35.0; 4]),
        )
    };
    let largest = [None, None, None, None, Some(20.0)];
    let (gz, zst) = (Format::TarGz, Format::TarZst);
    let backup = |what, format, peers, bounds| times(what, Contest::Backup, format, peers, bounds);
    let restore = |what, format, peers| {
        times(
            what,
            Contest::Restore,
            format,
            peers,
            of([1.7, 2.0, 2.5, 5.0]),
        )
    };
    let one = |what, format, peers| times(what, Contest::OneFile, format, peers, largest);
    vec![
        backup(
            "backup, `TarGz`: `tar \\| pigz -6` takes times as long",
            gz,
            &["tar | pigz -6"],
            of([2.2, 3.0, 4.0, 4.0]),
        ),
        backup(
            "backup, `TarGz`: `tar \\| igzip -3`",
            gz,
            &["tar | igzip -3"],
            of([1.3, 1.4, 1.8, 2.2]),
        ),
        backup(
            "backup, `TarZst`: `tar \\| zstd -T0 -3`",
            zst,
            &["tar | zstd -T0 -3"],
            of([1.8, 2.2, 1.7, 2.2]),
        ),
        restore(
            "restore, `TarGz`: the best of `gzip`, `unpigz`, `igzip`",
            gz,
            &["gzip -d | tar", "unpigz | tar", "igzip -d | tar"],
        ),
        restore(
            "restore, `TarZst`: `zstd -d \\| tar`",
            zst,
            &["zstd -d | tar"],
        ),
        one(
            "one file, `TarGz`: the best of `gzip`, `igzip`",
            gz,
            &["gzip -d | tar -x FILE", "igzip -d | tar -x FILE"],
        ),
        one(
            "one file, `TarZst`: `zstd -d \\| tar -x FILE`",
            zst,
            &["zstd -d | tar -x FILE"],
        ),
        size(
            "size, `TarGz`, against `gzip -6`",
            gz,
            &["tar | gzip -6"],
            1.0,
        ),
        size(
            "size, `TarZst`, against `zstd -3`",
            zst,
            &["tar | zstd -3"],
            2.0,
        ),
        back("reading back, `TarGz`: share of the whole run", gz),
        back("reading back, `TarZst`", zst),
    ]
}

/// The table of goals, with what of them was measured.
pub fn table(records: &[Record]) -> String {
    let mut page = format!("| goal | {} |\n", TREES.join(" | "));
    page += "|---|---|---|---|---|---|\n";
    for goal in goals() {
        let cells = TREES.iter().zip(goal.bounds).map(|(tree, bound)| {
            bound.map_or_else(String::new, |bound| goal.cell(records, tree, bound))
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(page, "| {} | {} |", goal.what, cells.join(" | "));
    }
    page
}

impl Goal {
    fn cell(&self, records: &[Record], tree: &str, bound: f64) -> String {
        let value = self.value(records, tree, self.measure);
        let (told, met, bound) = match self.measure {
            Measure::Times => (
                value.map(|value| format!("{value:.2}")),
                value.is_some_and(|value| value >= bound),
                format!("at least {bound}"),
            ),
            Measure::Size | Measure::ReadingBack | Measure::SizeWithIndex => (
                value.map(|value| format!("{value:.1} %")),
                value.is_some_and(|value| value <= bound),
                format!("at most {bound} %"),
            ),
        };
        let bound = match (
            self.measure,
            self.value(records, tree, Measure::SizeWithIndex),
        ) {
            (Measure::Size, Some(all)) => format!("{bound}; {all:.1} % with its index"),
            _ => bound,
        };
        match (told, met) {
            (None, _) => format!("not measured ({bound})"),
            (Some(told), true) => format!("**{told}** ({bound})"),
            (Some(told), false) => format!("{told}, missed ({bound})"),
        }
    }

    fn value(&self, records: &[Record], tree: &str, measure: Measure) -> Option<f64> {
        let find = |contestant: &str| {
            records.iter().find(|record| {
                (record.contest, record.format, record.cache)
                    == (self.contest, self.format, Cache::Cold)
                    && record.tree == tree
                    && record.contestant == contestant
            })
        };
        let values = self.peers.iter().map(|peer| {
            let peer = find(peer)?;
            let above = |own: u64| Some(100.0 * (own as f64 / peer.stored_bytes? as f64 - 1.0));
            match measure {
                Measure::Times => peer.ratio(),
                Measure::Size => above(find(MOVER)?.archive_bytes?),
                Measure::SizeWithIndex => above(find(MOVER)?.stored_bytes?),
                Measure::ReadingBack => peer.ratio().map(|ratio| 100.0 * (1.0 - 1.0 / ratio)),
            }
        });
        // A best of some that lacks others would flatter: all are needed.
        let values: Vec<f64> = values.collect::<Option<_>>()?;
        values.into_iter().reduce(f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    fn cells(records: &[Record], row: &str) -> Vec<String> {
        let table = table(records);
        let row = table.lines().find(|line| line.contains(row)).unwrap();
        let cells = row.rsplit(" | ").map(|cell| cell.replace(" |", ""));
        let mut cells: Vec<String> = cells.take(5).collect();
        cells.reverse();
        cells
    }

    #[test]
    fn a_goal_is_met_or_missed_or_not_measured() {
        let records = [
            record("S", "tar | pigz -6", &[2.0, 2.5, 9.0]),
            record("M", "tar | pigz -6", &[2.9]),
        ];
        let told = cells(&records, "pigz -6");
        assert_eq!(told[0], "**2.50** (at least 2.2)");
        assert_eq!(told[1], "2.90, missed (at least 3)");
        assert_eq!(told[2], "not measured (at least 4)");
        assert_eq!(told[4], "");
    }

    #[test]
    fn the_best_of_the_peers_counts_when_all_were_measured() {
        let mut records = ["gzip -d | tar", "unpigz | tar"].map(|peer| record("S", peer, &[2.0]));
        records[1] = record("S", "unpigz | tar", &[1.8]);
        let restores = records.map(|record| Record {
            contest: Contest::Restore,
            ..record
        });
        assert!(cells(&restores, "`unpigz`")[0].starts_with("not measured"));
        let igzip = Record {
            contest: Contest::Restore,
            ..record("S", "igzip -d | tar", &[1.9])
        };
        let all: Vec<Record> = restores.into_iter().chain([igzip]).collect();
        assert_eq!(cells(&all, "`unpigz`")[0], "**1.80** (at least 1.7)");
    }

    #[test]
    fn sizes_and_the_share_of_reading_back_have_an_upper_bound() {
        let mover = |stored| Record {
            stored_bytes: Some(1_020_000),
            archive_bytes: Some(stored),
            ..record("S", MOVER, &[1.0])
        };
        let others = [
            record("S", "tar | gzip -6", &[4.0]),
            record("S", READING_BACK, &[1.6]),
        ];
        let with = |stored| -> Vec<Record> { [&[mover(stored)], &others[..]].concat() };
        let (good, bad) = (with(1_009_000), with(1_011_000));
        assert_eq!(
            cells(&good, "against `gzip -6`")[0],
            "**0.9 %** (at most 1 %; 2.0 % with its index)"
        );
        assert_eq!(
            cells(&bad, "against `gzip -6`")[0],
            "1.1 %, missed (at most 1 %; 2.0 % with its index)"
        );
        let share = &cells(&good, "share of the whole run")[0];
        assert_eq!(share, "37.5 %, missed (at most 35 %)");
    }
}
