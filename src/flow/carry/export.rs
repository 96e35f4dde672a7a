//! From a store to files.
//!
//! Each mbox file and each Maildir has a small file beside or in it that says which uid was
//! written last and how long the mbox file was then. A run that was cut off goes on behind that;
//! a later run of the same command adds what came since.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::keep::{Content, Giver};
use super::level::{maildir_folder, mbox_path};
use super::{At, CHUNK, CarryError, Observer, Progress, Summary, maildir, mbox};
use crate::mail::mailbox::{Mailbox, MailboxName, Uid};
use crate::mail::message::{FlagNames, Message};
use crate::store::ReadError;

/// Messages written between two notes of how far we are.
const PAGE: usize = 256;

/// The file in a Maildir, and the end of its name beside an mbox file, that says how far we are.
const MARK: &str = ".pillarbox-export";

/// What files to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// mboxrd files, one for each mailbox, in folders by its levels.
    Mbox,
    /// A Maildir++.
    Maildir,
}

/// Writes an account's mailboxes, or only one of them, into `folder`.
///
/// # Errors
/// When a file cannot be written, is there already, or the store cannot be read. A single message
/// that cannot be read is told to `observer` and left out.
pub fn export(
    giver: &mut dyn Giver,
    observer: &mut dyn Observer,
    format: Format,
    folder: &Path,
    only: Option<&MailboxName>,
) -> Result<Summary, CarryError> {
    let mut mailboxes = giver.mailboxes()?;
    mailboxes.retain(|mailbox| only.is_none_or(|name| *name == mailbox.name));
    let bytes_total = mailboxes.iter().map(|mailbox| mailbox.size).sum();
    let progress = Progress { bytes_total, ..Progress::default() };
    observer.progress(&progress);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).at(folder)?;
    let mut export = Export { giver, observer, summary: Summary::default(), progress };
    for mailbox in &mailboxes {
        export.mailbox(mailbox, format, folder)?;
    }
    Ok(export.summary)
}

struct Export<'e> {
    giver: &'e mut dyn Giver,
    observer: &'e mut dyn Observer,
    summary: Summary,
    progress: Progress,
}

/// How far a mailbox was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    uid_validity: u32,
    last_uid: u32,
    /// Length of the mbox file.
    length: u64,
}

/// Where messages are written.
enum Place {
    Mbox(Box<mbox::Writer<BufWriter<File>>>),
    Maildir(maildir::Writer),
}

/// Why a message was not written.
enum Failed {
    /// It cannot be read: its own trouble.
    Read(ReadError),
    Fatal(CarryError),
}

impl Export<'_> {
    fn mailbox(&mut self, mailbox: &Mailbox, format: Format, folder: &Path) -> Result<(), CarryError> {
        let path = match format {
            Format::Mbox => mbox_path(&mailbox.name),
            Format::Maildir => maildir_folder(&mailbox.name),
        };
        let Some(path) = path.map(|path| folder.join(path)) else {
            self.summary.broken += u64::from(mailbox.messages);
            self.observer.trouble(mailbox.name.as_str(), "its name is too long for a file");
            return Ok(());
        };
        self.summary.folders += 1;
        let (mut place, mark_path, mut mark) = open(mailbox, format, &path)?;
        let mut first = Uid::new(mark.last_uid.saturating_add(1)).unwrap_or(Uid::MAX);
        loop {
            let page = self.giver.messages(mailbox.id, first, PAGE)?;
            let Some(last) = page.last().map(|message| message.uid) else { return Ok(()) };
            for message in &page {
                self.message(mailbox, message, &mut place, &path)?;
            }
            mark = Mark { last_uid: last.get(), length: place.sync(&path)?, ..mark };
            mark.write(&mark_path)?;
            match last.successor() {
                Some(next) => first = next,
                None => return Ok(()),
            }
        }
    }

    fn message(
        &mut self,
        mailbox: &Mailbox,
        message: &Message,
        place: &mut Place,
        path: &Path,
    ) -> Result<(), CarryError> {
        let keywords = mailbox.keywords.names(message.flags.keywords).cloned().collect();
        let flags = FlagNames { system: message.flags.system, keywords };
        let written = match self.giver.body(message.blob) {
            Ok(mut body) => place.put(message, &flags, &mut *body, path),
            Err(error) => Err(Failed::Read(error)),
        };
        match written {
            Ok(()) => {
                self.summary.carried += 1;
                self.summary.bytes += u64::from(message.size);
            }
            Err(Failed::Read(ReadError::Closed)) => return Err(ReadError::Closed.into()),
            Err(Failed::Read(ReadError::Storage(why))) => {
                self.summary.broken += 1;
                self.observer.trouble(&format!("{} uid {}", mailbox.name.as_str(), message.uid.get()), &why);
            }
            Err(Failed::Fatal(error)) => return Err(error),
        }
        self.progress.messages += 1;
        self.progress.bytes += u64::from(message.size);
        self.observer.progress(&self.progress);
        Ok(())
    }
}

/// Opens the files of a mailbox and finds how far they were written.
fn open(mailbox: &Mailbox, format: Format, path: &Path) -> Result<(Place, PathBuf, Mark), CarryError> {
    let (fresh, mark_path) = match format {
        Format::Mbox => (!path.exists(), beside(path)),
        Format::Maildir => (!maildir::is_maildir(path), path.join(MARK)),
    };
    let uid_validity = mailbox.uid_validity.0.get();
    let mark = Mark::read(&mark_path).filter(|mark| mark.uid_validity == uid_validity);
    let mark = match mark {
        Some(mark) if !fresh => mark,
        _ if fresh => Mark { uid_validity, ..Mark::default() },
        _ => return Err(CarryError::Occupied(path.to_owned())),
    };
    let place = match format {
        Format::Mbox => {
            let folder = path.parent().unwrap_or(path);
            DirBuilder::new().recursive(true).mode(0o700).create(folder).at(folder)?;
            // The mark comes first: a file without one is somebody else's.
            mark.write(&mark_path)?;
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
            let mut file = options.at(path)?;
            // Somebody cut it since: lengthening it would put zeros where mail was.
            if file.metadata().at(path)?.len() < mark.length {
                return Err(CarryError::Occupied(path.to_owned()));
            }
            file.set_len(mark.length).at(path)?;
            file.seek(SeekFrom::End(0)).at(path)?;
            Place::Mbox(Box::new(mbox::Writer::new(BufWriter::with_capacity(CHUNK, file))))
        }
        Format::Maildir => {
            DirBuilder::new().recursive(true).mode(0o700).create(path).at(path)?;
            mark.write(&mark_path)?;
            let writer = maildir::Writer::create(path, mailbox.id.0, &mailbox.keywords).at(path)?;
            writer.forget_after(mark.last_uid).at(path)?;
            Place::Maildir(writer)
        }
    };
    Ok((place, mark_path, mark))
}

impl Place {
    /// Writes one message; nothing of it is left where that fails.
    fn put(&mut self, message: &Message, flags: &FlagNames, body: &mut dyn Content, path: &Path) -> Result<(), Failed> {
        let fatal = |error| Failed::Fatal(CarryError::Path(path.to_owned(), error));
        let at = message.internal_date.at;
        match self {
            Self::Mbox(writer) => {
                let start = writer.get_mut().stream_position().map_err(fatal)?;
                let sender = sender(body.read(0, CHUNK).map_err(Failed::Read)?);
                writer.begin(&sender, at, flags).map_err(fatal)?;
                match each(body, &mut |bytes| writer.write(bytes).map_err(fatal)) {
                    Ok(()) => writer.end().map_err(fatal),
                    Err(failed) => {
                        let out = writer.get_mut();
                        out.seek(SeekFrom::Start(start)).map_err(fatal)?;
                        out.get_ref().set_len(start).map_err(fatal)?;
                        Err(failed)
                    }
                }
            }
            Self::Maildir(writer) => {
                let mut file = writer.begin(message.uid.get(), at, flags).map_err(fatal)?;
                match each(body, &mut |bytes| file.write(bytes).map_err(fatal)) {
                    Ok(()) => file.end().map_err(fatal),
                    Err(failed) => file.forget().map_err(fatal).and(Err(failed)),
                }
            }
        }
    }

    /// Makes what was written durable; tells the length of an mbox file.
    fn sync(&mut self, path: &Path) -> Result<u64, CarryError> {
        match self {
            Self::Mbox(writer) => {
                let out = writer.get_mut();
                out.flush().at(path)?;
                out.get_ref().sync_data().at(path)?;
                out.stream_position().at(path)
            }
            Self::Maildir(_) => {
                // One call for the whole page instead of one for each file.
                let folder = File::open(path).at(path)?;
                rustix::fs::syncfs(&folder).map_err(std::io::Error::from).at(path)?;
                Ok(0)
            }
        }
    }
}

/// Hands a body to `take` piece by piece.
fn each(body: &mut dyn Content, take: &mut dyn FnMut(&[u8]) -> Result<(), Failed>) -> Result<(), Failed> {
    let mut offset = 0;
    while offset < body.size() {
        let bytes = body.read(offset, CHUNK).map_err(Failed::Read)?;
        take(bytes)?;
        offset += bytes.len() as u64;
    }
    Ok(())
}

/// Who a message came from, for the separator: its Return-Path, if that begins it.
fn sender(start: &[u8]) -> String {
    let lines = start.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty()).take(64);
    let path = lines.filter_map(|line| std::str::from_utf8(line).ok()).find_map(|line| {
        let (name, body) = line.split_once(':')?;
        let address = body.trim().strip_prefix('<')?.strip_suffix('>')?;
        let plain = !address.is_empty() && address.len() <= 320 && address.bytes().all(|byte| byte.is_ascii_graphic());
        (name.eq_ignore_ascii_case("return-path") && plain).then(|| address.to_owned())
    });
    path.unwrap_or_else(|| "MAILER-DAEMON".to_owned())
}

/// The mark of an mbox file: a hidden file beside it.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{MARK}"))
}

impl Mark {
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut numbers = text.split_ascii_whitespace();
        let (uid_validity, last_uid) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(Self { uid_validity, last_uid, length: numbers.next()?.parse().ok()? })
    }

    fn write(self, path: &Path) -> Result<(), CarryError> {
        let fresh = path.with_extension("new");
        let write = || {
            let mut file = File::create(&fresh)?;
            writeln!(file, "{} {} {}", self.uid_validity, self.last_uid, self.length)?;
            file.sync_data()?;
            fs::rename(&fresh, path)
        };
        write().at(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_the_return_path_or_the_daemon() {
        assert_eq!(sender(b"Return-Path: <ann@example.org>\r\nSubject: a\r\n\r\n"), "ann@example.org");
        for text in [
            &b"Return-Path: <>\r\n"[..],
            b"Return-Path: <a b>\r\n",
            b"\r\nReturn-Path: <a@b>\r\n",
            b"",
            b"\xff:<a@b>\n",
        ] {
            assert_eq!(sender(text), "MAILER-DAEMON");
        }
    }

    #[test]
    fn a_mark_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = beside(&folder.path().join("INBOX.mbox"));
        assert_eq!(Mark::read(&path), None);
        let mark = Mark { uid_validity: 5, last_uid: 9, length: 77 };
        mark.write(&path).unwrap();
        assert_eq!(Mark::read(&path), Some(mark));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
