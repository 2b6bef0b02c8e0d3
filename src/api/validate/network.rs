//! Network addresses of a machine: MAC addresses and endpoints.

use std::net::{IpAddr, Ipv4Addr};

use crate::address::{Authority, Host};
use crate::text::escaped;

/// The address where virtual machines in clouds get their credentials. No machine answers there, and a server that
/// runs in a cloud must not be tricked into calling it.
const CLOUD_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What is wrong with the URL of a baseboard management controller.
pub(super) fn wrong_bmc(text: &str) -> Option<String> {
    wrong_host(url_host(text))
}

/// Longest id of a system, in bytes.
const SYSTEM_ID_BYTES_MAX: usize = 128;

/// What is wrong with the id of a system at a controller: it becomes one part of a path.
pub(super) fn wrong_system_id(text: &str) -> Option<String> {
    let odd = |c: char| {
        !c.is_ascii_graphic() || matches!(c, '/' | '?' | '#' | '%' | '\\' | '"' | '<' | '>' | '`')
    };
    if text.len() > SYSTEM_ID_BYTES_MAX || text.contains(odd) || text == "." || text == ".." {
        return Some(format!(
            "must be the id of a system at the controller, such as System.Embedded.1: at most {SYSTEM_ID_BYTES_MAX} \
             letters, digits and signs that a part of a path can have"
        ));
    }
    None
}

/// What is wrong with the address for remote commands.
pub(super) fn wrong_ssh(text: &str) -> Option<String> {
    if text.contains("://") {
        return Some("must be host or host:port, not a URL".to_owned());
    }
    wrong_host(host_of(text))
}

fn url_host(text: &str) -> Result<Host, String> {
    let rest = text.split_once("://").and_then(|(scheme, rest)| {
        let known =
            ["http", "https", "ipmi"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        known.then_some((scheme, rest))
    });
    let Some((scheme, rest)) = rest else {
        return Err(
            "must be an https, http or ipmi URL, such as https://10.0.0.8 or ipmi://10.0.0.8"
                .to_owned(),
        );
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if scheme.eq_ignore_ascii_case("ipmi") && !path.is_empty() {
        return Err("must end after the host and the port: IPMI has no paths".to_owned());
    }
    if path.contains(['?', '#']) {
        return Err("must end with the path: remove everything from '?' or '#' on".to_owned());
    }
    let odd = |c: char| {
        !c.is_ascii_graphic() || matches!(c, '\\' | '"' | '<' | '>' | '`' | '{' | '}' | '|' | '^')
    };
    if path.contains(odd) {
        return Err("has a character in its path that must be written as %XX".to_owned());
    }
    host_of(authority)
}

fn host_of(authority: &str) -> Result<Host, String> {
    let read = Authority::parse(authority);
    read.map(|authority| authority.host).map_err(|error| escaped(&error.to_string()).into_owned())
}

fn wrong_host(host: Result<Host, String>) -> Option<String> {
    match host {
        Ok(host) if host.impossible().is_some() => {
            Some(format!("names {host}, which cannot be the address of a host"))
        }
        Ok(Host::Ip(ip)) if ip.to_canonical() == IpAddr::V4(CLOUD_METADATA) => {
            Some(format!("names {ip}, the metadata address of clouds, where no machine answers"))
        }
        Ok(Host::Ip(_) | Host::Name(_)) => None,
        Err(wrong) => Some(wrong),
    }
}

/// What is wrong with a text, in lower case, as the address of one network port.
pub(super) fn wrong_mac(text: &str) -> Option<&'static str> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| {
            let digits = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(byte, 16).ok().filter(|_| digits)
        })
        .collect();
    match bytes.as_deref() {
        Some([0, 0, 0, 0, 0, 0]) => Some("is all zero, which no machine has: leave it out"),
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => {
            Some("is the broadcast address: leave it out")
        }
        // The lowest bit of the first byte: IEEE 802, the I/G bit.
        Some([first, _, _, _, _, _]) if first & 1 == 1 => {
            Some("is a multicast address: give the address of the port itself")
        }
        Some([_, _, _, _, _, _]) => None,
        Some(_) | None => {
            Some("must be six bytes in hexadecimal with colons, such as 02:00:00:00:00:01")
        }
    }
}
