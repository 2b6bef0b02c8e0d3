//! Flags of the server, for `bmdemo-server` and for the client's hidden `serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::ids::{MachineId, RunId};

use super::choice::{FakeWorld, Format, Level};
use super::span::Span;

/// Serves the bare-metal lifecycle API.
///
/// Prints one line on stdout once it is ready, `listening on ADDR:PORT`; everything else is logged on stderr.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "bmdemo-server", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Port to listen on; 0 picks a free one [default: 50051]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) listen: Option<IpAddr>,

    /// Allow a non-loopback address, although calls are not encrypted and authenticated
    #[arg(long)]
    pub(crate) insecure_no_auth: bool,

    /// Certificate of the server, with intermediate ones after it, in PEM: calls are encrypted with TLS 1.3. Reloaded on
    /// SIGHUP, as the other files of TLS
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    pub(crate) tls_cert_file: Option<PathBuf>,

    /// Private key of the certificate, in PEM; only its owner may read the file
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub(crate) tls_key_file: Option<PathBuf>,

    /// Authorities of the certificates of clients, in PEM: a client without one is refused
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_client_ca_file: Option<PathBuf>,

    /// Revoked certificates of clients: the lists of their authorities, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_crl_file: Option<PathBuf>,

    /// Use slow timing for demos: same as --fake-timing slow
    #[arg(long, conflicts_with = "fake_timing")]
    pub(crate) slow: bool,

    /// Duration of the fake provider's operations: default, slow, zero, or a factor such as 0.5
    #[arg(long, value_name = "TIMING")]
    pub(crate) fake_timing: Option<String>,

    /// Where the fake provider's machines are stored: disk (in the data directory) or memory, where their state is
    /// lost when the server ends, for measuring the engine alone [default: disk]
    #[arg(long, value_name = "WHERE")]
    pub(crate) fake_world: Option<FakeWorld>,

    /// Failures that the fake provider injects: rules such as `machine=machine-2 step=repave do=fail`, separated by
    /// `;`, or @FILE; docs/simulator.md lists the faults
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(crate) fake_script: Option<String>,

    /// Seed of ids, jitter and the fake provider, for reproducible runs [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Lowest level that is logged [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<Level>,

    /// Format of the log [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<Format>,

    /// Keep everything in memory: nothing survives a restart
    #[arg(long, conflicts_with_all = ["data_dir", "store"])]
    pub(crate) ephemeral: bool,

    /// Directory of the database [default: bmdemo in the platform's state directory]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,

    /// PostgreSQL database to use instead of one in the data directory: postgres://USER@HOST:PORT/DATABASE, without a
    /// password. TLS is sslmode=verify-full unless it is sslmode=disable: docs/postgresql.md
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) store: Option<String>,

    /// File with the password for --store; only its owner may read it
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) store_password_file: Option<PathBuf>,

    /// Plans (*.toml) that are added to the built-in ones, or replace those with the same id; reloaded on SIGHUP
    #[arg(long, value_name = "DIR")]
    pub(crate) plans_dir: Option<PathBuf>,

    /// Directory of the credentials that machines and the configuration name, read at each use: a file NAME is a secret, a
    /// folder NAME with username and password, or a file of two lines, is a login
    #[arg(long, value_name = "DIR")]
    pub(crate) credentials_dir: Option<PathBuf>,

    /// Actions (*.toml) that plans use besides the built-in ones; reloaded on SIGHUP
    #[arg(long, value_name = "DIR")]
    pub(crate) actions_dir: Option<PathBuf>,

    /// Configuration file; flags take precedence over it. docs/config.toml documents every key
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_socket)]
    pub(crate) metrics_listen: Option<SocketAddr>,

    /// Let machines that are being installed fetch their settings and report at http://ADDR:PORT/boot/v1 [default: off]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_socket)]
    pub(crate) boot_listen: Option<SocketAddr>,

    /// Export spans to the OpenTelemetry collector at URL, http://HOST:PORT, over OTLP/gRPC [default:
    /// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT in the environment]
    #[arg(long, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,

    /// What to do instead of serving
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Copy the database to FILE, even while a server is using it; FILE must not exist
    Backup {
        /// File to write
        #[arg(value_name = "FILE", value_parser = new_file)]
        file: PathBuf,
    },
    /// Make an authority, a certificate for a server and certificates for clients in DIR, for trying out and for tests.
    /// They are valid for a year; no file is overwritten
    DevCerts {
        /// Directory to write to; it is created
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Another name or address of the server, besides localhost, 127.0.0.1 and ::1
        #[arg(long, value_name = "HOST")]
        name: Vec<String>,
        /// Principal to make a certificate for
        #[arg(long, value_name = "NAME")]
        client: Vec<String>,
    },
    /// Make tokens with which callers prove who they are
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print a description of the API as JSON over HTTP, in OpenAPI 3.1; a server has it at /openapi.json
    Openapi,
    /// Look at the audit of a data directory, and check it, without a server
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Create the database of an unused data directory from a backup. Runs that were active in it are held until an
    /// operator resumes or aborts them
    Restore {
        /// File written by `backup`
        #[arg(value_name = "BACKUP")]
        backup: PathBuf,
    },
    /// Check the database: its pages, every record, and the consistency between records
    Check {
        /// Accept a row that you have edited by hand, under the name that `check` prints; the server must be stopped
        #[arg(long, value_name = "NAME")]
        accept: Vec<String>,
    },
    /// Repair unreadable records from their history, while no server uses the database
    ///
    /// A record that its history does not restore stays as it is, and is named. Make a copy first: `bmdemo-server
    /// backup FILE`.
    Repair {
        /// Drop a run that cannot be read or repaired, or whose plan cannot be read; its machine stays blocked until
        /// NeedsIntervention is cleared
        #[arg(long, value_name = "RUN", value_parser = RunId::parse)]
        drop_run: Vec<RunId>,

        /// Drop a machine that cannot be read or repaired and has no active run; it can be registered again
        #[arg(long, value_name = "MACHINE", value_parser = MachineId::parse)]
        drop_machine: Vec<MachineId>,
    },
}

/// What to do with the audit.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print the entries as JSON, one a line, oldest first
    List {
        /// Only entries after the one of this number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
    /// Print the number and hash of the newest entry, signed, in one line: to keep elsewhere
    Head,
    /// Follow the whole chain, and say whether anything was altered, left out, moved or added
    Verify {
        /// File with the line of a head that was kept: the chain must lead through it
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
        /// Public key with which the head was signed, if that is not the one of the data directory
        #[arg(long, value_name = "HEX", default_value = "", requires = "head")]
        public_key: String,
    },
}

/// What to do with tokens.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for a principal of the configuration, add its hash to auth.tokens_file, and print it once. Send SIGHUP to
    /// the server after that
    New {
        /// Principal whose token it is
        #[arg(value_name = "NAME")]
        name: String,
        /// Time until it expires, such as 90d; without it, never
        #[arg(long, value_name = "TIME", value_parser = parse_span)]
        expires_in: Option<Span>,
    },
}

fn parse_span(text: &str) -> Result<Span, String> {
    Span::parse(text)
}

const EXIT_CODES: &str = "\
Exit codes:
   0  success
   2  usage
  64  a record to drop does not exist, or can be read
  65  the database was written by a newer version
  66  there is no database to back up, check or repair, or no backup to restore
  69  cannot listen
  70  a bug in the server
  73  cannot create a file or directory, or it has been used
  74  the database is damaged or cannot be read
  75  the data directory is in use by another server
  78  the configuration is refused";

/// An IP address, with or without the brackets of URLs, or `localhost`.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bare {
        Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| {
        let port = text.parse::<SocketAddr>().is_ok();
        let port = if port { "; give the port with --port" } else { "" };
        format!("expected an IP address such as 127.0.0.1 or [::1]{port}")
    })
}

fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDR:PORT, such as 127.0.0.1:9464 or [::1]:9464".to_owned())
}
/// The name of a file to write: `-` would make a file of this name.
fn new_file(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("it is empty: give the name of a new file".to_owned()),
        "-" => Err("a backup is a file, and cannot be written to standard output".to_owned()),
        name => Ok(PathBuf::from(name)),
    }
}
