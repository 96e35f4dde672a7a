//! Lines that name a digest: `.hdb .hsb .mdb .msb .imp .fp .sfp`, and plain lists.

use super::{Reason, level, name};

/// Which digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DigestKind {
    /// 16 bytes.
    Md5 = 0,
    /// 20 bytes.
    Sha1 = 1,
    /// 32 bytes.
    Sha256 = 2,
}

impl DigestKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Md5, Self::Sha1, Self::Sha256];
}

/// Of what it is the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum HashRole {
    /// A whole file.
    File = 0,
    /// A section of a Windows program.
    Section = 1,
    /// What a Windows program imports.
    Import = 2,
    /// A whole file that is fine.
    Allow = 3,
}

/// A digest and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashSignature {
    /// Of what.
    pub role: HashRole,
    /// Which.
    pub kind: DigestKind,
    /// The digest.
    pub digest: Vec<u8>,
    /// Bytes of what it is a digest of, or `None` for any.
    pub size: Option<u32>,
    /// The signature's name.
    pub name: String,
}

/// Reads hexadecimal digits.
pub(super) fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}

fn digest(text: &str) -> Result<(DigestKind, Vec<u8>), Reason> {
    let digest = bytes_of_hex(text).ok_or(Reason("digests that are not hexadecimal"))?;
    let kind = match digest.len() {
        16 => DigestKind::Md5,
        20 => DigestKind::Sha1,
        32 => DigestKind::Sha256,
        _ => return Err(Reason("digests of a length that is not MD5, SHA-1 or SHA-256")),
    };
    Ok((kind, digest))
}

fn size(text: &str) -> Result<Option<u32>, Reason> {
    match text {
        "*" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Reason("sizes that are no numbers")),
    }
}

/// `DIGEST:SIZE:NAME[:MIN[:MAX]]`.
pub(super) fn container_hash_line(line: &str, role: HashRole) -> Result<HashSignature, Reason> {
    let fields: Vec<&str> = line.split(':').collect();
    let [code, length, label, rest @ ..] = fields.as_slice() else {
        return Err(Reason("lines with too few fields"));
    };
    level(rest.first().copied(), rest.get(1).copied())?;
    let (kind, digest) = digest(code)?;
    Ok(HashSignature { role, kind, digest, size: size(length)?, name: name(label)? })
}

/// `SIZE:DIGEST:NAME[:MIN[:MAX]]`.
pub(super) fn section_line(line: &str) -> Result<HashSignature, Reason> {
    let fields: Vec<&str> = line.split(':').collect();
    let [length, code, label, rest @ ..] = fields.as_slice() else {
        return Err(Reason("lines with too few fields"));
    };
    level(rest.first().copied(), rest.get(1).copied())?;
    let (kind, digest) = digest(code)?;
    Ok(HashSignature { role: HashRole::Section, kind, digest, size: size(length)?, name: name(label)? })
}

/// `MD5:SIZE:NAME[:MIN[:MAX]]`, of the table of imports.
pub(super) fn import_line(line: &str) -> Result<HashSignature, Reason> {
    container_hash_line(line, HashRole::Import)
}

/// `DIGEST`, or `DIGEST NAME` with blanks between as sha256sum and its like print it.
pub(super) fn plain_line(line: &str) -> Result<HashSignature, Reason> {
    let (code, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (kind, digest) = digest(code)?;
    let label: String = rest.trim().chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(180).collect();
    let label = if label.is_empty() { format!("Hash.{}", code.get(..16).unwrap_or(code)) } else { label };
    Ok(HashSignature { role: HashRole::File, kind, digest, size: None, name: name(&label)? })
}
