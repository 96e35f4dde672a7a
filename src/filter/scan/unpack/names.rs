//! What the name of an attachment says of it.

/// Why a name is dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// Opening such a file runs it.
    Program,
    /// It ends as a program does and pretends to be a document.
    DoubleExtension,
}

/// Extensions of what runs when it is opened on Windows, macOS or a desktop of Linux.
const PROGRAMS: [&str; 62] = [
    "ade",
    "adp",
    "apk",
    "app",
    "appx",
    "appxbundle",
    "bat",
    "chm",
    "cmd",
    "com",
    "command",
    "cpl",
    "desktop",
    "diagcab",
    "dll",
    "exe",
    "hlp",
    "hta",
    "inf",
    "ins",
    "iqy",
    "isp",
    "jar",
    "jnlp",
    "job",
    "js",
    "jse",
    "lib",
    "library-ms",
    "lnk",
    "mde",
    "msc",
    "msh",
    "msi",
    "msix",
    "msp",
    "mst",
    "nsh",
    "ocx",
    "osd",
    "pif",
    "ps1",
    "psm1",
    "reg",
    "scf",
    "scr",
    "sct",
    "settingcontent-ms",
    "shb",
    "slk",
    "sys",
    "tmp",
    "url",
    "vb",
    "vbe",
    "vbs",
    "vxd",
    "wsc",
    "wsf",
    "wsh",
    "xll",
    "xnk",
];

/// Extensions that people trust.
const DOCUMENTS: [&str; 27] = [
    "avi", "bmp", "csv", "doc", "docx", "eml", "gif", "htm", "html", "jpeg", "jpg", "mov", "mp3", "mp4", "odt", "pdf",
    "png", "ppt", "pptx", "rar", "rtf", "tiff", "txt", "xls", "xlsx", "xml", "zip",
];

/// What is wrong with a name, if something is.
pub fn name_fault(name: &str) -> Option<NameFault> {
    // Windows drops dots and blanks at the end, and some letters turn the writing round.
    let plain: String =
        name.chars().filter(|letter| !matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')).collect();
    let turned = plain.len() != name.len();
    let lower = plain.trim_end_matches(['.', ' ', '\0']).to_lowercase();
    let file = lower.rsplit(['/', '\\']).next().unwrap_or_default();
    let (stem, extension) = file.rsplit_once('.')?;
    if !PROGRAMS.contains(&extension.trim()) {
        return None;
    }
    let (_, before) = stem.trim_end().rsplit_once('.').unwrap_or_default();
    let double = turned || DOCUMENTS.contains(&before.trim()) || stem.contains("    ");
    Some(if double { NameFault::DoubleExtension } else { NameFault::Program })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_names_however_they_are_written() {
        let cases = [
            ("setup.exe", Some(NameFault::Program)),
            ("folder/SETUP.EXE", Some(NameFault::Program)),
            ("setup.exe. ", Some(NameFault::Program)),
            ("invoice.pdf.exe", Some(NameFault::DoubleExtension)),
            ("invoice.pdf          .scr", Some(NameFault::DoubleExtension)),
            ("invoice\u{202e}fdp.exe", Some(NameFault::DoubleExtension)),
            ("invoice.pdf", None),
            ("photo.tar.gz", None),
            ("README", None),
            ("exe", None),
        ];
        for (name, fault) in cases {
            assert_eq!(name_fault(name), fault, "{name:?}");
        }
    }
}
