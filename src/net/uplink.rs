//! Whether this machine is connected to anything at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Tells whether the kernel knows a way to the outside world, over IPv4 or IPv6. Asks the routing table
/// alone: nothing is sent. The addresses are those of documentation (RFC 5737, RFC 3849).
#[must_use]
pub fn is_connected() -> bool {
    let leads =
        |from: IpAddr, to: IpAddr| UdpSocket::bind((from, 0)).is_ok_and(|socket| socket.connect((to, 9)).is_ok());
    leads(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        || leads(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
}

/// Tells whether an address is on this machine or in a network of its own, so that it is within reach
/// without the outside world.
#[must_use]
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_what_needs_no_outside_world() {
        for (text, near) in [
            ("127.0.0.1", true),
            ("::ffff:192.168.1.1", true),
            ("10.1.2.3", true),
            ("fe80::1", true),
            ("fd00::1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_near(text.parse().unwrap()), near, "{text}");
        }
        // Whatever this machine is connected to, asking does no harm.
        let _ = is_connected();
    }
}
