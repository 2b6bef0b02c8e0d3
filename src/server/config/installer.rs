//! How the machines of a class are installed.

use std::time::Duration;

use serde::Deserialize;

use super::bounds::{self, HOUR, SECOND};
use super::span::Span;
use crate::plan::Form;
use crate::provider::boot::{InstallerOptions, Patience};
use crate::text::escaped;

/// Most SSH keys of an installed system.
const KEYS_MAX: usize = 16;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 1_024;

/// `[machine_classes.NAME.installer]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Installer {
    disk: Option<String>,
    ssh_keys: Option<Vec<String>>,
    boot_timeout: Option<Span>,
    write_timeout: Option<Span>,
    up_timeout: Option<Span>,
    poll: Option<Span>,
}

impl Installer {
    /// With the defaults.
    pub(super) fn options(&self) -> InstallerOptions {
        let span = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
        let default = InstallerOptions::default();
        let Patience { boot, write, up, look } = default.patience;
        InstallerOptions {
            disk: self.disk.clone().unwrap_or(default.disk),
            ssh_keys: self.ssh_keys.clone().unwrap_or(default.ssh_keys),
            patience: Patience {
                boot: span(self.boot_timeout, boot),
                write: span(self.write_timeout, write),
                up: span(self.up_timeout, up),
                look: span(self.poll, look),
            },
        }
    }
}

/// Refuses what makes no sense; `class` is the key of the class.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn check(class: &str, options: &InstallerOptions) -> Result<(), String> {
    let key = |name: &str| format!("{class}.installer.{name}");
    let disk = options.disk.as_str();
    if disk.is_empty() || !Form::Disk.accepts(disk) {
        return Err(format!(
            "{} is {:?}: expected \"smallest\", a path such as \"/dev/sda\", or \"serial:NUMBER\"",
            key("disk"),
            escaped(disk)
        ));
    }
    if options.ssh_keys.len() > KEYS_MAX {
        return Err(format!(
            "{} has {} keys: give at most {KEYS_MAX}",
            key("ssh_keys"),
            options.ssh_keys.len()
        ));
    }
    for ssh_key in &options.ssh_keys {
        bounds::printable(&key("ssh_keys"), ssh_key, TEXT_CHARS_MAX)?;
        if !ssh_key.contains(' ') || ssh_key.contains("PRIVATE") {
            return Err(format!(
                "{} has {:?}, which is no public key: give lines as in authorized_keys, such as \"ssh-ed25519 AAAA…\"",
                key("ssh_keys"),
                escaped(ssh_key.split(' ').next().unwrap_or_default())
            ));
        }
    }
    let Patience { boot, write, up, look } = options.patience;
    for (name, value, least) in [
        ("boot_timeout", boot, SECOND),
        ("write_timeout", write, SECOND),
        ("up_timeout", up, SECOND),
        ("poll", look, SECOND / 10),
    ] {
        bounds::span(&key(name), value, least, HOUR * 24)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installer_knows_its_disk_and_whose_keys_to_trust() {
        let checked = |text: &str| {
            let file: Installer = toml::from_str(text).unwrap();
            check("machine_classes.rack", &file.options())
        };
        for good in [
            "",
            "disk = \"/dev/nvme0n1\"",
            "disk = \"serial:S1\"",
            "ssh_keys = [\"ssh-ed25519 AAAA one\"]",
        ] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("disk = \"first\"", "machine_classes.rack.installer.disk is \"first\""),
            ("disk = \"/dev/\"", "disk is"),
            ("disk = \"/dev/sda x\"", "disk is"),
            ("ssh_keys = [\"AAAA\"]", "no public key"),
            ("ssh_keys = [\"-----BEGIN OPENSSH PRIVATE KEY-----\"]", "no public key"),
            ("ssh_keys = [\"ssh-ed25519 AAAA\\nssh-ed25519 BBBB\"]", "ssh_keys"),
            ("poll = \"1ms\"", "poll must be"),
            ("up_timeout = \"0s\"", "up_timeout must be"),
        ] {
            let error = checked(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
