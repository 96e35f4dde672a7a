//! What a peer offers in answer to EHLO (RFC 5321 section 4.1.1.1).

use crate::protocol::sasl::Mechanism;

/// Longest name kept of a peer in bytes: a domain's.
const PEER_NAME_MAX: usize = 255;

/// What a peer offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// EHLO was understood, whatever came with it.
    pub extended: bool,
    /// PIPELINING (RFC 2920)
    pub pipelining: bool,
    /// SIZE (RFC 1870)
    pub size: bool,
    /// The largest message it takes, where it tells.
    pub size_max: Option<u64>,
    /// 8BITMIME (RFC 6152)
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531)
    pub utf8: bool,
    /// CHUNKING (RFC 3030)
    pub chunking: bool,
    /// BINARYMIME (RFC 3030)
    pub binary: bool,
    /// DSN (RFC 3461)
    pub dsn: bool,
    /// STARTTLS (RFC 3207)
    pub starttls: bool,
    /// REQUIRETLS (RFC 8689)
    pub require_tls: bool,
    /// Mechanisms of AUTH that we can speak (RFC 4954).
    pub auth: Vec<Mechanism>,
    /// MAILMAX of LIMITS (RFC 9422): messages over one connection.
    pub mail_max: Option<u32>,
    /// RCPTMAX of LIMITS: recipients in one transaction.
    pub recipients_max: Option<u32>,
}

impl Extensions {
    /// Reads the lines of the answer to EHLO. The first is the peer's name.
    pub(super) fn read(lines: &[String]) -> Self {
        let mut found = Self { extended: true, ..Self::default() };
        for line in lines.iter().skip(1) {
            found.line(line);
        }
        found
    }

    fn line(&mut self, line: &str) {
        // AUTH= is how servers spelled it before RFC 2554, and some still do.
        let (keyword, rest) = line.split_once([' ', '=']).unwrap_or((line, ""));
        let mut words = rest.split_ascii_whitespace();
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => {
                self.size = true;
                // 0 says that there is no fixed limit (RFC 1870 section 4).
                self.size_max = words.next().and_then(|word| word.parse().ok()).filter(|&max| max > 0);
            }
            "8BITMIME" => self.eight_bit = true,
            "SMTPUTF8" => self.utf8 = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.require_tls = true,
            "AUTH" => {
                for mechanism in words.filter_map(Mechanism::named) {
                    if !self.auth.contains(&mechanism) {
                        self.auth.push(mechanism);
                    }
                }
            }
            "LIMITS" => words.for_each(|word| self.limit(word)),
            _ => {}
        }
    }

    /// RFC 9422 section 4; limits that are no positive number say nothing.
    fn limit(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let Some(value) = value.parse().ok().filter(|&value: &u32| value > 0) else { return };
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mail_max = Some(value),
            "RCPTMAX" => self.recipients_max = Some(value),
            _ => {}
        }
    }
}

/// The name a peer gives itself in the first line of its answer to EHLO or HELO.
pub(super) fn peer_name(line: &str) -> Option<String> {
    let word = line.split_ascii_whitespace().next()?;
    let fits = word.len() <= PEER_NAME_MAX && !word.chars().any(char::is_control);
    fits.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Extensions {
        Extensions::read(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_extension_is_read_in_any_case() {
        let found = read(&[
            "mx.test PIPELINING",
            "size 1000",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "BINARYMIME",
            "DSN",
            "STARTTLS",
            "REQUIRETLS",
            "AUTH LOGIN CRAM-MD5 plain LOGIN",
            "LIMITS MAILMAX=5 rcptmax=7 RCPTDOMAINMAX=1",
            "X-UNKNOWN a=b",
        ]);
        let all = Extensions {
            extended: true,
            pipelining: false,
            size: true,
            size_max: Some(1000),
            eight_bit: true,
            utf8: true,
            chunking: true,
            binary: true,
            dsn: true,
            starttls: true,
            require_tls: true,
            auth: vec![Mechanism::Login, Mechanism::Plain],
            mail_max: Some(5),
            recipients_max: Some(7),
        };
        assert_eq!(found, all);
    }

    #[test]
    fn limits_that_say_nothing_are_none() {
        let found = read(&["mx.test", "SIZE 0", "LIMITS MAILMAX=0 RCPTMAX=x RCPTMAX", "AUTH=PLAIN"]);
        assert!(found.size && found.auth == [Mechanism::Plain]);
        assert_eq!((found.size_max, found.mail_max, found.recipients_max), (None, None, None));
    }

    #[test]
    fn the_first_word_is_the_peers_name() {
        assert_eq!(peer_name("mx.test at your service").as_deref(), Some("mx.test"));
        assert_eq!(peer_name(""), None);
        assert_eq!(peer_name(&"x".repeat(300)), None);
    }
}
