//! What Backups and Restores share: one step towards their end, a Job, its pods, and the report
//! they leave.

pub mod effects;
pub mod kind;
pub mod observe;
pub mod reconcile;
pub mod report;
mod status;

pub use status::{tell, write as write_status};
