//! Reads signature files: plain ones line by line, ClamAV's containers file by file, none of them
//! ever whole.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use flate2::bufread::GzDecoder;
use md5::Digest as _;

use crate::filter::scan::signature::cvd::{CvdHeader, HEADER_SIZE};
use crate::filter::scan::signature::{Format, LINE_MAX};
use crate::filter::scan::unpack::tar::{BLOCK, TarEntry};

/// Bytes read at one time.
const PIECE: usize = 64 * 1024;

/// Most files of a container.
const FILES_MAX: u32 = 10_000;

/// Why a file is not taken.
#[derive(Debug)]
pub enum SourceError {
    /// It can't be read.
    Unreadable(io::Error),
    /// It is no signature file by its name.
    Unknown,
    /// It is no container, though it is called one.
    NotAContainer,
    /// What is in it is not what its maker signed.
    NotSigned(&'static str),
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(out),
            Self::Unknown => {
                out.write_str("by its name this is no signature file; .hdb, .ndb, .ldb, .cvd and the like are")
            }
            Self::NotAContainer => out.write_str("this is not a container of ClamAV's, or only a part of one"),
            Self::NotSigned(what) => write!(out, "it is not what ClamAV's makers signed: {what}; get it again"),
        }
    }
}

impl std::error::Error for SourceError {}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Takes the lines of a source; a line that was too long comes without its bytes.
pub trait TakeLine {
    /// Begins a file of this format; of a container each has its own.
    fn file(&mut self, format: Format);
    /// A line without its newline, or `None` for one longer than [`LINE_MAX`].
    ///
    /// # Errors
    /// Those of what is done with it, which end the reading.
    fn line(&mut self, line: Option<&[u8]>) -> io::Result<()>;
    /// So many bytes of the source were read.
    fn progress(&mut self, bytes: u64);
}

/// Tells whether a file is one by its name.
pub fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    is_container(&name) || Format::of(&name).is_some()
}

fn is_container(name: &str) -> bool {
    let (_, extension) = name.rsplit_once('.').unwrap_or_default();
    ["cvd", "cld", "cud"].iter().any(|kind| extension.eq_ignore_ascii_case(kind))
}

/// Reads a file to its end and returns what it says of itself.
///
/// # Errors
/// Why it is not taken.
pub fn read(path: &Path, take: &mut dyn TakeLine) -> Result<String, SourceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = File::open(path)?;
    if is_container(&name) {
        return read_container(file, &name, take);
    }
    let format = Format::of(&name).ok_or(SourceError::Unknown)?;
    take.file(format);
    lines(&mut BufReader::with_capacity(PIECE, file), u64::MAX, take)?;
    Ok(String::new())
}

fn read_container(mut file: File, name: &str, take: &mut dyn TakeLine) -> Result<String, SourceError> {
    let mut head = vec![0; HEADER_SIZE];
    file.read_exact(&mut head).map_err(|_| SourceError::NotAContainer)?;
    let header = CvdHeader::parse(&head).ok_or(SourceError::NotAContainer)?;
    let official = name.to_ascii_lowercase().ends_with(".cvd");
    if official {
        check_sum(&mut file, &header)?;
        if !header.is_signed() {
            return Err(SourceError::NotSigned("its signature was not made with their key"));
        }
    }
    file.seek(SeekFrom::Start(HEADER_SIZE as u64))?;
    let mut packed = BufReader::with_capacity(PIECE, file);
    let mut magic = [0; 2];
    let zipped = packed.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B];
    packed.seek(SeekFrom::Start(HEADER_SIZE as u64))?;
    if zipped {
        read_tar(&mut BufReader::with_capacity(PIECE, GzDecoder::new(packed)), take)?;
    } else {
        read_tar(&mut packed, take)?;
    }
    let signed = if official { "signed by ClamAV" } else { "not signed" };
    Ok(format!("version {} of {}, {signed}", header.version, header.made))
}

fn check_sum(file: &mut File, header: &CvdHeader) -> Result<(), SourceError> {
    let (mut md5, mut piece) = (md5::Md5::new(), vec![0; PIECE]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        md5.update(piece.get(..read).unwrap_or_default());
    }
    if md5.finalize().as_slice() == header.md5 {
        Ok(())
    } else {
        Err(SourceError::NotSigned("its content was changed or cut"))
    }
}

fn read_tar(tar: &mut dyn io::BufRead, take: &mut dyn TakeLine) -> Result<(), SourceError> {
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(512)];
    for _ in 0..FILES_MAX {
        tar.read_exact(&mut block).map_err(|_| SourceError::NotAContainer)?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let entry = TarEntry::parse(&block).ok_or(SourceError::NotAContainer)?;
        let mut content = tar.take(entry.padded());
        match Format::of(&entry.name).filter(|_| entry.is_file) {
            Some(format) => {
                take.file(format);
                lines(&mut content, entry.size, take)?;
            }
            None => take.progress(entry.size),
        }
        io::copy(&mut content, &mut io::sink())?;
        if content.limit() > 0 {
            return Err(SourceError::NotAContainer);
        }
    }
    Err(SourceError::NotAContainer)
}

/// Hands over the lines of the next `size` bytes.
fn lines(from: &mut dyn io::BufRead, size: u64, take: &mut dyn TakeLine) -> io::Result<()> {
    let (mut line, mut too_long, mut left) = (Vec::new(), false, size);
    loop {
        let piece = from.fill_buf()?;
        let piece = piece.get(..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        let read = piece.len();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (part, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if too_long || line.len() + part.len() > LINE_MAX {
                take.line(None)?;
            } else if line.is_empty() {
                take.line(Some(part))?;
            } else {
                line.extend_from_slice(part);
                take.line(Some(&line))?;
            }
            (line, too_long) = (emptied(line), false);
        }
        too_long |= line.len() + rest.len() > LINE_MAX;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(rest);
        }
        from.consume(read);
        left -= read as u64;
        take.progress(read as u64);
    }
    if too_long {
        take.line(None)?;
    } else if !line.is_empty() {
        take.line(Some(&line))?;
    }
    Ok(())
}

fn emptied(mut line: Vec<u8>) -> Vec<u8> {
    line.clear();
    line
}
