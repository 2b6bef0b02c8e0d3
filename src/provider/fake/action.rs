//! The actions that simulated machines support.

use serde::{Deserialize, Serialize};

use crate::plan::Capability;
use crate::provider::Call;

/// An action, in the fake provider's own table: the world does not depend on the plans' table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    SetNetboot,
    ClearNetboot,
    Repave,
    MintJoin,
    Join,
    Verify,
    Drain,
    Undrain,
    Wipe,
    Notify,
    Reboot,
    ApplyNetConfig,
    RestoreNetConfig,
    VerifyConnectivity,
    VerifyUp,
    /// One that a server declares.
    Custom,
}

impl Action {
    pub(super) const ALL: [Self; 16] = [
        Self::SetNetboot,
        Self::ClearNetboot,
        Self::Repave,
        Self::MintJoin,
        Self::Join,
        Self::Verify,
        Self::Drain,
        Self::Undrain,
        Self::Wipe,
        Self::Notify,
        Self::Reboot,
        Self::ApplyNetConfig,
        Self::RestoreNetConfig,
        Self::VerifyConnectivity,
        Self::VerifyUp,
        Self::Custom,
    ];

    /// The action of a call.
    pub(super) fn of(call: &Call) -> Option<Self> {
        match call.capability {
            Capability::Custom => Some(Self::Custom),
            Capability::Netboot
            | Capability::Imaging
            | Capability::Power
            | Capability::ClusterJoin
            | Capability::Wipe
            | Capability::Network
            | Capability::Notify
            | Capability::Probe
            | Capability::Drain
            | Capability::Engine => Self::parse(&call.action),
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SetNetboot => "set-netboot",
            Self::ClearNetboot => "clear-netboot",
            Self::Repave => "repave",
            Self::MintJoin => "mint-join",
            Self::Join => "join",
            Self::Verify => "verify",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Wipe => "wipe",
            Self::Notify => "notify",
            Self::Reboot => "reboot",
            Self::ApplyNetConfig => "apply-net-config",
            Self::RestoreNetConfig => "restore-net-config",
            Self::VerifyConnectivity => "verify-connectivity",
            Self::VerifyUp => "verify-up",
            Self::Custom => "custom",
        }
    }

    /// Duration at the default timing, in milliseconds.
    pub(super) const fn base_ms(self) -> u64 {
        match self {
            Self::Repave | Self::Wipe => 1_000,
            Self::Reboot => 800,
            Self::Join => 600,
            Self::Drain | Self::ApplyNetConfig | Self::Custom => 500,
            Self::Verify => 400,
            Self::SetNetboot
            | Self::RestoreNetConfig
            | Self::VerifyConnectivity
            | Self::VerifyUp => 300,
            Self::ClearNetboot | Self::MintJoin | Self::Undrain | Self::Notify => 200,
        }
    }

    /// Whether the machine does not answer while it runs.
    pub(super) const fn interrupts(self) -> bool {
        matches!(self, Self::Repave | Self::Wipe | Self::Reboot)
    }

    /// Whether it continues when asked to stop: half of it would be worse than all of it.
    pub(super) const fn is_destructive(self) -> bool {
        matches!(self, Self::Repave | Self::Wipe | Self::Reboot | Self::ApplyNetConfig)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(action));
            assert_eq!(
                serde_json::to_value(action).unwrap(),
                serde_json::Value::from(action.as_str())
            );
        }
        assert_eq!(Action::parse("levitate"), None);
    }
}
