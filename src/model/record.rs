//! What all kinds of stored records have in common, and what one commit does to a record.
//!
//! A new kind is a variant of [`Kind`] and [`Object`] and an implementation of [`Record`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::machine::Machine;
use super::run::Run;
use crate::ids::{MachineId, Revision, RunId};

/// Kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A machine.
    Machine,
    /// A run.
    Run,
}

impl Kind {
    /// Name of the kind, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Run => "run",
        }
    }
}

/// A record with an id and a revision that every change moves.
pub trait Record: Clone + fmt::Debug + PartialEq + Send + Sync + Sized + 'static {
    /// Its id.
    type Id: Clone + Ord + fmt::Display + Send + Sync;
    /// Its kind.
    const KIND: Kind;

    /// Id.
    fn id(&self) -> &Self::Id;
    /// Revision of its last change.
    fn revision(&self) -> Revision;
    /// Position in the order of creation.
    fn ordinal(&self) -> u64;
    /// About how many bytes of text it has, and never more than an answer with it has: labels, addresses, messages.
    fn weight(&self) -> usize;
    /// Sets what the store assigns.
    fn stamp(&mut self, ordinal: u64, revision: Revision);
    /// Wraps the images of this kind as an object.
    fn object(images: Images<Self>) -> Object;
    /// The images of an object, if it is of this kind.
    fn images(object: &Object) -> Option<&Images<Self>>;
}

/// A record before and after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images<T> {
    /// Before it; `None` if the record is new.
    pub before: Option<Arc<T>>,
    /// After it; `None` if the record was deleted.
    pub after: Option<Arc<T>>,
}

impl<T> Images<T> {
    /// The record after the change; before it, if it was deleted.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<T>> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// Whether the record was deleted.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        self.after.is_none()
    }
}

/// A record of any kind, before and after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A machine.
    Machine(Images<Machine>),
    /// A run.
    Run(Images<Run>),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Machine(_) => Kind::Machine,
            Self::Run(_) => Kind::Run,
        }
    }

    /// Whether the record was deleted.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        match self {
            Self::Machine(images) => images.is_deletion(),
            Self::Run(images) => images.is_deletion(),
        }
    }
}

/// Bytes of the texts of labels or parameters.
fn bytes_of(texts: &BTreeMap<String, String>) -> usize {
    texts.iter().map(|(key, value)| key.len() + value.len()).sum()
}

impl Record for Machine {
    type Id = MachineId;
    const KIND: Kind = Kind::Machine;

    fn id(&self) -> &MachineId {
        &self.id
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn ordinal(&self) -> u64 {
        self.ordinal
    }

    fn weight(&self) -> usize {
        let spec = &self.spec;
        let macs: usize = spec.mac_addresses.iter().map(String::len).sum();
        let texts = spec.ssh_endpoint.len() + spec.bmc_endpoint.len() + spec.target_cluster.len();
        self.id.as_str().len() + bytes_of(&self.labels) + macs + texts
    }

    fn stamp(&mut self, ordinal: u64, revision: Revision) {
        (self.ordinal, self.revision) = (ordinal, revision);
    }

    fn object(images: Images<Self>) -> Object {
        Object::Machine(images)
    }

    fn images(object: &Object) -> Option<&Images<Self>> {
        match object {
            Object::Machine(images) => Some(images),
            Object::Run(_) => None,
        }
    }
}

impl Record for Run {
    type Id = RunId;
    const KIND: Kind = Kind::Run;

    fn id(&self) -> &RunId {
        &self.id
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn ordinal(&self) -> u64 {
        self.ordinal
    }

    fn weight(&self) -> usize {
        let messages: usize = self.steps.iter().map(|step| step.message.len()).sum();
        bytes_of(&self.spec.parameters) + self.spec.reason.len() + messages
    }

    fn stamp(&mut self, ordinal: u64, revision: Revision) {
        (self.ordinal, self.revision) = (ordinal, revision);
    }

    fn object(images: Images<Self>) -> Object {
        Object::Run(images)
    }

    fn images(object: &Object) -> Option<&Images<Self>> {
        match object {
            Object::Run(images) => Some(images),
            Object::Machine(_) => None,
        }
    }
}
