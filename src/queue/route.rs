//! Which way a recipient's mail goes, and to which servers there.
//!
//! A route of the table comes before a relay, a relay before the domain's own servers. Those are its
//! MX records by preference (RFC 5321 section 5.1), without us and whoever is no better than us, so
//! that mail never goes in a circle. What the DNS says comes in as an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::mail::address::{Address, Domain};
use crate::mail::envelope::ReversePath;

use super::{QueueConfig, RelayConfig, RouteTable};

/// Servers of one domain that are looked at; whoever names more gets the first of them.
pub const SERVERS_MAX: usize = 16;

/// A server's name or address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name, in lower case, without a dot at its end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => out.write_str(name),
            Self::Address(address) => write!(out, "[{address}]"),
        }
    }
}

/// A server and the port it listens at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which server.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

impl Place {
    /// Reads `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`, or any of these without a port, which is
    /// then `port`.
    pub fn parse(text: &str, port: u16) -> Option<Self> {
        if let Ok(at) = text.parse::<SocketAddr>() {
            return (at.port() != 0).then(|| Self { host: Host::Address(at.ip()), port: at.port() });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self { host: Host::Address(address), port });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, number)) => (name, number.parse().ok().filter(|port| *port != 0)?),
            None => (text, port),
        };
        let domain = Domain::parse(name.strip_suffix('.').unwrap_or(name)).ok().filter(|name| !name.is_literal())?;
        Some(Self { host: Host::Name(domain.as_str().to_owned()), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

/// Which way mail goes. Mail that goes the same way shares connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// To the domain's own servers.
    Direct(Domain),
    /// By the table of routes.
    Place(Place),
    /// By the relay of this number in the settings.
    Relay(usize),
}

impl Way {
    /// The one domain all of whose mail goes this way; `None` when others' may, too.
    pub fn domain(&self) -> Option<&Domain> {
        if let Self::Direct(domain) = self { Some(domain) } else { None }
    }
}

/// All ways out.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    direct: bool,
    table: BTreeMap<String, Place>,
    relays: Vec<Relay>,
    backup_for: Vec<String>,
}

/// Whose mail a relay takes.
#[derive(Clone, Debug)]
struct Relay {
    domains: Vec<String>,
    senders: Vec<String>,
    fallback: bool,
}

/// A setting that makes no sense: the section or key, and what is wrong with it.
pub type Wrong = (&'static str, String);

impl Routes {
    /// Reads the settings.
    ///
    /// # Errors
    /// What is wrong with which setting.
    pub fn new(queue: &QueueConfig, table: &RouteTable, relays: &[RelayConfig]) -> Result<Self, Wrong> {
        let place = |(domain, place): (&String, &String)| {
            let known = domain == "*" || is_pattern(domain);
            if !known {
                return Err((
                    "route",
                    format!("has `{domain}`, which is no domain; write `example.org`, `.example.org` or `*`"),
                ));
            }
            let parsed = Place::parse(place, 25);
            let parsed = parsed.ok_or_else(|| {
                ("route", format!("sends `{domain}` to `{place}`, which is no server; write `mail.example.org:25` or `192.0.2.1:25`"))
            })?;
            Ok((domain.to_lowercase(), parsed))
        };
        let table = table.iter().map(place).collect::<Result<_, _>>()?;
        for domain in &queue.backup_for {
            if Domain::parse(domain).is_err() {
                return Err(("queue.backup-for", format!("has `{domain}`, which is no domain")));
            }
        }
        for relay in relays {
            if Place::parse(&relay.host, relay.port()).is_none_or(|place| place.port != relay.port()) {
                return Err(("relay", format!("has the host `{}`; write its name or address", relay.host)));
            }
            if relay.user.is_some() != relay.password_file.is_some() {
                return Err(("relay", format!("`{}` needs both `user` and `password-file`, or neither", relay.host)));
            }
            if relay.user.is_some() && relay.tls == super::RelayTls::None {
                return Err((
                    "relay",
                    format!("`{}` would get the password in clear; take `tls = \"starttls\"`", relay.host),
                ));
            }
            if let Some(domain) = relay.domains.iter().find(|domain| !is_pattern(domain)) {
                return Err(("relay", format!("has `{domain}` among its domains, which is none")));
            }
            let is_sender = |sender: &&String| match sender.strip_prefix('@') {
                Some(domain) => is_pattern(domain),
                None => Address::parse(sender).is_ok(),
            };
            if let Some(sender) = relay.senders.iter().find(|sender| !is_sender(sender)) {
                let what = format!("has `{sender}` among its senders; write an address or `@example.org`");
                return Err(("relay", what));
            }
        }
        let lower = |words: &[String]| words.iter().map(|word| word.to_lowercase()).collect::<Vec<_>>();
        let relay = |relay: &RelayConfig| Relay {
            domains: lower(&relay.domains),
            senders: lower(&relay.senders),
            fallback: relay.fallback,
        };
        let relays = relays.iter().map(relay).collect();
        Ok(Self { direct: queue.direct, table, relays, backup_for: lower(&queue.backup_for) })
    }

    /// The way of mail from `sender` to someone in `domain`; `None` when there is none. `blocked`:
    /// nothing gets through to other domains' servers, so a fallback takes their mail.
    pub fn way(&self, domain: &Domain, sender: &ReversePath, blocked: bool) -> Option<Way> {
        let name = domain.as_str();
        if let Some(place) = self.table.get(name).or_else(|| self.suffix(name)) {
            return Some(Way::Place(place.clone()));
        }
        // A backup hands on to the better servers of the domain, not to just anybody.
        let backup = self.is_backup_for(domain);
        let takes = |relay: &Relay| {
            (!backup && relay.domains.is_empty() || relay.domains.iter().any(|word| fits(word, name)))
                && (relay.senders.is_empty() || relay.senders.iter().any(|word| is_from(word, sender)))
        };
        let mut numbered = self.relays.iter().enumerate();
        if let Some((number, _)) = numbered.find(|(_, relay)| !relay.fallback && takes(relay)) {
            return Some(Way::Relay(number));
        }
        if let Some(place) = self.table.get("*").filter(|_| !backup) {
            return Some(Way::Place(place.clone()));
        }
        let mut numbered = self.relays.iter().enumerate();
        if (blocked || !self.direct)
            && let Some((number, _)) = numbered.find(|(_, relay)| relay.fallback && takes(relay))
        {
            return Some(Way::Relay(number));
        }
        (self.direct || backup).then(|| Way::Direct(domain.clone()))
    }

    /// Tells whether we are a backup MX of this domain.
    pub fn is_backup_for(&self, domain: &Domain) -> bool {
        self.backup_for.iter().any(|name| name == domain.as_str())
    }

    /// Tells whether a relay waits for the case that port 25 is blocked.
    pub fn has_fallback(&self) -> bool {
        self.relays.iter().any(|relay| relay.fallback)
    }

    /// The place of the longest `.domain` that `name` lies below.
    fn suffix(&self, name: &str) -> Option<&Place> {
        name.match_indices('.').find_map(|(at, _)| self.table.get(name.get(at..)?))
    }
}

/// A domain, or one with a leading dot for all below it.
fn is_pattern(text: &str) -> bool {
    Domain::parse(text.strip_prefix('.').unwrap_or(text)).is_ok()
}

/// Tells whether `name` is the domain `word`, or lies below it where `word` begins with a dot.
fn fits(word: &str, name: &str) -> bool {
    if word.starts_with('.') { name.ends_with(word) && name.len() > word.len() } else { word == name }
}

/// Tells whether `sender` is the address `word`, or in its domain where `word` begins with an `@`.
fn is_from(word: &str, sender: &ReversePath) -> bool {
    let Some(address) = sender.address() else { return false };
    match word.strip_prefix('@') {
        Some(domain) => fits(domain, address.domain().as_str()),
        None => word == address.key() || address.without_detail().is_some_and(|(plain, _)| plain.key() == word),
    }
}

/// What the DNS says of a domain's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mx {
    /// Its MX records: preference, and name without a dot at its end (empty: the root).
    Records(Vec<(u16, String)>),
    /// It has none, so its own name serves (RFC 5321 section 5.1).
    None,
    /// There is no such domain.
    NoSuchDomain,
}

/// Why nothing can ever be sent to a domain. `Display` is the answer for its sender, which begins with
/// an enhanced status code (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWay {
    /// There is no such domain.
    NoSuchDomain,
    /// It takes no mail (RFC 7505).
    TakesNone,
    /// We are its best server, and know nothing of it.
    Circle,
    /// The literal is no address.
    Literal,
}

impl fmt::Display for NoWay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoSuchDomain => "5.1.2 there is no such domain",
            Self::TakesNone => "5.1.10 this domain takes no mail",
            Self::Circle => "5.4.6 the domain names this server for its mail, and this server does not know it",
            Self::Literal => "5.1.3 what stands in the brackets is no address",
        })
    }
}

/// The servers of a domain in the order in which they are tried: by preference, by `chance` among
/// equals (RFC 5321 section 5.1), none that is no better than `our_name`.
///
/// # Errors
/// Why there are none, and never will be.
pub fn servers(domain: &Domain, mx: Mx, our_name: &str, chance: u32) -> Result<Vec<Host>, NoWay> {
    let mut records = match mx {
        Mx::NoSuchDomain => return Err(NoWay::NoSuchDomain),
        Mx::None => vec![(0, domain.as_str().to_owned())],
        Mx::Records(records) => records,
    };
    if matches!(records.as_slice(), [(_, name)] if name.is_empty()) {
        return Err(NoWay::TakesNone);
    }
    records.retain(|(_, name)| !name.is_empty());
    let is_ours = |name: &str| name.eq_ignore_ascii_case(our_name);
    let ours = records.iter().filter(|(_, name)| is_ours(name)).map(|(preference, _)| *preference).min();
    records.retain(|(preference, _)| ours.is_none_or(|ours| *preference < ours));
    if records.is_empty() {
        return Err(if ours.is_some() { NoWay::Circle } else { NoWay::TakesNone });
    }
    // Stirred, then sorted in a stable way: equals stay stirred.
    let mut state = u64::from(chance) | 1 << 32;
    let mut stirred: Vec<_> = records
        .into_iter()
        .map(|record| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (record.0, state >> 33, record.1)
        })
        .collect();
    stirred.sort();
    stirred.truncate(SERVERS_MAX);
    Ok(stirred.into_iter().map(|(_, _, name)| Host::Name(name.to_ascii_lowercase())).collect())
}

/// The address in a domain that is a literal (RFC 5321 section 4.1.3); `None` when the domain is none.
///
/// # Errors
/// What is in the brackets is no address.
pub fn literal(domain: &Domain) -> Option<Result<IpAddr, NoWay>> {
    let text = domain.as_str().strip_prefix('[')?.strip_suffix(']')?;
    let address = match text.strip_prefix("ipv6:") {
        Some(address) => address.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => text.parse::<Ipv4Addr>().map(IpAddr::V4),
    };
    Some(address.map_err(|_| NoWay::Literal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn from(address: &str) -> ReversePath {
        ReversePath::Address(Address::parse(address).unwrap())
    }

    fn routes(text: &str) -> Result<Routes, Wrong> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct File {
            queue: QueueConfig,
            route: RouteTable,
            relay: Vec<RelayConfig>,
        }
        let file: File = toml::from_str(text).unwrap();
        Routes::new(&file.queue, &file.route, &file.relay)
    }

    fn way(routes: &Routes, to: &str, sender: &str) -> String {
        match routes.way(&domain(to), &from(sender), false) {
            None => "none".into(),
            Some(Way::Direct(domain)) => format!("direct {domain}"),
            Some(Way::Place(place)) => place.to_string(),
            Some(Way::Relay(number)) => format!("relay {number}"),
        }
    }

    #[test]
    fn the_most_particular_way_is_taken() {
        let routes = routes(
            "[queue]\nbackup-for = ['friend.test']\n\
             [route]\n'a.test' = '192.0.2.1:2525'\n'.a.test' = 'mail.a.test'\n'.deep.a.test' = '[2001:db8::1]:25'\n\
             [[relay]]\nhost = 'r0'\ndomains = ['b.test', '.b.test']\n\
             [[relay]]\nhost = 'r1'\nsenders = ['ann@x.test', '@y.test']\n\
             [[relay]]\nhost = 'r2'\nfallback = true\n",
        )
        .unwrap();
        for (to, sender, expected) in [
            ("a.test", "ann@x.test", "[192.0.2.1]:2525"),
            ("www.a.test", "bob@x.test", "mail.a.test:25"),
            ("x.deep.a.test", "bob@x.test", "[2001:db8::1]:25"),
            ("b.test", "ann@x.test", "relay 0"),
            ("www.b.test", "bob@x.test", "relay 0"),
            ("ab.test", "bob@x.test", "direct ab.test"),
            ("c.test", "Ann+list@x.test", "relay 1"),
            ("c.test", "eve@y.test", "relay 1"),
            ("c.test", "bob@x.test", "direct c.test"),
            ("[192.0.2.9]", "bob@x.test", "direct [192.0.2.9]"),
            ("friend.test", "ann@elsewhere.test", "direct friend.test"),
        ] {
            assert_eq!(way(&routes, to, sender), expected, "{to} from {sender}");
        }
        assert_eq!(routes.way(&domain("c.test"), &ReversePath::Null, true), Some(Way::Relay(2)));
        assert_eq!(
            routes.way(&domain("friend.test"), &ReversePath::Null, true),
            Some(Way::Direct(domain("friend.test")))
        );
        assert!(routes.has_fallback());
    }

    #[test]
    fn without_a_way_there_is_none() {
        assert_eq!(way(&Routes::default(), "a.test", "ann@x.test"), "none");
        let closed = routes("[queue]\ndirect = false\nbackup-for = ['b.test']\n[route]\n'a.test' = 'h:2'\n").unwrap();
        assert_eq!(way(&closed, "a.test", "ann@x.test"), "h:2");
        assert_eq!(way(&closed, "c.test", "ann@x.test"), "none");
        assert_eq!(way(&closed, "b.test", "ann@x.test"), "direct b.test");
        let all = routes("[route]\n'*' = 'h:2'\n[[relay]]\nhost = 'r'\ndomains = ['a.test']").unwrap();
        assert_eq!(
            (way(&all, "b.test", "a@x.test"), way(&all, "a.test", "a@x.test")),
            ("h:2".into(), "relay 0".into())
        );
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        for (text, key, word) in [
            ("[route]\n'a b' = 'h:2'", "route", "a b"),
            ("[route]\n'a.test' = 'h:99999'", "route", "h:99999"),
            ("[route]\n'a.test' = ''", "route", "a.test"),
            ("[queue]\nbackup-for = ['-']", "queue.backup-for", "`-`"),
            ("[[relay]]\nuser = 'u'", "relay", "``"),
            ("[[relay]]\nhost = 'h'\nuser = 'u'", "relay", "password-file"),
            ("[[relay]]\nhost = 'h'\nuser = 'u'\npassword-file = '/x'\ntls = 'none'", "relay", "in clear"),
            ("[[relay]]\nhost = 'h'\nsenders = ['bob']", "relay", "bob"),
            ("[[relay]]\nhost = 'h'\ndomains = ['*.x']", "relay", "*.x"),
        ] {
            let (found, problem) = routes(text).unwrap_err();
            assert!(found == key && problem.contains(word), "{text}: {found} {problem}");
        }
    }

    fn names(hosts: &[Host]) -> Vec<String> {
        hosts.iter().map(ToString::to_string).collect()
    }

    fn records(list: &[(u16, &str)]) -> Mx {
        Mx::Records(list.iter().map(|(preference, name)| (*preference, (*name).to_owned())).collect())
    }

    #[test]
    fn servers_come_by_preference_and_equals_by_chance() {
        let mx = || records(&[(20, "c"), (10, "a"), (10, "B")]);
        let orders: std::collections::BTreeSet<_> =
            (0..64).map(|chance| names(&servers(&domain("x.test"), mx(), "us", chance).unwrap())).collect();
        let order = |words: [&str; 3]| words.map(str::to_owned).to_vec();
        assert_eq!(orders.into_iter().collect::<Vec<_>>(), [order(["a", "b", "c"]), order(["b", "a", "c"])]);
        assert_eq!(names(&servers(&domain("x.test"), Mx::None, "us", 0).unwrap()), ["x.test"]);
        let many: Vec<_> = (0..100).map(|number| (number, format!("m{number}"))).collect();
        assert_eq!(servers(&domain("x.test"), Mx::Records(many), "us", 0).unwrap().len(), SERVERS_MAX);
    }

    #[test]
    fn a_backup_sends_to_better_servers_alone() {
        let list = [(10, "best"), (20, "US.test"), (20, "peer"), (30, "worse")];
        assert_eq!(names(&servers(&domain("x.test"), records(&list), "us.test", 0).unwrap()), ["best"]);
        let circle = servers(&domain("x.test"), records(&list[1..]), "us.test", 0);
        assert_eq!(circle, Err(NoWay::Circle));
        assert_eq!(servers(&domain("us.test"), Mx::None, "us.test", 0), Err(NoWay::Circle));
    }

    #[test]
    fn a_domain_may_take_no_mail_or_be_none() {
        assert_eq!(servers(&domain("x.test"), records(&[(0, "")]), "us", 0), Err(NoWay::TakesNone));
        assert_eq!(names(&servers(&domain("x.test"), records(&[(0, ""), (5, "a")]), "us", 0).unwrap()), ["a"]);
        assert_eq!(servers(&domain("x.test"), Mx::NoSuchDomain, "us", 0), Err(NoWay::NoSuchDomain));
        assert!(NoWay::TakesNone.to_string().starts_with("5.1.10 "));
    }

    #[test]
    fn an_address_literal_is_its_own_server() {
        assert_eq!(literal(&domain("[192.0.2.1]")), Some(Ok(IpAddr::from([192, 0, 2, 1]))));
        assert_eq!(literal(&domain("[IPv6:2001:db8::1]")), Some(Ok("2001:db8::1".parse().unwrap())));
        for wrong in ["[2001:db8::1]", "[x]", "[192.0.2]"] {
            assert_eq!(literal(&domain(wrong)), Some(Err(NoWay::Literal)), "{wrong}");
        }
        assert_eq!(literal(&domain("x.test")), None);
    }
}
