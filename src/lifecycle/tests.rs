//! Every state of the three machines against every event: tables, diagrams, and what must hold of all of them.

mod diagram;
mod properties;
mod questions;
mod samples;
mod table;
