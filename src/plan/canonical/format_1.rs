//! Format 1, which only named an action and left the rest to the table of actions. A copy of that table is kept here,
//! so that a run continues as it was accepted: `drain`, for example, was not destructive then.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::CanonicalError;
use super::text::{ArgText, Format, args};
use crate::plan::names::Capability::{
    self, ClusterJoin, Drain, Imaging, Netboot, Network, Notify, Power, Probe, Wipe,
};
use crate::plan::names::Risk::{self, DataDestroying, Disruptive, None};
use crate::plan::schema::{Action, Compensation, Traits};

/// Its number.
pub(super) const FORMAT: u32 = 1;

/// Writes the parts that differ.
pub(super) struct Form;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionText {
    kind: String,
    args: BTreeMap<String, ArgText>,
}

/// Name, capability, risk, idempotent, timeout and expected duration as a compensation, both in milliseconds.
type Row = (&'static str, Capability, Risk, bool, u64, u64);

/// The table of actions when this format was last written. It never changes.
const TABLE: [Row; 14] = [
    ("set-netboot", Netboot, None, true, 60_000, 5_000),
    ("clear-netboot", Netboot, None, true, 60_000, 5_000),
    ("repave", Imaging, DataDestroying, true, 3_600_000, 600_000),
    ("mint-join", ClusterJoin, None, true, 60_000, 2_000),
    ("join", ClusterJoin, None, false, 600_000, 60_000),
    ("verify", Probe, None, true, 300_000, 30_000),
    ("drain", Drain, None, true, 1_800_000, 300_000),
    ("undrain", Drain, None, true, 300_000, 10_000),
    ("wipe", Wipe, DataDestroying, true, 21_600_000, 1_800_000),
    ("notify", Notify, None, false, 60_000, 2_000),
    ("reboot", Power, Disruptive, false, 1_200_000, 180_000),
    ("apply-net-config", Network, Disruptive, true, 300_000, 30_000),
    ("restore-net-config", Network, None, true, 300_000, 30_000),
    ("verify-connectivity", Probe, None, true, 120_000, 5_000),
];

fn row(name: &str) -> Result<&'static Row, CanonicalError> {
    TABLE
        .iter()
        .find(|row| row.0 == name)
        .ok_or_else(|| CanonicalError::UnknownName { what: "action", name: name.to_owned() })
}

impl Format for Form {
    type Action = ActionText;
    type Compensation = ActionText;

    fn action(text: ActionText) -> Result<Action, CanonicalError> {
        let &(name, capability, risk, idempotent, ..) = row(&text.kind)?;
        // What this format calls destructive cannot be stopped midway.
        let interruptible = !risk.is_destructive();
        let traits = Traits { capability, risk, idempotent, interruptible };
        Ok(Action { name: Cow::Borrowed(name), args: args(text.args), traits })
    }

    fn compensation(text: ActionText) -> Result<Compensation, CanonicalError> {
        let &(.., timeout_ms, expected_ms) = row(&text.kind)?;
        let sets = Cow::Borrowed(&[] as &[_]);
        Ok(Compensation {
            action: Self::action(text)?,
            timeout_ms,
            expected_ms,
            sets,
            retry: Option::None,
        })
    }
}
