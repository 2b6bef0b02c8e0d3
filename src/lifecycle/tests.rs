//! Every state of the three machines with every event: tables, diagrams, and properties that always hold.

mod diagram;
mod properties;
mod questions;
mod samples;
mod table;
