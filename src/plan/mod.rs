//! Plans: what a run does, step by step, written in TOML and checked before anything runs.
//!
//! Pure: text comes in, plans or diagnostics come out; whoever calls reads the files. Everything but [`canonical`] and [`registry`] is
//! also compiled into `build.rs`, which is why these modules name each other through `super::` and nothing else of the crate.

pub mod action;
pub mod limits;
pub mod schema;

pub use action::{Action, ActionKind, ActionSpec, Arg, ArgSpec, Capability};
pub use schema::{
    Condition, EffectiveState, ErrorClass, Guard, OnUnknown, Param, Phase, Plan, PlanResult, Retry,
    RunType, Step, Value, ValueKind,
};
