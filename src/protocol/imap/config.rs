//! Settings of the IMAP server.

use serde::{Deserialize, Serialize};

/// Settings of the IMAP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImapConfig {
    /// Largest message APPEND takes, in bytes; announced as APPENDLIMIT (RFC 7889). Default: 50 MiB.
    pub append_max_bytes: u32,
    /// Silence before login that ends a session, in seconds. Default: 60.
    pub login_max_secs: u16,
    /// Silence after login that ends a session, in seconds. Default: 1860 (RFC 9051 section 5.4 asks
    /// for 30 minutes at least).
    pub idle_max_secs: u16,
    /// Silence in the middle of a literal that ends a session, in seconds. Default: 300.
    pub literal_max_secs: u16,
    /// Failed logins that end a session. Default: 4.
    pub failed_logins_max: u8,
    /// Commands before login that end a session. Default: 32.
    pub commands_before_login_max: u8,
    /// Commands answered BAD one after the other that end a session. Default: 16.
    pub bad_commands_max: u8,
    /// Sessions that may use COMPRESS=DEFLATE at a time, some 50 KiB each; the others go on without.
    /// 0: it is not offered. Default: 64.
    pub compressed_sessions_max: u16,
}

impl Default for ImapConfig {
    fn default() -> Self {
        Self {
            append_max_bytes: 50 << 20,
            login_max_secs: 60,
            idle_max_secs: 1860,
            literal_max_secs: 300,
            failed_logins_max: 4,
            commands_before_login_max: 32,
            bad_commands_max: 16,
            compressed_sessions_max: 64,
        }
    }
}
