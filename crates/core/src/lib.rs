//! Schedules, retention, phases, names and plans: facts and the time in, a decision out.
