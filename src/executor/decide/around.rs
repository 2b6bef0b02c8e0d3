//! The facts that a guard depends on: the run, and the machine's present state.

use std::collections::BTreeMap;

use crate::executor::names;
use crate::model::{Machine, Steps};
use crate::plan::{Around, Condition, Phase, Value};

/// A run's parameters and steps, and its machine.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// Parameters, bound by the plan.
    pub params: &'a BTreeMap<String, Value>,
    /// Steps with their outputs.
    pub steps: &'a Steps,
}

impl Around for Surroundings<'_> {
    fn param(&self, name: &str) -> Option<&Value> {
        self.params.get(name)
    }

    fn condition(&self, condition: Condition) -> bool {
        self.machine.conditions.is_true(names::condition(condition))
    }

    fn phase(&self) -> Phase {
        names::plan_phase(self.machine.phase)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.machine.labels.get(key).map(String::as_str)
    }

    fn provider(&self) -> &str {
        &self.machine.spec.provider
    }

    fn output(&self, step: &str, name: &str) -> Option<&Value> {
        self.steps.iter().find(|record| record.name == step)?.output.get(name)
    }
}
