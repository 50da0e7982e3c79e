//! What the operator tells the outside, besides status.

pub mod events;
pub mod http;
pub mod reasons;
