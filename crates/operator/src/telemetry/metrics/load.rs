//! How busy the movers are.

use crate::context::Context;

/// How busy the movers are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// How many wait for their turn, by what they do.
    pub queued: Vec<(&'static str, usize)>,
    /// How many run.
    pub running: usize,
    /// How many may run, by where.
    pub limits: Vec<(&'static str, usize)>,
}

/// What the gate of `context` knows now.
pub fn of(context: &Context) -> Load {
    let limits = context.gate.limits();
    Load {
        queued: context.gate.queued(context.now()),
        running: context.gate.running(&context.caches),
        limits: [
            ("total", limits.total),
            ("node", limits.per_node),
            ("storage", limits.per_storage),
        ]
        // The queue takes zero as one.
        .map(|(scope, limit)| (scope, usize::try_from(limit.max(1)).unwrap_or(usize::MAX)))
        .to_vec(),
    }
}
