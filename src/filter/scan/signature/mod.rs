//! The lines of signature files: ClamAV's formats, plain lists of hashes, and our own rules.
//!
//! A file's extension says what its lines are ([`Format::of`]); [`read`] makes a [`Signature`] of one
//! line or says in a [`Reason`] why it is not taken, so that a whole file is accounted for. Nothing
//! here knows of files: whoever reads one cuts it into lines of [`LINE_MAX`] bytes at most.

pub mod body;
pub mod cvd;
pub mod detached;
mod hash;
pub mod logical;
mod ours;
pub mod place;
pub mod regex;

pub use body::{Anchor, Body, Node, Segment};
pub use hash::{DigestKind, HashRole, HashSignature};
pub use logical::{Expression, Logical};
pub use place::Place;
pub use regex::RegexSub;

use super::Target;
use hash::{container_hash_line, import_line, plain_line, section_line};

/// Longest line that is looked at, in bytes; ClamAV's own limit is of this order.
pub const LINE_MAX: usize = 64 * 1024;

/// Longest name of a signature, in bytes.
pub const NAME_MAX: usize = 200;

/// The functionality level of ClamAV's engine that signatures find here: lines for newer ones only
/// are not taken.
pub const LEVEL: u32 = 213;

/// Why a line is not taken: a few words, the same for all lines with this fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason(pub &'static str);

/// A line with an extension that has no lines we know of.
pub const NOT_A_SIGNATURE_FILE: Reason = Reason("no signature file that is known here");

/// What the lines of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.hdb`, `.hsb` (and `.hdu`, `.hsu`): digests of whole files.
    FileHash,
    /// `.mdb`, `.msb` (and `.mdu`, `.msu`): digests of sections of Windows programs.
    SectionHash,
    /// `.imp`: digests of what a Windows program imports.
    ImportHash,
    /// `.fp`, `.sfp`: digests of files that are fine.
    AllowHash,
    /// `.ign`, `.ign2`: names of signatures that count for nothing.
    Ignore,
    /// `.ndb` (and `.ndu`): patterns.
    Extended,
    /// `.ldb` (and `.ldu`): logical signatures.
    Logical,
    /// `.cdb`: what stands in archives.
    Container,
    /// `.rules`: our own form.
    Ours,
    /// `.md5`, `.sha1`, `.sha256`, `.hashes`: a digest a line, with or without a name.
    PlainHash,
    /// Files whose lines are of no use here, with the reason.
    Unused(Reason),
}

impl Format {
    /// What the lines of a file with this name are, or `None` when it is no signature file.
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        Some(match extension.to_ascii_lowercase().as_str() {
            "hdb" | "hsb" | "hdu" | "hsu" => Self::FileHash,
            "mdb" | "msb" | "mdu" | "msu" => Self::SectionHash,
            "imp" => Self::ImportHash,
            "fp" | "sfp" => Self::AllowHash,
            "ign" | "ign2" => Self::Ignore,
            "ndb" | "ndu" => Self::Extended,
            "ldb" | "ldu" => Self::Logical,
            "cdb" => Self::Container,
            "rules" => Self::Ours,
            "md5" | "sha1" | "sha256" | "hashes" => Self::PlainHash,
            "ftm" => Self::Unused(Reason("file types (ours are built in)")),
            "pdb" | "wdb" | "gdb" => Self::Unused(Reason("phishing addresses")),
            "cbc" => Self::Unused(Reason("bytecode")),
            "idb" => Self::Unused(Reason("icons")),
            "crb" => Self::Unused(Reason("certificates")),
            "cat" | "cfg" | "pwdb" | "ioc" => Self::Unused(Reason("settings of ClamAV's engine")),
            "yar" | "yara" => Self::Unused(Reason("YARA rules")),
            "db" | "zmd" | "rmd" => Self::Unused(Reason("formats that ClamAV gave up")),
            "info" => Self::Unused(Reason("sizes of the container's files")),
            _ => return None,
        })
    }
}

/// A signature.
#[derive(Clone, Debug, PartialEq)]
pub enum Signature {
    /// A digest.
    Hash(HashSignature),
    /// The name of a signature that counts for nothing.
    Ignore(String),
    /// Patterns and what must be true of them.
    Pattern(Logical),
    /// What stands in an archive.
    Member(Member),
}

/// A file in an archive, by what the archive says of it (`.cdb`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// The signature's name.
    pub name: String,
    /// The kind of archive as ClamAV spells it (`CL_TYPE_ZIP`); empty for any.
    pub container: String,
    /// Sizes of the archive in bytes.
    pub container_size: Option<(u64, u64)>,
    /// What the member's name must be.
    pub file: NamePattern,
    /// Sizes in the archive in bytes.
    pub packed: Option<(u64, u64)>,
    /// Sizes unpacked in bytes.
    pub size: Option<(u64, u64)>,
    /// Whether it is encrypted.
    pub encrypted: Option<bool>,
    /// Its number in the archive.
    pub position: Option<(u64, u64)>,
}

/// What a member's name must be: the part of regular expressions that lists mostly use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NamePattern {
    /// Begins with the text.
    pub starts: bool,
    /// Ends with the text.
    pub ends: bool,
    /// The text, compared without case; empty matches all.
    pub text: String,
}

impl NamePattern {
    fn parse(text: &str) -> Result<Self, Reason> {
        let text = text.strip_prefix("(?i)").unwrap_or(text);
        if text == "*" {
            return Ok(Self { starts: false, ends: false, text: String::new() });
        }
        let (starts, text) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let (ends, text) = text.strip_suffix('$').map_or((false, text), |rest| (true, rest));
        let mut plain = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => plain
                    .push(letters.next().filter(|next| !next.is_alphanumeric()).ok_or(Reason("regular expressions"))?),
                '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => {
                    return Err(Reason("regular expressions"));
                }
                letter => plain.push(letter.to_ascii_lowercase()),
            }
        }
        Ok(Self { starts, ends, text: plain })
    }

    /// Tells whether a name is meant.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match (self.starts, self.ends) {
            (true, true) => name == self.text,
            (true, false) => name.starts_with(&self.text),
            (false, true) => name.ends_with(&self.text),
            (false, false) => name.contains(&self.text),
        }
    }
}

/// Reads a line, without its newline. Nothing for an empty line and for a comment.
///
/// # Errors
/// Why it is not taken.
pub fn read(format: Format, line: &[u8]) -> Result<Option<Signature>, Reason> {
    if let Format::Unused(reason) = format {
        return Err(reason);
    }
    let line = std::str::from_utf8(line).map_err(|_| Reason("lines that are not UTF-8"))?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let signature = match format {
        Format::FileHash => container_hash_line(line, HashRole::File).map(Signature::Hash),
        Format::AllowHash => container_hash_line(line, HashRole::Allow).map(Signature::Hash),
        Format::SectionHash => section_line(line).map(Signature::Hash),
        Format::ImportHash => import_line(line).map(Signature::Hash),
        Format::PlainHash => plain_line(line).map(Signature::Hash),
        Format::Ignore => ignore_line(line),
        Format::Extended => extended_line(line).map(Signature::Pattern),
        Format::Logical => logical::line(line).map(Signature::Pattern),
        Format::Container => member_line(line).map(Signature::Member),
        Format::Ours => ours::line(line),
        Format::Unused(reason) => Err(reason),
    };
    signature.map(Some)
}

/// Checks a name; `.UNOFFICIAL` is not added to what others wrote.
fn name(text: &str) -> Result<String, Reason> {
    let fine = !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(|letter| letter.is_ascii_graphic());
    if fine { Ok(text.to_owned()) } else { Err(Reason("names that are empty, too long or not printable")) }
}

/// `NAME`, `NAME:MD5-of-the-line` or, in `.ign`, `FILE:LINE:NAME`.
fn ignore_line(line: &str) -> Result<Signature, Reason> {
    let fields: Vec<&str> = line.split(':').collect();
    let text = match fields.as_slice() {
        [one] | [one, _] | [_, _, one, ..] => one,
        [] => "",
    };
    name(text).map(Signature::Ignore)
}

/// Checks the engine levels that a line is for.
fn level(least: Option<&str>, most: Option<&str>) -> Result<(), Reason> {
    let number = |text: Option<&str>, default: u32| match text.map(str::trim) {
        None | Some("" | "*") => Ok(default),
        Some(text) => text.parse::<u32>().map_err(|_| Reason("engine levels that are no numbers")),
    };
    if (number(least, 0)?..=number(most, u32::MAX)?).contains(&LEVEL) {
        Ok(())
    } else {
        Err(Reason("lines for other versions of ClamAV's engine"))
    }
}

/// `NAME:TARGET:OFFSET:HEX[:MIN[:MAX]]`.
fn extended_line(line: &str) -> Result<Logical, Reason> {
    let mut fields = line.split(':');
    let mut next = || fields.next().ok_or(Reason("lines with too few fields"));
    let (label, target, place, hex) = (name(next()?)?, target(next()?)?, Place::parse(next()?)?, next()?);
    level(fields.next(), fields.next())?;
    let body = Body::parse(hex)?;
    Ok(Logical::single(label, target, place, body))
}

fn target(text: &str) -> Result<Target, Reason> {
    if text == "*" {
        return Ok(Target::Any);
    }
    let number = text.parse::<u8>().map_err(|_| Reason("target types that are no numbers"))?;
    Target::from_number(number).ok_or(Reason("target types that are not known"))
}

/// `NAME:CONTAINER:SIZE:FILE-REGEX:PACKED:REAL:ENCRYPTED:POSITION:RES1:RES2[:MIN[:MAX]]`.
fn member_line(line: &str) -> Result<Member, Reason> {
    let fields: Vec<&str> = line.split(':').collect();
    let [label, container, container_size, file, packed, size, encrypted, position, _, crc, rest @ ..] =
        fields.as_slice()
    else {
        return Err(Reason("lines with too few fields"));
    };
    level(rest.first().copied(), rest.get(1).copied())?;
    if *crc != "*" && !crc.is_empty() {
        return Err(Reason("checksums of members"));
    }
    Ok(Member {
        name: name(label)?,
        container: if *container == "*" { String::new() } else { (*container).to_owned() },
        container_size: range(container_size)?,
        file: NamePattern::parse(file)?,
        packed: range(packed)?,
        size: range(size)?,
        encrypted: match *encrypted {
            "*" => None,
            "0" => Some(false),
            "1" => Some(true),
            _ => return Err(Reason("ranges that can't be read")),
        },
        position: range(position)?,
    })
}

/// `*`, `N`, `N-M`, `N-` or `-M`.
fn range(text: &str) -> Result<Option<(u64, u64)>, Reason> {
    if text == "*" {
        return Ok(None);
    }
    let number = |text: &str, default: u64| {
        if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| Reason("ranges that can't be read")) }
    };
    match text.split_once('-') {
        Some((least, most)) => Ok(Some((number(least, 0)?, number(most, u64::MAX)?))),
        None => number(text, 0).map(|one| Some((one, one))),
    }
}

#[cfg(test)]
mod tests;
