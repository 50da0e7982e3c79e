//! How a metric is read from what is known of an object.

use jiff::Timestamp;

use crate::telemetry::metrics::table::Metric;

/// Values of one metric by the value of its last label.
pub type ByLabel = Vec<(&'static str, f64)>;

/// One metric of a kind of object, and how it is read from what is known of one.
pub struct Row<T: 'static> {
    /// The metric.
    pub metric: Metric,
    /// Its value.
    pub read: Read<T>,
}

/// How a metric is read.
pub enum Read<T: 'static> {
    /// One value, or none.
    One(fn(&T) -> Option<f64>),
    /// One for each value of the last label, which are ours and few.
    Each(fn(&T) -> ByLabel),
    /// 1, with the names of objects in the labels after those of the object itself.
    Info(fn(&T) -> Vec<String>),
}

impl<T> Row<T> {
    /// A metric with one value.
    pub const fn one(metric: Metric, read: fn(&T) -> Option<f64>) -> Self {
        let read = Read::One(read);
        Self { metric, read }
    }

    /// A metric with a value for each value of its last label.
    pub const fn each(metric: Metric, read: fn(&T) -> ByLabel) -> Self {
        let read = Read::Each(read);
        Self { metric, read }
    }

    /// A metric that is always 1.
    pub const fn info(metric: Metric, read: fn(&T) -> Vec<String>) -> Self {
        let read = Read::Info(read);
        Self { metric, read }
    }
}

/// A truth as a value.
pub fn flag(holds: bool) -> Option<f64> {
    Some(f64::from(u8::from(holds)))
}

/// A moment as seconds since 1970.
pub fn of_time(at: Option<Timestamp>) -> Option<f64> {
    at.map(|at| at.as_duration().as_secs_f64())
}

/// A count or a size as a value.
pub fn of_count(count: Option<i64>) -> Option<f64> {
    // Beyond 2^53 the last digits are lost, which nobody reads.
    count.map(|count| count as f64)
}
