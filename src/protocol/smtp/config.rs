//! The settings of SMTP receiving and submission; `flow` and `daemon` obey some of them.

use serde::{Deserialize, Serialize};

/// Settings of SMTP receiving and submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SmtpConfig {
    /// Largest message accepted, in bytes; announced as SIZE (RFC 1870). Default: 37748736 (36 MiB),
    /// so that a file of 25 MB fits: base64 makes four bytes of three and adds line ends.
    pub message_max_bytes: u32,
    /// Most recipients of one message; more are answered with 452 and sent in another one
    /// (RFC 5321 section 4.5.3.1.10). Default: 100, the least that RFC allows.
    pub recipients_max: u16,
    /// Most messages over one connection; announced as MAILMAX (RFC 9422). Default: 1000.
    pub messages_max: u16,
    /// Commands refused, wrong or unknown, that end a connection. A message kept sets the count
    /// back. Default: 20.
    pub errors_max: u16,
    /// Commands other than RCPT without a message kept that end a connection. Default: 100.
    pub commands_max: u16,
    /// Silence between commands that ends a connection, in seconds. Default: 300
    /// (RFC 5321 section 4.5.3.2.7).
    pub idle_max_secs: u16,
    /// Silence within a message's content that ends a connection, in seconds. Default: 180
    /// (RFC 5321 section 4.5.3.2.5).
    pub data_idle_max_secs: u16,
    /// Messages whose content is received at one time, over all connections; others wait, and after
    /// 30 seconds are answered with 452. Each needs some 500 KiB of memory. Default: 32.
    pub incoming_max: u16,
    /// Offers SCRAM-SHA-256-PLUS where mail is submitted. Default: false, because Debian's mutt and `NeoMutt` choose
    /// it there unseen, cannot do it, and try nothing else.
    pub offer_scram_plus: bool,
}

impl Default for SmtpConfig {
    fn default() -> Self {
        Self {
            message_max_bytes: 36 << 20,
            recipients_max: 100,
            messages_max: 1000,
            errors_max: 20,
            commands_max: 100,
            idle_max_secs: 300,
            data_idle_max_secs: 180,
            incoming_max: 32,
            offer_scram_plus: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_setting_is_named() {
        let error = toml::from_str::<SmtpConfig>("recipients-maximum = 3").unwrap_err().to_string();
        assert!(error.contains("recipients-maximum"), "{error}");
        assert_eq!(toml::from_str::<SmtpConfig>("recipients-max = 3").unwrap().recipients_max, 3);
    }
}
