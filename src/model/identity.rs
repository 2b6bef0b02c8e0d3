//! Whether the hardware behind a record is the hardware that was registered. Pure.
//!
//! What is not registered, or not reported, is not compared. A difference stays until an observation that contains the
//! same kind of fact no longer shows it: a controller that stops reporting its serial number confirms nothing.

use super::condition::Condition;
use super::machine::MachineSpec;
use super::observed::MachineFacts;

/// Reason of HardwareMatches while the serial number is another one.
pub const REASON_SERIAL_DIFFERS: &str = "SERIAL_DIFFERS";
/// Reason of HardwareMatches while a registered MAC address is not one of the machine.
pub const REASON_MAC_DIFFERS: &str = "MAC_DIFFERS";
/// Reason of HardwareMatches once everything that can be compared is as registered.
pub const REASON_AS_REGISTERED: &str = "AS_REGISTERED";

/// What firmware says where no one has entered a serial number: in lower case, without spaces and dots.
const PLACEHOLDERS: [&str; 12] = [
    "tobefilledbyoem",
    "defaultstring",
    "systemserialnumber",
    "serialnumber",
    "notspecified",
    "notavailable",
    "notapplicable",
    "n/a",
    "na",
    "none",
    "unknown",
    "null",
];

/// The result of comparing one kind of fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// None is registered.
    Unregistered,
    /// The hardware reports none.
    Unobserved,
    /// As registered.
    Same,
    /// Not as registered.
    Differs {
        /// What is registered.
        expected: String,
        /// What was observed.
        observed: String,
    },
}

/// What an observation does to HardwareMatches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// It becomes true.
    Matches {
        /// What was compared, for people.
        message: String,
    },
    /// It becomes false.
    Differs {
        /// Reason of the condition.
        reason: &'static str,
        /// What was expected and what was observed, for people.
        message: String,
    },
    /// It becomes unknown: what differed is no longer registered.
    Unknown,
}

/// A MAC address in lower case with colons; `None` for anything else, and for an address of zeros.
#[must_use]
pub fn normal_mac(text: &str) -> Option<String> {
    let is_separator = |c: char| matches!(c, ':' | '-' | '.');
    let digits: String = text.trim().chars().filter(|c| !is_separator(*c)).collect();
    let is_address = digits.len() == 12
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        && digits.bytes().any(|digit| digit != b'0');
    let digits = is_address.then(|| digits.to_ascii_lowercase())?;
    let pairs: Vec<&str> = (0..6).map(|at| &digits[at * 2..at * 2 + 2]).collect();
    Some(pairs.join(":"))
}

/// Compares serial numbers, without regard to case.
#[must_use]
pub fn serials(spec: &MachineSpec, facts: &MachineFacts) -> Compared {
    let (expected, observed) = (spec.serial.trim(), facts.serial.trim());
    let bare: String =
        observed.chars().filter(|c| !c.is_whitespace() && *c != '.').collect::<String>();
    let says_nothing = PLACEHOLDERS.contains(&bare.to_lowercase().as_str())
        || bare.chars().all(|c| matches!(c, '0' | '-' | '_' | '*'));
    if expected.is_empty() {
        Compared::Unregistered
    } else if expected.eq_ignore_ascii_case(observed) {
        Compared::Same
    } else if says_nothing {
        Compared::Unobserved
    } else {
        Compared::Differs { expected: expected.to_owned(), observed: observed.to_owned() }
    }
}

/// Compares MAC addresses: each registered one must be one of the machine, which may have others.
///
/// Settings of an installation are handed out by these addresses, so that one that belongs to another machine would have
/// that one erased.
#[must_use]
pub fn addresses(spec: &MachineSpec, facts: &MachineFacts) -> Compared {
    let missing: Vec<&str> = spec
        .mac_addresses
        .iter()
        .filter(|mac| !facts.mac_addresses.contains(mac))
        .map(String::as_str)
        .collect();
    if spec.mac_addresses.is_empty() {
        Compared::Unregistered
    } else if facts.mac_addresses.is_empty() {
        Compared::Unobserved
    } else if missing.is_empty() {
        Compared::Same
    } else {
        Compared::Differs { expected: missing.join(", "), observed: facts.mac_addresses.join(", ") }
    }
}

/// The first difference: the reason, what is registered and what was observed.
#[must_use]
pub fn difference(
    spec: &MachineSpec,
    facts: &MachineFacts,
) -> Option<(&'static str, String, String)> {
    let compared = [
        (REASON_SERIAL_DIFFERS, serials(spec, facts)),
        (REASON_MAC_DIFFERS, addresses(spec, facts)),
    ];
    compared.into_iter().find_map(|(reason, compared)| match compared {
        Compared::Differs { expected, observed } => Some((reason, expected, observed)),
        Compared::Unregistered | Compared::Unobserved | Compared::Same => None,
    })
}

/// The words for a difference.
#[must_use]
pub fn words(reason: &str, expected: &str, observed: &str) -> String {
    let what = if reason == REASON_SERIAL_DIFFERS { "serial number" } else { "MAC addresses" };
    format!("{what}: {expected} registered, {observed} observed")
}

/// What an observation means for HardwareMatches, given the condition as it is.
#[must_use]
pub fn judge(spec: &MachineSpec, facts: &MachineFacts, before: Option<&Condition>) -> Verdict {
    if let Some((reason, expected, observed)) = difference(spec, facts) {
        return Verdict::Differs { reason, message: words(reason, &expected, &observed) };
    }
    let (serial, macs) = (serials(spec, facts), addresses(spec, facts));
    let differed = before.filter(|condition| !condition.status);
    let of_reason = differed
        .map(|condition| if condition.reason == REASON_SERIAL_DIFFERS { &serial } else { &macs });
    if of_reason == Some(&Compared::Unobserved) {
        return Verdict::Keep;
    }
    let same: Vec<&str> = [(&serial, "serial number"), (&macs, "MAC addresses")]
        .into_iter()
        .filter_map(|(compared, name)| (*compared == Compared::Same).then_some(name))
        .collect();
    match (same.is_empty(), differed) {
        (false, _) => Verdict::Matches { message: format!("{} as registered", same.join(" and ")) },
        (true, Some(_)) => Verdict::Unknown,
        (true, None) => Verdict::Keep,
    }
}

/// Whether a verdict changes the condition.
#[must_use]
pub fn is_news(verdict: &Verdict, before: Option<&Condition>) -> bool {
    match verdict {
        Verdict::Keep => false,
        Verdict::Unknown => before.is_some(),
        Verdict::Matches { .. } => before.is_none_or(|before| !before.status),
        Verdict::Differs { reason, message } => before.is_none_or(|before| {
            before.status || before.reason != *reason || before.message != *message
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn spec(serial: &str, macs: &[&str]) -> MachineSpec {
        MachineSpec {
            serial: serial.to_owned(),
            mac_addresses: macs.iter().map(|mac| (*mac).to_owned()).collect(),
            ..MachineSpec::default()
        }
    }

    fn facts(serial: &str, macs: &[&str]) -> MachineFacts {
        MachineFacts {
            serial: serial.to_owned(),
            mac_addresses: macs.iter().map(|mac| (*mac).to_owned()).collect(),
            ..MachineFacts::default()
        }
    }

    fn condition(status: bool, reason: &str) -> Condition {
        Condition {
            status,
            reason: reason.to_owned(),
            message: String::new(),
            last_transition_at: Timestamp(1),
            observed_by: "probe".to_owned(),
            plan_id: String::new(),
        }
    }

    const A: &str = "02:00:00:00:00:0a";
    const B: &str = "02:00:00:00:00:0b";

    #[test]
    fn mac_addresses_are_read_in_every_spelling() {
        for text in ["02-00-00-00-00-0A", " 0200.0000.000a", A, "02000000000a"] {
            assert_eq!(normal_mac(text).as_deref(), Some(A), "{text}");
        }
        for text in ["", "02:00", "00:00:00:00:00:00", "02:00:00:00:00:0g", "020000000000aa", "é2"]
        {
            assert_eq!(normal_mac(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_unknown_on_either_side_is_not_compared() {
        for (registered, observed) in [
            (spec("", &[]), facts("S-2", &[B])),
            (spec("S-1", &[A]), facts("", &[])),
            (spec("S-1", &[]), facts("To be filled by O.E.M.", &[])),
            (spec("S-1", &[]), facts("0000000", &[A])),
        ] {
            assert_eq!(difference(&registered, &observed), None);
            assert_eq!(judge(&registered, &observed, None), Verdict::Keep);
        }
    }

    #[test]
    fn another_serial_or_address_differs_and_says_both_sides() {
        let registered = spec("S-1", &[A]);
        let verdict = judge(&registered, &facts("S-2", &[A]), None);
        let Verdict::Differs { reason, message } = verdict else { panic!("{verdict:?}") };
        assert_eq!(reason, REASON_SERIAL_DIFFERS);
        assert_eq!(message, "serial number: S-1 registered, S-2 observed");
        let two = spec("", &[A, B]);
        let Verdict::Differs { reason, message } = judge(&two, &facts("", &[A]), None) else {
            panic!("an address of another machine")
        };
        assert_eq!(reason, REASON_MAC_DIFFERS);
        assert_eq!(message, format!("MAC addresses: {B} registered, {A} observed"));
        // More than is registered, and another case, are fine.
        let verdict = judge(&spec("s-1", &[A]), &facts("S-1", &[A, B]), None);
        let message = "serial number and MAC addresses as registered".to_owned();
        assert_eq!(verdict, Verdict::Matches { message });
    }

    #[test]
    fn a_difference_ends_only_by_the_same_kind_of_fact() {
        let registered = spec("S-1", &[A]);
        let differs = condition(false, REASON_MAC_DIFFERS);
        let silent = judge(&registered, &facts("S-1", &[]), Some(&differs));
        assert_eq!(silent, Verdict::Keep, "the serial number says nothing of the addresses");
        let fixed = judge(&registered, &facts("", &[A]), Some(&differs));
        assert!(matches!(fixed, Verdict::Matches { .. }));
        let dropped = judge(&spec("", &[]), &facts("S-2", &[B]), Some(&differs));
        assert_eq!(dropped, Verdict::Unknown);
        let fine = condition(true, REASON_AS_REGISTERED);
        assert_eq!(judge(&registered, &facts("", &[]), Some(&fine)), Verdict::Keep);
    }
}
