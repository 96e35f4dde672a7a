//! The settings, gathered from the folders that obey them.
//!
//! Each folder owns its settings struct with meaning, unit and default on the field; here they become
//! one file, `pillarbox.toml`. A file that is wrong gives one sentence that names the file, the line,
//! the key, what was found and what was expected.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::daemon::listen::ListenConfig;
use crate::daemon::log::{self, LogConfig};
use crate::daemon::{Changeable, Setup};
use crate::filter::sender::SenderConfig;
use crate::flow::access::lockout::LoginConfig;
use crate::flow::brake::SubmissionConfig;
use crate::flow::judge::SpamConfig;
use crate::flow::scan::ScanConfig;
use crate::net::authenticate::LISTS_MAX;
use crate::net::budget::NetConfig;
use crate::net::resolver::{DnsConfig, SERVERS_MAX};
use crate::net::tls::TlsConfig;
use crate::protocol::imap::ImapConfig;
use crate::protocol::pop3::Pop3Config;
use crate::protocol::smtp::SmtpConfig;
use crate::queue::route::Routes;
use crate::queue::{QueueConfig, RelayConfig, RouteTable, TlsPolicyConfig, TlsReportConfig};
use crate::store::StoreConfig;

pub mod board; //  what this computer is
pub mod budget; // what the settings may hold of its memory
mod explain; //    errors as sentences
pub mod first; //  what a card is told before its first start

pub use explain::ConfigError;

use board::{Board, Choice};
use budget::{Memory, Wanted};

/// The smallest journal that holds what one change may write, in bytes.
const JOURNAL_BYTES_MIN: u32 = 1 << 20;

/// The longest that greylisting may make somebody wait, in seconds.
const GREYLIST_SECS_MAX: u32 = 43_200;

/// All settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The folder that holds the mail, accounts and certificates. Default: `/var/lib/pillarbox`.
    pub data: PathBuf,
    /// What the server calls itself towards other servers: a name that leads to it in the DNS, or any
    /// name where there is none. Default: the host's name.
    pub hostname: Option<String>,
    /// The user to become once the ports are open, when started as root. Default: none.
    pub user: Option<String>,
    /// Allows to stay root. Default: false.
    pub allow_root: bool,
    /// Allows LOGIN and AUTH without TLS to clients on this machine, for tests and local tools.
    /// Default: false.
    pub auth_in_clear_on_loopback: bool,
    /// Where to listen.
    pub listen: ListenConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// Limits of connections.
    pub net: NetConfig,
    /// The DNS.
    pub dns: DnsConfig,
    /// The log.
    pub log: LogConfig,
    /// Checks on mail from other servers.
    pub senders: SenderConfig,
    /// SMTP receiving and submission.
    pub smtp: SmtpConfig,
    /// Mail on its way out.
    pub queue: QueueConfig,
    /// Domains and the servers their mail goes to, whatever the DNS says.
    pub route: RouteTable,
    /// Smarthosts.
    pub relay: Vec<RelayConfig>,
    /// What is demanded of other domains' servers.
    pub tls_policy: TlsPolicyConfig,
    /// Reports about TLS.
    pub tls_report: TlsReportConfig,
    /// IMAP.
    pub imap: ImapConfig,
    /// POP3.
    pub pop3: Pop3Config,
    /// Logins.
    pub login: LoginConfig,
    /// Attachment scanning.
    pub scan: ScanConfig,
    /// The spam filter.
    pub spam: SpamConfig,
    /// Who may send, and how much.
    pub submission: SubmissionConfig,
    /// The mail store.
    pub store: StoreConfig,
    /// Working threads; the board says how many.
    #[serde(skip)]
    pub threads: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::from("/var/lib/pillarbox"),
            hostname: None,
            user: None,
            allow_root: false,
            auth_in_clear_on_loopback: false,
            listen: ListenConfig::default(),
            tls: TlsConfig::default(),
            net: NetConfig::default(),
            dns: DnsConfig::default(),
            log: LogConfig::default(),
            senders: SenderConfig::default(),
            smtp: SmtpConfig::default(),
            queue: QueueConfig::default(),
            route: RouteTable::default(),
            relay: Vec::new(),
            tls_policy: TlsPolicyConfig::default(),
            tls_report: TlsReportConfig::default(),
            imap: ImapConfig::default(),
            pop3: Pop3Config::default(),
            login: LoginConfig::default(),
            scan: ScanConfig::default(),
            spam: SpamConfig::default(),
            submission: SubmissionConfig::default(),
            store: StoreConfig::default(),
            threads: budget::MemoryPlan::default().threads,
        }
    }
}

impl Settings {
    /// Reads and checks a file, whatever the board.
    ///
    /// # Errors
    /// One sentence.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(&text, path)
    }

    /// Reads and checks a file for a board: what the file does not give is as the board has it, and
    /// all together must fit the board's memory budget.
    ///
    /// # Errors
    /// One sentence.
    pub fn load_for(path: &Path, choice: &Choice) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        let mut settings = Self::parse(&text, path)?;
        let given = toml::from_str(&text).map_err(|error| ConfigError::from_toml(path, &text, &error))?;
        settings.take_from(&choice.board, &given);
        let memory = settings.memory(&choice.board);
        if memory.fits() { Ok(settings) } else { Err(ConfigError::over_budget(path, choice, &memory)) }
    }

    /// Takes the board's values for what `given`, the file as a table, leaves open.
    pub fn take_from(&mut self, board: &Board, given: &toml::Table) {
        let open = |section: &str, key: &str| given.get(section).and_then(|table| table.get(key)).is_none();
        let plan = &board.memory;
        self.threads = plan.threads;
        self.scan.memory_max_bytes = u64::from(plan.signatures_kib) * 1024;
        if open("net", "sessions-max") {
            self.net.sessions_max = plan.sessions;
        }
        if open("net", "sessions-per-address-max") {
            self.net.sessions_per_address_max = plan.sessions_per_address.min(self.net.sessions_max);
        }
        if open("smtp", "incoming-max") {
            self.smtp.incoming_max = plan.incoming;
        }
        if open("store", "cache-bytes") {
            self.store.cache_bytes = plan.cache_kib.saturating_mul(1024);
        }
    }

    /// What these settings may make the server hold on a board.
    pub fn memory(&self, board: &Board) -> Memory {
        let wanted = Wanted {
            cache_bytes: self.store.cache_bytes,
            sessions: self.net.sessions_max,
            incoming: self.smtp.incoming_max,
            judging: self.spam.enabled,
            scanning: self.scan.enabled,
        };
        Memory::new(&board.memory, &wanted)
    }

    /// Reads and checks the text of a file; `path` names it in errors.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let settings: Self = toml::from_str(text).map_err(|error| ConfigError::from_toml(path, text, &error))?;
        settings.check().map_err(|(key, problem)| ConfigError::from_check(path, text, key, &problem))?;
        Ok(settings)
    }

    /// The name the server calls itself by.
    pub fn hostname(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| {
            let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
            if is_host_name(&host) { host } else { "pillarbox.local".to_owned() }
        })
    }

    /// What the server is set up with.
    pub fn setup(self) -> Setup {
        Setup {
            hostname: self.hostname(),
            data: self.data,
            user: self.user,
            allow_root: self.allow_root,
            clear_login_on_loopback: self.auth_in_clear_on_loopback,
            listen: self.listen,
            tls: self.tls,
            net: self.net,
            dns: self.dns,
            senders: self.senders,
            smtp: self.smtp,
            queue: self.queue,
            route: self.route,
            relay: self.relay,
            tls_policy: self.tls_policy,
            tls_report: self.tls_report,
            imap: self.imap,
            pop3: self.pop3,
            login: self.login,
            scan: self.scan,
            spam: self.spam,
            submission: self.submission,
            store: self.store,
            threads: self.threads,
        }
    }

    /// What a running server can take from these settings.
    pub fn changeable(self) -> Changeable {
        Changeable { log_level: self.log.level, net: self.net }
    }

    /// What the types alone cannot say. An error is a key and what is wrong with it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |key: &'static str, text: &str| Err((key, text.to_owned()));
        if self.data.as_os_str().is_empty() {
            return wrong("data", "is empty; name a folder");
        }
        if let Some(name) = self.hostname.as_deref().filter(|name| !is_host_name(name)) {
            return Err(("hostname", format!("`{name}` is no host name")));
        }
        match (&self.tls.certificate, &self.tls.key) {
            (Some(_), None) => return wrong("tls.certificate", "needs `key` beside it"),
            (None, Some(_)) => return wrong("tls.key", "needs `certificate` beside it"),
            _ => {}
        }
        if self.net.sessions_max == 0 {
            return wrong("net.sessions-max", "is 0, so nobody could connect; write 1 or more");
        }
        if self.net.sessions_per_address_max == 0 {
            return wrong("net.sessions-per-address-max", "is 0, so nobody could connect; write 1 or more");
        }
        if self.dns.servers.len() > SERVERS_MAX {
            return Err((
                "dns.servers",
                format!("has {} servers, and {SERVERS_MAX} are the most", self.dns.servers.len()),
            ));
        }
        if !(1..=60).contains(&self.dns.timeout_secs) {
            return wrong("dns.timeout-secs", "is no time to wait for an answer; write 1 to 60");
        }
        for (key, zones) in
            [("senders.block-lists", &self.senders.block_lists), ("senders.allow-lists", &self.senders.allow_lists)]
        {
            if zones.len() > LISTS_MAX {
                return Err((key, format!("has {} lists, and {LISTS_MAX} are the most", zones.len())));
            }
            if let Some(zone) = zones.iter().find(|zone| !zone.contains('.') || !is_host_name(zone)) {
                return Err((key, format!("`{zone}` is no list in the DNS; write `zen.example.org` or the like")));
            }
        }
        if self.senders.greylist_secs > GREYLIST_SECS_MAX {
            return wrong("senders.greylist-secs", "is longer than many servers try; write 12 hours at most (43200)");
        }
        if self.store.journal_bytes < JOURNAL_BYTES_MIN {
            return Err((
                "store.journal-bytes",
                format!("is {}, and {JOURNAL_BYTES_MIN} is the least", self.store.journal_bytes),
            ));
        }
        if self.store.require_mount.as_ref().is_some_and(|mount| !mount.is_absolute()) {
            return wrong("store.require-mount", "is no absolute path; write `/mnt/usb` or the like");
        }
        for (key, value) in [("spam.junk", Some(self.spam.junk)), ("spam.reject", self.spam.reject)] {
            if value.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
                return wrong(key, "is no probability; write a number from 0 to 1");
            }
        }
        Routes::new(&self.queue, &self.route, &self.relay)?;
        if self.scan.puts_aside() && self.scan.quarantine_account.is_none() {
            return wrong(
                "scan.quarantine-account",
                "is missing; name the address whose account gets what is put aside",
            );
        }
        self.submission.check()?;
        log::parse_level(&self.log.level).map_err(|problem| ("log.level", problem))?;
        self.listen.check()
    }
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const SAMPLE: &str = include_str!("../../pillarbox.sample.toml");

    fn problem(text: &str) -> String {
        Settings::parse(text, Path::new("pillarbox.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_sample_says_exactly_the_defaults() {
        let sample = Settings::parse(SAMPLE, Path::new("pillarbox.sample.toml")).unwrap();
        assert_eq!(serde_json::to_value(sample).unwrap(), serde_json::to_value(Settings::default()).unwrap());
    }

    #[test]
    fn the_sample_names_every_setting() {
        let Value::Object(top) = serde_json::to_value(Settings::default()).unwrap() else { panic!("no table") };
        let shown: toml::Table = toml::from_str(SAMPLE).unwrap();
        for (section, value) in &top {
            match (value, shown.get(section)) {
                (Value::Object(fields), Some(toml::Value::Table(table))) => {
                    let (_, after) = SAMPLE.split_once(&format!("\n[{section}]\n")).unwrap();
                    let part = after.split("\n[").next().unwrap();
                    for (key, value) in fields {
                        let shown = part.contains(&format!("\n# {key} = "));
                        let boards = part.contains(&format!("\n# {key} = {value}\n"));
                        let commented = (value.is_null() && shown) || boards;
                        assert!(commented || table.contains_key(key), "{section}.{key} is not in the sample");
                    }
                }
                // Tables that come any number of times: an example of one says what they hold.
                (Value::Array(none), None) if none.is_empty() => {
                    assert!(SAMPLE.contains(&format!("\n# [[{section}]]\n")), "{section} is not in the sample");
                }
                (Value::Null, None) => {
                    assert!(SAMPLE.contains(&format!("\n# {section} = ")), "{section} is not in the sample");
                }
                (_, shown) => assert!(shown.is_some(), "{section} is not in the sample"),
            }
        }
    }

    #[test]
    fn the_sample_shows_every_setting_of_a_relay() {
        let (_, after) = SAMPLE.split_once("\n# [[relay]]\n").unwrap();
        let example = after.split("\n\n").next().unwrap();
        let Value::Object(fields) = serde_json::to_value(RelayConfig::default()).unwrap() else { panic!("no table") };
        for key in fields.keys() {
            assert!(example.contains(&format!("\n# {key} = ")) || example.starts_with(&format!("# {key} = ")), "{key}");
        }
        let shown: String = example
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| line.contains(" = "))
            .fold("[[relay]]\n".to_owned(), |text, line| text + line + "\n");
        Settings::parse(&shown, Path::new("pillarbox.toml")).unwrap();
    }

    #[test]
    fn a_misspelled_key_names_its_line_section_and_the_right_word() {
        assert_eq!(
            problem("data = \"/tmp\"\n\n[net]\nsesions-max = 3\n"),
            "pillarbox.toml line 4: `sesions-max` is not a setting of [net]; did you mean `sessions-max`?"
        );
        assert_eq!(
            problem("[net]\ncolour = 3\n"),
            "pillarbox.toml line 2: `colour` is not a setting of [net]; it has `sessions-max` and `sessions-per-address-max`"
        );
        let top = problem("[smpt]\nx = 1\n");
        assert!(top.starts_with("pillarbox.toml line 1: there is no section or setting `smpt`"), "{top}");
    }

    #[test]
    fn a_bad_value_says_what_was_found_and_what_was_expected() {
        assert_eq!(
            problem("[net]\nsessions-max = \"many\"\n"),
            "pillarbox.toml line 2: `sessions-max` in [net]: found text \"many\", expected a whole number from 0 to 4294967295"
        );
        assert_eq!(
            problem("[net]\nsessions-max = -1\n"),
            "pillarbox.toml line 2: `sessions-max` in [net]: found the number `-1`, expected a whole number from 0 to 4294967295"
        );
        assert_eq!(
            problem("allow-root = 1\n"),
            "pillarbox.toml line 1: `allow-root`: found the number `1`, expected true or false"
        );
        assert_eq!(
            problem("[log]\nformat = \"xml\"\n"),
            "pillarbox.toml line 2: `format` in [log]: found `xml`, expected `human` or `json`"
        );
        let place = problem("[listen]\nsmtp = [\"*:25\",\n  \"here\"]\n");
        assert!(
            place.starts_with("pillarbox.toml line 2: `smtp` in [listen]: `here` is no place to listen"),
            "{place}"
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_named() {
        assert_eq!(
            problem("[tls]\nkey = \"k.pem\"\n"),
            "pillarbox.toml line 2: `key` in [tls] needs `certificate` beside it"
        );
        let zone = problem("[senders]\nblock-lists = [\"zen\"]\n");
        assert!(zone.starts_with("pillarbox.toml line 2: `block-lists` in [senders]: `zen` is no list"), "{zone}");
        assert!(problem("[dns]\ntimeout-secs = 0\n").contains("`timeout-secs` in [dns] is no time"));
        assert!(problem("[senders]\ngreylist-secs = 99999\n").contains("is longer than many servers try"));
        assert!(problem("[senders]\ntrusted = [\"192.0.2.0/33\"]\n").contains("192.0.2.0/33"));
        let level = problem("[log]\nlevel = \"loud\"\n");
        assert!(level.starts_with("pillarbox.toml line 2: `level` in [log]: `loud` is no log level"), "{level}");
        let twice = problem("[listen]\nimap = [\"127.0.0.1:2525\"]\nsmtp = [\"127.0.0.1:2525\"]\n");
        assert!(twice.contains("127.0.0.1:2525") && twice.contains("imap"), "{twice}");
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        let broken = problem("data = \"/tmp\"\n[net\n");
        assert!(broken.starts_with("pillarbox.toml line 2: "), "{broken}");
        assert!(!broken.contains('\n'), "{broken}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Settings::load(Path::new("/nonexistent/pillarbox.toml")).unwrap_err().to_string();
        assert_eq!(error, "/nonexistent/pillarbox.toml: there is no such file");
    }

    fn loaded(text: &str, board: &str) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pillarbox.toml");
        fs::write(&path, text).unwrap();
        Settings::load_for(&path, &Choice::new(Some(board)).unwrap())
    }

    #[test]
    fn what_a_file_leaves_open_is_as_the_board_has_it() {
        let settings = loaded("[net]\nsessions-max = 20\n", "pi-zero").unwrap();
        assert_eq!((settings.net.sessions_max, settings.net.sessions_per_address_max), (20, 20));
        assert_eq!((settings.store.cache_bytes, settings.smtp.incoming_max), (1 << 20, 8));
        assert_eq!(loaded("", "pi-4").unwrap().net.sessions_max, 800);
    }

    #[test]
    fn the_sample_fits_every_board() {
        for board in Board::all() {
            assert_eq!(loaded(SAMPLE, board.name).unwrap().net.sessions_max, board.memory.sessions);
        }
    }

    #[test]
    fn settings_over_the_budget_are_refused_with_the_arithmetic() {
        let error = loaded("[net]\nsessions-max = 500\n", "pi-zero").unwrap_err().to_string();
        assert!(error.contains("the settings may take 96.3 MiB, and the budget of board pi-zero"), "{error}");
        assert!(error.contains("52.8 MiB (500 sessions of 108 KiB) + "), "{error}");
        assert!(error.contains("64 MiB") && error.contains("`sessions-max` in [net]"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
