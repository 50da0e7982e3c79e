//! What goes wrong under a run: operators that die, movers that are killed, storage that fills up
//! or turns read-only, sources that change or cannot be read.

mod mover;
mod operators;
mod source;
mod storage;
mod target;
