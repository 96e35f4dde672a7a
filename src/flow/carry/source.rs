//! Which mbox files and Maildirs lie under a path, and which mailbox each belongs to.
//!
//! Known shapes: one mbox file; a Maildir with Maildir++ folders (`.Sent.2020`) or plain ones in
//! it (`Sent/2020`); a folder of mbox files and folders, where `Sent/2020.mbox` or
//! `Sent.sbd/2020` (Thunderbird) lies below `Sent`. Other files are passed over.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::level::{maildir_levels, name_of, without_suffix};
use super::{At, CarryError, Observer, maildir};
use crate::mail::mailbox::{MAILBOX_DEPTH_MAX, MailboxName};

/// A place messages are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
    pub(super) folder: MailboxName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Mbox,
    Maildir,
}

/// Finds every source under `path`, in the order of mailbox names. Messages that lie in no named
/// folder go to `target`, and folders below it; without it to INBOX and to the top.
pub(super) fn discover(
    path: &Path,
    target: Option<&MailboxName>,
    observer: &mut dyn Observer,
) -> Result<Vec<Source>, CarryError> {
    let levels: Vec<String> = target.map_or(Vec::new(), |name| name.as_str().split('/').map(str::to_owned).collect());
    let mut found = Finding { sources: Vec::new(), observer };
    if path.metadata().at(path)?.is_dir() {
        found.walk(path, &levels).at(path)?;
    } else if is_mbox(path).at(path)? {
        found.add(Kind::Mbox, path, &levels);
    }
    let mut sources = found.sources;
    if sources.is_empty() {
        return Err(CarryError::NothingThere(path.to_owned()));
    }
    sources.sort_by(|one, other| (&one.folder, &one.path).cmp(&(&other.folder, &other.path)));
    Ok(sources)
}

struct Finding<'o> {
    sources: Vec<Source>,
    observer: &'o mut dyn Observer,
}

impl Finding<'_> {
    /// Looks at a folder whose mailbox name has these levels: none at the top.
    fn walk(&mut self, folder: &Path, levels: &[String]) -> io::Result<()> {
        // Also what ends the walk where symbolic links form a ring.
        if levels.len() > MAILBOX_DEPTH_MAX {
            self.observer.trouble(&folder.display().to_string(), "too deep for a mailbox name");
            return Ok(());
        }
        let is_maildir = maildir::is_maildir(folder);
        if is_maildir {
            self.add(Kind::Maildir, folder, levels);
        }
        for item in fs::read_dir(folder)? {
            let item = item?;
            let (path, name) = (item.path(), item.file_name());
            let name = name.to_string_lossy();
            let Ok(facts) = path.metadata() else {
                self.observer.trouble(&path.display().to_string(), "cannot be looked at");
                continue;
            };
            let looked = if facts.is_dir() {
                match name.strip_prefix('.') {
                    _ if is_maildir && matches!(&*name, "cur" | "new" | "tmp") => Ok(()),
                    Some(dotted) if is_maildir && maildir::is_maildir(&path) => {
                        let below = [levels, &maildir_levels(dotted)].concat();
                        self.walk(&path, &below)
                    }
                    Some(_) => Ok(()),
                    None => self.walk(&path, &below(levels, &name)),
                }
            } else if is_maildir || name.starts_with('.') {
                Ok(())
            } else {
                is_mbox(&path).map(|is_mbox| {
                    if is_mbox {
                        self.add(Kind::Mbox, &path, &below(levels, &name));
                    }
                })
            };
            if let Err(error) = looked {
                self.observer.trouble(&path.display().to_string(), &error.to_string());
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, path: &Path, levels: &[String]) {
        let name = if levels.is_empty() { Some(MailboxName::inbox()) } else { name_of(levels) };
        match name {
            Some(folder) => self.sources.push(Source { kind, path: path.to_owned(), folder }),
            None => self.observer.trouble(&path.display().to_string(), "too long or too deep for a mailbox name"),
        }
    }
}

/// The levels of what is called `file` in a folder; Apple Mail keeps `Sent.mbox/mbox`.
fn below(levels: &[String], file: &str) -> Vec<String> {
    let mut below = levels.to_vec();
    if file != "mbox" || levels.is_empty() {
        below.push(without_suffix(file).to_owned());
    }
    below
}

/// Tells whether a file begins as an mbox file does. An empty file is none.
fn is_mbox(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut start)?;
    Ok(start.trim_ascii_start().starts_with(b"From "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::carry::Progress;

    #[derive(Default)]
    struct Listener(Vec<String>);

    impl Observer for Listener {
        fn progress(&mut self, _: &Progress) {}
        fn trouble(&mut self, place: &str, why: &str) {
            self.0.push(format!("{place}: {why}"));
        }
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(if file.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
            if !file.ends_with('/') {
                let text = if file.ends_with("msf") { "index" } else { "From a Wed Jul 17 02:44:25 1996\n\n" };
                fs::write(path, text).unwrap();
            }
        }
        root
    }

    fn folders(root: &Path, target: Option<&str>) -> Vec<String> {
        let target = target.and_then(MailboxName::new);
        let found = discover(root, target.as_ref(), &mut Listener::default()).unwrap();
        found.into_iter().map(|source| format!("{:?} {}", source.kind, source.folder.as_str())).collect()
    }

    #[test]
    fn a_maildir_with_folders_of_both_kinds() {
        let root = tree(&[
            "cur/",
            "new/1.a",
            ".Sent/cur/",
            ".Sent.2020/cur/",
            ".nothing/",
            "Work/new/",
            "Work/Old/cur/",
            "dovecot.index",
        ]);
        assert_eq!(
            folders(root.path(), None),
            ["Maildir INBOX", "Maildir Sent", "Maildir Sent/2020", "Maildir Work", "Maildir Work/Old"]
        );
        assert_eq!(folders(root.path(), Some("Old"))[..2], ["Maildir Old", "Maildir Old/Sent"]);
    }

    #[test]
    fn a_folder_of_mbox_files() {
        let root = tree(&[
            "INBOX.mbox",
            "Sent",
            "Sent.msf",
            "Sent.sbd/2020",
            "Lists/rust.mbox",
            "Drafts.mbox/mbox",
            ".hidden",
            "x/cur/",
        ]);
        let expected = ["Mbox Drafts", "Mbox INBOX", "Mbox Lists/rust", "Mbox Sent", "Mbox Sent/2020", "Maildir x"];
        assert_eq!(folders(root.path(), None), expected);
        assert_eq!(folders(&root.path().join("Sent"), None), ["Mbox INBOX"]);
        assert_eq!(folders(&root.path().join("Sent"), Some("Sent")), ["Mbox Sent"]);
    }

    #[test]
    fn nothing_to_import_is_an_error_that_names_the_path() {
        let root = tree(&["notes.msf", "deep/er/"]);
        for path in [root.path().to_owned(), root.path().join("notes.msf")] {
            let error = discover(&path, None, &mut Listener::default()).unwrap_err();
            assert!(matches!(error, CarryError::NothingThere(named) if named == path));
        }
        let error = discover(&root.path().join("gone"), None, &mut Listener::default()).unwrap_err();
        assert!(error.to_string().contains("gone"));
    }

    #[test]
    fn a_ring_of_links_ends() {
        let root = tree(&["a/b.mbox"]);
        std::os::unix::fs::symlink(root.path(), root.path().join("a/loop")).unwrap();
        let mut listener = Listener::default();
        let found = discover(root.path(), None, &mut listener).unwrap();
        assert!(found.len() < 20);
        assert!(!listener.0.is_empty());
    }
}
