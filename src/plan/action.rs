//! The actions that a step can use, each with its typed arguments: those of one table, and those that a server declares
//! ([`Actions`]). Plans are checked against them; what a run needs to know of an action is pinned in the plan.

use std::borrow::Cow;

use super::form::Form;
use super::names::{Capability, Risk, ValueKind};
pub use super::spec::{ActionSpec, ArgSpec};
use super::value::Value;

impl ActionSpec {
    /// Every built-in action, in the order in which plan authors see them.
    pub fn all() -> &'static [Self] {
        SPECS
    }

    /// The built-in action of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SPECS.iter().find(|spec| spec.name == name)
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

/// An argument that accepts any value of its kind.
const fn plain(
    name: &'static str,
    kind: ValueKind,
    default: Option<Value>,
    description: &'static str,
) -> ArgSpec {
    ArgSpec {
        name: borrowed(name),
        kind,
        default,
        one_of: Cow::Borrowed(&[]),
        form: Form::Any,
        is_optional: false,
        description: borrowed(description),
    }
}

/// A text that must not be empty, whether a plan or a parameter says it.
const fn filled(name: &'static str, default: Option<Value>, description: &'static str) -> ArgSpec {
    ArgSpec {
        name: borrowed(name),
        kind: ValueKind::String,
        default,
        one_of: Cow::Borrowed(&[]),
        form: Form::Filled,
        is_optional: false,
        description: borrowed(description),
    }
}

/// A text that can be left out.
const fn optional(name: &'static str, form: Form, description: &'static str) -> ArgSpec {
    ArgSpec {
        name: borrowed(name),
        kind: ValueKind::String,
        default: None,
        one_of: Cow::Borrowed(&[]),
        form,
        is_optional: true,
        description: borrowed(description),
    }
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
            optional(
                "disk",
                Form::Disk,
                "Where to install: smallest, a path such as /dev/sda, or serial:NUMBER. Absent or empty: as its class says.",
            ),
            optional(
                "hostname",
                Form::HostName,
                "Name of the installed system. Absent or empty: the machine's id.",
            ),
            filled("image", None, "Name of the image, as the provider knows it."),
            optional(
                "ssh-key",
                Form::SshKey,
                "A public key that may log in as root, beside those of its class.",
            ),
            optional(
                "user-data",
                Form::Any,
                "For the first start of the installed system, as its image understands it: one line, or an address. Never a secret.",
            ),
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
        args: Cow::Borrowed(&[plain(
            "ttl",
            ValueKind::Duration,
            Some(Value::DurationMs(15 * MINUTE)),
            "How long the material stays valid.",
        )]),
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
        args: Cow::Borrowed(&[plain(
            "settle",
            ValueKind::Duration,
            Some(Value::DurationMs(0)),
            "How long the check must hold without interruption.",
        )]),
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
        args: Cow::Borrowed(&[plain(
            "grace",
            ValueKind::Duration,
            Some(Value::DurationMs(5 * MINUTE)),
            "How long workloads may take to finish by themselves.",
        )]),
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
            filled("channel", text("rma"), "Destination of the message, as the provider knows it."),
            plain(
                "message",
                ValueKind::String,
                text(""),
                "Text in addition to the machine and the plan.",
            ),
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
        args: Cow::Borrowed(&[filled(
            "profile",
            text("default"),
            "Name of the profile, as the provider knows it.",
        )]),
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
        args: Cow::Borrowed(&[filled("target", text("gateway"), "What must be reached.")]),
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
        args: Cow::Borrowed(&[plain(
            "settle",
            ValueKind::Duration,
            Some(Value::DurationMs(0)),
            "How long the check must hold without interruption.",
        )]),
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
        args: Cow::Borrowed(&[plain(
            "for",
            ValueKind::Duration,
            Some(Value::DurationMs(0)),
            "How long; without it the step must have `until`.",
        )]),
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
        args: Cow::Borrowed(&[filled("message", None, "The question for the operator.")]),
        timeout_ms: 24 * 60 * MINUTE,
        expected_ms: 60 * MINUTE,
    },
];

#[cfg(test)]
mod tests;
