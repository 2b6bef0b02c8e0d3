//! MachineFacts that a probe has seen of a machine.
//!
//! They have a record of their own beside the machine's: what a probe sees neither moves the etag of the machine nor wakes
//! who works on it. What decides anything is in the conditions.

use crate::clock::Timestamp;

/// Whether a machine has power, as far as its provider can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Power {
    /// The provider does not say.
    #[default]
    Unknown,
    /// It has.
    On,
    /// It has none.
    Off,
}

impl Power {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::On, Self::Off];

    /// Name, as it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// The value of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|power| power.as_str() == name)
    }
}

/// What a provider can say of a machine besides whether it answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MachineFacts {
    /// Whether it has power.
    pub power: Power,
    /// Versions of its firmware, as the provider writes them; empty if it does not say.
    pub firmware: String,
    /// Serial number that it shows, which may differ from `spec.serial`; empty if it does not say.
    pub serial: String,
    /// How its hardware is, for people; empty if the provider does not say.
    pub health: String,
}

/// The record of what was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What was seen.
    pub facts: MachineFacts,
    /// When it was first seen so.
    pub since: Timestamp,
}
