//! What an object is, by its first bytes; by its name only where bytes do not tell.

use crate::filter::scan::{ReadAt, Target, read_vec};

/// Bytes at the start that are looked at.
const HEAD: usize = 1024;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Zip, and what is made of it: OOXML, ODF, jar.
    Zip,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// LZMA without a container.
    Lzma,
    /// Zstandard.
    Zstd,
    /// tar.
    Tar,
    /// 7z.
    SevenZip,
    /// RAR, of both generations.
    Rar,
    /// A Windows cabinet.
    Cab,
    /// ISO 9660.
    Iso,
    /// A compound file: old Office documents, msi.
    Ole,
    /// winmail.dat.
    Tnef,
    /// PDF.
    Pdf,
    /// RTF.
    Rtf,
    /// HTML.
    Html,
    /// A message.
    Mail,
    /// A Windows program.
    Pe,
    /// A Unix program.
    Elf,
    /// A macOS program.
    MachO,
    /// A picture.
    Picture,
    /// Flash.
    Flash,
    /// Java bytecode.
    Java,
    /// Text.
    Text,
    /// Anything else.
    Other,
}

impl Kind {
    /// Looks at an object.
    ///
    /// # Errors
    /// Those of its medium.
    pub fn of(object: &dyn ReadAt) -> std::io::Result<Self> {
        let head = read_vec(object, 0, HEAD)?;
        if let Some(kind) = by_magic(&head) {
            return Ok(kind);
        }
        if head.get(257..262) == Some(b"ustar")
            || super::tar::TarEntry::parse(&head).is_some_and(|entry| !entry.name.is_empty())
        {
            return Ok(Self::Tar);
        }
        if object.size() > 0x8006 && read_vec(object, 0x8001, 5)? == b"CD001" {
            return Ok(Self::Iso);
        }
        Ok(by_text(&head))
    }

    /// What signatures call it.
    pub fn target(self) -> Target {
        match self {
            Self::Pe => Target::Pe,
            Self::Ole => Target::Ole,
            Self::Html => Target::Html,
            Self::Mail => Target::Mail,
            Self::Picture => Target::Graphics,
            Self::Elf => Target::Elf,
            Self::Text | Self::Rtf => Target::Text,
            Self::MachO => Target::MachO,
            Self::Pdf => Target::Pdf,
            Self::Flash => Target::Flash,
            Self::Java => Target::Java,
            _ => Target::Any,
        }
    }

    /// What ClamAV calls it as a container.
    pub fn clamav(self) -> &'static str {
        match self {
            Self::Zip => "CL_TYPE_ZIP",
            Self::Gzip => "CL_TYPE_GZ",
            Self::Bzip2 => "CL_TYPE_BZ",
            Self::Xz => "CL_TYPE_XZ",
            Self::Tar => "CL_TYPE_POSIX_TAR",
            Self::SevenZip => "CL_TYPE_7Z",
            Self::Rar => "CL_TYPE_RAR",
            Self::Cab => "CL_TYPE_MSCAB",
            Self::Iso => "CL_TYPE_ISO9660",
            Self::Ole => "CL_TYPE_MSOLE2",
            Self::Tnef => "CL_TYPE_TNEF",
            Self::Pdf => "CL_TYPE_PDF",
            Self::Rtf => "CL_TYPE_RTF",
            Self::Html => "CL_TYPE_HTML",
            Self::Mail => "CL_TYPE_MAIL",
            Self::Pe => "CL_TYPE_MSEXE",
            Self::Elf => "CL_TYPE_ELF",
            Self::MachO => "CL_TYPE_MACHO",
            Self::Picture => "CL_TYPE_GRAPHICS",
            Self::Flash => "CL_TYPE_SWF",
            Self::Java => "CL_TYPE_JAVA",
            Self::Text => "CL_TYPE_TEXT_ASCII",
            Self::Lzma | Self::Zstd | Self::Other => "CL_TYPE_BINARY_DATA",
        }
    }
}

fn by_magic(head: &[u8]) -> Option<Kind> {
    const MAGICS: [(&[u8], Kind); 29] = [
        (b"PK\x03\x04", Kind::Zip),
        (b"PK\x05\x06", Kind::Zip),
        (b"PK00PK\x03\x04", Kind::Zip),
        (b"\x1F\x8B", Kind::Gzip),
        (b"BZh", Kind::Bzip2),
        (b"\xFD7zXZ\0", Kind::Xz),
        (b"\x5D\0\0", Kind::Lzma),
        (b"\x28\xB5\x2F\xFD", Kind::Zstd),
        (b"7z\xBC\xAF\x27\x1C", Kind::SevenZip),
        (b"Rar!\x1A\x07", Kind::Rar),
        (b"MSCF\0\0\0\0", Kind::Cab),
        (b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", Kind::Ole),
        (b"\x78\x9F\x3E\x22", Kind::Tnef),
        (b"{\\rt", Kind::Rtf),
        (b"MZ", Kind::Pe),
        (b"\x7FELF", Kind::Elf),
        (b"\xCE\xFA\xED\xFE", Kind::MachO),
        (b"\xCF\xFA\xED\xFE", Kind::MachO),
        (b"\xFE\xED\xFA\xCE", Kind::MachO),
        (b"\xFE\xED\xFA\xCF", Kind::MachO),
        (b"\x89PNG", Kind::Picture),
        (b"GIF8", Kind::Picture),
        (b"\xFF\xD8\xFF", Kind::Picture),
        (b"II*\0", Kind::Picture),
        (b"MM\0*", Kind::Picture),
        (b"FWS", Kind::Flash),
        (b"CWS", Kind::Flash),
        (b"ZWS", Kind::Flash),
        (b"\xCA\xFE\xBA\xBE", Kind::Java),
    ];
    if let Some((_, kind)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(*kind);
    }
    // Readers take a PDF whose header comes late.
    head.windows(5).any(|bytes| bytes == b"%PDF-").then_some(Kind::Pdf)
}

fn by_text(head: &[u8]) -> Kind {
    const TAGS: [&[u8]; 12] = [
        b"<html",
        b"<!doctype html",
        b"<head",
        b"<body",
        b"<script",
        b"<iframe",
        b"<table",
        b"<meta",
        b"<a href",
        b"<div",
        b"<svg",
        b"<img",
    ];
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    if head.is_empty() || head.iter().any(|&byte| byte < 9 || (14..32).contains(&byte) && byte != 27) {
        return Kind::Other;
    }
    if is_mail(head) {
        return Kind::Mail;
    }
    let lower = head.to_ascii_lowercase();
    if TAGS.iter().any(|tag| lower.windows(tag.len()).any(|bytes| bytes == *tag)) {
        return Kind::Html;
    }
    Kind::Text
}

/// Tells whether text begins as messages do: with a field they have, and another line like one.
fn is_mail(head: &[u8]) -> bool {
    const FIELDS: [&str; 19] = [
        "received",
        "return-path",
        "delivered-to",
        "from",
        "to",
        "subject",
        "date",
        "message-id",
        "mime-version",
        "content-type",
        "x-original-to",
        "reply-to",
        "dkim-signature",
        "authentication-results",
        "envelope-to",
        "x-apparently-to",
        "x-symantec-timestampfix",
        "cc",
        "sender",
    ];
    let mut lines = head.split(|&byte| byte == b'\n');
    // A line of an mbox file before it.
    let first = lines.next().unwrap_or_default();
    let first = if first.starts_with(b"From ") || first.starts_with(b">From ") {
        lines.next().unwrap_or_default()
    } else {
        first
    };
    let name = |line: &[u8]| {
        let end = line.iter().position(|&byte| byte == b':')?;
        let name = line.get(..end)?;
        name.iter().all(u8::is_ascii_graphic).then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
    };
    let known = name(first).is_some_and(|name| FIELDS.contains(&name.as_str()) || name.starts_with("x-"));
    let second = lines.find(|line| !line.starts_with(b" ") && !line.starts_with(b"\t")).unwrap_or_default();
    known && (name(second).is_some() || second.trim_ascii().is_empty())
}
