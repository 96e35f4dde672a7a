//! The settings of mail on its way out; `daemon/deliver` obeys some of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueConfig {
    /// Mail for which there is neither a route nor a relay goes to its domain's own servers, as the DNS
    /// names them. Without it such mail is refused. Default: true.
    pub direct: bool,
    /// The first wait after an attempt that failed, in seconds; each further one is twice as long.
    /// Default: 300.
    pub retry_min_secs: u32,
    /// The longest wait between two attempts, in seconds. Default: 7200.
    pub retry_max_secs: u32,
    /// How long a message is tried before it goes back, in seconds. Only time in which the network was
    /// there counts. Default: 432000, five days (RFC 5321 section 4.5.4.1).
    pub give_up_secs: u32,
    /// When the sender is told of a delay, in seconds of such time; 0 never tells. Default: 14400.
    pub warn_after_secs: u32,
    /// Connections to other servers at one time. One that waits long for its peer does not count.
    /// Default: 16.
    pub connections_max: u16,
    /// Connections to one destination at one time. Default: 2.
    pub connections_per_destination_max: u16,
    /// Messages over one connection. Default: 100.
    pub messages_per_connection_max: u16,
    /// Largest message that comes back whole in a notification, in bytes; of a larger one the header
    /// comes back. Default: 65536.
    pub return_max_bytes: u32,
    /// Domains for which we are a backup MX: mail for them is taken from anybody and handed on to their
    /// better servers. Default: none.
    pub backup_for: Vec<String>,
    /// Port of other domains' servers. For sites whose network has its own ideas. Default: 25.
    pub port: u16,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            direct: true,
            retry_min_secs: 300,
            retry_max_secs: 7200,
            give_up_secs: 5 * 86_400,
            warn_after_secs: 4 * 3600,
            connections_max: 16,
            connections_per_destination_max: 2,
            messages_per_connection_max: 100,
            return_max_bytes: 64 << 10,
            backup_for: Vec::new(),
            port: 25,
        }
    }
}

/// Recipient domains and the servers their mail goes to, as `host:port`, whatever the DNS says. A
/// domain with a leading dot stands for all below it, `*` for all others.
pub type RouteTable = BTreeMap<String, String>;

/// How a relay is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayTls {
    /// In clear. Refused together with a password.
    None,
    /// STARTTLS where it is offered, without looking at certificates.
    Opportunistic,
    /// STARTTLS and a good certificate, or nothing.
    #[default]
    Starttls,
    /// TLS from the first byte (RFC 8314) and a good certificate.
    Implicit,
}

/// A smarthost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RelayConfig {
    /// Its name, which its certificate must have, or its address.
    pub host: String,
    /// Its port. Default: 587, with `tls = "implicit"` 465.
    pub port: Option<u16>,
    /// How it is spoken to. Default: `starttls`.
    pub tls: RelayTls,
    /// The user to log in as. Default: none, no login.
    pub user: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// A PEM file of authorities that may have signed its certificate, beside the public ones.
    pub authorities: Option<PathBuf>,
    /// Recipient domains whose mail goes this way (`.example.org`: all below it). Default: all.
    pub domains: Vec<String>,
    /// Senders whose mail goes this way: addresses, or `@example.org`. Default: all.
    pub senders: Vec<String>,
    /// It is used only while port 25 out seems blocked. Default: false.
    pub fallback: bool,
}

impl RelayConfig {
    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls == RelayTls::Implicit { 465 } else { 587 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_has_the_port_of_its_manner() {
        let relay = |text: &str| toml::from_str::<RelayConfig>(text).unwrap();
        assert_eq!(relay("host = \"a\"").port(), 587);
        assert_eq!(relay("host = \"a\"\ntls = \"implicit\"").port(), 465);
        assert_eq!(relay("host = \"a\"\nport = 26\ntls = \"none\"").port(), 26);
        assert!(toml::from_str::<RelayConfig>("hosts = \"a\"").is_err());
    }
}
