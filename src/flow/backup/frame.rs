//! The frames a backup is made of: a letter, a length of four bytes (little-endian), and so many
//! bytes. The same frames come over the control socket, where the rows are still to be compressed
//! and encrypted; there a stream ends with `E` or, when the server failed, with `X` and its sentence.

use std::io::{self, Read, Write};

use super::BackupError;

/// What stands before the first frame in a file: a line that `zstd -dc | head -1` shows.
pub(super) const MAGIC: &str = "pillarbox backup ";

/// The number behind [`MAGIC`].
pub(super) const FORMAT: u32 = 1;

/// Longest frame that is taken: a batch of rows is 64 KiB or one row, and no row is near this.
pub(super) const FRAME_MAX: u32 = 4 << 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`super::Header`] in JSON; the first frame.
    Header,
    /// A file begins: its [`super::Files`] entry in JSON.
    File,
    /// The next bytes of the file.
    Data,
    /// Rows (`store::dump`).
    Rows,
    /// An [`super::Ending`] in JSON; the last frame.
    End,
    /// The server failed: a sentence. Never in a file.
    Failed,
}

impl Kind {
    pub(super) fn letter(self) -> u8 {
        match self {
            Self::Header => b'H',
            Self::File => b'F',
            Self::Data => b'D',
            Self::Rows => b'R',
            Self::End => b'E',
            Self::Failed => b'X',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        [Self::Header, Self::File, Self::Data, Self::Rows, Self::End, Self::Failed]
            .into_iter()
            .find(|kind| kind.letter() == letter)
    }
}

/// Takes frames, in order.
pub trait Sink {
    /// Takes one.
    ///
    /// # Errors
    /// Those of what is behind it.
    fn frame(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()>;
}

/// Writes a frame.
pub(super) fn write(out: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&head(kind, bytes)?)?;
    out.write_all(bytes)
}

/// Letter and length.
pub(super) fn head(kind: Kind, bytes: &[u8]) -> io::Result<[u8; 5]> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= FRAME_MAX);
    let [a, b, c, d] = length.ok_or_else(|| io::Error::other("a frame is too long"))?.to_le_bytes();
    Ok([kind.letter(), a, b, c, d])
}

/// Reads a frame into `bytes`; `None` at what is no frame.
pub(super) fn read(input: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<Option<Kind>> {
    let mut head = [0; 5];
    input.read_exact(&mut head)?;
    let [letter, length @ ..] = head;
    let length = u32::from_le_bytes(length);
    let Some(kind) = Kind::of(letter).filter(|_| length <= FRAME_MAX) else { return Ok(None) };
    bytes.clear();
    let read = input.take(length.into()).read_to_end(bytes)?;
    if read as u64 == u64::from(length) { Ok(Some(kind)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Sends frames over a stream.
#[derive(Debug)]
pub struct Wire<S>(pub S);

impl<S: Write> Sink for Wire<S> {
    fn frame(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        write(&mut self.0, kind, bytes)
    }
}

/// Takes a frame.
pub type Take<'t> = dyn FnMut(Kind, &[u8]) -> Result<(), BackupError> + 't;

/// Hands the frames of a server to `take`, up to and without the end; gives the bytes of the end.
///
/// # Errors
/// The server's, the connection's, or those of `take`.
pub fn receive(stream: &mut impl Read, take: &mut Take<'_>) -> Result<Vec<u8>, BackupError> {
    let mut bytes = Vec::new();
    loop {
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "what it sent makes no sense");
        match read(stream, &mut bytes).and_then(|kind| kind.ok_or_else(nonsense)).map_err(BackupError::Broken)? {
            Kind::End => return Ok(bytes),
            Kind::Failed => return Err(BackupError::Refused(String::from_utf8_lossy(&bytes).into_owned())),
            kind => take(kind, &bytes)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_a_failure_ends_them() {
        let mut stream = Vec::new();
        let mut wire = Wire(&mut stream);
        wire.frame(Kind::Header, b"{}").unwrap();
        wire.frame(Kind::Rows, &vec![1; 70_000]).unwrap();
        wire.frame(Kind::Failed, b"the disk failed").unwrap();
        let mut found = Vec::new();
        let error = receive(&mut &stream[..], &mut |kind, bytes| {
            found.push((kind, bytes.len()));
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "the disk failed");
        assert_eq!(found, [(Kind::Header, 2), (Kind::Rows, 70_000)]);
    }

    #[test]
    fn a_stream_that_ends_or_makes_no_sense_is_an_error() {
        let mut stream = Vec::new();
        write(&mut stream, Kind::End, b"{}").unwrap();
        assert_eq!(receive(&mut &stream[..], &mut |_, _| Ok(())).unwrap(), b"{}");
        for cut in 0..stream.len() {
            assert!(receive(&mut &stream[..cut], &mut |_, _| Ok(())).is_err());
        }
        assert!(receive(&mut &b"?\0\0\0\0"[..], &mut |_, _| Ok(())).is_err());
        assert!(receive(&mut &b"R\xff\xff\xff\xff"[..], &mut |_, _| Ok(())).is_err());
    }
}
