//! Where the time of a run went, in words.

use std::fmt;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tidelock_archive::{Phase, Spent, ThreadKind};
use tidelock_protocol::Step;

/// Where the time of one step went.
#[derive(Debug)]
pub struct StepProfile {
    /// Which step.
    pub step: Step,
    /// From its begin to its end.
    pub wall: Duration,
    /// Processor time of the whole process meanwhile.
    pub processor: Duration,
    /// Content that was read from the source, or written to the target.
    pub content_bytes: u64,
    /// Bytes that were read from storage, or written to it.
    pub storage_bytes: u64,
    /// What the threads did.
    pub spent: Vec<Spent>,
}

/// What a step cannot be faster than.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Who does it.
    pub kind: ThreadKind,
    /// What they do.
    pub phase: Phase,
    /// How long it takes when all threads of the kind share it, where they can.
    pub time: Duration,
}

impl StepProfile {
    /// The phase that alone would take longest, on the threads that it has; none when nothing was
    /// done.
    pub fn limit(&self) -> Option<Limit> {
        let of_kind = |spent: &Spent| {
            let (kind, threads) = (spent.kind, spent.threads);
            let limits = spent.phases.iter().map(move |(phase, time)| {
                let threads = if phase.is_serial() { 1 } else { threads };
                Limit {
                    kind,
                    phase: *phase,
                    time: *time / u32::try_from(threads).unwrap_or(1).max(1),
                }
            });
            limits.filter(|limit| limit.phase != Phase::Wait).collect()
        };
        let all: Vec<Vec<Limit>> = self.spent.iter().map(of_kind).collect();
        all.into_iter().flatten().max_by_key(|limit| limit.time)
    }
}

/// One line for the step, one for each kind of thread, and one for the limit.
impl fmt::Display for StepProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = self.wall.as_secs_f64();
        let step = format!("{:?}", self.step).to_lowercase();
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        write!(
            f,
            "{step}: {wall:.2} s, {:.2} of {processors} processors, {} MB of content, {} MB of storage",
            self.processor.as_secs_f64() / wall,
            megabytes(self.content_bytes),
            megabytes(self.storage_bytes)
        )?;
        for Spent {
            kind,
            threads,
            phases,
        } in &self.spent
        {
            write!(f, "\n{step}, {}", kind.name())?;
            if *kind != ThreadKind::Main {
                write!(f, " ({threads})")?;
            }
            for (at, (phase, time)) in phases.iter().enumerate() {
                let before = if at == 0 { ":" } else { "," };
                write!(f, "{before} {} {:.2} s", phase.name(), time.as_secs_f64())?;
            }
        }
        if let Some(limit) = self.limit() {
            let percent = 100.0 * limit.time.as_secs_f64() / wall;
            let (phase, kind) = (limit.phase.name(), limit.kind.name());
            write!(
                f,
                "\n{step}, limit: {phase}, {percent:.0} % of the wall time ({kind})"
            )?;
        }
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Processor time that this process has taken.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn saving() -> StepProfile {
        let of = |kind, threads, phases: &[(Phase, u64)]| Spent {
            kind,
            threads,
            phases: phases.iter().map(|(p, s)| (*p, seconds(*s))).collect(),
        };
        StepProfile {
            step: Step::Saving,
            wall: seconds(10),
            processor: seconds(18),
            content_bytes: 500_000_000,
            storage_bytes: 187_200_000,
            spent: vec![
                of(ThreadKind::Main, 1, &[(Phase::Walk, 1), (Phase::Wait, 9)]),
                of(
                    ThreadKind::Readers,
                    4,
                    &[(Phase::Read, 16), (Phase::Wait, 24)],
                ),
                of(
                    ThreadKind::Compressors,
                    2,
                    &[(Phase::Compress, 14), (Phase::Store, 6)],
                ),
            ],
        }
    }

    #[test]
    fn a_step_is_told_by_kind_of_thread_with_its_limit_last() {
        assert_eq!(
            saving().to_string(),
            "saving: 10.00 s, 1.80 of N processors, 500.0 MB of content, 187.2 MB of storage
saving, main thread: walk 1.00 s, wait 9.00 s
saving, readers (4): read 16.00 s, wait 24.00 s
saving, compressors (2): compress 14.00 s, store 6.00 s
saving, limit: compress, 70 % of the wall time (compressors)"
                .replace('N', &thread::available_parallelism().unwrap().to_string())
        );
    }

    #[test]
    fn what_one_thread_at_a_time_does_is_not_shared_by_all() {
        let mut saving = saving();
        saving.spent[2].phases[1].1 = seconds(8);
        let limit = saving.limit().unwrap();
        assert_eq!((limit.phase, limit.time), (Phase::Store, seconds(8)));
    }

    #[test]
    fn a_step_that_did_nothing_has_no_limit() {
        let mut saving = saving();
        saving.spent.clear();
        assert_eq!(saving.limit(), None);
    }
}
