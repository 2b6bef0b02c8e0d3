//! Actors: who performs an action.

use std::sync::Arc;

/// Kind of actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActorKind {
    /// A client of the API.
    Operator,
    /// The engine, by itself.
    Engine,
    /// The health probes.
    Probe,
}

impl ActorKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Engine, Self::Probe];

    /// Name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Engine => "engine",
            Self::Probe => "probe",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Who performed an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Kind.
    pub kind: ActorKind,
    /// Name; empty for the engine and the probes.
    pub name: Arc<str>,
    /// Whether the server has verified the name, as opposed to one that a client declares.
    pub verified: bool,
}

impl Actor {
    /// The engine itself.
    #[must_use]
    pub fn engine() -> Self {
        Self { kind: ActorKind::Engine, name: "".into(), verified: false }
    }

    /// A client with its declared name.
    #[must_use]
    pub fn operator(name: &str) -> Self {
        Self { kind: ActorKind::Operator, name: name.into(), verified: false }
    }

    /// A client whose name the server has verified.
    #[must_use]
    pub fn principal(name: Arc<str>) -> Self {
        Self { kind: ActorKind::Operator, name, verified: true }
    }
}
