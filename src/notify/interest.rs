//! Which events a receiver gets.

use std::collections::BTreeSet;

use crate::model::filter::Filter;
use crate::model::{Change, EntryKind, Machine, Object, Run};
use crate::plan::suggest::nearest;

/// Which events a receiver gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Kinds of events.
    pub kinds: BTreeSet<EntryKind>,
    /// Machines, with their runs.
    pub machines: Filter,
    /// Runs; events of machines are not judged by it.
    pub runs: Filter,
}

/// The kinds that patterns name: the name of a kind, `run.*` for those of a family, `*` for all. Without a pattern, all but
/// those of steps.
///
/// # Errors
/// The pattern that names none, and what may be meant.
pub fn kinds(patterns: &[String]) -> Result<BTreeSet<EntryKind>, String> {
    if patterns.is_empty() {
        let is_step = |kind: &EntryKind| kind.as_str().starts_with("step.");
        return Ok(EntryKind::ALL.iter().copied().filter(|kind| !is_step(kind)).collect());
    }
    let mut all = BTreeSet::new();
    for pattern in patterns {
        let named = |kind: &&EntryKind| match pattern.strip_suffix('*') {
            Some("") => true,
            Some(family) if family.ends_with('.') => kind.as_str().starts_with(family),
            Some(_) | None => kind.as_str() == pattern,
        };
        let before = all.len();
        let found: Vec<EntryKind> = EntryKind::ALL.iter().filter(named).copied().collect();
        all.extend(found.iter().copied());
        if found.is_empty() && all.len() == before {
            let names = EntryKind::ALL.iter().map(|kind| kind.as_str());
            let meant = match nearest(pattern, names) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "take a name as in \"run.failed\", a family as in \"run.*\", or \"*\""
                    .to_owned(),
            };
            return Err(format!("{pattern:?} is no kind of event: {meant}"));
        }
    }
    Ok(all)
}

impl Interest {
    /// Whether any entry of a change is of a kind that is wanted.
    pub(super) fn wants(&self, change: &Change) -> bool {
        change.entries.iter().any(|entry| self.kinds.contains(&entry.kind))
    }

    /// Whether the machine of a change has to be looked up to judge it.
    pub(super) fn needs_machine(&self, change: &Change) -> bool {
        !self.machines.is_empty() && matches!(change.object, Object::Run(_))
    }

    /// Whether it is about what is wanted. `machine` is that of a run, as far as it is known: too much is harmless, too
    /// little is not.
    pub(super) fn concerns(&self, change: &Change, machine: Option<&Machine>) -> bool {
        match &change.object {
            // What leaves the filter is an event of it, too.
            Object::Machine(images) => {
                let images = [&images.before, &images.after];
                images.into_iter().flatten().any(|machine| self.machines.matches_machine(machine))
            }
            Object::Run(images) => {
                let takes = |run: &Run| self.runs.matches_run(run);
                let images = [&images.before, &images.after];
                images.into_iter().flatten().any(|run| takes(run))
                    && machine.is_none_or(|machine| self.machines.matches_machine(machine))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(patterns: &[&str]) -> Result<Vec<&'static str>, String> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        kinds(&patterns).map(|kinds| kinds.into_iter().map(EntryKind::as_str).collect())
    }

    #[test]
    fn patterns_name_kinds() {
        assert_eq!(
            named(&["run.held", "run.failed", "run.held"]).unwrap(),
            ["run.held", "run.failed"]
        );
        assert_eq!(named(&["*"]).unwrap().len(), EntryKind::ALL.len());
        let steps = named(&["step.*"]).unwrap();
        assert!(
            steps.contains(&"step.failed") && steps.iter().all(|name| name.starts_with("step."))
        );
        assert_eq!(named(&[]).unwrap().len() + steps.len(), EntryKind::ALL.len());
        assert_eq!(
            named(&["run.faild"]).unwrap_err(),
            "\"run.faild\" is no kind of event: did you mean run.failed?"
        );
        for wrong in ["", "ru*", "runs.*", "Run.*", "run."] {
            assert!(named(&[wrong]).is_err(), "{wrong}");
        }
    }
}
