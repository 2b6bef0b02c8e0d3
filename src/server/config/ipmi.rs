//! Settings of a class's controllers that speak IPMI.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::bounds::{HOUR, SECOND, span};
use super::span::Span;
use crate::provider::ipmi::IpmiSettings;

/// The cipher suites of the protocol that encrypt and that `ipmitool` speaks: with 7 and 8 its sessions do not come about, 11 and 12
/// end it, 15 and 16 prove who is there and encrypt nothing, and the others do less.
const CIPHER_SUITES: [u8; 2] = [3, 17];

/// As the file has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ipmi {
    program: Option<PathBuf>,
    cipher_suite: Option<u8>,
    efi: Option<bool>,
    boot_device_readback: Option<bool>,
    settle: Option<Span>,
    power: Option<Span>,
    graceful: Option<Span>,
    poll: Option<Span>,
    request: Option<Span>,
}

impl Ipmi {
    /// With the defaults.
    pub(super) fn settings(&self) -> IpmiSettings {
        let default = IpmiSettings::default();
        let span = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
        IpmiSettings {
            program: self.program.clone().unwrap_or(default.program),
            cipher_suite: self.cipher_suite.unwrap_or(default.cipher_suite),
            is_efi: self.efi.unwrap_or(default.is_efi),
            reads_boot_device: self.boot_device_readback.unwrap_or(default.reads_boot_device),
            settle: span(self.settle, default.settle),
            power: span(self.power, default.power),
            graceful: span(self.graceful, default.graceful),
            poll: span(self.poll, default.poll),
            request: span(self.request, default.request),
        }
    }
}

/// Refuses what makes no sense; `class` is the key of the class.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn check(class: &str, settings: &IpmiSettings) -> Result<(), String> {
    let key = |name: &str| format!("{class}.ipmi.{name}");
    if !CIPHER_SUITES.contains(&settings.cipher_suite) {
        return Err(format!(
            "{} is {}, which does not encrypt, or which ipmitool cannot speak: set 17, or 3 for controllers without it",
            key("cipher_suite"),
            settings.cipher_suite
        ));
    }
    let ms = Duration::from_millis(1);
    span(&key("settle"), settings.settle, Duration::ZERO, HOUR)?;
    span(&key("power"), settings.power, SECOND, HOUR)?;
    span(&key("graceful"), settings.graceful, SECOND, HOUR)?;
    span(&key("poll"), settings.poll, ms * 10, SECOND * 60)?;
    span(&key("request"), settings.request, SECOND, HOUR)?;
    let judged = crate::provider::exec::judge_program(&settings.program);
    judged.map_err(|why| format!("{}: {}: {why}", key("program"), settings.program.display()))
}
