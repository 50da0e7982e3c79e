//! Where the bytes of a backup live.
