//! Networks that this server may call: judged by the address that is connected to, not by the name it was found by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not of the form.
    #[error("{0:?} is not a network: write it as 10.0.0.0/8 or fd00::/8, or an address alone")]
    Form(String),
    /// Bits behind the prefix.
    #[error("{0:?} has bits behind its prefix: do you mean {1}?")]
    Host(String, Network),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let form = || NetworkError::Form(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => {
                let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
                (address, Some(bits.parse::<u8>().ok().filter(|_| is_number).ok_or_else(form)?))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(form());
        }
        let network = Self { address: masked(address, bits), bits };
        if network.address != address {
            return Err(NetworkError::Host(text.to_owned(), network));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6(first: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether the address is inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.bits) == self.address
    }

    /// Whether all of it is inside the other.
    fn is_inside(&self, other: &Self) -> bool {
        self.bits >= other.bits && other.contains(self.address)
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

/// What a wide network does not open: the server itself, its neighbours on the wire, and the metadata of clouds. Only a
/// network inside one of these opens its part of it.
const GUARDED: &[(Network, &str)] = &[
    (Network::v4(127, 0, 0, 0, 8), "loopback"),
    (Network::v4(169, 254, 0, 0, 16), "link-local"),
    (Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 }, "loopback"),
    (Network::v6(0xfe80, 10), "link-local"),
    (
        Network {
            address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
            bits: 128,
        },
        "the metadata address of a cloud",
    ),
];

/// Addresses that stand for no single host.
const NO_HOST: &[Network] = &[
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(224, 0, 0, 0, 4),
    Network::v4(255, 255, 255, 255, 32),
    Network { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), bits: 128 },
    Network::v6(0xff00, 8),
];

/// Networks that calls of one kind may go to, under the key that configures them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks {
    key: &'static str,
    list: Vec<Network>,
}

impl Networks {
    /// These, as configured by `key`. An empty list allows nothing.
    #[must_use]
    pub fn new(key: &'static str, list: Vec<Network>) -> Self {
        Self { key, list }
    }

    /// Whether none is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Refuses an address that must not be connected to.
    ///
    /// # Errors
    /// The reason, with the key to change.
    pub fn check(&self, address: IpAddr) -> Result<(), String> {
        // Every address that a router or the operating system may take it for.
        for meant in meanings(address) {
            if NO_HOST.iter().any(|network| network.contains(meant)) {
                return Err(format!("{address} is not the address of a host"));
            }
            let guarded = GUARDED.iter().find(|(network, _)| network.contains(meant));
            let allowed = self.list.iter().any(|network| {
                network.contains(meant)
                    && guarded.is_none_or(|(guarded, _)| network.is_inside(guarded))
            });
            if allowed {
                continue;
            }
            let key = self.key;
            return Err(match guarded {
                Some((_, what)) => format!(
                    "{address} is {what}, which is only called if {key} lists a network inside it"
                ),
                None if self.list.is_empty() => {
                    format!("{address} is in no configured network: {key} is empty")
                }
                None => format!("{address} is in no configured network: see {key}"),
            });
        }
        Ok(())
    }
}

/// The address itself, or what it carries: IPv4 in IPv6 goes to the IPv4 address.
fn meanings(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return vec![address] };
    let parts = v6.segments();
    let v4 = |high: u16, low: u16| {
        IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match parts {
        // Mapped (::ffff:a.b.c.d): the operating system connects to the IPv4 address.
        [0, 0, 0, 0, 0, 0xffff, high, low] => vec![v4(high, low)],
        // Compatible (::a.b.c.d), but for :: and ::1.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => vec![v4(high, low)],
        // Translated (RFC 2765), NAT64 (RFC 6052, RFC 8215), 6to4: a gateway may send it on to the IPv4 address.
        [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, _, _, _, _, _] => vec![address, v4(high, low)],
        // Teredo: the address is inverted.
        [0x2001, 0, _, _, _, _, high, low] => vec![address, v4(!high, !low)],
        _ => vec![address],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        let list = list.iter().map(|text| text.parse().unwrap()).collect();
        Networks::new("networks.bmc", list)
    }

    fn check(list: &[&str], address: &str) -> Result<(), String> {
        networks(list).check(address.parse().unwrap())
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7/32", "fd00::/8", "::/0", "::1/128"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.7".parse::<Network>().unwrap().to_string(), "192.0.2.7/32");
        for text in
            ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "bmc.example", "fd00::/129", "10.0.0.0/+8"]
        {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::Form(_))), "{text}");
        }
        assert_eq!(
            "10.1.2.3/8".parse::<Network>().unwrap_err().to_string(),
            "\"10.1.2.3/8\" has bits behind its prefix: do you mean 10.0.0.0/8?"
        );
    }

    #[test]
    fn addresses_are_inside_or_refused() {
        assert_eq!(check(&["10.0.0.0/8"], "10.255.0.1"), Ok(()));
        assert_eq!(check(&["10.0.0.0/8"], "::ffff:10.0.0.1"), Ok(()));
        assert_eq!(check(&["fd00::/8"], "fd12::1"), Ok(()));
        assert_eq!(check(&["192.0.2.7"], "192.0.2.7"), Ok(()));
        assert_eq!(
            check(&["10.0.0.0/8"], "11.0.0.1").unwrap_err(),
            "11.0.0.1 is in no configured network: see networks.bmc"
        );
        assert_eq!(
            check(&[], "10.0.0.1").unwrap_err(),
            "10.0.0.1 is in no configured network: networks.bmc is empty"
        );
        assert!(check(&["::/0"], "10.0.0.1").is_err());
    }

    /// Everything is listed, and still none of these is called.
    #[test]
    fn a_wide_network_opens_neither_this_server_nor_the_metadata_of_a_cloud() {
        let everything = ["0.0.0.0/0", "::/0"];
        for address in [
            "127.0.0.1",
            "127.255.255.254",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "2002:7f00:1::",
            "2001:0:1::80ff:fffe",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(check(&everything, address).is_err(), "{address}");
        }
        for address in ["8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert_eq!(check(&everything, address), Ok(()), "{address}");
        }
        assert_eq!(check(&["127.0.0.1/32"], "127.0.0.1"), Ok(()));
        assert_eq!(check(&["127.0.0.0/8"], "::ffff:127.0.0.2"), Ok(()));
        assert_eq!(check(&["::1"], "::1"), Ok(()));
        assert_eq!(check(&["169.254.3.0/24"], "169.254.3.9"), Ok(()));
        assert!(check(&["169.254.3.0/24"], "169.254.169.254").is_err());
        let refused = check(&["10.0.0.0/8"], "127.0.0.1").unwrap_err();
        assert_eq!(
            refused,
            "127.0.0.1 is loopback, which is only called if networks.bmc lists a network inside it"
        );
    }
}
