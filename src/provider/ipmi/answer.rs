//! What `ipmitool` prints, read leniently. Pure.

use crate::lifecycle::step::ErrorClass;
use crate::model::{MachineFacts, Power};
use crate::provider::{ErrorCode, ProviderError};

/// Longest text of a controller in a message, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// The state of a chassis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// Its power.
    pub(super) power: Power,
    /// The word for it.
    word: String,
    /// What has failed.
    pub(super) faults: Vec<String>,
}

/// What the machine boots from next, by the word that `ipmitool` has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) word: String,
    /// Whether the controller says that it holds. Some say that it does not, and boot from it.
    pub(super) is_valid: bool,
}

/// One line, fit for a message.
pub(super) fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(TEXT_CHARS_MAX).collect()
}

/// The value of a line `name : value`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim().trim_start_matches("- ") == name).then_some(value.trim())
    })
}

impl Status {
    /// The answer to `chassis status`; `None` if it says nothing of the power.
    pub(super) fn read(text: &str) -> Option<Self> {
        let word = value(text, "System Power")?;
        let power = match word.to_ascii_lowercase().as_str() {
            "on" => Power::On,
            "off" => Power::Off,
            _ => Power::Unknown,
        };
        let known = [
            "Power Overload",
            "Main Power Fault",
            "Power Control Fault",
            "Drive Fault",
            "Cooling/Fan Fault",
        ];
        let has_failed = |name: &&str| value(text, name) == Some("true");
        let faults = known.into_iter().filter(has_failed).map(str::to_owned).collect();
        Some(Self { power, word: plain(word), faults })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        match self.power {
            Power::On => "power on".to_owned(),
            Power::Off => "power off".to_owned(),
            Power::Unknown if self.word.is_empty() => "no power state".to_owned(),
            Power::Unknown => format!("power {}", self.word),
        }
    }

    /// The facts that it has.
    pub(super) fn facts(&self) -> MachineFacts {
        let is_known = self.power != Power::Unknown;
        MachineFacts {
            power: self.power,
            power_word: if is_known { String::new() } else { self.word.clone() },
            health: if self.faults.is_empty() { "OK".to_owned() } else { self.faults.join(", ") },
            ..MachineFacts::default()
        }
    }
}

impl Selector {
    /// The answer to `chassis bootparam get 5`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let word = plain(value(text, "Boot Device Selector")?);
        Some(Self { word, is_valid: !text.contains("Boot Flag Invalid") })
    }
}

/// Serial number and model, from the answer to `fru print 0`.
pub(super) fn identity(text: &str) -> (String, String) {
    let of = |name: &str| value(text, name).map(plain).unwrap_or_default();
    let part = |first: &str, second: &str| {
        let found = of(first);
        if found.is_empty() { of(second) } else { found }
    };
    let model = [part("Product Manufacturer", "Board Mfg"), part("Product Name", "Board Product")];
    // A board has a number of its own, which is not that of the machine.
    (of("Product Serial"), model.join(" ").trim().to_owned())
}

/// The controller's firmware, from the answer to `mc info`.
pub(super) fn firmware(text: &str) -> String {
    match value(text, "Firmware Revision").map(plain) {
        Some(revision) if !revision.is_empty() => format!("BMC {revision}"),
        Some(_) | None => String::new(),
    }
}

/// The error of a request that failed, and whether it may have had an effect all the same.
pub(super) fn failure(what: &str, cipher_suite: u8, stderr: &str) -> (ProviderError, bool) {
    let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    let said = plain(
        stderr
            .lines()
            .filter(|line| !line.starts_with("Loading IANA"))
            .collect::<Vec<_>>()
            .join("; ")
            .as_str(),
    );
    let error = |class, code, message: String| ProviderError::new(class, code, message);
    // Before a session is there, nothing was asked for.
    if has(&["invalid authentication algorithm", "Authentication algorithm 0x", "cipher suite"]) {
        let message = format!(
            "{what}: the controller does not take cipher suite {cipher_suite}; set cipher_suite of the class, as 3 for older ones ({said})"
        );
        return (error(ErrorClass::Permanent, ErrorCode::Invalid, message), false);
    }
    if has(&["HMAC is invalid", "unauthorized name", "invalid session ID", "RAKP 4 message"]) {
        let message = format!("{what}: the controller refuses the login ({said})");
        return (error(ErrorClass::Permanent, ErrorCode::Unauthorized, message), false);
    }
    if has(&["insufficient resources"]) {
        let message = format!("{what}: the controller has no session left ({said})");
        return (error(ErrorClass::Transient, ErrorCode::Busy, message), false);
    }
    if has(&["Privilege Level", "nsufficient privilege"]) {
        let message = format!("{what}: the user may not do that ({said})");
        return (error(ErrorClass::NeedsHuman, ErrorCode::Unauthorized, message), false);
    }
    if has(&["Unable to establish", "Address lookup"]) {
        let message = format!("{what}: no session with the controller ({said})");
        return (error(ErrorClass::Transient, ErrorCode::Unreachable, message), false);
    }
    // From here on it was asked for.
    if has(&["Node Busy", "Node busy"]) {
        let message = format!("{what}: the controller is busy ({said})");
        return (error(ErrorClass::Transient, ErrorCode::Busy, message), false);
    }
    if has(&["Invalid command", "Invalid data field", "out of range", "not supported"]) {
        let message = format!("{what}: the controller does not know that ({said})");
        return (error(ErrorClass::NeedsHuman, ErrorCode::Unsupported, message), false);
    }
    let message = format!("{what} failed: {said}");
    (error(ErrorClass::Transient, ErrorCode::Failed, message), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ProviderErrorKind;

    #[test]
    fn a_chassis_is_read() {
        let text = "System Power         : on\nPower Overload       : false\nMain Power Fault     : true\n\
                    Drive Fault          : false\nCooling/Fan Fault    : true\n";
        let status = Status::read(text).unwrap();
        assert_eq!((status.power, &*status.text()), (Power::On, "power on"));
        assert_eq!(status.facts().health, "Main Power Fault, Cooling/Fan Fault");
        let status = Status::read("System Power : Soft-Off\n").unwrap();
        assert_eq!((status.power, &*status.text()), (Power::Unknown, "power Soft-Off"));
        assert_eq!((&*status.facts().power_word, &*status.facts().health), ("Soft-Off", "OK"));
        assert_eq!(Status::read("Chassis Power is on"), None);
    }

    #[test]
    fn a_boot_source_is_read() {
        let text = "Boot parameter 5 is valid/unlocked\n Boot Flags :\n   - Boot Flag Invalid\n   \
                    - Boot Device Selector : Force PXE\n";
        let selector = Selector::read(text).unwrap();
        assert_eq!((&*selector.word, selector.is_valid), ("Force PXE", false));
        assert_eq!(Selector::read("Boot Flags :"), None);
    }

    #[test]
    fn an_inventory_is_read() {
        let text = " Board Mfg             : Acme\n Board Serial          : B-1\n Product Name          : R1\n \
                    Product Serial        : S-1\n";
        assert_eq!(identity(text), ("S-1".to_owned(), "Acme R1".to_owned()));
        assert_eq!(identity(" Board Serial : B-1"), (String::new(), String::new()));
        assert_eq!(firmware("Firmware Revision         : 9.08\n"), "BMC 9.08");
        assert_eq!(firmware(""), "");
    }

    /// The texts are those of ipmitool 1.8.19 with `-v`.
    #[test]
    fn every_failure_has_a_class_and_a_code() {
        let end = "Error: Unable to establish IPMI v2 / RMCP+ session\n";
        for (said, class, code, may_be_done) in [
            ("> RAKP 2 HMAC is invalid", ErrorClass::Permanent, ErrorCode::Unauthorized, false),
            (
                "RAKP 2 message indicates an error : unauthorized name",
                ErrorClass::Permanent,
                ErrorCode::Unauthorized,
                false,
            ),
            (
                "Error in open session response message : invalid authentication algorithm\n",
                ErrorClass::Permanent,
                ErrorCode::Invalid,
                false,
            ),
            (
                "Error in open session response message : insufficient resources for session",
                ErrorClass::Transient,
                ErrorCode::Busy,
                false,
            ),
            (
                "Get Auth Capabilities error\nError issuing Get Channel Authentication Capabilities request",
                ErrorClass::Transient,
                ErrorCode::Unreachable,
                false,
            ),
        ] {
            let (error, may) = failure("chassis status", 17, &format!("{said}\n{end}"));
            assert_eq!(error.kind, ProviderErrorKind::Class(class), "{said}");
            assert_eq!((error.code, may), (code, may_be_done), "{said}");
        }
        let lost = "Set Chassis Power Control to Up/On failed: Unspecified error";
        let (error, may_be_done) = failure("chassis power on", 17, lost);
        assert_eq!((error.code, may_be_done), (ErrorCode::Failed, true));
        let unknown = "Set Chassis Power Control to Soft failed: Invalid data field in request";
        let (error, _) = failure("chassis power soft", 17, unknown);
        assert_eq!(error.code, ErrorCode::Unsupported);
    }
}
