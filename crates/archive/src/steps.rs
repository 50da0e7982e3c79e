//! Places where a process may die, for tests that let it.

use crate::error::RestoreError;

/// A place between two effects on a target.
#[cfg(not(test))]
pub(crate) fn step() -> Result<(), RestoreError> {
    Ok(())
}

/// Whether this thread's restores are to die, so that all steps have to be its own.
#[cfg(not(test))]
pub(crate) fn is_armed() -> bool {
    false
}

#[cfg(test)]
pub(crate) use deaths::{is_armed, step};

#[cfg(test)]
pub(crate) mod deaths {
    use std::cell::Cell;

    use super::RestoreError;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Lets this thread's restores die at the `nth` step from now, and at every later one.
    pub(crate) fn die_at(nth: Option<u32>) {
        LEFT.set(nth);
    }

    pub(crate) fn is_armed() -> bool {
        LEFT.get().is_some()
    }

    pub(crate) fn step() -> Result<(), RestoreError> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(RestoreError::Stopped),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
