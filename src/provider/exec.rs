//! Programs as a driver: what an action needs is done by programs of the operator's own, named in the server's
//! configuration.
//!
//! A program gets its input as JSON on standard input, runs in a process group of its own, and says by its exit code how
//! it ended. What it prints is the log of the step; a line on standard output that begins with `bmdemo: ` is its answer.
//!
//! A secret that a program answers with is handed to the program of the step that needs it, by [`material`], and is seen by no one
//! else.
//!
//! What is promised: in one process the same operation never runs twice at the same time, and never again once it has
//! said how it ended. A program that a killed server has left behind is ended when the next one starts, before
//! anything else is run for its machine. What it had done by then only `observe` can tell.

mod acting;
mod answer;
mod driver;
mod group;
mod host;
mod input;
mod judge;
mod known;
mod leftover;
mod lines;
mod material;
mod settings;
mod supervisor;

#[cfg(test)]
mod tests;

pub use driver::Exec;
pub(super) use group::Group;
pub use host::Host;
pub use judge::{Account, judge, judge_program};
pub use settings::{MaterialBy, Programs, Settings};
pub use supervisor::Supervisors;
