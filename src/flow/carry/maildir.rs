//! Maildir: a folder with one file for each message, in `cur` and `new`.
//!
//! Flags are letters behind `:2,` in the name; lower-case ones are keywords by the folder's
//! `dovecot-keywords`. The time of arrival is the file's. Folders below are folders with a dot
//! before each level (Maildir++).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lines::ToLf;
use crate::mail::date::Timestamp;
use crate::mail::message::{FlagNames, Keyword, Keywords, SystemFlags};

/// Where the names of the keywords `a` to `z` are kept, as Dovecot does.
const KEYWORDS_FILE: &str = "dovecot-keywords";
const KEYWORDS_FILE_MAX: u64 = 64 << 10;
/// How many keywords have a letter.
const LETTERS: usize = 26;
/// The keyword behind the letter `P` (passed).
const FORWARDED: &str = "$Forwarded";

const LETTER_FLAGS: [(u8, SystemFlags); 5] = [
    (b'D', SystemFlags::DRAFT),
    (b'F', SystemFlags::FLAGGED),
    (b'R', SystemFlags::ANSWERED),
    (b'S', SystemFlags::SEEN),
    (b'T', SystemFlags::DELETED),
];

/// Tells whether `folder` is a Maildir.
pub(super) fn is_maildir(folder: &Path) -> bool {
    folder.join("cur").is_dir() || folder.join("new").is_dir()
}

/// A message's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The name without flags, which stays the same for the message's life.
    pub(super) base: Vec<u8>,
    /// `cur` or `new`.
    pub(super) within: &'static str,
    /// The name.
    pub(super) name: OsString,
}

impl Entry {
    /// Where the file is.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.within).join(&self.name)
    }

    /// Its flags, by the folder's keywords.
    pub(super) fn flags(&self, keywords: &Keywords) -> FlagNames {
        let letters = self.name.as_bytes().get(self.base.len() + 3..).unwrap_or_default();
        let mut flags = FlagNames::default();
        for letter in letters {
            if let Some((_, flag)) = LETTER_FLAGS.iter().find(|(known, _)| known == letter) {
                flags.system = flags.system.union(*flag);
            }
            let keyword = match letter {
                b'a'..=b'z' => {
                    keywords.0.get(usize::from(letter - b'a')).filter(|name| name.as_str() != UNNAMED).cloned()
                }
                b'P' => Keyword::new(FORWARDED),
                _ => None,
            };
            flags.keywords.extend(keyword.filter(|keyword| !flags.keywords.contains(keyword)));
        }
        flags
    }
}

/// The first `max` messages of `folder` whose base comes after `after`, by base. Memory is that
/// of `max` names whatever the folder holds.
pub(super) fn page(folder: &Path, after: &[u8], max: usize) -> io::Result<Vec<Entry>> {
    let mut first = BTreeMap::new();
    for_each(folder, &mut |entry| {
        if entry.base.as_slice() > after {
            first.insert(entry.base.clone(), entry);
            if first.len() > max {
                first.pop_last();
            }
        }
    })?;
    Ok(first.into_values().collect())
}

/// How many messages of `folder` have a base up to `last`, and how many bytes the others have.
pub(super) fn measure(folder: &Path, last: &[u8]) -> io::Result<(u64, u64)> {
    let (mut behind, mut ahead) = (0, 0);
    for_each(folder, &mut |entry| {
        if entry.base.as_slice() > last {
            let facts = entry.path(folder).metadata().ok().filter(fs::Metadata::is_file);
            ahead += facts.map_or(0, |facts| facts.len());
        } else {
            behind += 1;
        }
    })?;
    Ok((behind, ahead))
}

fn for_each(folder: &Path, take: &mut dyn FnMut(Entry)) -> io::Result<()> {
    // A message that moves from `new` to `cur` meanwhile is found there, or twice.
    for within in ["new", "cur"] {
        let files = match fs::read_dir(folder.join(within)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            files => files?,
        };
        for file in files {
            let name = file?.file_name();
            if !name.as_bytes().starts_with(b".") {
                take(Entry { base: base(&name).to_vec(), within, name });
            }
        }
    }
    Ok(())
}

/// The name up to the flags. Where `:` is not allowed in names, `;` and `!` are in use.
fn base(name: &OsStr) -> &[u8] {
    let name = name.as_bytes();
    let info = name.windows(3).rposition(|part| matches!(part, [b':' | b';' | b'!', b'2', b',']));
    name.get(..info.unwrap_or(name.len())).unwrap_or(name)
}

/// Stands for a number that no keyword has; no atom.
const UNNAMED: &str = "$";

/// The keywords behind the letters `a` to `z` in `folder`.
pub(super) fn keywords(folder: &Path) -> Keywords {
    let mut text = String::new();
    let file = File::open(folder.join(KEYWORDS_FILE));
    let read = file.and_then(|file| file.take(KEYWORDS_FILE_MAX).read_to_string(&mut text));
    let mut names: [Option<Keyword>; LETTERS] = [const { None }; LETTERS];
    for line in text.lines().filter(|_| read.is_ok()) {
        let Some((number, name)) = line.split_once(' ') else { continue };
        if let Some(place) = number.parse().ok().and_then(|number: usize| names.get_mut(number)) {
            *place = Keyword::new(name.trim());
        }
    }
    let used = names.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    Keywords(names.into_iter().take(used).filter_map(|name| name.or_else(|| Keyword::new(UNNAMED))).collect())
}

/// Writes messages into a Maildir.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    /// What our file names hold beside the time and the uid.
    mark: String,
    /// Names behind the letters.
    keywords: Keywords,
}

/// A message being written.
#[derive(Debug)]
pub(super) struct NewFile {
    out: BufWriter<File>,
    lines: ToLf,
    from: PathBuf,
    to: PathBuf,
    at: Timestamp,
}

impl Writer {
    /// Makes the folder, unless it is there, for messages of mailbox number `mailbox` with these
    /// keywords.
    pub(super) fn create(folder: &Path, mailbox: u32, keywords: &Keywords) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder.join(part))?;
        }
        let keywords = Keywords(keywords.0.iter().take(LETTERS).cloned().collect());
        if !keywords.0.is_empty() {
            let mut lines = Vec::new();
            for (index, name) in keywords.0.iter().enumerate() {
                writeln!(lines, "{index} {}", name.as_str())?;
            }
            fs::write(folder.join(KEYWORDS_FILE), lines)?;
        }
        if folder.file_name().is_some_and(|name| name.as_bytes().starts_with(b".")) {
            // Courier and Dovecot know a folder of a Maildir++ by this file.
            fs::write(folder.join("maildirfolder"), "")?;
        }
        Ok(Self { folder: folder.to_owned(), mark: format!(".M{mailbox}U"), keywords })
    }

    /// Removes messages of this mailbox with a uid above `last`: those of a run that was cut off.
    pub(super) fn forget_after(&self, last: u32) -> io::Result<()> {
        for file in fs::read_dir(self.folder.join("cur"))? {
            let file = file?;
            let name = file.file_name();
            let uid =
                name.to_str().and_then(|name| name.split_once(&self.mark)).and_then(|(_, rest)| rest.split_once('.'));
            if uid.and_then(|(uid, _)| uid.parse().ok()).is_some_and(|uid: u32| uid > last) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    /// Begins a message.
    pub(super) fn begin(&self, uid: u32, at: Timestamp, flags: &FlagNames) -> io::Result<NewFile> {
        let base = format!("{}{}{uid}.pillarbox", at.0.max(0), self.mark);
        let from = self.folder.join("tmp").join(&base);
        let to = self.folder.join("cur").join(format!("{base}:2,{}", self.letters(flags)));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&from)?;
        Ok(NewFile { out: BufWriter::with_capacity(super::CHUNK, file), lines: ToLf::default(), from, to, at })
    }

    /// The flags in a name: letters in ASCII order.
    fn letters(&self, flags: &FlagNames) -> String {
        let mut letters: Vec<u8> =
            LETTER_FLAGS.iter().filter(|(_, flag)| flags.system.contains(*flag)).map(|(letter, _)| *letter).collect();
        for keyword in &flags.keywords {
            letters.extend(keyword.as_str().eq_ignore_ascii_case(FORWARDED).then_some(b'P'));
            letters.extend(
                (b'a'..=b'z').zip(&self.keywords.0).find(|(_, name)| *name == keyword).map(|(letter, _)| letter),
            );
        }
        letters.sort_unstable();
        letters.into_iter().map(char::from).collect()
    }
}

impl NewFile {
    /// Adds bytes of the message, cut anywhere.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lines.push(bytes, &mut self.out)
    }

    /// Ends the message and puts it in its place.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.lines.finish(&mut self.out)?;
        self.out.flush()?;
        let since = Duration::from_secs(self.at.0.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        let time = if self.at.0 < 0 { epoch.checked_sub(since) } else { epoch.checked_add(since) };
        if let Some(time) = time {
            self.out.get_ref().set_modified(time)?;
        }
        fs::rename(&self.from, &self.to)
    }

    /// Leaves no trace of the message.
    pub(super) fn forget(self) -> io::Result<()> {
        fs::remove_file(&self.from)
    }
}

/// The name without flags as it is kept in a note.
pub(super) fn display(base: &[u8]) -> String {
    OsString::from_vec(base.to_vec()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry { base: base(OsStr::new(name)).to_vec(), within: "cur", name: name.into() }
    }

    #[test]
    fn flags_are_the_letters_of_the_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KEYWORDS_FILE), "0 Work\n2 $Label1\nx y\n99 No\n").unwrap();
        let known = keywords(folder.path());
        let flags = entry("1.a:2,FSacPbz").flags(&known);
        assert_eq!(flags.system, SystemFlags::FLAGGED.union(SystemFlags::SEEN));
        assert_eq!(flags.keywords, ["Work", "$Label1", "$Forwarded"].map(|name| Keyword::new(name).unwrap()));
        for name in ["1.a", "1.a:2,", "1.a:1,S", "1.a:2"] {
            assert_eq!(entry(name).flags(&known), FlagNames::default(), "{name}");
        }
        assert_eq!(entry("1.a;2,S").flags(&known).system, SystemFlags::SEEN);
    }

    #[test]
    fn pages_follow_one_another_and_miss_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        Writer::create(path, 7, &Keywords::default()).unwrap();
        for number in 0..50 {
            let (within, flags) = if number % 3 == 0 { ("new", "") } else { ("cur", ":2,S") };
            fs::write(path.join(within).join(format!("{}.x{flags}", 1000 + number * 7919 % 500)), "x").unwrap();
        }
        fs::write(path.join("cur").join(".hidden"), "x").unwrap();
        let (mut seen, mut last) = (Vec::new(), Vec::new());
        loop {
            let page = page(path, &last, 7).unwrap();
            let Some(end) = page.last() else { break };
            last = end.base.clone();
            seen.extend(page.into_iter().map(|entry| entry.base));
        }
        assert_eq!(seen.len(), 50);
        assert!(seen.is_sorted());
        assert_eq!(measure(path, &seen[19]).unwrap(), (20, 30));
    }

    #[test]
    fn a_written_message_has_its_flags_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let known = Keywords(["Work", "$Forwarded"].into_iter().filter_map(Keyword::new).collect());
        let writer = Writer::create(path, 7, &known).unwrap();
        let flags = FlagNames { system: SystemFlags(31), keywords: known.0.clone() };
        let mut file = writer.begin(3, Timestamp(837_571_465), &flags).unwrap();
        file.write(b"Subject: a\r").unwrap();
        file.write(b"\n\r\nb\r\n").unwrap();
        file.end().unwrap();
        let mut gone = writer.begin(4, Timestamp(-5), &FlagNames::default()).unwrap();
        gone.write(b"half").unwrap();
        gone.forget().unwrap();

        let found = page(path, b"", 9).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "837571465.M7U3.pillarbox:2,DFPRSTab");
        let FlagNames { system, keywords: mut names } = found[0].flags(&keywords(path));
        names.reverse();
        assert_eq!(FlagNames { system, keywords: names }, flags);
        assert_eq!(fs::read(found[0].path(path)).unwrap(), b"Subject: a\n\nb\n");
        let time = found[0].path(path).metadata().unwrap().modified().unwrap();
        assert_eq!(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 837_571_465);
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);

        writer.begin(5, Timestamp(1), &FlagNames::default()).unwrap().end().unwrap();
        writer.forget_after(3).unwrap();
        assert_eq!(page(path, b"", 9).unwrap(), found);
    }
}
