//! How the controllers of one class of machines are called.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::outbound::TcpDial;

/// Settings of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpmiSettings {
    /// The program `ipmitool`.
    pub program: PathBuf,
    /// Number of the cipher suite: 17 has SHA-256, 3 has SHA-1.
    pub cipher_suite: u8,
    /// Machines boot by UEFI, and not as a BIOS does.
    pub is_efi: bool,
    /// What a machine boots from is read back after it was set. Some controllers set it, and always report none.
    pub reads_boot_device: bool,
    /// How long a power state must stay before it is believed.
    pub settle: Duration,
    /// How long a machine may take to change its power state.
    pub power: Duration,
    /// How long an operating system may take to shut down before the power is cut.
    pub graceful: Duration,
    /// Time between two looks at a state that is waited for.
    pub poll: Duration,
    /// Longest time for one request.
    pub request: Duration,
}

impl Default for IpmiSettings {
    fn default() -> Self {
        Self {
            program: "/usr/bin/ipmitool".into(),
            cipher_suite: 17,
            is_efi: true,
            reads_boot_device: true,
            settle: Duration::from_secs(10),
            power: Duration::from_secs(120),
            graceful: Duration::from_secs(180),
            poll: Duration::from_secs(2),
            request: Duration::from_secs(30),
        }
    }
}

/// What the driver uses of the server.
#[derive(Debug, Clone)]
pub struct IpmiPorts {
    /// Where controllers may be.
    pub networks: TcpDial,
    /// Credentials by name.
    pub credentials: Credentials,
    /// Time.
    pub clock: Arc<dyn Clock>,
}
