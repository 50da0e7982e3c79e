//! What Backups and Restores share: one step towards their end, a Job, its pods, and the report
//! they leave.

pub mod effects;
pub mod ending;
pub mod kind;
mod kubelet;
pub mod observe;
pub mod progress;
pub mod reconcile;
pub mod report;
mod status;

pub use kubelet::listen;
pub use status::{failed as fail, tell, write as write_status};
