//! What the operator tells the outside, besides status.

pub mod events;
pub mod http;
pub mod log;
pub mod metrics;
pub mod policy_reasons;
pub mod reasons;
