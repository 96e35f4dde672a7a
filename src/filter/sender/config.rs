//! The settings of the checks on senders.

use serde::{Deserialize, Serialize};

use crate::mail::network::Network;

/// What a failed check does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The message is taken, and what was found counts in its spam score.
    #[default]
    Accept,
    /// It goes to Junk.
    Junk,
    /// It is refused.
    Reject,
}

/// Checks on mail from other servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SenderConfig {
    /// Senders are checked. Default: true.
    pub enabled: bool,
    /// Networks whose mail is not checked: this machine, and relays of your own that pass mail on. Default:
    /// `127.0.0.0/8` and `::1/128`.
    pub trusted: Vec<Network>,
    /// Mail that only says it is from a domain that wants such mail refused (DMARC `p=reject`). Default: reject.
    pub dmarc_reject: Action,
    /// The same where the domain wants it treated as suspicious (DMARC `p=quarantine`). Default: junk.
    pub dmarc_quarantine: Action,
    /// Mail from an address that the sender's domain says never sends for it (SPF `-`), unless DMARC or DKIM stands
    /// for the message. Forwarded mail fails so too. Default: accept.
    pub spf_fail: Action,
    /// Mail from an address on a block list. Default: reject.
    pub listed: Action,
    /// Block lists to ask, such as `zen.spamhaus.org`; read their terms first. Default: none.
    pub block_lists: Vec<String>,
    /// Lists of addresses that are believed more than a block list. Default: none.
    pub allow_lists: Vec<String>,
    /// Domains whose ARC seal is believed: mailing lists and forwarders that say what a message was before they
    /// changed it. What DMARC asks for does not hold for mail they sealed. Default: none.
    pub arc_trusted: Vec<String>,
    /// Greylisting: who was never seen before has to come again after this many seconds, which bulk senders do
    /// not. It delays first mail by some minutes. Default: 0, off.
    pub greylist_secs: u32,
    /// Messages an hour from one IPv4 address or one IPv6 /64; more are asked to come later. 0: no limit.
    /// Default: 600.
    pub address_messages_per_hour: u32,
    /// Messages an hour from one IPv4 /24 or one IPv6 /48. 0: no limit. Default: 3000.
    pub network_messages_per_hour: u32,
}

impl Default for SenderConfig {
    fn default() -> Self {
        let loopback = ["127.0.0.1", "::1"].map(|text| text.parse().ok());
        let [four, six] = loopback;
        let networks = [four.map(|ip| Network::around(ip, 8)), six.map(|ip| Network::around(ip, 128))];
        Self {
            enabled: true,
            trusted: networks.into_iter().flatten().collect(),
            dmarc_reject: Action::Reject,
            dmarc_quarantine: Action::Junk,
            spf_fail: Action::Accept,
            listed: Action::Reject,
            block_lists: Vec::new(),
            allow_lists: Vec::new(),
            arc_trusted: Vec::new(),
            greylist_secs: 0,
            address_messages_per_hour: 600,
            network_messages_per_hour: 3000,
        }
    }
}

impl SenderConfig {
    /// Tells whether mail from an address is checked.
    #[must_use]
    pub fn checks(&self, client: std::net::IpAddr) -> bool {
        self.enabled && !self.trusted.iter().any(|network| network.holds(client))
    }
}
