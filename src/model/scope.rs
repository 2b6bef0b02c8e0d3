//! The part of the fleet that a caller may see and touch: by labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use super::filter::{Filter, Subject};
use super::{Change, Images, Machine, Object, Run};
use crate::selector;

/// Bytes of a digest that tell one scope from another.
const TAG_BYTES: usize = 8;

/// Which machines, and which runs of them: those whose labels meet a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    text: String,
    filter: Filter,
    keys: BTreeSet<String>,
    tag: String,
}

impl Scope {
    /// The scope of a selector such as `rack=r5,tenant in (a,b)`.
    ///
    /// # Errors
    /// What is wrong with the selector, and what to give instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let terms = selector::terms(text).map_err(|error| format!("{error}: {}", error.hint()))?;
        let filter = Filter::parse(&terms.join(" AND "), Subject::Machine)
            .map_err(|error| format!("{text:?} is no label selector: {error}"))?;
        let keys = filter.label_keys();
        let filter = filter.of_known_labels();
        let digest = Sha256::digest(filter.to_string());
        let tag = digest[..TAG_BYTES].iter().fold(String::new(), |mut tag, byte| {
            // Writing to a string cannot fail.
            let _ = write!(tag, "{byte:02x}");
            tag
        });
        Ok(Self { text: text.trim().to_owned(), filter, keys, tag })
    }

    /// The condition on machines and on runs.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The labels that it names.
    #[must_use]
    pub fn keys(&self) -> &BTreeSet<String> {
        &self.keys
    }

    /// Identifies it among scopes.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether it has machines with these labels.
    #[must_use]
    pub fn takes_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.filter.matches_labels(labels)
    }

    /// Whether it has this machine.
    #[must_use]
    pub fn takes_machine(&self, machine: &Machine) -> bool {
        self.filter.matches_machine(machine)
    }

    /// Whether it has this run: judged by the labels that the machine had when the run was accepted.
    #[must_use]
    pub fn takes_run(&self, run: &Run) -> bool {
        self.filter.matches_run(run)
    }

    /// Whether it has what a change left; what was there before, if that was deleted.
    #[must_use]
    pub fn takes_change(&self, change: &Change) -> bool {
        match &change.object {
            Object::Machine(images) => takes(images, |machine| self.takes_machine(machine)),
            Object::Run(images) => takes(images, |run| self.takes_run(run)),
        }
    }
}

fn takes<T>(images: &Images<T>, has: impl Fn(&T) -> bool) -> bool {
    images.last().is_some_and(|last| has(last))
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::{MachineId, RunId};

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_scope_is_judged_by_labels() {
        for (scope, has, has_not) in [
            ("tenant=a", "tenant=a,rack=r1", "tenant=b"),
            ("tenant in (a, b),rack", "tenant=b,rack=", "tenant=b"),
            ("tenant!=a", "", "tenant=a"),
            ("!tenant,zone notin (x,y)", "zone=z", "zone=y"),
            ("example.com/team=\"*", "example.com/team=\"*", "example.com/team=\"x"),
        ] {
            let scope = Scope::parse(scope).unwrap();
            let id = MachineId::parse("m-1").unwrap();
            for (given, expected) in [(has, true), (has_not, false)] {
                let labels = labels(given);
                assert_eq!(scope.takes_labels(&labels), expected, "{scope}: {given}");
                let mut run =
                    crate::testing::run(RunId::new(Timestamp(1), [1, 2]), id.clone(), Timestamp(1));
                std::sync::Arc::make_mut(&mut run.spec).labels = Some(labels.clone());
                assert_eq!(scope.takes_run(&run), expected, "{scope}: {given}");
                let machine =
                    Machine::registered(id.clone(), labels, Default::default(), Timestamp(1));
                assert_eq!(scope.takes_machine(&machine), expected, "{scope}: {given}");
                // A run of an older version may have had any labels.
                std::sync::Arc::make_mut(&mut run.spec).labels = None;
                assert!(!scope.takes_run(&run), "{scope}");
            }
        }
    }

    #[test]
    fn a_scope_names_labels_and_is_known_by_what_it_says() {
        let scope = Scope::parse(" tenant in (a,b) , !rack,gpu ").unwrap();
        assert_eq!(scope.to_string(), "tenant in (a,b) , !rack,gpu");
        let keys: Vec<_> = scope.keys().iter().map(String::as_str).collect();
        assert_eq!(keys, ["gpu", "rack", "tenant"]);
        assert!(scope.filter().is_scoped());
        // What a client may write is never taken for one of a scope.
        assert!(!Filter::parse("labels.tenant = a", Subject::Run).unwrap().is_scoped());
        assert!(Filter::parse("labels:*", Subject::Machine).is_err());
        let tag = |text| Scope::parse(text).unwrap().tag().to_owned();
        assert_eq!(tag("a=b, c"), tag("a==b,c"));
        assert_ne!(tag("a=b"), tag("a=c"));
        for wrong in ["", " ", "a b", "a in (b", ",", "=a"] {
            assert!(Scope::parse(wrong).is_err(), "{wrong}");
        }
    }
}
