//! What a domain has to publish in DNS so that its mail comes here and is believed elsewhere.
//!
//! [`publication`] gathers the records and says why each is there; `zone` spells them as a name server
//! takes them, and `compare` says in plain words how what DNS answers differs. Nothing here asks DNS.

use std::fmt::Write as _;
use std::net::IpAddr;

use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::dkim::{KeyError, KeyRow, Turn, dns_name};
use crate::mail::date::ZonedTime;

mod autoconfig; // the file from which mail programs set themselves up
mod compare; //    what DNS says beside what it should
mod zone; //       records as a name server takes them

pub use autoconfig::autoconfig;
pub use compare::{Answer, Finding, State, compare, host_pointer};
pub use zone::{TTL_SECS, zone};

/// Longest time a policy is remembered by senders, in seconds (RFC 8461 section 3.2): a week.
const MTA_STS_MAX_AGE: u32 = 604_800;

/// What of the box is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// What it calls itself towards other servers.
    pub name: String,
    /// Its addresses that the world can reach, as far as it knows them itself.
    pub addresses: Vec<IpAddr>,
    /// SHA-256 of its certificate's public key.
    pub key: Option<[u8; 32]>,
    /// The certificate is not of the box's own authority, so that others may know who issued it.
    pub public_certificate: bool,
    /// Its services by name, such as `imaps`, with their ports.
    pub services: Vec<(String, u16)>,
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Where the domain's mail goes.
    Mx,
    /// Where the box is.
    Address,
    /// Who may send as the domain (RFC 7208).
    Spf,
    /// What its signatures are checked with (RFC 6376).
    Dkim,
    /// What becomes of mail that fails both (RFC 7489).
    Dmarc,
    /// Where reports about failed TLS go (RFC 8460).
    TlsReports,
    /// That a policy about TLS is there (RFC 8461).
    MtaSts,
    /// What key the server has (RFC 7672).
    Tlsa,
    /// Where mail programs find the services (RFC 6186, RFC 8314).
    Service,
    /// Where they find a file that says so.
    Autoconfig,
}

/// How much depends on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Mail fails without it.
    Needed,
    /// Mail is trusted less without it.
    Advised,
    /// It makes something easier or safer; it may be left away, but must not be wrong.
    Optional,
    /// Not yet: printed as a comment.
    Later,
}

/// A record's data. Names are in A-labels, without the last dot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// Preference and host.
    Mx(u16, String),
    /// A or AAAA.
    Address(IpAddr),
    /// One text, however long.
    Txt(String),
    /// Usage, selector, matching type, and the data in hexadecimal.
    Tlsa(u8, u8, u8, String),
    /// Priority, weight, port, host.
    Srv(u16, u16, u16, String),
    /// The other name.
    Cname(String),
    /// The name of an address.
    Ptr(String),
}

impl Data {
    /// The record's type as zones have it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mx(..) => "MX",
            Self::Address(IpAddr::V4(_)) => "A",
            Self::Address(IpAddr::V6(_)) => "AAAA",
            Self::Txt(_) => "TXT",
            Self::Tlsa(..) => "TLSA",
            Self::Srv(..) => "SRV",
            Self::Cname(_) => "CNAME",
            Self::Ptr(_) => "PTR",
        }
    }
}

/// A record to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// What it is for.
    pub purpose: Purpose,
    /// How much depends on it.
    pub need: Need,
    /// Its name in A-labels, without the last dot.
    pub name: String,
    /// What it says.
    pub data: Data,
    /// Why, in a sentence.
    pub why: String,
}

/// Everything a domain publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The domain in A-labels.
    pub domain: String,
    /// What is not right here already, a sentence each.
    pub notes: Vec<String>,
    /// The records, those about one thing together.
    pub records: Vec<Record>,
    /// The text to serve at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`.
    pub mta_sts_policy: String,
}

/// Gathers what `domain` has to publish: `host` serves it, and `keys` are its DKIM keys.
///
/// # Errors
/// [`KeyError::Domain`] when DNS has no such names.
pub fn publication(domain: &str, host: &Host, keys: &[KeyRow]) -> Result<Publication, KeyError> {
    let domain = dns_name(domain)?;
    let name = dns_name(&host.name)?;
    let mut list = List { domain: domain.clone(), records: Vec::new() };
    let mut notes = Vec::new();
    if !is_public(&name) {
        notes.push(format!(
            "This box calls itself `{name}`, which is no name that the world can find. Write `hostname` into \
             pillarbox.toml and print the records again."
        ));
    }
    list.addressing(&name, host);
    list.trust(keys, notes.as_mut());
    let mta_sts_policy = list.encryption(&name, host);
    list.services(&name, host);
    Ok(Publication { domain, notes, records: list.records, mta_sts_policy })
}

/// Tells whether a name can be one of the world's.
fn is_public(name: &str) -> bool {
    let local = ["local", "localhost", "lan", "home", "internal", "localdomain", "invalid"];
    name.rsplit_once('.').is_some_and(|(_, last)| !local.contains(&last)) && !name.ends_with("home.arpa")
}

struct List {
    domain: String,
    records: Vec<Record>,
}

impl List {
    fn add(&mut self, purpose: Purpose, need: Need, name: &str, data: Data, why: impl Into<String>) {
        self.records.push(Record { purpose, need, name: name.to_owned(), data, why: why.into() });
    }

    /// Where mail goes.
    fn addressing(&mut self, host: &str, facts: &Host) {
        let domain = self.domain.clone();
        let why = format!("Mail for {domain} is brought to this box.");
        self.add(Purpose::Mx, Need::Needed, &domain, Data::Mx(10, host.to_owned()), why);
        for address in &facts.addresses {
            let why = "The box's own address. It also needs a reverse name (PTR), which whoever gives you the \
                       address sets for you: many servers take no mail without.";
            self.add(Purpose::Address, Need::Needed, host, Data::Address(*address), why);
        }
        if facts.addresses.is_empty() {
            let why = "The box does not know the address under which the world reaches it. Put it in the place of \
                       this one, which is an example, and have its reverse name (PTR) set by whoever gives it to you.";
            let example = Data::Address(IpAddr::from([192, 0, 2, 1]));
            self.add(Purpose::Address, Need::Later, host, example, why);
        }
    }

    /// What makes others believe that mail is from here.
    fn trust(&mut self, keys: &[KeyRow], notes: &mut Vec<String>) {
        let domain = self.domain.clone();
        let why = "The servers that take the domain's mail may also send it (RFC 7208). Does another server send for \
                   you, such as a provider's relay? Then add the `include:` that it names before `~all`.";
        self.add(Purpose::Spf, Need::Needed, &domain, Data::Txt("v=spf1 mx ~all".into()), why);
        for key in keys.iter().filter(|key| key.turn.is_published()) {
            let (need, why) = match key.turn {
                Turn::Signs | Turn::Over => (Need::Needed, "Mail is signed with this key (RFC 6376).".to_owned()),
                Turn::Waits(at) => {
                    let why = format!(
                        "The next key. It signs from {} on, or as soon as `pillarbox dns {domain} --check` has found \
                         it in DNS.",
                        ZonedTime::utc(at).to_rfc5322()
                    );
                    (Need::Needed, why)
                }
                Turn::Kept(at) => {
                    let until = ZonedTime::utc(at).to_rfc5322();
                    (Need::Advised, format!("Signed mail that may still be on its way; take it out after {until}."))
                }
            };
            let name = format!("{}._domainkey.{domain}", key.selector);
            self.add(Purpose::Dkim, need, &name, Data::Txt(key.record.clone()), why);
        }
        if keys.is_empty() {
            notes.push(format!("{domain} has no DKIM keys, so its mail leaves unsigned."));
        }
        let why = "Others should tell the postmaster about mail that is not from here though it says so (RFC 7489). \
                   When the reports show that all your mail passes, write `p=quarantine` or `p=reject`.";
        let text = format!("v=DMARC1; p=none; rua=mailto:postmaster@{domain}");
        self.add(Purpose::Dmarc, Need::Advised, &format!("_dmarc.{domain}"), Data::Txt(text), why);
    }

    /// What makes others insist on TLS. Answers with the policy's text.
    fn encryption(&mut self, host: &str, facts: &Host) -> String {
        let domain = self.domain.clone();
        let why = "Others should tell the postmaster when they could not encrypt (RFC 8460).";
        let text = format!("v=TLSRPTv1; rua=mailto:postmaster@{domain}");
        self.add(Purpose::TlsReports, Need::Advised, &format!("_smtp._tls.{domain}"), Data::Txt(text), why);

        let policy = format!("version: STSv1\nmode: testing\nmx: {host}\nmax_age: {MTA_STS_MAX_AGE}\n");
        let id: String = hex(digest(&SHA256, policy.as_bytes()).as_ref()).chars().take(20).collect();
        let (need, why) = if facts.public_certificate {
            let why = format!(
                "Others should not send without TLS (RFC 8461). Serve the policy below at \
                 https://mta-sts.{domain}/.well-known/mta-sts.txt first; write `mode: enforce` into it, and a new id \
                 here, when no reports of failures come."
            );
            (Need::Optional, why)
        } else {
            let why = "With this others would insist on TLS (RFC 8461). It needs a certificate of a public authority, \
                       and the box has one of its own making: publish it after you have put one in.";
            (Need::Later, why.to_owned())
        };
        let text = format!("v=STSv1; id={id}");
        self.add(Purpose::MtaSts, need, &format!("_mta-sts.{domain}"), Data::Txt(text), why);

        if let Some(key) = &facts.key {
            let why = "The key of the box's certificate, for servers that check it with DANE (RFC 7672). It counts \
                       where the zone is signed with DNSSEC. Should the key ever change, publish the new one two days \
                       before.";
            let name = format!("_25._tcp.{host}");
            self.add(Purpose::Tlsa, Need::Optional, &name, Data::Tlsa(3, 1, 1, hex(key)), why);
        }
        policy
    }

    /// What helps mail programs to set themselves up.
    fn services(&mut self, host: &str, facts: &Host) {
        let domain = self.domain.clone();
        // Implicit TLS first (RFC 8314 section 5.1).
        for (service, priority) in
            [("submissions", 0), ("submission", 10), ("imaps", 0), ("imap", 10), ("pop3s", 20), ("pop3", 30)]
        {
            let Some((_, port)) = facts.services.iter().find(|(name, _)| name == service) else { continue };
            let why = "Mail programs find the box by this (RFC 6186, RFC 8314).";
            let data = Data::Srv(priority, 1, *port, host.to_owned());
            self.add(Purpose::Service, Need::Optional, &format!("_{service}._tcp.{domain}"), data, why);
        }
        let why = format!(
            "Some mail programs read http://autoconfig.{domain}/mail/config-v1.1.xml. The box serves no web pages yet; \
             should you have a web server, put there what `pillarbox dns {domain} --file autoconfig` prints."
        );
        let data = Data::Cname(host.to_owned());
        self.add(Purpose::Autoconfig, Need::Later, &format!("autoconfig.{domain}"), data, why);
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::dkim::Algorithm;
    use super::*;
    use crate::mail::date::Timestamp;

    pub(crate) fn host() -> Host {
        Host {
            name: "mail.x.test".into(),
            addresses: vec!["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            key: Some([0xab; 32]),
            public_certificate: true,
            services: vec![("smtp".into(), 25), ("imaps".into(), 993), ("submissions".into(), 465)],
        }
    }

    pub(crate) fn key(selector: &str, turn: Turn) -> KeyRow {
        let record = format!("v=DKIM1; k=rsa; p={}", "A".repeat(392));
        KeyRow { selector: selector.into(), algorithm: Algorithm::Rsa, made: Timestamp(0), turn, record }
    }

    #[test]
    fn a_domain_publishes_where_its_mail_goes_and_what_it_is_known_by() {
        let keys = [key("pb1-rsa", Turn::Signs), key("pb0-rsa", Turn::Over), key("pb2-rsa", Turn::Waits(Timestamp(9)))];
        let all = publication("Bücher.test", &host(), &keys).unwrap();
        assert!(all.notes.is_empty(), "{:?}", all.notes);
        let named = |purpose| all.records.iter().filter(|record| record.purpose == purpose).collect::<Vec<_>>();
        assert_eq!(named(Purpose::Mx)[0].data, Data::Mx(10, "mail.x.test".into()));
        assert_eq!(named(Purpose::Mx)[0].name, "xn--bcher-kva.test");
        assert_eq!(named(Purpose::Address).len(), 2);
        let dkim: Vec<_> = named(Purpose::Dkim).iter().map(|record| record.name.as_str()).collect();
        assert_eq!(dkim, ["pb1-rsa._domainkey.xn--bcher-kva.test", "pb2-rsa._domainkey.xn--bcher-kva.test"]);
        assert_eq!(named(Purpose::Tlsa)[0].data, Data::Tlsa(3, 1, 1, "ab".repeat(32)));
        assert_eq!(named(Purpose::Service).len(), 2);
        assert_eq!(all.mta_sts_policy, "version: STSv1\nmode: testing\nmx: mail.x.test\nmax_age: 604800\n");
        assert_eq!(named(Purpose::MtaSts)[0].need, Need::Optional);
    }

    #[test]
    fn a_box_on_a_home_line_is_told_what_is_missing() {
        let host = Host { name: "pillarbox.local".into(), ..Host::default() };
        let all = publication("x.test", &host, &[]).unwrap();
        assert!(all.notes[0].contains("hostname") && all.notes[1].contains("unsigned"), "{:?}", all.notes);
        let later: Vec<_> =
            all.records.iter().filter(|record| record.need == Need::Later).map(|record| record.purpose).collect();
        assert_eq!(later, [Purpose::Address, Purpose::MtaSts, Purpose::Autoconfig]);
        assert!(publication("[192.0.2.1]", &host, &[]).is_err());
    }
}
