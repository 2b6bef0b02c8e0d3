//! Settings of the server, from flags and its configuration file. Flags take precedence.

mod access;
mod args;
mod boot;
mod bounds;
mod check;
mod choice;
mod classes;
mod database;
mod endpoint;
mod engine;
mod exec;
mod file;
mod installer;
mod ipmi;
mod notify;
mod otlp;
mod paths;
mod redfish;
mod retention;
mod run_limits;
mod span;
#[cfg(test)]
mod tests;
mod webhook;

use etcetera::BaseStrategy as _;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use self::access::{AuthSettings, JwtSettings, PrincipalSettings, TlsFiles};
pub(super) use self::args::{Args, AuditCommand, Command, TokenCommand};
pub(super) use self::boot::BootSettings;
pub(super) use self::bounds::host_name as check_host_name;
pub(super) use self::choice::{FakeWorld, Format, Level, RoleName};
pub(super) use self::classes::{Driver, MachineClass};
pub(super) use self::database::Database;
use self::engine::{limits, probe_policy};
pub(super) use self::exec::ExecClass;
use self::file::File;
pub(super) use self::notify::{Receiver, receivers};
pub(super) use self::otlp::Otlp;
pub(super) use self::retention::Retention;
use self::span::Span;
use super::gate::Caps;
use super::limits as connection_limits;
use super::peers::Rates;
use super::room::Bounds;
use crate::executor::limits::Limits;
use crate::executor::probes::ProbePolicy;
use crate::files;
use crate::outbound::Networks;
use crate::provider::boot::Image;

/// Default port.
const PORT: u16 = 50_051;
/// Longest configuration file or failure script, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Request ids are guaranteed to be kept at least this long.
const REQUESTS_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a configuration is refused. The texts are for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration file has an error at a position.
    #[error("{}:{line}:{column}: {message}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A setting is invalid.
    #[error("{0}")]
    Setting(String),
    /// Plans in the plans directory are wrong; rendered diagnostics.
    #[error("{0}")]
    Plans(String),
}

/// Where machines and runs are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Storage {
    /// In memory.
    Ephemeral,
    /// In a directory.
    Dir(PathBuf),
}

/// How long connections are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Keep {
    /// After this time a connection is closed gracefully (GOAWAY), so that load balancers can redistribute clients;
    /// `None` for never.
    pub(super) age_max: Option<Duration>,
    /// A connection without a stream for this long is ended; `None` for never.
    pub(super) idle_max: Option<Duration>,
}

/// The networks that calls of each kind may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// Calls of this server to controllers of machines.
    pub(super) bmc: Networks,
    /// Calls of this server to receivers of messages.
    pub(super) webhook: Networks,
    /// What machines and their controllers are sent to for images.
    pub(super) image: Networks,
}

impl From<file::Networks> for Reach {
    fn from(file: file::Networks) -> Self {
        Self {
            bmc: Networks::new("networks.bmc", file.bmc),
            webhook: Networks::new("networks.webhook", file.webhook),
            image: Networks::new("networks.image", file.image),
        }
    }
}

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// Where to listen; port 0 picks a free one.
    pub(super) listen: SocketAddr,
    /// Whether a non-loopback address was accepted without authentication.
    pub(super) insecure_no_auth: bool,
    /// The files of TLS; `None` for plain connections.
    pub(super) tls: Option<TlsFiles>,
    /// What else than a certificate proves who calls.
    pub(super) auth: AuthSettings,
    /// Who may call, by name.
    pub(super) principals: BTreeMap<String, PrincipalSettings>,
    /// Where to serve metrics.
    pub(super) metrics_listen: Option<SocketAddr>,
    /// Names that requests may give the server, besides its addresses and localhost.
    pub(super) host_names: Vec<String>,
    /// Caps on connections.
    pub(super) caps: Caps,
    /// How long connections are kept.
    pub(super) keep: Keep,
    /// Bytes of answers that have not been sent.
    pub(super) unsent: Bounds,
    /// What one peer may ask for in a time.
    pub(super) rates: Rates,
    /// Most watches and followed logs.
    pub(super) watches_max: usize,
    /// Of those, most of one principal, or of one address without one.
    pub(super) watches_per_peer_max: usize,
    /// Time that steps get to reach a commit point when the server ends.
    pub(super) shutdown_grace: Duration,
    /// Lowest level that is logged.
    pub(super) log_level: Level,
    /// Format of the log.
    pub(super) log_format: Format,
    /// Where spans are exported to; `None` for nowhere.
    pub(super) otlp: Option<Otlp>,
    /// Where machines and runs are stored.
    pub(super) storage: Storage,
    /// The PostgreSQL database that has them instead of one in the directory.
    pub(super) database: Option<Database>,
    /// Plans in addition to the built-in ones.
    pub(super) plans_dir: Option<PathBuf>,
    /// Where the credentials are that machines name.
    pub(super) credentials_dir: Option<PathBuf>,
    /// Where calls may go.
    pub(super) networks: Reach,
    /// Directory with actions that plans use besides the built-in ones.
    pub(super) actions_dir: Option<PathBuf>,
    /// Timing of the fake provider, as text.
    pub(super) fake_timing: String,
    /// Where the fake provider's machines are stored, if there is a data directory.
    pub(super) fake_world: FakeWorld,
    /// Failures that the fake provider injects.
    pub(super) fake_script: String,
    /// Seed; `None` for random.
    pub(super) seed: Option<u64>,
    /// Limits of the engine.
    pub(super) limits: Limits,
    /// Where machines that are being installed reach the server; `None` for nowhere.
    pub(super) boot: Option<BootSettings>,
    /// The images that machines are installed with, by name.
    pub(super) images: BTreeMap<String, Image>,
    /// Which driver does what, by class of machines.
    pub(super) machine_classes: BTreeMap<String, MachineClass>,
    /// Which providers' machines are probed, and how.
    pub(super) probes: BTreeMap<String, ProbePolicy>,
    /// Who is notified of what happens.
    pub(super) notify: Vec<Receiver>,
    /// What is deleted.
    pub(super) retention: Retention,
    /// The key that signs heads of the audit; without one, a key of the data directory.
    pub(super) audit_key_file: Option<PathBuf>,
}

impl Config {
    /// Merges flags and the configuration file that they name.
    ///
    /// # Errors
    /// [`ConfigError`] for an unreadable file, a key or value that is refused, or settings that contradict.
    pub(super) fn load(args: &Args) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        Self::merge(args, file)
    }

    fn merge(args: &Args, file: File) -> Result<Self, ConfigError> {
        let address = args.listen.or(file.server.listen).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let port = args.port.or(file.server.port).unwrap_or(PORT);
        let timing = if args.slow { Some("slow".to_owned()) } else { args.fake_timing.clone() };
        let caps = Caps::default();
        let span = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
        paths::check(args, &file).map_err(ConfigError::Setting)?;
        let config = Self {
            listen: SocketAddr::new(address, port),
            insecure_no_auth: args.insecure_no_auth
                || file.server.insecure_no_auth.unwrap_or(false),
            tls: access::tls(args, &file.tls).map_err(ConfigError::Setting)?,
            auth: access::auth(file.auth),
            principals: file
                .principals
                .into_iter()
                .map(|(name, principal)| {
                    let file::Principal { role, scope, certificates, subjects } = principal;
                    (name, PrincipalSettings { role, scope, certificates, subjects })
                })
                .collect(),
            metrics_listen: args.metrics_listen.or(file.server.metrics_listen),
            host_names: file.server.host_names.unwrap_or_default(),
            caps: Caps {
                connections_max: file.server.connections_max.unwrap_or(caps.connections_max),
                connections_per_peer_max: file
                    .server
                    .connections_per_peer_max
                    .unwrap_or(caps.connections_per_peer_max),
                connections_loopback_max: file
                    .server
                    .connections_loopback_max
                    .unwrap_or(caps.connections_loopback_max),
            },
            keep: Keep {
                age_max: file.server.connection_age_max.map(|span| span.0),
                idle_max: Some(span(
                    file.server.connection_idle_max,
                    connection_limits::CONNECTION_IDLE_MAX,
                )),
            },
            rates: Rates {
                mutations_per_s: file
                    .server
                    .mutations_per_peer_per_s
                    .unwrap_or(connection_limits::MUTATIONS_PER_PEER_PER_S),
                written_bytes_per_s: file
                    .server
                    .written_bytes_per_peer_per_s
                    .unwrap_or(connection_limits::WRITTEN_BYTES_PER_PEER_PER_S),
            },
            watches_max: file.server.watches_max.unwrap_or(connection_limits::WATCHES_MAX),
            watches_per_peer_max: file
                .server
                .watches_per_peer_max
                .unwrap_or(connection_limits::WATCHES_MAX),
            unsent: Bounds {
                of_connection: file
                    .server
                    .unsent_bytes_per_connection_max
                    .unwrap_or(connection_limits::UNSENT_BYTES_PER_CONNECTION_MAX),
                in_all: file.server.unsent_bytes_max.unwrap_or(connection_limits::UNSENT_BYTES_MAX),
            },
            shutdown_grace: span(file.server.shutdown_grace, Duration::from_secs(10)),
            log_level: args.log_level.or(file.log.level).unwrap_or_default(),
            log_format: args.log_format.or(file.log.format).unwrap_or_default(),
            otlp: otlp::endpoint(args.otlp_endpoint.as_deref()).map_err(ConfigError::Setting)?,
            storage: storage(args, &file.store)?,
            database: database::read(args, &file.store).map_err(ConfigError::Setting)?,
            plans_dir: args.plans_dir.clone().or(file.plans.dir),
            credentials_dir: args.credentials_dir.clone().or(file.credentials.dir),
            networks: file.networks.into(),
            actions_dir: args.actions_dir.clone().or(file.actions.dir),
            fake_timing: timing.or(file.fake.timing).unwrap_or_else(|| "default".to_owned()),
            fake_world: args.fake_world.or(file.fake.world).unwrap_or_default(),
            fake_script: script(args.fake_script.clone().or(file.fake.script))?,
            seed: args.seed.or(file.seed),
            limits: limits(file.limits, &file.loop_breaker),
            boot: boot(args, file.boot),
            images: boot::images(file.images).map_err(ConfigError::Setting)?,
            machine_classes: file
                .machine_classes
                .iter()
                .map(|(name, class)| {
                    let redfish = class.redfish.as_ref().map(redfish::Redfish::settings);
                    let ipmi = class.ipmi.as_ref().map(ipmi::Ipmi::settings);
                    let installer = class.installer.as_ref().map(installer::Installer::options);
                    let class = MachineClass {
                        exec: class.exec.clone(),
                        webhook: class.webhook.clone(),
                        redfish,
                        ipmi,
                        installer,
                        ..MachineClass::new(class.routes())
                    };
                    (name.clone(), class)
                })
                .collect(),
            audit_key_file: file.audit.key_file,
            probes: file
                .probes
                .into_iter()
                .map(|(name, probe)| (name, probe_policy(&probe)))
                .collect(),
            notify: file.notify,
            retention: Retention::of(&file.retention),
        };
        config.check()?;
        Ok(config)
    }
}

/// Where data is stored: from the flag, then the file, then the platform's state directory.
fn storage(args: &Args, file: &file::Store) -> Result<Storage, ConfigError> {
    if args.ephemeral {
        return Ok(Storage::Ephemeral);
    }
    if let Some(dir) = &args.data_dir {
        return Ok(Storage::Dir(dir.clone()));
    }
    match (file.ephemeral, &file.data_dir) {
        (Some(true), Some(_)) => Err(ConfigError::Setting(
            "store.ephemeral and store.data_dir contradict each other; remove one of them".into(),
        )),
        (Some(true), None) => Ok(Storage::Ephemeral),
        (_, Some(dir)) => Ok(Storage::Dir(dir.clone())),
        // Without HOME the directory of the account would be used, which for a service often is that of root.
        (_, None) if cfg!(unix) && std::env::var_os("HOME").is_none_or(|home| home.is_empty()) => {
            Err(ConfigError::Setting(
                "HOME is not set, so there is no default data directory; give --data-dir DIR or --ephemeral".into(),
            ))
        }
        (_, None) => etcetera::choose_base_strategy()
            .ok()
            .and_then(|dirs| dirs.state_dir().or_else(|| Some(dirs.data_dir())))
            .map(|dir| Storage::Dir(dir.join("bmdemo")))
            .ok_or_else(|| {
                ConfigError::Setting(
                    "this platform has no state directory; give --data-dir DIR or --ephemeral"
                        .into(),
                )
            }),
    }
}

/// The boot listener: from the flag, then the file; off without an address.
fn boot(args: &Args, file: Option<file::Boot>) -> Option<BootSettings> {
    let file = file.unwrap_or_default();
    let listen = args.boot_listen.or(file.listen)?;
    let url = file.url.map(|url| url.trim_end_matches('/').to_owned());
    Some(BootSettings { listen, url, files_dir: file.files_dir })
}

/// Text of the failure script, from `@FILE` if given so.
fn script(given: Option<String>) -> Result<String, ConfigError> {
    match given {
        Some(text) => match text.strip_prefix('@') {
            Some(path) => read(Path::new(path)),
            None => Ok(text),
        },
        None => Ok(String::new()),
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    files::read_text(path, FILE_BYTES_MAX).map_err(unreadable)
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    parse_file(path, &read(path)?)
}

/// Parses a configuration file; `path` is for errors.
fn parse_file(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::File {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: bounds::in_words(error.message()),
        }
    })
}
