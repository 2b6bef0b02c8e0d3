//! The whole engine over the memory store and the fake provider, in virtual time.

mod brakes;
mod capacity;
mod controllers;
mod crashes;
mod deadlines;
mod failures;
mod harness;
mod language;
mod logs;
mod panics;
mod probes;
mod requests;
mod runs;
mod scheduling;
mod store_trouble;
mod time;
mod undoing;
mod unknown;
mod verbs;
mod verbs_table;
