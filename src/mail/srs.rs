//! The sender rewriting scheme: a forwarded message gets an envelope sender of the forwarding domain, so
//! that SPF passes, from which the way back can be read (Mengwong and Evers' SRS, as libsrs2 has it).
//!
//! `SRS0=HASH=DAY=DOMAIN=LOCAL@ours` stands for `LOCAL@DOMAIN`. What another forwarder has rewritten
//! already becomes `SRS1=HASH=OTHER=REST@ours`, which leads back to that forwarder and grows no further.
//! The hash is keyed, so nobody else can make an address that we would forward to, and the day bounds
//! how long it is good.

use ring::hmac::{HMAC_SHA256, Key, sign};

use super::address::{Address, Domain, LOCAL_PART_MAX};
use super::date::Timestamp;

/// Bytes of the key.
pub const SRS_KEY: usize = 32;

/// How long bounces are taken, in days: any queue gives up before.
pub const GOOD_DAYS: i64 = 21;

/// Characters of the hash: 40 bits.
const HASH: usize = 8;

/// Days are counted modulo this: two characters.
const DAYS: i64 = 1024;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Rewrites senders.
#[derive(Clone)]
pub struct Srs(Key);

impl std::fmt::Debug for Srs {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Srs(hidden)")
    }
}

/// What an address in a domain of ours is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reversed {
    /// None that we made; an ordinary address.
    Ordinary,
    /// The one that it stands for.
    Address(Address),
    /// It looks like one of ours, and is forged, too old or damaged.
    Bad,
}

impl Srs {
    /// Rewrites with a key.
    pub fn new(key: &[u8; SRS_KEY]) -> Self {
        Self(Key::new(HMAC_SHA256, key))
    }

    /// The sender in `domain` that stands for `sender`; `None` where it would be too long.
    pub fn forward(&self, sender: &Address, domain: &Domain, now: Timestamp) -> Option<Address> {
        let (local, host) = (sender.local(), sender.domain().as_str());
        let made = match split(local) {
            Some((b'0', rest)) => {
                // Another forwarder's: its separator goes along, which may be another character.
                let rest = format!("{host}={rest}");
                format!("SRS1={}={rest}", self.hash(&rest))
            }
            Some((b'1', rest)) => {
                let (_, rest) = rest.get(1..)?.split_once('=')?;
                format!("SRS1={}={rest}", self.hash(rest))
            }
            _ => {
                let rest = format!("{}={host}={local}", day(now));
                format!("SRS0={}={rest}", self.hash(&rest))
            }
        };
        if made.len() > LOCAL_PART_MAX {
            return None;
        }
        Address::new(&made, domain.clone()).ok()
    }

    /// Reads an address in a domain of ours.
    pub fn reverse(&self, address: &Address, now: Timestamp) -> Reversed {
        let Some((kind, rest)) = split(address.local()) else { return Reversed::Ordinary };
        self.read(kind, rest, now).map_or(Reversed::Bad, Reversed::Address)
    }

    fn read(&self, kind: u8, rest: &str, now: Timestamp) -> Option<Address> {
        let (hash, rest) = rest.get(1..)?.split_once('=')?;
        let made = self.hash(rest);
        // A wrong hash tells by its time no more than by its reply.
        if !made.eq_ignore_ascii_case(hash) {
            return None;
        }
        if kind == b'1' {
            let (host, rest) = rest.split_once('=')?;
            return Address::new(&format!("SRS0{rest}"), Domain::parse(host).ok()?).ok();
        }
        let (then, rest) = rest.split_once('=')?;
        let (host, local) = rest.split_once('=')?;
        let age = (now.0.div_euclid(86_400) - undo(then)?).rem_euclid(DAYS);
        // A day ahead may be a clock that was set back.
        if age > GOOD_DAYS && age < DAYS - 1 {
            return None;
        }
        Address::new(local, Domain::parse(host).ok()?).ok()
    }

    /// Case may be lost on the way, so none counts.
    fn hash(&self, text: &str) -> String {
        let tag = sign(&self.0, text.to_lowercase().as_bytes());
        let mut bits: u64 = tag.as_ref().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        let mut out = String::with_capacity(HASH);
        for _ in 0..HASH {
            out.push(letter(bits));
            bits >>= 5;
        }
        out
    }
}

/// Tells whether an address was rewritten by a forwarder of this domain, directly or on a later hop: a
/// message from it that is to be forwarded there again goes in a circle.
pub fn has_passed(sender: &Address, domain: &Domain) -> bool {
    match split(sender.local()) {
        Some((b'1', rest)) => {
            let host = rest.get(1..).and_then(|rest| rest.split('=').nth(1));
            sender.domain() == domain || host.is_some_and(|host| host.eq_ignore_ascii_case(domain.as_str()))
        }
        Some(_) => sender.domain() == domain,
        None => false,
    }
}

/// `0` or `1`, and what comes behind `SRSn`, with its separator.
fn split(local: &str) -> Option<(u8, &str)> {
    let head = local.get(..4)?;
    let rest = local.get(4..).filter(|rest| rest.starts_with(['=', '+', '-']))?;
    if head.eq_ignore_ascii_case("SRS0") {
        Some((b'0', rest))
    } else if head.eq_ignore_ascii_case("SRS1") {
        Some((b'1', rest))
    } else {
        None
    }
}

fn letter(bits: u64) -> char {
    let index = usize::try_from(bits & 31).unwrap_or(0);
    BASE32.get(index).copied().map_or('A', char::from)
}

fn day(now: Timestamp) -> String {
    let day = u64::try_from(now.0.div_euclid(86_400).rem_euclid(DAYS)).unwrap_or(0);
    [letter(day >> 5), letter(day)].into_iter().collect()
}

fn undo(day: &str) -> Option<i64> {
    let mut value = 0;
    if day.len() != 2 {
        return None;
    }
    for byte in day.bytes() {
        let index = BASE32.iter().position(|letter| letter.eq_ignore_ascii_case(&byte))?;
        value = value * 32 + i64::try_from(index).ok()?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const NOW: Timestamp = Timestamp(20_000 * DAY + 5);

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn ours() -> Domain {
        Domain::parse("ours.test").unwrap()
    }

    #[test]
    fn a_sender_comes_back_as_it_was() {
        let srs = Srs::new(&[7; SRS_KEY]);
        for text in ["Ann.B@x.test", "a=b@x.test", r#""a b"@x.test"#, "jürgen@bücher.test", "srs@x.test"] {
            let made = srs.forward(&address(text), &ours(), NOW).unwrap();
            assert!(made.local().starts_with("SRS0=") && made.domain() == &ours(), "{made}");
            assert_eq!(srs.reverse(&made, NOW), Reversed::Address(address(text)));
            let lower = Address::new(&made.local().to_lowercase(), ours()).unwrap();
            assert!(matches!(srs.reverse(&lower, NOW), Reversed::Address(back) if back.key() == address(text).key()));
            assert!(has_passed(&made, &ours()));
        }
        assert_eq!(srs.reverse(&address("ann@ours.test"), NOW), Reversed::Ordinary);
        assert!(!has_passed(&address("ann@ours.test"), &ours()));
    }

    #[test]
    fn forged_and_old_ones_are_bad() {
        let srs = Srs::new(&[7; SRS_KEY]);
        let made = srs.forward(&address("ann@x.test"), &ours(), NOW).unwrap();
        for forged in [
            made.local().replace("x.test", "y.test"),
            made.local().replace("ann", "eve"),
            "SRS0=AAAAAAAA=AA=x.test=ann".to_owned(),
            "SRS0=x".to_owned(),
            "SRS1=".to_owned(),
            "SRS0+é".to_owned(),
        ] {
            let forged = Address::new(&forged, ours()).unwrap();
            assert_eq!(srs.reverse(&forged, NOW), Reversed::Bad, "{forged}");
        }
        assert_eq!(Srs::new(&[8; SRS_KEY]).reverse(&made, NOW), Reversed::Bad);
        for (days, good) in
            [(-2, false), (-1, true), (0, true), (GOOD_DAYS, true), (GOOD_DAYS + 1, false), (500, false)]
        {
            let then = Timestamp(NOW.0 + days * DAY);
            assert_eq!(srs.reverse(&made, then) != Reversed::Bad, good, "{days}");
        }
    }

    #[test]
    fn a_second_forwarder_leads_back_to_the_first() {
        let (one, two, three) = (Srs::new(&[1; SRS_KEY]), Srs::new(&[2; SRS_KEY]), Srs::new(&[3; SRS_KEY]));
        let domain = |text| Domain::parse(text).unwrap();
        let first = one.forward(&address("ann@x.test"), &domain("one.test"), NOW).unwrap();
        let second = two.forward(&first, &domain("two.test"), NOW).unwrap();
        assert!(second.local().starts_with("SRS1=") && second.local().contains("=one.test=="), "{second}");
        let third = three.forward(&second, &domain("three.test"), NOW).unwrap();
        assert_eq!(third.local().len(), second.local().len(), "{third}");
        assert_eq!(three.reverse(&third, NOW), Reversed::Address(first.clone()));
        assert_eq!(two.reverse(&second, NOW), Reversed::Address(first.clone()));
        assert_eq!(one.reverse(&first, NOW), Reversed::Address(address("ann@x.test")));
        assert!(has_passed(&third, &domain("one.test")) && has_passed(&third, &domain("three.test")));
        assert!(!has_passed(&third, &domain("two.test")));
    }

    #[test]
    fn what_would_be_too_long_is_left_to_the_caller() {
        let srs = Srs::new(&[1; SRS_KEY]);
        let long = address(&format!("{}@{}.test", "a".repeat(40), "b".repeat(40)));
        assert_eq!(srs.forward(&long, &ours(), NOW), None);
    }
}
