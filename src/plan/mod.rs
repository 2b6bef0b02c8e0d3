//! Plans: what a run does, step by step, written in TOML and checked before anything runs.
//!
//! Pure: text goes in, plans or diagnostics come out; the caller reads the files. Everything but `bind`, `canonical`,
//! `declared` and `registry` is also compiled into `build.rs`, which is why these modules refer to each other through `super::`
//! and use nothing else of the crate but `text`.

pub mod action;
pub mod bind;
pub mod canonical;
mod check;
mod check_action;
mod check_guard;
mod check_own;
mod check_param;
mod check_policy;
mod check_step;
pub mod declared;
pub mod diagnostic;
pub mod duration;
pub mod form;
pub mod limits;
pub mod names;
mod nodes;
mod parse;
mod read;
pub mod registry;
pub mod schema;
pub mod spec;
pub mod suggest;
mod syntax;
pub mod template;
pub mod value;

pub use action::{ActionSpec, Actions, ArgSpec};
pub use bind::ParamError;
pub use canonical::CanonicalError;
pub use declared::compile_actions;
pub use diagnostic::{Diagnostic, Label, SourceFile, render};
pub use form::Form;
pub use names::{
    Capability, Condition, EffectiveState, ErrorClass, OnUnknown, Phase, Risk, Role, RunType,
    ValueKind,
};
pub use parse::{compile, compile_with};
pub use registry::{Registered, Registry, RegistryError};
pub use schema::{
    Action, Arg, Around, Compensation, Guard, Output, Param, Plan, PlanResult, Retry, Step, Traits,
};
pub use value::{Value, Values};

#[cfg(test)]
mod gallery;
