//! Facts that a probe observed about a machine.
//!
//! They have their own record beside the machine's: an observation neither moves the etag of the machine nor wakes
//! its watchers or worker. Decisions depend on conditions only.

use crate::clock::Timestamp;

/// Power state of a machine, as far as its provider can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Power {
    /// The provider does not report it.
    #[default]
    Unknown,
    /// Powered on.
    On,
    /// Powered off.
    Off,
}

impl Power {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::On, Self::Off];

    /// Name as stored.
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

/// What a provider can report about a machine besides whether it answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MachineFacts {
    /// Power state.
    pub power: Power,
    /// The provider's own word for a power state that is neither on nor off; empty for one that is, or if it gives none.
    pub power_word: String,
    /// Versions of its firmware, as the provider writes them; empty if not reported.
    pub firmware: String,
    /// Serial number that it reports, which may differ from `spec.serial`; empty if not reported.
    pub serial: String,
    /// Health of its hardware, for people; empty if not reported.
    pub health: String,
    /// Manufacturer and model; empty if not reported.
    pub model: String,
    /// MAC addresses of its network adapters, lower case with colons, sorted; empty if not reported.
    pub mac_addresses: Vec<String>,
}

/// The record of the last observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What was observed.
    pub facts: MachineFacts,
    /// When it was first observed in this state.
    pub since: Timestamp,
}
