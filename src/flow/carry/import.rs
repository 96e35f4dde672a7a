//! From files to a store.
//!
//! Each mbox file and each Maildir has a note in the store that says how far it was read and which
//! uid came next then. It is written along with the batch that follows, so an import costs one
//! sync for each batch. When a run was cut off, what lies above that uid may be the batch behind
//! the note: the first messages of the next run are compared with it, byte by byte, and are not
//! kept twice.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::keep::{Keeper, Note, Target};
use super::letter::{Fault, Letter, MESSAGE_MAX};
use super::lines::ToCrlf;
use super::source::{Kind, Source, discover};
use super::{At, CHUNK, CarryError, Observer, Progress, Summary, maildir, mbox};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{AccountId, MailboxName, Uid};
use crate::mail::message::{FlagNames, KEYWORDS_MAX, Keywords};
use crate::store::NewMessage;

/// Most messages kept at once.
const BATCH_MAX: usize = 32;

/// Bytes, as they are kept, that end a batch.
const BATCH_BYTES: u64 = 1 << 20;

/// Names of a Maildir that are looked at together: 160 KB of memory, and the folder is listed once
/// for each so many messages.
const PAGE: usize = 1024;

/// Bytes before a position in an mbox file that must still be the same to go on from there.
const CHECKED: u64 = 1024;

/// What to import.
#[derive(Clone, Copy, Debug)]
pub struct ImportRequest<'r> {
    /// An mbox file, a Maildir, or a folder of either.
    pub source: &'r Path,
    /// Where messages go that lie in no named folder, and below which named ones go. Without it
    /// they go to INBOX and to the top.
    pub folder: Option<&'r MailboxName>,
    /// Read everything, whatever an earlier import noted.
    pub again: bool,
}

/// How far a source was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    place: Place,
    /// The target's next uid then: every later message of ours lies above.
    uid_next: Uid,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// Up to this byte, and a checksum over those before it.
    Mbox { offset: u64, check: u32 },
    /// Up to the message with this base, and so many messages.
    Maildir { last: Vec<u8>, count: u64 },
}

/// Imports everything under a path.
///
/// # Errors
/// When the path cannot be read or the store takes no more. A single message or folder that
/// cannot be read is told to `observer` and left out.
pub fn import(
    keeper: &mut dyn Keeper,
    observer: &mut dyn Observer,
    request: &ImportRequest<'_>,
) -> Result<Summary, CarryError> {
    let sources = discover(request.source, request.folder, observer)?;
    let mut import = Import { keeper, observer, summary: Summary::default(), progress: Progress::default() };

    let mut ready = Vec::new();
    for source in sources {
        let name = note_name(&source, import.keeper.account());
        let mark = if request.again { None } else { import.mark(&name, &source)? };
        match remaining(&source, mark.as_ref()) {
            Ok(bytes) => {
                import.progress.bytes_total += bytes;
                ready.push((source, name, mark));
            }
            Err(error) => import.observer.trouble(&source.path.display().to_string(), &error.to_string()),
        }
    }
    import.observer.progress(&import.progress);
    for (source, name, mark) in ready {
        import.source(&source, name, mark)?;
    }
    Ok(import.summary)
}

struct Import<'i> {
    keeper: &'i mut dyn Keeper,
    observer: &'i mut dyn Observer,
    summary: Summary,
    progress: Progress,
}

/// A source being read, and what of it waits to be kept.
struct Reading {
    target: Target,
    note_name: String,
    /// What the note says.
    noted: Option<Mark>,
    /// Everything before it was kept or left out.
    kept: Place,
    /// Where the last message taken ends.
    taken: Place,
    batch: Vec<NewMessage>,
    batch_bytes: u64,
    /// How many of the next messages may be kept already. Batches are kept whole and in order, so
    /// it is nought as soon as one is not.
    doubtful: usize,
    /// What may be kept of the messages from [`Reading::kept`] on has this uid or a higher one.
    since: Uid,
    dropped_keyword: bool,
}

impl Reading {
    /// Goes past a message that is not to be kept.
    fn pass(&mut self, place: Place) {
        if self.batch.is_empty() {
            self.kept = place.clone();
        }
        self.taken = place;
    }

    /// How far everything is kept.
    fn mark(&self) -> Mark {
        Mark { place: self.kept.clone(), uid_next: self.since }
    }

    /// A note of that, unless there is one.
    fn note(&mut self) -> Option<Note> {
        let mark = self.mark();
        if self.noted.as_ref() == Some(&mark) {
            return None;
        }
        // A mark is a few numbers and a file name; it always fits.
        let value = postcard::to_allocvec(&mark).unwrap_or_default();
        self.noted = Some(mark);
        Some((self.note_name.clone(), value))
    }
}

impl Import<'_> {
    /// What an earlier run noted of a source, if it still fits.
    fn mark(&mut self, name: &str, source: &Source) -> Result<Option<Mark>, CarryError> {
        let Some(mark) = self.keeper.note(name)?.and_then(|note| postcard::from_bytes::<Mark>(&note).ok()) else {
            return Ok(None);
        };
        let path = source.path.display().to_string();
        match (&mark.place, source.kind) {
            (Place::Mbox { offset, check }, Kind::Mbox) => {
                let same = File::open(&source.path).and_then(|file| check_before(&file, *offset));
                if same.is_ok_and(|found| found == *check) {
                    return Ok(Some(mark));
                }
                self.observer.trouble(&path, "was rewritten since it was imported; reading all of it");
                Ok(None)
            }
            (Place::Maildir { last, count }, Kind::Maildir) => {
                let behind = maildir::measure(&source.path, last).map_or(0, |(behind, _)| behind);
                if let Some(more) = behind.checked_sub(*count).filter(|more| *more > 0) {
                    let last = maildir::display(last);
                    self.observer.trouble(
                        &path,
                        &format!(
                            "{more} messages came in among those that were imported, up to {last}; they are left out"
                        ),
                    );
                }
                Ok(Some(mark))
            }
            // A file lies where a folder was, or the other way round.
            _ => Ok(None),
        }
    }

    fn source(&mut self, source: &Source, note_name: String, mark: Option<Mark>) -> Result<(), CarryError> {
        self.summary.folders += 1;
        let target = self.keeper.target(&source.folder)?;
        let start = match source.kind {
            Kind::Mbox => Place::Mbox { offset: 0, check: 0 },
            Kind::Maildir => Place::Maildir { last: Vec::new(), count: 0 },
        };
        let start = mark.as_ref().map_or(start, |mark| mark.place.clone());
        let mut reading = Reading {
            since: mark.as_ref().map_or(target.uid_next, |mark| mark.uid_next),
            doubtful: if mark.is_some() { BATCH_MAX } else { 0 },
            noted: mark,
            kept: start.clone(),
            taken: start,
            batch: Vec::new(),
            batch_bytes: 0,
            dropped_keyword: false,
            target,
            note_name,
        };
        match source.kind {
            Kind::Mbox => self.mbox(source, &mut reading)?,
            Kind::Maildir => self.maildir(source, &mut reading)?,
        }
        self.keep(&mut reading)?;
        if let Some(note) = reading.note() {
            self.keeper.put_note(note)?;
        }
        Ok(())
    }

    fn mbox(&mut self, source: &Source, reading: &mut Reading) -> Result<(), CarryError> {
        let path = source.path.as_path();
        let Place::Mbox { offset, .. } = reading.taken else { return Ok(()) };
        let mut file = File::open(path).at(path)?;
        let checked = file.try_clone().at(path)?;
        file.seek(SeekFrom::Start(offset)).at(path)?;
        let mut reader = mbox::Reader::new(BufReader::with_capacity(CHUNK, file), offset);
        let mut behind = offset;
        loop {
            let mut letter = Letter::new(self.keeper.spool()?);
            let found = match reader.next(&mut |bytes| letter.write(bytes)) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    self.broken(&format!("{} from byte {behind} on", path.display()), &error.to_string());
                    break;
                }
            };
            self.progress.bytes += found.end - behind;
            behind = found.end;
            let place = Place::Mbox { offset: found.end, check: check_before(&checked, found.end).at(path)? };
            if found.passed {
                self.summary.passed += 1;
                reading.pass(place);
            } else {
                let whence = format!("{} at byte {}", path.display(), found.start);
                let date = found.date.unwrap_or_else(|| modified(&checked));
                self.take(reading, letter, date, found.flags, place, &whence)?;
            }
            self.told_one();
        }
        Ok(())
    }

    fn maildir(&mut self, source: &Source, reading: &mut Reading) -> Result<(), CarryError> {
        let path = source.path.as_path();
        let keywords = maildir::keywords(path);
        let mut chunk = vec![0; CHUNK];
        loop {
            let Place::Maildir { last, mut count } = reading.taken.clone() else { return Ok(()) };
            let page = maildir::page(path, &last, PAGE).at(path)?;
            if page.is_empty() {
                return Ok(());
            }
            let mut last = last;
            for mut entry in page {
                let mut letter = Letter::new(self.keeper.spool()?);
                let mut read = read_file(&entry.path(path), &mut chunk, &mut letter);
                // Another program may have changed the flags, and so the name, since the listing.
                if read.is_err()
                    && let Some(found) = maildir::page(path, &last, 1).at(path)?.pop()
                    && found.base == entry.base
                    && found != entry
                {
                    entry = found;
                    letter = Letter::new(self.keeper.spool()?);
                    read = read_file(&entry.path(path), &mut chunk, &mut letter);
                }
                count += 1;
                last.clone_from(&entry.base);
                let place = Place::Maildir { last: entry.base.clone(), count };
                let whence = entry.path(path).display().to_string();
                match read {
                    Ok((date, bytes)) => {
                        self.progress.bytes += bytes;
                        self.take(reading, letter, date, entry.flags(&keywords), place, &whence)?;
                    }
                    Err(error) => {
                        self.broken(&whence, &error.to_string());
                        reading.pass(place);
                    }
                }
                self.told_one();
            }
        }
    }

    /// Takes one message that was read.
    fn take(
        &mut self,
        reading: &mut Reading,
        letter: Letter,
        date: ZonedTime,
        mut flags: FlagNames,
        place: Place,
        whence: &str,
    ) -> Result<(), CarryError> {
        let size = letter.size();
        if !known_only(&mut flags, &mut reading.target.keywords)
            && !std::mem::replace(&mut reading.dropped_keyword, true)
        {
            self.observer.trouble(whence, "the mailbox has no room for more keywords; some are left out from here on");
        }
        let message = match letter.finish(date, flags) {
            Ok(message) => message,
            Err(Fault::Fatal(error)) => return Err(error),
            Err(fault) => {
                let why = match fault {
                    Fault::TooLarge => format!("has {size} bytes; {MESSAGE_MAX} is the most"),
                    _ => "is empty".to_owned(),
                };
                self.broken(whence, &why);
                reading.pass(place);
                return Ok(());
            }
        };
        if let Some(left) = reading.doubtful.checked_sub(1) {
            if let Some(uid) = self.keeper.find(reading.target.id, reading.since, &message.body)? {
                reading.doubtful = left;
                reading.since = uid.successor().unwrap_or(uid);
                self.summary.present += 1;
                reading.pass(place);
                return Ok(());
            }
            reading.doubtful = 0;
        }
        reading.taken = place;
        reading.batch_bytes += message.body.stored();
        self.summary.bytes += size;
        reading.batch.push(message);
        if reading.batch.len() >= BATCH_MAX || reading.batch_bytes >= BATCH_BYTES {
            self.keep(reading)?;
        }
        Ok(())
    }

    /// Keeps the batch, and a note of what was kept before it.
    fn keep(&mut self, reading: &mut Reading) -> Result<(), CarryError> {
        let batch = std::mem::take(&mut reading.batch);
        reading.batch_bytes = 0;
        let count = batch.len() as u64;
        if count > 0 {
            let note = reading.note();
            reading.since = self.keeper.append(reading.target.id, batch, note)?;
            self.summary.carried += count;
        }
        reading.kept = reading.taken.clone();
        Ok(())
    }

    fn broken(&mut self, place: &str, why: &str) {
        self.summary.broken += 1;
        self.observer.trouble(place, why);
    }

    fn told_one(&mut self) {
        self.progress.messages += 1;
        self.observer.progress(&self.progress);
    }
}

/// The name of a source's note: short whatever the path.
fn note_name(source: &Source, account: AccountId) -> String {
    use std::os::unix::ffi::OsStrExt;

    let path = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(source.folder.as_str().as_bytes());
    digest.update(b"\0");
    digest.update(path.as_os_str().as_bytes());
    let mut name = format!("import {} ", account.0);
    for byte in digest.finish().as_ref().iter().take(16) {
        name.extend([byte >> 4, byte & 15].iter().filter_map(|digit| char::from_digit(u32::from(*digit), 16)));
    }
    name
}

/// Bytes of a source that were not read yet.
fn remaining(source: &Source, mark: Option<&Mark>) -> std::io::Result<u64> {
    match mark.map(|mark| &mark.place) {
        Some(Place::Mbox { offset, .. }) => Ok(source.path.metadata()?.len().saturating_sub(*offset)),
        Some(Place::Maildir { last, .. }) => maildir::measure(&source.path, last).map(|(_, ahead)| ahead),
        None => match source.kind {
            Kind::Mbox => Ok(source.path.metadata()?.len()),
            Kind::Maildir => maildir::measure(&source.path, b"").map(|(_, ahead)| ahead),
        },
    }
}

/// A checksum over what stands before a position in a file.
fn check_before(file: &File, offset: u64) -> std::io::Result<u32> {
    let start = offset.saturating_sub(CHECKED);
    let mut bytes = vec![0; usize::try_from(offset - start).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(crc32c::crc32c(&bytes))
}

/// Reads a file into a letter; tells its time and size.
fn read_file(path: &Path, chunk: &mut [u8], letter: &mut Letter) -> std::io::Result<(ZonedTime, u64)> {
    let mut file = File::open(path)?;
    let mut lines = ToCrlf::default();
    let mut bytes = 0;
    loop {
        let read = file.read(chunk)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        lines.push(chunk.get(..read).unwrap_or_default(), &mut |bytes| letter.write(bytes));
    }
    lines.finish(&mut |bytes| letter.write(bytes));
    Ok((modified(&file), bytes))
}

/// When a file was changed last; the beginning of time where that is not known.
fn modified(file: &File) -> ZonedTime {
    let time = file.metadata().and_then(|facts| facts.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let secs = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
    };
    ZonedTime::utc(Timestamp(secs))
}

/// Leaves only keywords for which the mailbox has a bit, or room for one; false when some went.
fn known_only(flags: &mut FlagNames, known: &mut Keywords) -> bool {
    let before = flags.keywords.len();
    flags.keywords.retain(|keyword| {
        if known.bit(keyword).is_none() && known.0.len() < KEYWORDS_MAX {
            known.0.push(keyword.clone());
        }
        known.bit(keyword).is_some()
    });
    flags.keywords.len() == before
}
