//! A simulated machine as operations change it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::Action;

/// What the cluster knows about join material; the secret itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JoinMaterial {
    pub(super) handle: String,
    pub(super) minted_by: String,
    pub(super) fingerprint: String,
    pub(super) expires_at_ms: u64,
}

/// Everything that an operation can change in a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hardware {
    pub(super) powered: bool,
    pub(super) boots: u64,
    /// The source of the next boot only.
    pub(super) boot_override: Option<String>,
    pub(super) image: Option<String>,
    pub(super) wiped: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) cordoned: bool,
    pub(super) net_profile: String,
    pub(super) net_profile_before: Option<String>,
    pub(super) notices: u64,
    pub(super) join_materials: Vec<JoinMaterial>,
    /// The operation that last took effect, by action.
    pub(super) last: BTreeMap<Action, String>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            powered: true,
            boots: 0,
            boot_override: None,
            image: None,
            wiped: None,
            cluster: None,
            cordoned: false,
            net_profile: "factory".to_owned(),
            net_profile_before: None,
            notices: 0,
            join_materials: Vec::new(),
            last: BTreeMap::new(),
        }
    }
}

impl Hardware {
    pub(super) fn boot(&mut self) {
        self.powered = true;
        self.boots += 1;
        self.boot_override = None;
    }

    pub(super) fn join_material(&self, handle: &str) -> Option<&JoinMaterial> {
        self.join_materials.iter().rev().find(|material| material.handle == handle)
    }
}
