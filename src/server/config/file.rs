//! The file of `--config`. Every key is optional; an unknown one is refused, so that a typing mistake is not ignored.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::choice::{FakeWorld, Format, Level, RoleName};
use super::classes::Driver;
use super::exec::ExecClass;
use super::installer::Installer;
use super::ipmi::Ipmi;
use super::notify::Receiver;
use super::redfish::Redfish;
use super::run_limits::Cap;
use super::span::Span;
use super::webhook::WebhookClass;
use crate::outbound::Network;
use crate::plan::Capability;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) seed: Option<u64>,
    pub(crate) server: Server,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    pub(crate) principals: BTreeMap<String, Principal>,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) plans: Plans,
    pub(crate) credentials: Credentials,
    pub(crate) networks: Networks,
    pub(crate) actions: Actions,
    pub(crate) fake: Fake,
    pub(crate) limits: Limits,
    pub(crate) loop_breaker: LoopBreaker,
    pub(crate) boot: Option<Boot>,
    pub(crate) images: BTreeMap<String, Image>,
    pub(crate) machine_classes: BTreeMap<String, MachineClass>,
    pub(crate) probes: BTreeMap<String, Probe>,
    pub(crate) notify: Vec<Receiver>,
    pub(crate) retention: Retention,
    pub(crate) audit: Audit,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    #[serde(deserialize_with = "address")]
    pub(crate) listen: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) insecure_no_auth: Option<bool>,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) host_names: Option<Vec<String>>,
    pub(crate) connections_max: Option<usize>,
    pub(crate) connections_per_peer_max: Option<usize>,
    pub(crate) connections_loopback_max: Option<usize>,
    pub(crate) connection_age_max: Option<Span>,
    pub(crate) connection_idle_max: Option<Span>,
    pub(crate) watches_max: Option<usize>,
    pub(crate) watches_per_peer_max: Option<usize>,
    pub(crate) mutations_per_peer_per_s: Option<u64>,
    pub(crate) written_bytes_per_peer_per_s: Option<u64>,
    pub(crate) unsent_bytes_max: Option<u64>,
    pub(crate) unsent_bytes_per_connection_max: Option<u64>,
    pub(crate) shutdown_grace: Option<Span>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) client_ca_file: Option<PathBuf>,
    pub(crate) crl_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Principal {
    pub(crate) role: RoleName,
    pub(crate) scope: Option<String>,
    #[serde(default)]
    pub(crate) certificates: Vec<String>,
    #[serde(default)]
    pub(crate) subjects: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) tokens_file: Option<PathBuf>,
    pub(crate) jwt: Option<Jwt>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwt {
    pub(crate) jwks_file: PathBuf,
    pub(crate) issuer: String,
    pub(crate) audience: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: Option<Level>,
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) ephemeral: Option<bool>,
    pub(crate) url: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plans {
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Credentials {
    pub(crate) dir: Option<PathBuf>,
}

/// Where this server and the machines may be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Networks {
    #[serde(deserialize_with = "networks")]
    pub(crate) bmc: Vec<Network>,
    #[serde(deserialize_with = "networks")]
    pub(crate) webhook: Vec<Network>,
    #[serde(deserialize_with = "networks")]
    pub(crate) image: Vec<Network>,
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Actions {
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fake {
    pub(crate) timing: Option<String>,
    pub(crate) world: Option<FakeWorld>,
    pub(crate) script: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) runs_max: Option<usize>,
    pub(crate) runs_max_by_provider: Option<BTreeMap<String, usize>>,
    pub(crate) runs_max_by_label: Option<BTreeMap<String, usize>>,
    pub(crate) disruptive_max: Option<Cap>,
    pub(crate) disruptive_max_by_label: Option<BTreeMap<String, Cap>>,
    pub(crate) data_destroying_max: Option<Cap>,
    pub(crate) data_destroying_max_by_label: Option<BTreeMap<String, Cap>>,
    pub(crate) pause_plan_after: Option<u32>,
    pub(crate) step_log_bytes_max: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoopBreaker {
    pub(crate) destructive_max: Option<usize>,
    pub(crate) window: Option<Span>,
    pub(crate) simulated: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retention {
    pub(crate) ended_runs: Option<Span>,
    pub(crate) ended_runs_max: Option<u64>,
    pub(crate) machine_changes_max: Option<u64>,
    pub(crate) requests: Option<Span>,
    pub(crate) audit: Option<Span>,
    pub(crate) audit_max: Option<u64>,
    pub(crate) interval: Option<Span>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Audit {
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Probe {
    pub(crate) interval: Option<Span>,
    pub(crate) timeout: Option<Span>,
    pub(crate) concurrent_max: Option<usize>,
}

/// Where machines that are being installed reach the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Boot {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) url: Option<String>,
    pub(crate) files_dir: Option<PathBuf>,
}

/// An image that machines are installed with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Image {
    pub(crate) url: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) architecture: Option<String>,
    pub(crate) kernel_arguments: Option<String>,
}

/// The driver of each capability.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct MachineClass {
    netboot: Option<Driver>,
    imaging: Option<Driver>,
    power: Option<Driver>,
    cluster_join: Option<Driver>,
    wipe: Option<Driver>,
    network: Option<Driver>,
    notify: Option<Driver>,
    probe: Option<Driver>,
    drain: Option<Driver>,
    custom: Option<Driver>,
    pub(super) exec: Option<ExecClass>,
    pub(super) redfish: Option<Redfish>,
    pub(super) ipmi: Option<Ipmi>,
    pub(super) installer: Option<Installer>,
    pub(super) webhook: Option<WebhookClass>,
}

impl MachineClass {
    /// Each capability with its driver, if the file names one.
    pub(super) fn routes(&self) -> [(Capability, Option<Driver>); 10] {
        [
            (Capability::Netboot, self.netboot),
            (Capability::Imaging, self.imaging),
            (Capability::Power, self.power),
            (Capability::ClusterJoin, self.cluster_join),
            (Capability::Wipe, self.wipe),
            (Capability::Network, self.network),
            (Capability::Notify, self.notify),
            (Capability::Probe, self.probe),
            (Capability::Drain, self.drain),
            (Capability::Custom, self.custom),
        ]
    }
}

/// An address as the flag accepts it.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    super::args::parse_address(&text).map(Some).map_err(serde::de::Error::custom)
}
