//! How fast time passes for the alerts: tests cannot wait for hours.

/// How often an hour fits into a real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace(u64);

impl Pace {
    /// As in production.
    pub const REAL: Self = Self(1);

    /// Every length of time divided by `times`, and no shorter than a second.
    pub fn faster_by(times: u64) -> Self {
        Self(times.max(1))
    }

    /// A length of time, in seconds.
    pub fn seconds(self, real: u64) -> u64 {
        if real == 0 { 0 } else { (real / self.0).max(1) }
    }

    /// A length of time as Prometheus writes it, in the largest unit that leaves no rest.
    pub fn duration(self, real: u64) -> String {
        let seconds = self.seconds(real);
        let units = [("d", 86_400), ("h", 3600), ("m", 60)];
        let fitting = units
            .into_iter()
            .find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length));
        match fitting {
            Some((unit, length)) => format!("{}{unit}", seconds / length),
            None => format!("{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_shrink_and_never_vanish() {
        assert_eq!(Pace::REAL.duration(900), "15m");
        assert_eq!(Pace::REAL.duration(0), "0s");
        assert_eq!(Pace::REAL.duration(86_400), "1d");
        let fast = Pace::faster_by(300);
        assert_eq!(
            (fast.seconds(900), fast.seconds(60), fast.seconds(0)),
            (3, 1, 0)
        );
    }
}
