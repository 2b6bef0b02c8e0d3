//! The actions that a step can use, each with its typed arguments, in one table. Plans are checked against it; what a
//! run needs to know of an action is pinned in the plan.

use std::borrow::Cow;

use super::names::{Capability, Risk, ValueKind};
use super::value::Value;

/// Everything known about an action, independent of any plan.
#[derive(Debug)]
pub struct ActionSpec {
    /// Its name.
    pub name: &'static str,
    /// What the machine's provider must offer.
    pub capability: Capability,
    /// What it puts at risk: if anything, a step must declare `on_unknown`.
    pub risk: Risk,
    /// Whether doing it twice has the same effect as doing it once: only then may `on_unknown` be `retry`.
    pub idempotent: bool,
    /// Whether a cancel may stop it midway, because that leaves nothing half done.
    pub interruptible: bool,
    /// What it does, for plan authors.
    pub description: &'static str,
    /// The action whose output it consumes: a step must name, in `needs`, an earlier step with that action.
    pub consumes: Option<&'static str>,
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
    /// Name.
    pub name: &'static str,
    /// Type of its values.
    pub kind: ValueKind,
    /// Value used when the plan gives none; `None`: the plan must give one.
    pub default: Option<Value>,
    /// The only texts accepted; empty means any.
    pub one_of: &'static [&'static str],
    /// What it is for.
    pub description: &'static str,
}

impl ActionSpec {
    /// Every action, in the order in which plan authors see them.
    pub fn all() -> &'static [Self] {
        SPECS
    }

    /// The action of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SPECS.iter().find(|spec| spec.name == name)
    }

    /// The argument of this name.
    pub fn arg(&self, name: &str) -> Option<&'static ArgSpec> {
        self.args.iter().find(|arg| arg.name == name)
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

const fn text(value: &'static str) -> Option<Value> {
    Some(Value::Str(Cow::Borrowed(value)))
}

static SPECS: &[ActionSpec] = &[
    ActionSpec {
        name: "set-netboot",
        capability: Capability::Netboot,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Sets the source of the machine's next boot.",
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
        name: "clear-netboot",
        capability: Capability::Netboot,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Removes the boot override: the machine boots as its firmware is configured.",
        consumes: None,
        args: &[],
        timeout_ms: MINUTE,
        expected_ms: 5 * SECOND,
    },
    ActionSpec {
        name: "repave",
        capability: Capability::Imaging,
        risk: Risk::DataDestroying,
        // The same image on the same disks: a second write gives the same result.
        idempotent: true,
        interruptible: false,
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
        name: "mint-join",
        capability: Capability::ClusterJoin,
        risk: Risk::None,
        // An unused handle expires by itself.
        idempotent: true,
        interruptible: true,
        description: "Gets a handle to short-lived join material; the material itself never passes through the engine.",
        consumes: None,
        args: &[ArgSpec {
            name: "ttl",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(15 * MINUTE)),
            one_of: &[],
            description: "How long the material stays valid.",
        }],
        timeout_ms: MINUTE,
        expected_ms: 2 * SECOND,
    },
    ActionSpec {
        name: "join",
        capability: Capability::ClusterJoin,
        risk: Risk::None,
        // The handle can be redeemed once: a blind second attempt fails although the machine has joined.
        idempotent: false,
        interruptible: true,
        description: "Redeems the handle of mint-join: the machine becomes a member of its target cluster.",
        consumes: Some("mint-join"),
        args: &[],
        timeout_ms: 10 * MINUTE,
        expected_ms: MINUTE,
    },
    ActionSpec {
        name: "verify",
        capability: Capability::Probe,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Checks that the machine answers and is a member of its cluster.",
        consumes: None,
        args: &[ArgSpec {
            name: "settle",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(0)),
            one_of: &[],
            description: "How long the check must hold without interruption.",
        }],
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        name: "drain",
        capability: Capability::Drain,
        risk: Risk::Disruptive,
        idempotent: true,
        interruptible: true,
        description: "Moves workloads away from the machine and takes it out of its cluster.",
        consumes: None,
        args: &[ArgSpec {
            name: "grace",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(5 * MINUTE)),
            one_of: &[],
            description: "How long workloads may take to finish by themselves.",
        }],
        timeout_ms: 30 * MINUTE,
        expected_ms: 5 * MINUTE,
    },
    ActionSpec {
        name: "undrain",
        capability: Capability::Drain,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Allows workloads on the machine again.",
        consumes: None,
        args: &[],
        timeout_ms: 5 * MINUTE,
        expected_ms: 10 * SECOND,
    },
    ActionSpec {
        name: "wipe",
        capability: Capability::Wipe,
        risk: Risk::DataDestroying,
        idempotent: true,
        interruptible: false,
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
        name: "notify",
        capability: Capability::Notify,
        risk: Risk::None,
        // People and ticket systems would get the message twice.
        idempotent: false,
        interruptible: true,
        description: "Sends a message about the machine to a channel.",
        consumes: None,
        args: &[
            ArgSpec {
                name: "channel",
                kind: ValueKind::String,
                default: text("rma"),
                one_of: &[],
                description: "Destination of the message, as the provider knows it.",
            },
            ArgSpec {
                name: "message",
                kind: ValueKind::String,
                default: text(""),
                one_of: &[],
                description: "Text in addition to the machine and the plan.",
            },
        ],
        timeout_ms: MINUTE,
        expected_ms: 2 * SECOND,
    },
    ActionSpec {
        name: "reboot",
        capability: Capability::Power,
        risk: Risk::Disruptive,
        // A second reboot interrupts the boot that the first one started.
        idempotent: false,
        interruptible: false,
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
        name: "apply-net-config",
        capability: Capability::Network,
        // A wrong profile disconnects a machine in service.
        risk: Risk::Disruptive,
        idempotent: true,
        interruptible: false,
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
        name: "restore-net-config",
        capability: Capability::Network,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Restores the network configuration from before apply-net-config.",
        consumes: None,
        args: &[],
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        name: "verify-connectivity",
        capability: Capability::Probe,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
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
    ActionSpec {
        name: "verify-up",
        capability: Capability::Probe,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Checks that the machine answers again; use it between a reboot and an undrain.",
        consumes: None,
        args: &[ArgSpec {
            name: "settle",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(0)),
            one_of: &[],
            description: "How long the check must hold without interruption.",
        }],
        timeout_ms: 10 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        name: super::schema::WAIT,
        capability: Capability::Engine,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Waits for a time, or until conditions and labels of the machine match `until`. Calls no provider.",
        consumes: None,
        args: &[ArgSpec {
            name: "for",
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(0)),
            one_of: &[],
            description: "How long; without it the step must have `until`.",
        }],
        timeout_ms: 60 * MINUTE,
        expected_ms: 10 * MINUTE,
    },
    ActionSpec {
        name: super::schema::APPROVE,
        capability: Capability::Engine,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: "Holds the run until an operator approves or rejects it, with a reason. A timeout counts as a rejection.",
        consumes: None,
        args: &[ArgSpec {
            name: "message",
            kind: ValueKind::String,
            default: None,
            one_of: &[],
            description: "The question for the operator.",
        }],
        timeout_ms: 24 * 60 * MINUTE,
        expected_ms: 60 * MINUTE,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for spec in SPECS {
            assert!(std::ptr::eq(ActionSpec::find(spec.name).unwrap(), spec), "{}", spec.name);
            assert!(spec.consumes.is_none_or(|name| ActionSpec::find(name).is_some()));
        }
        assert!(ActionSpec::find("levitate").is_none());
    }

    /// A compensation has no `on_unknown`: what undoes a step must not be destructive.
    #[test]
    fn what_destroys_data_is_an_image_or_an_erasure() {
        let of = |risk| SPECS.iter().filter(move |spec| spec.risk == risk).map(|spec| spec.name);
        assert_eq!(of(Risk::DataDestroying).collect::<Vec<_>>(), ["repave", "wipe"]);
        assert_eq!(
            of(Risk::Disruptive).collect::<Vec<_>>(),
            ["drain", "reboot", "apply-net-config"]
        );
    }

    #[test]
    fn arguments_are_sorted_and_defaults_fit() {
        for spec in SPECS {
            assert!(spec.args.is_sorted_by_key(|arg| arg.name), "{}", spec.name);
            assert!(0 < spec.expected_ms && spec.expected_ms <= spec.timeout_ms, "{}", spec.name);
            for arg in spec.args {
                let Some(default) = &arg.default else { continue };
                assert_eq!(default.kind(), arg.kind, "{} {}", spec.name, arg.name);
                assert!(
                    arg.one_of.is_empty()
                        || default.as_str().is_some_and(|text| arg.one_of.contains(&text))
                );
            }
        }
    }
}
