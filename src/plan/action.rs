//! The closed set of actions a step can ask for, each with its typed arguments, in one table.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::schema::{Value, ValueKind, names};

names! {
    /// What a provider must be able to do for an action.
    Capability {
        /// Choose what the machine boots from.
        Netboot = "netboot",
        /// Write an operating system image.
        Imaging = "imaging",
        /// Switch power.
        Power = "power",
        /// Make a machine a member of a cluster.
        ClusterJoin = "cluster-join",
        /// Erase disks.
        Wipe = "wipe",
        /// Configure the network.
        Network = "network",
        /// Tell people or systems something.
        Notify = "notify",
        /// Look at a machine without changing it.
        Probe = "probe",
        /// Move workloads away.
        Drain = "drain",
    }
}

names! {
    /// Name of an action.
    ActionKind {
        /// Makes the next boot come from the network, disk or HTTP.
        SetNetboot = "set-netboot",
        /// Takes back [`ActionKind::SetNetboot`].
        ClearNetboot = "clear-netboot",
        /// Writes an image over the machine's disks.
        Repave = "repave",
        /// Gets a handle to short-lived join material.
        MintJoin = "mint-join",
        /// Redeems the handle: the machine joins its cluster.
        Join = "join",
        /// Checks that the machine answers and is a member.
        Verify = "verify",
        /// Moves workloads away and takes the machine out of its cluster.
        Drain = "drain",
        /// Takes back [`ActionKind::Drain`].
        Undrain = "undrain",
        /// Erases the disks.
        Wipe = "wipe",
        /// Tells a channel.
        Notify = "notify",
        /// Restarts the machine.
        Reboot = "reboot",
        /// Applies a network profile.
        ApplyNetConfig = "apply-net-config",
        /// Takes back [`ActionKind::ApplyNetConfig`].
        RestoreNetConfig = "restore-net-config",
        /// Checks that the machine reaches a target over the network.
        VerifyConnectivity = "verify-connectivity",
    }
}

/// What is known about an action before any plan uses it.
#[derive(Debug)]
pub struct ActionSpec {
    /// Its name.
    pub kind: ActionKind,
    /// What the machine's provider must offer.
    pub capability: Capability,
    /// Whether data or service can be lost: such a step must say `on_unknown`.
    pub destructive: bool,
    /// Whether carrying it out twice leaves the world as carrying it out once: only then may `on_unknown` be `retry`.
    pub idempotent: bool,
    /// What it does, for plan authors.
    pub description: &'static str,
    /// The action whose result it consumes: a step must name, in `needs`, an earlier step that carries that one out.
    pub consumes: Option<ActionKind>,
    /// Its arguments, sorted by name.
    pub args: &'static [ArgSpec],
    /// Timeout of a step that gives none, and of the action as a compensation; in milliseconds.
    pub timeout_ms: u64,
    /// Expected duration of a step that gives none, in milliseconds.
    pub expected_ms: u64,
}

/// An argument of an action.
#[derive(Debug)]
pub struct ArgSpec {
    /// Its name.
    pub name: &'static str,
    /// Type of its values.
    pub kind: ValueKind,
    /// Value taken when the plan gives none; `None`: the plan must give it.
    pub default: Option<Value>,
    /// The only texts accepted; empty means any.
    pub one_of: &'static [&'static str],
    /// What it is for.
    pub description: &'static str,
}

impl ActionKind {
    /// What is known about the action.
    pub fn spec(self) -> &'static ActionSpec {
        &SPECS[self as usize]
    }
}

impl ActionSpec {
    /// Every action, in declaration order.
    pub fn all() -> &'static [Self] {
        SPECS
    }

    /// The argument of this name.
    pub fn arg(&self, name: &str) -> Option<&'static ArgSpec> {
        self.args.iter().find(|arg| arg.name == name)
    }
}

/// An action with its arguments, as a plan asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Which action.
    pub kind: ActionKind,
    /// Every argument of the action's specification, sorted by name. Defaults were filled in when the plan was compiled, so that a
    /// pinned plan keeps its meaning when a later version changes a default.
    pub args: Cow<'static, [(Cow<'static, str>, Arg)]>,
}

/// Value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Written in the plan, or a default.
    Literal(Value),
    /// Taken from the parameter of this name.
    Param(Cow<'static, str>),
}

impl Action {
    /// What is known about the action.
    pub fn spec(&self) -> &'static ActionSpec {
        self.kind.spec()
    }

    /// The argument values for one run, by name, given its parameters as `Plan::bind` returns them.
    ///
    /// A parameter that is not in `params` is left out; that cannot happen with the parameters bound by the same plan.
    pub fn resolve(&self, params: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        self.args
            .iter()
            .filter_map(|(name, arg)| {
                let value = match arg {
                    Arg::Literal(value) => value.clone(),
                    Arg::Param(param) => params.get(param.as_ref())?.clone(),
                };
                Some((name.to_string(), value))
            })
            .collect()
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

const fn text(value: &'static str) -> Option<Value> {
    Some(Value::Str(Cow::Borrowed(value)))
}

/// In the order of [`ActionKind`]; a test holds that.
static SPECS: &[ActionSpec] = &[
    ActionSpec {
        kind: ActionKind::SetNetboot,
        capability: Capability::Netboot,
        destructive: false,
        idempotent: true,
        description: "Makes the machine's next boot come from the given source.",
        consumes: None,
        args: &[ArgSpec {
            name: "target",
            kind: ValueKind::String,
            default: text("pxe"),
            one_of: &["pxe", "disk", "http"],
            description: "What to boot from.",
        }],
        timeout_ms: MINUTE,
        expected_ms: 5 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::ClearNetboot,
        capability: Capability::Netboot,
        destructive: false,
        idempotent: true,
        description: "Takes the boot override away: the machine boots as its firmware says.",
        consumes: None,
        args: &[],
        timeout_ms: MINUTE,
        expected_ms: 5 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::Repave,
        capability: Capability::Imaging,
        destructive: true,
        // The same image over the same disks: the second writing ends where the first did.
        idempotent: true,
        description: "Writes an operating system image over the machine's disks and boots it.",
        consumes: None,
        args: &[ArgSpec {
            name: "image",
            kind: ValueKind::String,
            default: None,
            one_of: &[],
            description: "Name of the image, as the provider knows it.",
        }],
        timeout_ms: 60 * MINUTE,
        expected_ms: 10 * MINUTE,
    },
    ActionSpec {
        kind: ActionKind::MintJoin,
        capability: Capability::ClusterJoin,
        destructive: false,
        // A handle minted for nothing expires by itself.
        idempotent: true,
        description: "Gets a handle to short-lived join material; the material itself never passes through the engine.",
        consumes: None,
        args: &[ArgSpec {
            name: "ttl",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(15 * MINUTE)),
            one_of: &[],
            description: "How long the material can be redeemed.",
        }],
        timeout_ms: MINUTE,
        expected_ms: 2 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::Join,
        capability: Capability::ClusterJoin,
        destructive: false,
        // The handle can be redeemed once: a blind second try fails although the machine has joined.
        idempotent: false,
        description: "Redeems the handle of mint-join: the machine becomes a member of its target cluster.",
        consumes: Some(ActionKind::MintJoin),
        args: &[],
        timeout_ms: 10 * MINUTE,
        expected_ms: MINUTE,
    },
    ActionSpec {
        kind: ActionKind::Verify,
        capability: Capability::Probe,
        destructive: false,
        idempotent: true,
        description: "Checks that the machine answers and is a member of its cluster.",
        consumes: None,
        args: &[ArgSpec {
            name: "settle",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(0)),
            one_of: &[],
            description: "How long it must stay so without a break.",
        }],
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::Drain,
        capability: Capability::Drain,
        destructive: false,
        idempotent: true,
        description: "Moves workloads away from the machine and takes it out of its cluster.",
        consumes: None,
        args: &[ArgSpec {
            name: "grace",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(5 * MINUTE)),
            one_of: &[],
            description: "How long workloads get to finish by themselves.",
        }],
        timeout_ms: 30 * MINUTE,
        expected_ms: 5 * MINUTE,
    },
    ActionSpec {
        kind: ActionKind::Undrain,
        capability: Capability::Drain,
        destructive: false,
        idempotent: true,
        description: "Lets workloads come back to the machine.",
        consumes: None,
        args: &[],
        timeout_ms: 5 * MINUTE,
        expected_ms: 10 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::Wipe,
        capability: Capability::Wipe,
        destructive: true,
        idempotent: true,
        description: "Erases every disk of the machine.",
        consumes: None,
        args: &[ArgSpec {
            name: "method",
            kind: ValueKind::String,
            default: text("secure"),
            one_of: &["quick", "secure"],
            description: "quick drops keys and partition tables; secure erases all blocks.",
        }],
        timeout_ms: 6 * 60 * MINUTE,
        expected_ms: 30 * MINUTE,
    },
    ActionSpec {
        kind: ActionKind::Notify,
        capability: Capability::Notify,
        destructive: false,
        // People and ticket systems count what they are told.
        idempotent: false,
        description: "Tells a channel about the machine.",
        consumes: None,
        args: &[
            ArgSpec {
                name: "channel",
                kind: ValueKind::String,
                default: text("rma"),
                one_of: &[],
                description: "Whom to tell, as the provider knows it.",
            },
            ArgSpec {
                name: "message",
                kind: ValueKind::String,
                default: text(""),
                one_of: &[],
                description: "What to say besides the machine and the plan.",
            },
        ],
        timeout_ms: MINUTE,
        expected_ms: 2 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::Reboot,
        capability: Capability::Power,
        destructive: true,
        // A second reboot interrupts the boot that the first one started.
        idempotent: false,
        description: "Restarts the machine and waits until it is up.",
        consumes: None,
        args: &[ArgSpec {
            name: "mode",
            kind: ValueKind::String,
            default: text("graceful"),
            one_of: &["graceful", "force"],
            description: "graceful asks the operating system; force cuts the power.",
        }],
        timeout_ms: 20 * MINUTE,
        expected_ms: 3 * MINUTE,
    },
    ActionSpec {
        kind: ActionKind::ApplyNetConfig,
        capability: Capability::Network,
        // A wrong profile cuts a serving machine off.
        destructive: true,
        idempotent: true,
        description: "Applies a network profile to the machine and its ports.",
        consumes: None,
        args: &[ArgSpec {
            name: "profile",
            kind: ValueKind::String,
            default: text("default"),
            one_of: &[],
            description: "Name of the profile, as the provider knows it.",
        }],
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::RestoreNetConfig,
        capability: Capability::Network,
        destructive: false,
        idempotent: true,
        description: "Goes back to the network configuration that was in force before apply-net-config.",
        consumes: None,
        args: &[],
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        kind: ActionKind::VerifyConnectivity,
        capability: Capability::Probe,
        destructive: false,
        idempotent: true,
        description: "Checks that the machine reaches a target over the network.",
        consumes: None,
        args: &[ArgSpec {
            name: "target",
            kind: ValueKind::String,
            default: text("gateway"),
            one_of: &[],
            description: "What must be reached.",
        }],
        timeout_ms: 2 * MINUTE,
        expected_ms: 5 * SECOND,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_names() {
        let kinds: Vec<ActionKind> = SPECS.iter().map(|spec| spec.kind).collect();
        assert_eq!(kinds, ActionKind::ALL);
    }

    #[test]
    fn arguments_are_sorted_and_defaults_fit() {
        for spec in SPECS {
            assert!(spec.args.is_sorted_by_key(|arg| arg.name), "{}", spec.kind);
            assert!(0 < spec.expected_ms && spec.expected_ms <= spec.timeout_ms, "{}", spec.kind);
            for arg in spec.args {
                let Some(default) = &arg.default else { continue };
                assert_eq!(default.kind(), arg.kind, "{} {}", spec.kind, arg.name);
                assert!(
                    arg.one_of.is_empty()
                        || default.as_str().is_some_and(|text| arg.one_of.contains(&text))
                );
            }
        }
    }
}
