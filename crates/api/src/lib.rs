//! The custom resources of tidelock.dev.
