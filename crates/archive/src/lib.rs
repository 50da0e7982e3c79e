//! The archive engine: walk, tar, compression, index, verification.
