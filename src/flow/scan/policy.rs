//! What becomes of mail in which something was found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::scanner::Findings;
use crate::filter::scan::unpack::{Limits, NameFault};
use crate::mail::address::Address;
use crate::mail::mailbox::AccountId;
use crate::protocol::smtp::Reply;
use crate::store::{ReadError, Reader, Route};

/// The mailbox for mail that was put aside, in the account that [`ScanConfig::quarantine_account`] names.
pub const QUARANTINE: &str = "Quarantine";

/// The keyword of mail that is marked.
pub const SUSPICIOUS: &str = "$Suspicious";

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing.
    #[default]
    Accept,
    /// It gets the keyword `$Suspicious`.
    Tag,
    /// It goes to Junk.
    Junk,
    /// It goes to the administrator and not to its recipients.
    Quarantine,
    /// It is refused, and the reply says why.
    Reject,
}

/// Attachment scanning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScanConfig {
    /// Mail is scanned, from other servers and from our users. Default: true.
    pub enabled: bool,
    /// Mail in which a signature was found. Default: reject.
    pub infected: Action,
    /// Attachments that run when they are opened. Default: tag.
    pub dangerous_names: Action,
    /// Attachments that run when they are opened and are called as if they did not. Default: reject.
    pub double_extensions: Action,
    /// Archives and documents that are encrypted. Default: accept.
    pub encrypted: Action,
    /// Documents with macros. Default: tag.
    pub macros: Action,
    /// What could not be unpacked to its end because a limit was met. Default: tag.
    pub limits: Action,
    /// Archives that can't be unpacked here, such as RAR. Default: accept.
    pub unreadable: Action,
    /// The address whose account has the mail that is put aside, in its mailbox Quarantine. Default: none.
    pub quarantine_account: Option<String>,
    /// Recipients are told, in plain words, when mail for them was put aside or refused for what was found in
    /// it, five times an hour at most. Default: false.
    pub notify_recipients: bool,
    /// Mail of so many days is scanned again when new signatures come: first by what was noted of its
    /// attachments, then its bodies, slowly and only while no other mail is scanned. 0 turns that off.
    /// Default: 7.
    pub rescan_days: u16,
    /// Bodies are read for that. Without it only signatures that are digests of whole files are found late.
    /// Default: true.
    pub rescan_bodies: bool,
    /// Deepest nesting of what is unpacked. Default: 16.
    pub depth_max: u32,
    /// Most files that are unpacked of a message. Default: 5000.
    pub files_max: u32,
    /// Most bytes that are unpacked of a message; large ones are in a temporary file meanwhile. Default:
    /// 128 MiB.
    pub unpacked_max_bytes: u32,
    /// Most seconds of work on a message. Default: 8.
    pub time_max_secs: u16,
    /// A socket on which other programs of this machine may have files scanned, in the protocol of
    /// ClamAV's server. Default: none.
    pub clamd_socket: Option<PathBuf>,
    /// Most bytes of the signatures that are in memory; the board says how many.
    #[serde(skip, default = "memory_by_default")]
    pub memory_max_bytes: u64,
}

/// Of [`ScanConfig::memory_max_bytes`].
const fn memory_by_default() -> u64 {
    4 << 20
}

impl Default for ScanConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            infected: Action::Reject,
            dangerous_names: Action::Tag,
            double_extensions: Action::Reject,
            encrypted: Action::Accept,
            macros: Action::Tag,
            limits: Action::Tag,
            unreadable: Action::Accept,
            quarantine_account: None,
            notify_recipients: false,
            rescan_days: 7,
            rescan_bodies: true,
            depth_max: 16,
            files_max: 5000,
            unpacked_max_bytes: 128 << 20,
            time_max_secs: 8,
            clamd_socket: None,
            memory_max_bytes: memory_by_default(),
        }
    }
}

/// What becomes of a message, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// What becomes of it.
    pub action: Action,
    /// What was found, if that is why.
    pub finding: Option<String>,
}

impl Ruling {
    /// The reply to a message that is refused.
    pub fn refusal(&self) -> Option<Reply> {
        let finding = self.finding.as_deref().filter(|_| self.action == Action::Reject)?;
        let plain: String =
            finding.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { '_' }).collect();
        Some(Reply::new(554, "5.7.1", format!("not taken: it has {plain}")))
    }
}

impl ScanConfig {
    /// The account that has what is put aside, if one is named that exists.
    ///
    /// # Errors
    /// The store's.
    pub fn quarantine(&self, reader: &Reader) -> Result<Option<AccountId>, ReadError> {
        let address = self.quarantine_account.as_deref().and_then(|text| Address::parse(text).ok());
        match address.map(|address| reader.route(&address)).transpose()? {
            Some(Route::Local(accounts)) => Ok(accounts.first().copied()),
            _ => Ok(None),
        }
    }

    /// How far unpacking goes.
    pub fn limits_of_unpacking(&self) -> Limits {
        let bytes = u64::from(self.unpacked_max_bytes);
        Limits { depth: self.depth_max, files: self.files_max, bytes, ..Limits::default() }
    }

    /// Tells whether scanning can change what becomes of mail when there are no signatures.
    pub fn acts_without_signatures(&self) -> bool {
        let actions =
            [self.dangerous_names, self.double_extensions, self.encrypted, self.macros, self.limits, self.unreadable];
        actions.iter().any(|action| *action != Action::Accept)
    }

    /// Tells whether something may be put aside.
    pub fn puts_aside(&self) -> bool {
        let actions = [
            self.infected,
            self.dangerous_names,
            self.double_extensions,
            self.encrypted,
            self.macros,
            self.limits,
            self.unreadable,
        ];
        actions.contains(&Action::Quarantine)
    }

    /// Says what becomes of a message: the hardest of what its findings ask for.
    pub fn rule(&self, findings: &Findings) -> Ruling {
        let report = &findings.report;
        let name = report.name.as_ref().map(|(name, fault)| match fault {
            NameFault::Program => (self.dangerous_names, format!("Attachment.Program:{name}")),
            NameFault::DoubleExtension => (self.double_extensions, format!("Attachment.DoubleExtension:{name}")),
        });
        let asked = [
            findings.signature.clone().map(|name| (self.infected, name)),
            name,
            report.encrypted.as_ref().map(|name| (self.encrypted, format!("Attachment.Encrypted:{name}"))),
            report.macros.as_ref().map(|name| (self.macros, format!("Attachment.Macros:{name}"))),
            report.limit.map(|limit| (self.limits, limit.finding().to_owned())),
            report.opaque.as_ref().map(|name| (self.unreadable, format!("Attachment.Unreadable:{name}"))),
        ];
        let mut ruling = Ruling::default();
        for (action, finding) in asked.into_iter().flatten() {
            // Of two that ask for the same the first is named.
            if action > ruling.action {
                ruling = Ruling { action, finding: Some(finding) };
            }
        }
        ruling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::scan::unpack::{Limit, Report};

    #[test]
    fn the_hardest_ruling_counts_and_its_reply_names_the_finding() {
        let config = ScanConfig { encrypted: Action::Quarantine, ..ScanConfig::default() };
        let report = Report {
            limit: Some(Limit::Ratio),
            encrypted: Some("a.zip".into()),
            name: Some(("x.exe".into(), NameFault::Program)),
            ..Report::default()
        };
        let ruling = config.rule(&Findings { signature: None, report: report.clone() });
        assert_eq!(ruling.action, Action::Quarantine);
        assert_eq!(ruling.finding.as_deref(), Some("Attachment.Encrypted:a.zip"));
        assert!(ruling.refusal().is_none());
        let ruling = config.rule(&Findings { signature: Some("Eicar-Test".into()), report });
        assert_eq!(ruling.refusal().unwrap().to_string(), "554 5.7.1 not taken: it has Eicar-Test");
    }

    #[test]
    fn a_name_cannot_break_the_line_of_the_reply() {
        let ruling = Ruling { action: Action::Reject, finding: Some("Attachment.Program:a\r\nb é.exe".into()) };
        assert_eq!(ruling.refusal().unwrap().to_string(), "554 5.7.1 not taken: it has Attachment.Program:a__b__.exe");
    }

    #[test]
    fn clean_mail_is_accepted() {
        assert_eq!(ScanConfig::default().rule(&Findings::default()), Ruling::default());
    }
}
