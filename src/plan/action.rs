//! The actions that a step can use, each with its typed arguments: those of one table, and those that a server declares
//! ([`Actions`]). Plans are checked against them; what a run needs to know of an action is pinned in the plan.

use std::borrow::Cow;

use super::form::Form;
use super::names::{Capability, Risk, ValueKind};
use super::value::Value;

/// Everything known about an action, independent of any plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSpec {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What the machine's provider must offer.
    pub capability: Capability,
    /// What it puts at risk: if anything, a step must declare `on_unknown`.
    pub risk: Risk,
    /// Whether doing it twice has the same effect as doing it once: only then may `on_unknown` be `retry`.
    pub idempotent: bool,
    /// Whether a cancel may stop it midway, because that leaves nothing half done.
    pub interruptible: bool,
    /// What it does, for plan authors.
    pub description: Cow<'static, str>,
    /// The action whose output it consumes: a step must name, in `needs`, an earlier step with that action.
    pub consumes: Option<Cow<'static, str>>,
    /// Its arguments, sorted by name.
    pub args: Cow<'static, [ArgSpec]>,
    /// Timeout of a step that gives none, and of the action as a compensation; in milliseconds.
    pub timeout_ms: u64,
    /// Expected duration of a step that gives none, in milliseconds.
    pub expected_ms: u64,
}

/// An argument of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgSpec {
    /// Name.
    pub name: Cow<'static, str>,
    /// Type of its values.
    pub kind: ValueKind,
    /// Value used when the plan gives none; `None`: the plan must give one, unless it is optional.
    pub default: Option<Value>,
    /// The only texts accepted; empty means any.
    pub one_of: Cow<'static, [Cow<'static, str>]>,
    /// What its texts must look like.
    pub form: Form,
    /// Whether it can be left out, and then is absent: what it means to be absent is up to the provider.
    pub is_optional: bool,
    /// What it is for.
    pub description: Cow<'static, str>,
}

impl ArgSpec {
    /// Whether a plan must give it.
    pub const fn is_required(&self) -> bool {
        self.default.is_none() && !self.is_optional
    }
}

impl ActionSpec {
    /// Every built-in action, in the order in which plan authors see them.
    pub fn all() -> &'static [Self] {
        SPECS
    }

    /// The built-in action of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SPECS.iter().find(|spec| spec.name == name)
    }

    /// The argument of this name.
    pub fn arg(&self, name: &str) -> Option<&ArgSpec> {
        self.args.iter().find(|arg| arg.name == name)
    }
}

/// The actions that plans are checked against: the built-in ones, and those that a server declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    own: Vec<ActionSpec>,
}

impl Actions {
    /// The built-in ones only.
    pub const BUILT_IN: &'static Self = &Self { own: Vec::new() };

    /// The built-in ones and these, whose names are unique.
    pub(super) fn with(own: Vec<ActionSpec>) -> Self {
        Self { own }
    }

    /// Every action: the built-in ones first.
    pub fn iter(&self) -> impl Iterator<Item = &ActionSpec> + Clone {
        SPECS.iter().chain(&self.own)
    }

    /// Those that are not built in.
    pub fn own(&self) -> &[ActionSpec] {
        &self.own
    }

    /// The action of this name.
    pub fn find(&self, name: &str) -> Option<&ActionSpec> {
        self.iter().find(|spec| spec.name == name)
    }

    /// The name of every action.
    pub fn names(&self) -> Vec<&str> {
        self.iter().map(|spec| spec.name.as_ref()).collect()
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

const fn text(value: &'static str) -> Option<Value> {
    Some(Value::Str(Cow::Borrowed(value)))
}

const fn borrowed(text: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(text)
}

static SPECS: &[ActionSpec] = &[
    ActionSpec {
        name: borrowed("set-netboot"),
        capability: Capability::Netboot,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed("Sets the source of the machine's next boot."),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("target"),
            kind: ValueKind::String,
            default: text("pxe"),
            one_of: Cow::Borrowed(&[borrowed("pxe"), borrowed("disk"), borrowed("http")]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("What to boot from."),
        }]),
        timeout_ms: MINUTE,
        expected_ms: 5 * SECOND,
    },
    ActionSpec {
        name: borrowed("clear-netboot"),
        capability: Capability::Netboot,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed(
            "Removes the boot override: the machine boots as its firmware is configured.",
        ),
        consumes: None,
        args: Cow::Borrowed(&[]),
        timeout_ms: MINUTE,
        expected_ms: 5 * SECOND,
    },
    ActionSpec {
        name: borrowed("repave"),
        capability: Capability::Imaging,
        risk: Risk::DataDestroying,
        // The same image on the same disks: a second write gives the same result.
        idempotent: true,
        interruptible: false,
        description: borrowed(
            "Writes an operating system image over the machine's disks and boots it.",
        ),
        consumes: None,
        args: Cow::Borrowed(&[
            ArgSpec {
                name: borrowed("disk"),
                kind: ValueKind::String,
                default: None,
                one_of: Cow::Borrowed(&[]),
                form: Form::Disk,
                is_optional: true,
                description: borrowed(
                    "Where to install: smallest, a path such as /dev/sda, or serial:NUMBER. Absent or empty: as its class says.",
                ),
            },
            ArgSpec {
                name: borrowed("hostname"),
                kind: ValueKind::String,
                default: None,
                one_of: Cow::Borrowed(&[]),
                form: Form::HostName,
                is_optional: true,
                description: borrowed(
                    "Name of the installed system. Absent or empty: the machine's id.",
                ),
            },
            ArgSpec {
                name: borrowed("image"),
                kind: ValueKind::String,
                default: None,
                one_of: Cow::Borrowed(&[]),
                form: Form::Any,
                is_optional: false,
                description: borrowed("Name of the image, as the provider knows it."),
            },
            ArgSpec {
                name: borrowed("ssh-key"),
                kind: ValueKind::String,
                default: None,
                one_of: Cow::Borrowed(&[]),
                form: Form::SshKey,
                is_optional: true,
                description: borrowed(
                    "A public key that may log in as root, beside those of its class.",
                ),
            },
            ArgSpec {
                name: borrowed("user-data"),
                kind: ValueKind::String,
                default: None,
                one_of: Cow::Borrowed(&[]),
                form: Form::Any,
                is_optional: true,
                description: borrowed(
                    "For the first start of the installed system, as its image understands it: one line, or an address. Never a secret.",
                ),
            },
        ]),
        timeout_ms: 60 * MINUTE,
        expected_ms: 10 * MINUTE,
    },
    ActionSpec {
        name: borrowed("mint-join"),
        capability: Capability::ClusterJoin,
        risk: Risk::None,
        // An unused handle expires by itself.
        idempotent: true,
        interruptible: true,
        description: borrowed(
            "Gets a handle to short-lived join material; the material itself never passes through the engine.",
        ),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("ttl"),
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(15 * MINUTE)),
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("How long the material stays valid."),
        }]),
        timeout_ms: MINUTE,
        expected_ms: 2 * SECOND,
    },
    ActionSpec {
        name: borrowed("join"),
        capability: Capability::ClusterJoin,
        risk: Risk::None,
        // The handle can be redeemed once: a blind second attempt fails although the machine has joined.
        idempotent: false,
        interruptible: true,
        description: borrowed(
            "Redeems the handle of mint-join, whose material is minted again if it is lost: the machine becomes a member of its target cluster.",
        ),
        consumes: Some(borrowed("mint-join")),
        args: Cow::Borrowed(&[]),
        timeout_ms: 10 * MINUTE,
        expected_ms: MINUTE,
    },
    ActionSpec {
        name: borrowed("verify"),
        capability: Capability::Probe,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed("Checks that the machine answers and is a member of its cluster."),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("settle"),
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(0)),
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("How long the check must hold without interruption."),
        }]),
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        name: borrowed("drain"),
        capability: Capability::Drain,
        risk: Risk::Disruptive,
        idempotent: true,
        interruptible: true,
        description: borrowed(
            "Moves workloads away from the machine and takes it out of its cluster.",
        ),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("grace"),
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(5 * MINUTE)),
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("How long workloads may take to finish by themselves."),
        }]),
        timeout_ms: 30 * MINUTE,
        expected_ms: 5 * MINUTE,
    },
    ActionSpec {
        name: borrowed("undrain"),
        capability: Capability::Drain,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed("Allows workloads on the machine again."),
        consumes: None,
        args: Cow::Borrowed(&[]),
        timeout_ms: 5 * MINUTE,
        expected_ms: 10 * SECOND,
    },
    ActionSpec {
        name: borrowed("wipe"),
        capability: Capability::Wipe,
        risk: Risk::DataDestroying,
        idempotent: true,
        interruptible: false,
        description: borrowed("Erases every disk of the machine."),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("method"),
            kind: ValueKind::String,
            default: text("secure"),
            one_of: Cow::Borrowed(&[borrowed("quick"), borrowed("secure")]),
            form: Form::Any,
            is_optional: false,
            description: borrowed(
                "quick drops keys and partition tables; secure erases all blocks.",
            ),
        }]),
        timeout_ms: 6 * 60 * MINUTE,
        expected_ms: 30 * MINUTE,
    },
    ActionSpec {
        name: borrowed("notify"),
        capability: Capability::Notify,
        risk: Risk::None,
        // People and ticket systems would get the message twice.
        idempotent: false,
        interruptible: true,
        description: borrowed("Sends a message about the machine to a channel."),
        consumes: None,
        args: Cow::Borrowed(&[
            ArgSpec {
                name: borrowed("channel"),
                kind: ValueKind::String,
                default: text("rma"),
                one_of: Cow::Borrowed(&[]),
                form: Form::Any,
                is_optional: false,
                description: borrowed("Destination of the message, as the provider knows it."),
            },
            ArgSpec {
                name: borrowed("message"),
                kind: ValueKind::String,
                default: text(""),
                one_of: Cow::Borrowed(&[]),
                form: Form::Any,
                is_optional: false,
                description: borrowed("Text in addition to the machine and the plan."),
            },
        ]),
        timeout_ms: MINUTE,
        expected_ms: 2 * SECOND,
    },
    ActionSpec {
        name: borrowed("reboot"),
        capability: Capability::Power,
        risk: Risk::Disruptive,
        // A second reboot interrupts the boot that the first one started.
        idempotent: false,
        interruptible: false,
        description: borrowed("Restarts the machine and waits until it is up."),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("mode"),
            kind: ValueKind::String,
            default: text("graceful"),
            one_of: Cow::Borrowed(&[borrowed("graceful"), borrowed("force")]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("graceful asks the operating system; force cuts the power."),
        }]),
        timeout_ms: 20 * MINUTE,
        expected_ms: 3 * MINUTE,
    },
    ActionSpec {
        name: borrowed("apply-net-config"),
        capability: Capability::Network,
        // A wrong profile disconnects a machine in service.
        risk: Risk::Disruptive,
        idempotent: true,
        interruptible: false,
        description: borrowed("Applies a network profile to the machine and its ports."),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("profile"),
            kind: ValueKind::String,
            default: text("default"),
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("Name of the profile, as the provider knows it."),
        }]),
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        name: borrowed("restore-net-config"),
        capability: Capability::Network,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed("Restores the network configuration from before apply-net-config."),
        consumes: None,
        args: Cow::Borrowed(&[]),
        timeout_ms: 5 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        name: borrowed("verify-connectivity"),
        capability: Capability::Probe,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed("Checks that the machine reaches a target over the network."),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("target"),
            kind: ValueKind::String,
            default: text("gateway"),
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("What must be reached."),
        }]),
        timeout_ms: 2 * MINUTE,
        expected_ms: 5 * SECOND,
    },
    ActionSpec {
        name: borrowed("verify-up"),
        capability: Capability::Probe,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed(
            "Checks that the machine answers again; use it between a reboot and an undrain.",
        ),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("settle"),
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(0)),
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("How long the check must hold without interruption."),
        }]),
        timeout_ms: 10 * MINUTE,
        expected_ms: 30 * SECOND,
    },
    ActionSpec {
        name: borrowed(super::schema::WAIT),
        capability: Capability::Engine,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed(
            "Waits for a time, or until conditions and labels of the machine match `until`. Calls no provider.",
        ),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("for"),
            kind: ValueKind::Duration,
            default: Some(Value::DurationMs(0)),
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("How long; without it the step must have `until`."),
        }]),
        timeout_ms: 60 * MINUTE,
        expected_ms: 10 * MINUTE,
    },
    ActionSpec {
        name: borrowed(super::schema::APPROVE),
        capability: Capability::Engine,
        risk: Risk::None,
        idempotent: true,
        interruptible: true,
        description: borrowed(
            "Holds the run until an operator approves or rejects it, with a reason. A timeout counts as a rejection.",
        ),
        consumes: None,
        args: Cow::Borrowed(&[ArgSpec {
            name: borrowed("message"),
            kind: ValueKind::String,
            default: None,
            one_of: Cow::Borrowed(&[]),
            form: Form::Any,
            is_optional: false,
            description: borrowed("The question for the operator."),
        }]),
        timeout_ms: 24 * 60 * MINUTE,
        expected_ms: 60 * MINUTE,
    },
];

#[cfg(test)]
mod tests;
