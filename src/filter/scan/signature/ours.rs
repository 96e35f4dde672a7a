//! Our own rules, for sites that write a few by hand: fields with `;` between, in this order.
//!
//! ```text
//! NAME ; TYPE ; SIZE ; WHAT
//! Invoice.Fake.1 ; any ; * ; sha256 275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f
//! Invoice.Fake.2 ; pdf ; 1000-90000 ; text "Pay at once: "
//! Invoice.Fake.3 ; pe  ; * ; hex 4d5a{-64}5045*c3
//! ```
//!
//! TYPE is `any`, `pe`, `ole`, `html`, `mail`, `picture`, `elf`, `text`, `macho`, `pdf`, `flash` or `java`;
//! SIZE is `*`, bytes, or `LEAST-MOST`; WHAT is `md5`, `sha1` or `sha256` with a digest, `text` with
//! letters that count without case, or `hex` with a pattern in ClamAV's form. `#` begins a comment.

use super::hash::{DigestKind, HashRole, HashSignature, bytes_of_hex};
use super::logical::Logical;
use super::{Body, Place, Reason, Signature, name, range};
use crate::filter::scan::Target;

pub(super) fn line(text: &str) -> Result<Signature, Reason> {
    let fields: Vec<&str> = text.splitn(4, ';').map(str::trim).collect();
    let &[label, kind, size, what] = fields.as_slice() else { return Err(Reason("lines with too few fields")) };
    let (label, target, size) = (name(label)?, target(kind)?, range(size)?);
    let (word, value) = what.split_once(char::is_whitespace).ok_or(Reason("rules that can't be read"))?;
    let value = value.trim();
    let body = match word {
        "md5" | "sha1" | "sha256" => return digest(label, target, size, word, value).map(Signature::Hash),
        "hex" => Body::parse(value)?,
        "text" => {
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            Body { fold: true, ..Body::plain(quoted.unwrap_or(value).as_bytes())? }
        }
        _ => return Err(Reason("rules that can't be read")),
    };
    let mut rule = Logical::single(label, target, Place::default(), body);
    rule.terms.size = size;
    Ok(Signature::Pattern(rule))
}

fn target(text: &str) -> Result<Target, Reason> {
    Ok(match text {
        "any" | "*" => Target::Any,
        "pe" => Target::Pe,
        "ole" => Target::Ole,
        "html" => Target::Html,
        "mail" => Target::Mail,
        "picture" => Target::Graphics,
        "elf" => Target::Elf,
        "text" => Target::Text,
        "macho" => Target::MachO,
        "pdf" => Target::Pdf,
        "flash" => Target::Flash,
        "java" => Target::Java,
        _ => return Err(Reason("rules with a type that is not known")),
    })
}

fn digest(
    name: String,
    target: Target,
    size: Option<(u64, u64)>,
    word: &str,
    value: &str,
) -> Result<HashSignature, Reason> {
    let digest = bytes_of_hex(value).ok_or(Reason("digests that are not hexadecimal"))?;
    let kind = match (word, digest.len()) {
        ("md5", 16) => DigestKind::Md5,
        ("sha1", 20) => DigestKind::Sha1,
        ("sha256", 32) => DigestKind::Sha256,
        _ => return Err(Reason("digests of a length that is not MD5, SHA-1 or SHA-256")),
    };
    let size = match size {
        None => None,
        Some((least, most)) if least == most => {
            Some(u32::try_from(least).map_err(|_| Reason("sizes that are no numbers"))?)
        }
        Some(_) => return Err(Reason("digests with a range of sizes")),
    };
    if target != Target::Any {
        return Err(Reason("digests with a type"));
    }
    Ok(HashSignature { role: HashRole::File, kind, digest, size, name })
}
