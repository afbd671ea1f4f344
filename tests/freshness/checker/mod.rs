//! The checker: sessions that raise counters in every way, and read them in every way, while nodes are disturbed.
//!
//! Called by the tests in `runs`. A read must show at least what was acknowledged before it was sent. A session that has read a
//! counter on the primary must not be shown less later, where the counter's writers are known. A run counts who served its
//! reads, and which ways were taken, because a checker that finds nothing may have looked at nothing.

mod counters;
mod disturbance;
mod progress;
mod reads;
mod report;
mod runs;
mod session;
mod writes;
