//! Lets contestants run in turn, and keeps what they took.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tidelock_benchmarks::{Cache, Contest, MOVER, Record, Results, Turn, table};

use crate::Arguments;
use crate::contestants::{self, Contestant, Peer, Run};
use crate::machine;
use crate::place::{Place, Used};

/// What does not change while the program runs.
pub(crate) struct Session<'a> {
    pub(crate) arguments: &'a Arguments,
    day: String,
    /// Results without records.
    around: Results,
    peers: Vec<Peer>,
}

impl Peer {
    /// The program that runs, by its name or path; none when it is not there.
    fn program(self, arguments: &Arguments) -> Option<(&'static str, String)> {
        let given = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_file());
        let (name, path) = match self {
            Self::ReadBack => return Some((MOVER, String::new())),
            Self::Gzip => ("gzip", found("gzip")),
            Self::Pigz => ("pigz", found("pigz")),
            Self::Igzip => ("igzip", found("igzip")),
            Self::Zstd | Self::ZstdT0 => ("zstd", found("zstd")),
            Self::Restic => ("restic", given(&arguments.restic)),
            Self::Kopia => ("kopia", given(&arguments.kopia)),
            Self::Rclone => ("rclone", given(&arguments.rclone)),
        };
        if path.is_none() {
            eprintln!("{name} is not there, and takes no part");
        }
        Some((name, path?.to_string_lossy().into_owned()))
    }
}

fn found(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let mut paths = std::env::split_paths(&folders).map(|folder| folder.join(name));
    paths.find(|path| path.is_file())
}

impl<'a> Session<'a> {
    /// Finds out who takes part, on which machine.
    pub(crate) fn new(arguments: &'a Arguments) -> Result<Self> {
        let (mut peers, mut programs) = (Vec::new(), vec![("tar", "tar".to_owned())]);
        for peer in crate::chosen(&arguments.only) {
            if arguments.without.contains(&peer) {
                continue;
            }
            if let Some((name, program)) = peer.program(arguments) {
                peers.push(peer);
                if peer != Peer::ReadBack {
                    programs.push((name, program));
                }
            }
        }
        let around = Results {
            machine: Some(machine::machine(&arguments.dir)?),
            programs: machine::programs(programs)?,
            records: Vec::new(),
        };
        let day = jiff::Zoned::now().date().to_string();
        Ok(Self {
            arguments,
            day,
            around,
            peers,
        })
    }

    /// Measures one contest, prints its table, and adds it to the file of results.
    pub(crate) fn hold(
        &self,
        place: &Place,
        tree: &str,
        content_bytes: u64,
        contest: Contest,
        cache: Cache,
    ) -> Result<()> {
        let all = contestants::all(contest, place.format);
        let takes_part = |contestant: &&Contestant| {
            let peer = contestant.peer;
            peer.is_none_or(|peer| self.peers.contains(&peer))
        };
        let all: Vec<&Contestant> = all.iter().filter(takes_part).collect();
        let what = format!(
            "{tree}, {}, {}, {}",
            contest.name(),
            place.format.name(),
            cache.name()
        );
        for contestant in &all {
            place.ensure_store(contestant)?;
        }
        let turns = self.turns(place, &all, &what, cache)?;
        let mut records = Vec::new();
        for (contestant, turns) in all.iter().zip(turns) {
            let (stored_bytes, archive_bytes) = match contestant.makes {
                true => (
                    Some(place.stored(contestant.store)?),
                    place.archived(contestant.store)?,
                ),
                false => (None, None),
            };
            records.push(Record {
                tree: tree.to_owned(),
                contest,
                format: place.format,
                cache,
                contestant: contestant.name.to_owned(),
                day: self.day.clone(),
                content_bytes,
                stored_bytes,
                archive_bytes,
                turns,
                limits: self.limits(place, contestant, cache)?,
                requests: place.requests(contestant)?,
            });
        }
        let rows: Vec<&Record> = records.iter().collect();
        println!("\n{what}\n\n{}", table(&rows));
        self.keep(records)
    }

    /// The turns of each contestant.
    fn turns(
        &self,
        place: &Place,
        all: &[&Contestant],
        what: &str,
        cache: Cache,
    ) -> Result<Vec<Vec<Turn>>> {
        let runs = self.arguments.runs;
        let mut turns = vec![Vec::new(); all.len()];
        for turn in 0..runs {
            let mut order: Vec<usize> = (0..all.len()).collect();
            // Nobody always comes after the same one.
            if turn % 2 == 1 {
                order.reverse();
            }
            let mut used: Vec<(usize, Used)> = Vec::new();
            for at in order {
                let contestant = all[at];
                place.prepare(contestant, cache)?;
                eprintln!("{what}, turn {} of {runs}: {}", turn + 1, contestant.name);
                used.push((at, place.run(contestant, false)?));
            }
            let mover = used.iter().find(|(at, _)| *at == 0);
            let movers = mover.context("the mover takes part")?.1.seconds;
            for (at, used) in &used {
                turns[*at].push(Turn {
                    seconds: rounded(used.seconds),
                    cpu_seconds: rounded(used.cpu_seconds),
                    peak_memory_kib: used.peak_memory_kib,
                    against_mover: rounded(used.seconds / movers),
                });
            }
        }
        Ok(turns)
    }

    /// What the mover cannot be faster than, from one more run that is not among the turns.
    fn limits(&self, place: &Place, contestant: &Contestant, cache: Cache) -> Result<Vec<String>> {
        if !self.arguments.profile || !matches!(contestant.run, Run::Mover(_)) {
            return Ok(Vec::new());
        }
        place.prepare(contestant, cache)?;
        let log = place.run(contestant, true)?.log;
        eprint!("{log}");
        Ok(limits_of(&log))
    }

    fn keep(&self, records: Vec<Record>) -> Result<()> {
        let Some(file) = &self.arguments.json else {
            return Ok(());
        };
        let results = Results {
            records,
            ..self.around.clone()
        };
        results.add_to(file)
    }
}

/// The limits in a profile, but for steps that are short beside the longest.
fn limits_of(profile: &str) -> Vec<String> {
    let (mut steps, mut longest) = (Vec::new(), 0.0_f64);
    let mut seconds = 0.0;
    for line in profile.lines() {
        if let Some((step, limit)) = line.split_once(", limit: ") {
            steps.push((seconds, format!("{step}: {limit}")));
        } else if let Some(wall) = wall_of(line) {
            seconds = wall;
            longest = longest.max(wall);
        }
    }
    steps.retain(|(seconds, _)| *seconds > longest / 20.0);
    steps.into_iter().map(|(_, limit)| limit).collect()
}

/// Of a step's first line, as in `saving: 81.84 s, 0.07 of 2 processors`.
fn wall_of(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once(": ")?;
    rest.split_once(" s, ")?.0.parse().ok()
}

/// To thousandths: what lies below is not the contestant's.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
