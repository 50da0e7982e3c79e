//! What threads that share one piece of work have in common.

use std::num::NonZero;
use std::thread;

/// As many threads as can run at once, but no more than `most`.
pub(crate) fn at_most(most: usize) -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(most)
}

/// Calls its function when it goes.
pub(crate) struct OnEnd<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Calls its function when its thread panics, so that the others do not wait for it for ever.
pub(crate) struct OnPanic<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)();
        }
    }
}
