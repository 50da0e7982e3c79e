//! Between the API's types and the core's.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tidelock_core::Phase;

use crate::error::Error;

/// The core's word for an API phase.
pub fn to_core(phase: tidelock_api::Phase) -> Phase {
    match phase {
        tidelock_api::Phase::Pending => Phase::Pending,
        tidelock_api::Phase::Running => Phase::Running,
        tidelock_api::Phase::Completed => Phase::Completed,
        tidelock_api::Phase::Failed => Phase::Failed,
    }
}

/// Whether a phase of the API is final.
pub fn is_terminal(phase: Option<tidelock_api::Phase>) -> bool {
    phase.is_some_and(|phase| to_core(phase).is_terminal())
}

/// When an object was made.
pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Seconds as a length of time.
pub fn seconds(count: u32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(count))
}

/// A count for a status field; what does not fit is cut off at the largest.
pub fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `now` in whole seconds, as Kubernetes writes times.
pub fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// A time by its seconds since 1970; none where no time is that far away.
pub fn time(second: i64) -> Option<Time> {
    Timestamp::from_second(second).ok().map(Time)
}

/// An object by its name alone, without what it was like: queues hold many of them.
pub fn named<K: Resource<DynamicType = ()>>(object: &K) -> ObjectRef<K> {
    let named = ObjectRef::new(&object.name_any());
    match object.namespace() {
        Some(namespace) => named.within(&namespace),
        None => named,
    }
}

/// UID of an object from the API server.
pub fn uid<K: Resource<DynamicType = ()>>(object: &K) -> Result<String, Error> {
    object.uid().ok_or_else(|| Error::Incomplete {
        object: describe(object),
        field: "metadata.uid",
    })
}

/// Namespace of an object from the API server.
pub fn namespace<K: Resource<DynamicType = ()>>(object: &K) -> Result<String, Error> {
    object.namespace().ok_or_else(|| Error::Incomplete {
        object: describe(object),
        field: "metadata.namespace",
    })
}

/// `Kind namespace/name`.
pub fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{} {namespace}/{}", K::kind(&()), object.name_any())
}

/// How much is read back, as the mover takes it.
pub fn level(level: tidelock_api::VerificationLevel) -> tidelock_protocol::VerificationLevel {
    match level {
        tidelock_api::VerificationLevel::Full => tidelock_protocol::VerificationLevel::Full,
        tidelock_api::VerificationLevel::Digest => tidelock_protocol::VerificationLevel::Digest,
        tidelock_api::VerificationLevel::None => tidelock_protocol::VerificationLevel::None,
    }
}

/// The form of an archive, as the mover takes it.
pub fn format(format: tidelock_api::Format) -> tidelock_protocol::Format {
    match format {
        tidelock_api::Format::TarGz => tidelock_protocol::Format::TarGz,
        tidelock_api::Format::TarZst => tidelock_protocol::Format::TarZst,
    }
}

/// How much was read back, as a status shows it.
pub fn to_api_level(
    level: tidelock_protocol::VerificationLevel,
) -> tidelock_api::VerificationLevel {
    match level {
        tidelock_protocol::VerificationLevel::Full => tidelock_api::VerificationLevel::Full,
        tidelock_protocol::VerificationLevel::Digest => tidelock_api::VerificationLevel::Digest,
        tidelock_protocol::VerificationLevel::None => tidelock_api::VerificationLevel::None,
    }
}

/// What may happen to a target, as the mover takes it.
pub fn overwrite(overwrite: tidelock_api::Overwrite) -> tidelock_protocol::Overwrite {
    match overwrite {
        tidelock_api::Overwrite::Never => tidelock_protocol::Overwrite::Never,
        tidelock_api::Overwrite::Merge => tidelock_protocol::Overwrite::Merge,
        tidelock_api::Overwrite::Replace => tidelock_protocol::Overwrite::Replace,
    }
}
