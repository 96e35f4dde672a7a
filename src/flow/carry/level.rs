//! One level of a mailbox name as a file name, and back.
//!
//! A mailbox name never holds `%`, so `%2E` for a dot is nobody's name. Maildir++ wants each dot
//! away (it is the separator there) and modified UTF-7 (RFC 3501 section 5.1.3); beside mbox files
//! only those dots go that would hide a file or end it like one of our suffixes.

use crate::mail::mailbox::{MAILBOX_DEPTH_MAX, MailboxName};
use crate::protocol::imap::name::{decode_utf7, encode_utf7};

/// Suffix of an mbox file.
pub(super) const MBOX: &str = ".mbox";

/// Suffix of the folder beside an mbox file that holds what lies below it (Thunderbird).
const SBD: &str = ".sbd";

/// Longest file name of a level in bytes: room for suffixes below the usual 255.
const FILE_NAME_MAX: usize = 200;

/// The levels of a mailbox name as a folder of mbox files has them: folders, and the file last.
/// `None` when a level is too long for a file name.
pub(super) fn mbox_path(name: &MailboxName) -> Option<String> {
    let levels: Vec<_> = name.as_str().split('/').map(plain).collect();
    let fits = levels.iter().all(|level| level.len() <= FILE_NAME_MAX);
    fits.then(|| levels.join("/") + MBOX)
}

/// The folder of a mailbox in a Maildir++: empty for INBOX, otherwise a dot before each level.
/// `None` when that is too long for a file name.
pub(super) fn maildir_folder(name: &MailboxName) -> Option<String> {
    if name.is_inbox() {
        return Some(String::new());
    }
    let dotted =
        name.as_str().split('/').fold(String::new(), |dotted, level| dotted + "." + &level.replace('.', "%2E"));
    let mut encoded = Vec::new();
    encode_utf7(&mut encoded, &dotted);
    String::from_utf8(encoded).ok().filter(|folder| folder.len() <= FILE_NAME_MAX)
}

/// The levels that a folder of a Maildir++ names, its first dot gone.
pub(super) fn maildir_levels(folder: &str) -> Vec<String> {
    folder
        .split('.')
        .filter(|level| !level.is_empty())
        .map(|level| decode_utf7(level).unwrap_or(level.to_owned()))
        .collect()
}

/// The level that a file or folder beside mbox files names.
pub(super) fn without_suffix(file: &str) -> &str {
    file.strip_suffix(MBOX).or(file.strip_suffix(SBD)).filter(|level| !level.is_empty()).unwrap_or(file)
}

/// A mailbox name of these levels as found in file names: what a name must not hold is replaced.
/// `None` when there are too many or they are too long.
pub(super) fn name_of(levels: &[String]) -> Option<MailboxName> {
    if levels.is_empty() || levels.len() > MAILBOX_DEPTH_MAX {
        return None;
    }
    let levels: Vec<_> = levels.iter().map(|level| fitting(&with_dots(level))).collect();
    MailboxName::new(&levels.join("/"))
}

fn plain(level: &str) -> String {
    if level.starts_with('.') {
        return level.replacen('.', "%2E", 1);
    }
    let cut = level.strip_suffix(MBOX).or(level.strip_suffix(SBD)).map(str::len);
    match cut.and_then(|at| level.split_at_checked(at)) {
        Some((front, suffix)) => format!("{front}{}", suffix.replacen('.', "%2E", 1)),
        None => level.to_owned(),
    }
}

fn with_dots(level: &str) -> String {
    level.replace("%2E", ".")
}

fn fitting(level: &str) -> String {
    let fit =
        |c: char| if c.is_control() || matches!(c, '%' | '*' | '/' | char::REPLACEMENT_CHARACTER) { '_' } else { c };
    level.chars().map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MailboxName {
        MailboxName::new(text).unwrap()
    }

    #[test]
    fn every_name_comes_back_from_its_file_names() {
        for text in ["INBOX", "Sent/2020", "a.b/.hidden", "x.mbox", "y.sbd/z", "Entwürfe & mehr/日本", ".", "..", "a b"]
        {
            let path = mbox_path(&name(text)).unwrap();
            assert!(path.split('/').all(|level| !level.starts_with('.')), "{path}");
            let levels: Vec<_> = path.split('/').map(|level| without_suffix(level).to_owned()).collect();
            assert_eq!(name_of(&levels), Some(name(text)), "{path}");
            let folder = maildir_folder(&name(text)).unwrap();
            assert!(folder.is_ascii());
            if text != "INBOX" {
                assert_eq!(name_of(&maildir_levels(&folder)), Some(name(text)), "{folder}");
            }
        }
        assert_eq!(maildir_folder(&name("Entwürfe/a.b")).unwrap(), ".Entw&APw-rfe.a%2Eb");
    }

    #[test]
    fn what_no_mailbox_name_may_hold_is_replaced() {
        assert_eq!(name_of(&["50% *off*".to_owned(), "a\u{7}/b".to_owned()]), Some(name("50_ _off_/a__b")));
        assert_eq!(name_of(&[]), None);
        assert_eq!(name_of(&vec!["x".to_owned(); 17]), None);
        assert_eq!(mbox_path(&name(&"x".repeat(201))), None);
    }
}
