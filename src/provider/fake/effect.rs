//! The effect of an action on a machine, how it is observed, and what it prints.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::action::Action;
use super::hardware::{Hardware, JoinMaterial};
use crate::lifecycle::step::ErrorClass;
use crate::plan::{Value, Values};
use crate::provider::{Call, ErrorCode, ProviderError, Target, Verification};

/// Lifetime of join material if the plan does not give one, in milliseconds.
const JOIN_TTL_MS: u64 = 15 * 60 * 1_000;

/// Name of mint-join's output, the handle of its join material.
const HANDLE: &str = "handle";

/// Join material kept per machine; older ones are dropped, as if they had expired.
const JOIN_MATERIALS_MAX: usize = 8;

/// A change of one machine, with everything needed to replay it from the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Effect {
    SetBoot {
        target: String,
    },
    ClearBoot,
    Install {
        image: String,
    },
    /// The secret itself never leaves this module: the world keeps its fingerprint.
    Mint {
        handle: String,
        fingerprint: String,
        ttl_ms: u64,
    },
    Join {
        cluster: String,
        handle: String,
    },
    CheckCluster {
        cluster: String,
    },
    Drain,
    Undrain,
    Wipe {
        method: String,
    },
    Notify {
        channel: String,
        /// Empty in journals from before it was kept.
        #[serde(default)]
        message: String,
    },
    Reboot {
        mode: String,
    },
    ApplyNet {
        profile: String,
    },
    RestoreNet,
    CheckNet {
        peer: String,
    },
    /// Of an action that a server declares: the simulator only remembers that it was performed.
    Custom {
        action: String,
        args: String,
    },
}

impl Effect {
    /// Parses the effect of a call from its action and arguments.
    pub(super) fn of(
        action: Action,
        target: &Target,
        call: &Call,
        seed: u64,
    ) -> Result<Self, ProviderError> {
        let text = |name: &str, default: &str| -> String {
            call.args.get(name).map_or_else(|| default.to_owned(), ToString::to_string)
        };
        let cluster = || match target.spec.target_cluster.as_str() {
            "" => "default".to_owned(),
            named => named.to_owned(),
        };
        Ok(match action {
            Action::SetNetboot => Self::SetBoot { target: text("target", "pxe") },
            Action::ClearNetboot => Self::ClearBoot,
            Action::Repave => match call.args.get("image").and_then(Value::as_str) {
                Some(image) if !image.is_empty() => Self::Install { image: image.to_owned() },
                Some(_) | None => {
                    return Err(permanent("repave needs the argument image: name what to install"));
                }
            },
            Action::MintJoin => {
                let operation = call.operation.as_str();
                Self::Mint {
                    handle: format!("join-{}", &hex(&Sha256::digest(operation))[..12]),
                    fingerprint: fingerprint(&secret(seed, operation)),
                    ttl_ms: milliseconds(call, "ttl", JOIN_TTL_MS)?,
                }
            }
            Action::Join => Self::Join {
                cluster: cluster(),
                handle: call
                    .inputs
                    .values()
                    .find_map(|output| output.get(HANDLE))
                    .map_or_else(String::new, ToString::to_string),
            },
            Action::Verify => Self::CheckCluster { cluster: cluster() },
            Action::Drain => Self::Drain,
            Action::Undrain => Self::Undrain,
            Action::Wipe => Self::Wipe { method: text("method", "secure") },
            Action::Notify => {
                Self::Notify { channel: text("channel", "rma"), message: text("message", "") }
            }
            Action::Reboot => Self::Reboot { mode: text("mode", "graceful") },
            Action::ApplyNetConfig => Self::ApplyNet { profile: text("profile", "default") },
            Action::RestoreNetConfig => Self::RestoreNet,
            Action::VerifyConnectivity => Self::CheckNet { peer: text("target", "gateway") },
            Action::VerifyUp => Self::CheckNet { peer: "the machine".to_owned() },
            Action::Custom => {
                let args = call.args.iter().map(|(name, value)| format!(" {name}={value}"));
                Self::Custom { action: call.action.clone(), args: args.collect() }
            }
        })
    }

    /// Outputs for later steps; never a secret.
    pub(super) fn output(&self) -> Values {
        let Self::Mint { handle, .. } = self else { return Values::new() };
        Values::from([(HANDLE.to_owned(), Value::Str(handle.clone().into()))])
    }

    /// Whether the machine is in a state in which the operation can start.
    pub(super) fn admit(
        &self,
        machine: &Hardware,
        now_ms: u64,
        seed: u64,
    ) -> Result<(), ProviderError> {
        match self {
            Self::Join { handle, .. } => redeem(machine, handle, now_ms, seed),
            Self::CheckCluster { .. } | Self::CheckNet { .. } => match self.shows(machine) {
                Ok(_) => Ok(()),
                Err((expected, observed)) => Err(ProviderError::new(
                    ErrorClass::Transient,
                    ErrorCode::Precondition,
                    format!("expected {expected}, but {observed}"),
                )
                .seen(expected, observed)),
            },
            Self::SetBoot { .. }
            | Self::ClearBoot
            | Self::Install { .. }
            | Self::Mint { .. }
            | Self::Drain
            | Self::Undrain
            | Self::Wipe { .. }
            | Self::Notify { .. }
            | Self::Reboot { .. }
            | Self::ApplyNet { .. }
            | Self::RestoreNet
            | Self::Custom { .. } => Ok(()),
        }
    }

    /// Applies the change, made by `operation` at `at_ms`.
    pub(super) fn apply(&self, machine: &mut Hardware, operation: &str, at_ms: u64) {
        match self {
            Self::SetBoot { target } => machine.boot_override = Some(target.clone()),
            Self::ClearBoot => machine.boot_override = None,
            Self::Install { image } => {
                machine.boot();
                machine.image = Some(image.clone());
                machine.wiped = None;
                machine.cluster = None;
                machine.cordoned = false;
            }
            Self::Mint { handle, fingerprint, ttl_ms } => {
                let material = JoinMaterial {
                    handle: handle.clone(),
                    minted_by: operation.to_owned(),
                    fingerprint: fingerprint.clone(),
                    expires_at_ms: at_ms.saturating_add(*ttl_ms),
                };
                machine.join_materials.push(material);
                if machine.join_materials.len() > JOIN_MATERIALS_MAX {
                    machine.join_materials.remove(0);
                }
            }
            Self::Join { cluster, .. } => {
                machine.cluster = Some(cluster.clone());
                machine.cordoned = false;
            }
            Self::Drain => machine.cordoned = true,
            Self::Undrain => machine.cordoned = false,
            Self::Wipe { method } => {
                machine.wiped = Some(method.clone());
                machine.image = None;
                machine.cluster = None;
                machine.boot_override = None;
                machine.cordoned = false;
                machine.powered = false;
            }
            Self::Notify { .. } => machine.notices += 1,
            Self::Reboot { .. } => machine.boot(),
            Self::ApplyNet { profile } => {
                let before = std::mem::replace(&mut machine.net_profile, profile.clone());
                if before != *profile {
                    machine.net_profile_before = Some(before);
                }
            }
            Self::RestoreNet => {
                if let Some(before) = machine.net_profile_before.take() {
                    machine.net_profile = before;
                }
            }
            Self::CheckCluster { .. } | Self::CheckNet { .. } | Self::Custom { .. } => {}
        }
    }

    /// Whether the machine's state alone shows that nothing is left to do, with the evidence.
    ///
    /// Only for states, not for events: that a machine has an image does not show that *this* repave wrote it.
    pub(super) fn already(&self, machine: &Hardware) -> Option<String> {
        match self {
            Self::SetBoot { .. }
            | Self::ClearBoot
            | Self::Join { .. }
            | Self::Drain
            | Self::Undrain
            | Self::ApplyNet { .. } => self.shows(machine).ok(),
            Self::RestoreNet
            | Self::Install { .. }
            | Self::Mint { .. }
            | Self::CheckCluster { .. }
            | Self::Wipe { .. }
            | Self::Notify { .. }
            | Self::Reboot { .. }
            | Self::CheckNet { .. }
            | Self::Custom { .. } => None,
        }
    }

    /// Checks the machine's state after `operation` was reported done.
    pub(super) fn check(
        &self,
        machine: &Hardware,
        action: Action,
        operation: &str,
    ) -> Verification {
        let by_this = machine.last.get(&action).is_some_and(|last| last == operation);
        match (self.shows(machine), self.already(machine).is_some() || by_this) {
            (Ok(evidence), true) => Verification::Holds { evidence },
            (Ok(observed), false) => Verification::Broken {
                expected: format!("an effect of operation {operation}"),
                observed: format!("{observed}, but not by this operation"),
            },
            (Err((expected, observed)), _) => Verification::Broken { expected, observed },
        }
    }

    /// Evidence of the effect, or what was expected and what is observed.
    pub(super) fn shows(&self, machine: &Hardware) -> Result<String, (String, String)> {
        let equal = |what: &str, expected: &str, seen: Option<&str>| match seen {
            Some(seen) if seen == expected => Ok(format!("{what} is {seen}")),
            Some(seen) => Err((format!("{what} {expected}"), format!("{what} is {seen}"))),
            None => Err((format!("{what} {expected}"), format!("there is no {what}"))),
        };
        let holds = |so: bool, yes: &str, no: &str| {
            if so { Ok(yes.to_owned()) } else { Err((yes.to_owned(), no.to_owned())) }
        };
        match self {
            Self::SetBoot { target } => {
                equal("boot override", target, machine.boot_override.as_deref())
            }
            Self::ClearBoot => {
                holds(machine.boot_override.is_none(), "no boot override", "a boot override is set")
            }
            Self::Install { image } => equal("image", image, machine.image.as_deref()),
            Self::Mint { handle, .. } => holds(
                machine.join_material(handle).is_some(),
                "the join material exists",
                "there is no such join material",
            ),
            Self::Join { cluster, .. } => equal("cluster", cluster, machine.cluster.as_deref()),
            Self::CheckCluster { cluster } => {
                equal("cluster", cluster, machine.cluster.as_deref())?;
                holds(!machine.cordoned, "the machine takes work", "the machine is cordoned")?;
                Ok(format!("the machine takes work in cluster {cluster}"))
            }
            Self::Drain => holds(machine.cordoned, "the machine is drained", "it is not drained"),
            Self::Undrain => {
                holds(!machine.cordoned, "the machine takes work", "the machine is cordoned")
            }
            Self::Wipe { method } => holds(
                machine.wiped.as_ref() == Some(method),
                &format!("the disks are erased ({method})"),
                "the disks are not erased in that way",
            ),
            Self::Notify { channel, .. } => Ok(format!("{channel} was notified")),
            Self::Reboot { .. } => holds(machine.powered, "the machine is up", "it is powered off"),
            Self::ApplyNet { profile } => {
                equal("network profile", profile, Some(&machine.net_profile))
            }
            Self::RestoreNet => Ok(format!("network profile is {}", machine.net_profile)),
            Self::CheckNet { peer } => holds(
                machine.powered,
                &format!("{peer} answers"),
                &format!("{peer} cannot be reached: the machine is powered off"),
            ),
            Self::Custom { action, args } => Ok(format!("{action}{args} was performed")),
        }
    }

    /// Lines printed when the operation starts.
    pub(super) fn begins(&self) -> Vec<String> {
        match self {
            Self::SetBoot { target } => vec![format!("setting the next boot to {target}")],
            Self::ClearBoot => vec!["removing the boot override".to_owned()],
            Self::Install { image } => {
                vec!["booting the installer".to_owned(), format!("writing image {image}")]
            }
            Self::Mint { ttl_ms, .. } => {
                let ttl = std::time::Duration::from_millis(*ttl_ms);
                vec![format!("asking the cluster for join material, valid for {ttl:?}")]
            }
            Self::Join { cluster, handle } => vec![format!("joining {cluster} with {handle}")],
            Self::CheckCluster { cluster } => vec![format!("looking for the machine in {cluster}")],
            Self::Drain => vec!["cordoned".to_owned(), "moving work elsewhere".to_owned()],
            Self::Undrain => vec!["uncordoning".to_owned()],
            Self::Wipe { method } => vec![format!("erasing every disk: {method}")],
            Self::Notify { channel, message } if message.is_empty() => {
                vec![format!("telling {channel}")]
            }
            Self::Notify { channel, message } => vec![format!("telling {channel}: {message}")],
            Self::Reboot { mode } => vec![format!("power cycle: {mode}")],
            Self::ApplyNet { profile } => vec![format!("applying network profile {profile}")],
            Self::RestoreNet => vec!["restoring the former network profile".to_owned()],
            Self::CheckNet { peer } => vec![format!("asking {peer} for an answer")],
            Self::Custom { action, args } => vec![format!("performing {action}{args}")],
        }
    }

    /// What the operation reports when it is done, true or not.
    pub(super) fn claim(&self) -> String {
        match self {
            Self::SetBoot { target } => format!("next boot: {target}"),
            Self::ClearBoot => "no boot override".to_owned(),
            Self::Install { image } => format!("image {image} installed, booted from disk"),
            Self::Mint { handle, .. } => format!("minted {handle}"),
            Self::Join { cluster, .. } => format!("joined cluster {cluster}"),
            Self::CheckCluster { cluster } => format!("takes work in cluster {cluster}"),
            Self::Drain => "drained".to_owned(),
            Self::Undrain => "takes work again".to_owned(),
            Self::Wipe { method } => format!("disks erased ({method}), powered off"),
            Self::Notify { channel, .. } => format!("{channel} was notified"),
            Self::Reboot { .. } => "back up".to_owned(),
            Self::ApplyNet { profile } => format!("network profile {profile} applied"),
            Self::RestoreNet => "former network profile restored".to_owned(),
            Self::CheckNet { peer } => format!("{peer} answers"),
            Self::Custom { action, .. } => format!("{action} was performed"),
        }
    }
}

/// Checks join material against the vault of the machine.
fn redeem(machine: &Hardware, handle: &str, now_ms: u64, seed: u64) -> Result<(), ProviderError> {
    if handle.is_empty() {
        return Err(permanent(
            "join needs the output of mint-join: give the step needs = [\"mint-join\"]",
        ));
    }
    let again = "retry the run from mint-join";
    let Some(material) = machine.join_material(handle) else {
        return Err(permanent(&format!("no join material {handle} of this machine; {again}")));
    };
    if now_ms >= material.expires_at_ms {
        return Err(permanent(&format!("join material {handle} has expired; {again}")));
    }
    if fingerprint(&secret(seed, &material.minted_by)) != material.fingerprint {
        return Err(permanent(&format!("the cluster refuses join material {handle}; {again}")));
    }
    Ok(())
}

fn milliseconds(call: &Call, name: &str, default: u64) -> Result<u64, ProviderError> {
    match call.args.get(name) {
        None => Ok(default),
        Some(Value::DurationMs(ms)) => Ok(*ms),
        Some(other) => Err(permanent(&format!(
            "argument {name} is {other}, of kind {}: expected a duration",
            other.kind()
        ))),
    }
}

fn permanent(message: &str) -> ProviderError {
    ProviderError::new(ErrorClass::Permanent, ErrorCode::Invalid, message)
}

/// Join material: derived again from the seed when it is redeemed, and stored nowhere.
pub(super) fn secret(seed: u64, operation: &str) -> String {
    hex(&Sha256::new()
        .chain_update(b"join material")
        .chain_update(seed.to_le_bytes())
        .chain_update(operation)
        .finalize())
}

fn fingerprint(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |four_bits: u8| DIGITS[usize::from(four_bits)];
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}
