//! What has a limit on the runs that proceed.

use std::fmt;

use crate::plan::Risk;
use crate::store::SlotKey;

/// Something with a limit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Global,
    Provider(String),
    Label(String, String),
    /// Runs of plans with at least this risk.
    Risk(Risk),
    /// The same, on machines with a value of a label.
    RiskAt(Risk, Place),
}

/// Machines with the same value of a label: its key and the value.
pub(in crate::executor::scheduler) type Place = (String, String);

impl Key {
    /// Name in the store.
    pub(super) fn stored(&self) -> SlotKey {
        match self {
            Self::Global => SlotKey::new("runs"),
            Self::Provider(name) => SlotKey::new(&format!("provider/{name}")),
            Self::Label(name, value) => SlotKey::new(&format!("label/{name}={value}")),
            Self::Risk(risk) => SlotKey::new(risk.as_str()),
            Self::RiskAt(risk, (name, value)) => {
                SlotKey::new(&format!("{risk}/label/{name}={value}"))
            }
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("runs"),
            Self::Provider(name) => write!(f, "runs on provider {name}"),
            Self::Label(name, value) => write!(f, "runs with {name}={value}"),
            Self::Risk(risk) => write!(f, "{risk} runs"),
            Self::RiskAt(risk, (name, value)) => write!(f, "{risk} runs with {name}={value}"),
        }
    }
}
