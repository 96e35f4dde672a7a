//! Networks: an address with the number of bits that count, `192.0.2.0/24`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network. An address alone is the network that holds only that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The network of this many bits around an address; all of its bits if there are fewer.
    #[must_use]
    pub fn around(address: IpAddr, bits: u8) -> Self {
        let address = address.to_canonical();
        let bits = bits.min(width(address));
        Self { address: masked(address, bits), bits }
    }

    /// Tells whether it is larger than anybody's own network: more than a /8, or in IPv6 a /16.
    #[must_use]
    pub fn is_vast(&self) -> bool {
        self.bits < if self.address.is_ipv4() { 8 } else { 16 }
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Tells whether an address is in it. IPv4 addresses that came by an IPv6 socket are IPv4 here.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with its last bits zero.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            IpAddr::V4((u32::from(four) & (!0_u32).checked_shl(32 - u32::from(bits)).unwrap_or(0)).into())
        }
        IpAddr::V6(six) => {
            IpAddr::V6((u128::from(six) & (!0_u128).checked_shl(128 - u32::from(bits)).unwrap_or(0)).into())
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network; write `192.0.2.0/24`, `2001:db8::/32` or one address");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = bits.unwrap_or(width(address));
        if bits > width(address) { Err(wrong()) } else { Ok(Self { address: masked(address, bits), bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_agrees_in_its_bits() {
        let holds = |network: &str, address: &str| network.parse::<Network>().unwrap().holds(address.parse().unwrap());
        assert!(holds("192.0.2.0/24", "192.0.2.255") && !holds("192.0.2.0/24", "192.0.3.0"));
        assert!(holds("192.0.2.77/25", "192.0.2.1") && !holds("192.0.2.77/25", "192.0.2.200"));
        assert!(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.2"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::"));
        assert!(holds("::/0", "2001:db8::1") && holds("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert_eq!(Network::around("192.0.2.77".parse().unwrap(), 24).to_string(), "192.0.2.0/24");
        assert_eq!("192.0.2.77/24".parse::<Network>().unwrap().to_string(), "192.0.2.0/24");
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["", "192.0.2.0/33", "::/129", "192.0.2/24", "example.org", "192.0.2.0/", "192.0.2.0/-1"] {
            assert!(text.parse::<Network>().unwrap_err().starts_with(&format!("`{text}` is no network")), "{text}");
        }
    }
}
