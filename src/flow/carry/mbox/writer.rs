//! Writing an mbox file the mboxrd way.

use std::io::{self, Write};

use super::{FROM, separator, status};
use crate::flow::carry::lines::ToLf;
use crate::mail::date::Timestamp;
use crate::mail::message::FlagNames;

/// Writes messages one behind the other.
#[derive(Debug)]
pub(in crate::flow::carry) struct Writer<W> {
    lines: ToLf,
    quoter: Quoter<W>,
}

/// Puts `>` before lines that a reader would take for separators, or for quoted ones.
#[derive(Debug)]
struct Quoter<W> {
    out: W,
    at: Place,
}

/// Where in a line the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// After so many `>` and so many bytes of `From ` from its beginning. They are held back.
    Start {
        quotes: usize,
        from: usize,
    },
    Within,
}

impl Place {
    const BEGIN: Self = Self::Start { quotes: 0, from: 0 };
}

impl<W: Write> Writer<W> {
    pub(in crate::flow::carry) fn new(out: W) -> Self {
        Self { lines: ToLf::default(), quoter: Quoter { out, at: Place::BEGIN } }
    }

    /// Begins a message: the separator, and the flags in header fields.
    pub(in crate::flow::carry) fn begin(&mut self, sender: &str, at: Timestamp, flags: &FlagNames) -> io::Result<()> {
        self.lines = ToLf::default();
        self.quoter.at = Place::BEGIN;
        self.quoter.out.write_all(separator::line(sender, at).as_bytes())?;
        self.quoter.out.write_all(status::fields(flags).as_bytes())
    }

    /// Adds bytes of the message, cut anywhere.
    pub(in crate::flow::carry) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lines.push(bytes, &mut self.quoter)
    }

    /// Ends the message: its last line, and the blank line that parts it from the next.
    pub(in crate::flow::carry) fn end(&mut self) -> io::Result<()> {
        self.lines.finish(&mut self.quoter)?;
        if self.quoter.at != Place::BEGIN {
            self.quoter.write_all(b"\n")?;
        }
        self.quoter.out.write_all(b"\n")
    }

    /// What is written to.
    pub(in crate::flow::carry) fn get_mut(&mut self) -> &mut W {
        &mut self.quoter.out
    }
}

impl<W: Write> Quoter<W> {
    /// Writes what was held back of a line's beginning.
    fn release(&mut self, quotes: usize, from: usize) -> io::Result<()> {
        for _ in 0..quotes {
            self.out.write_all(b">")?;
        }
        self.out.write_all(FROM.get(..from).unwrap_or(FROM))
    }
}

impl<W: Write> Write for Quoter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            match self.at {
                Place::Within => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                    self.out.write_all(line)?;
                    self.at = if end.is_some() { Place::BEGIN } else { Place::Within };
                    rest = after;
                    continue;
                }
                Place::Start { quotes, from: 0 } if *byte == b'>' => {
                    self.at = Place::Start { quotes: quotes + 1, from: 0 }
                }
                Place::Start { quotes, from } if FROM.get(from) == Some(byte) => {
                    self.at = Place::Start { quotes, from: from + 1 };
                    if from + 1 == FROM.len() {
                        self.release(quotes + 1, FROM.len())?;
                        self.at = Place::Within;
                    }
                }
                Place::Start { quotes, from } => {
                    self.release(quotes, from)?;
                    self.at = Place::Within;
                    continue;
                }
            }
            rest = after;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Reader;
    use super::*;
    use crate::mail::message::{Keyword, SystemFlags};

    fn write(messages: &[(&[u8], FlagNames)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (message, flags) in messages {
            writer.begin("ann@example.org", Timestamp(837_571_465), flags).unwrap();
            for part in message.chunks(3) {
                writer.write(part).unwrap();
            }
            writer.end().unwrap();
        }
        writer.get_mut().clone()
    }

    #[test]
    fn a_file_looks_as_its_other_readers_expect() {
        let flags = FlagNames { system: SystemFlags::SEEN, keywords: Vec::new() };
        let file = write(&[(b"Subject: a\r\n\r\nFrom me\r\n>From you\r\nFro", flags)]);
        let expected = "From ann@example.org Wed Jul 17 02:44:25 1996\nStatus: RO\nX-Status: \nX-Keywords:\n\
                        Subject: a\n\n>From me\n>>From you\nFro\n\n";
        assert_eq!(String::from_utf8(file).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn mail_comes_back_byte_for_byte(
            messages in prop::collection::vec(
                (prop::collection::vec("(>{0,3}From ?|Status: R|[a-z:]{0,3}|From a Wed Jul 17 02:44:25 1996)", 1..8), 0_u8..32),
                1..5,
            )
        ) {
            let messages: Vec<_> = messages
                .into_iter()
                .map(|(lines, bits)| {
                    let keywords = Keyword::new("$Junk").into_iter().filter(|_| bits & 1 == 1).collect();
                    (lines.join("\r\n") + "\r\n", FlagNames { system: SystemFlags(bits), keywords })
                })
                .collect();
            let file = write(&messages.iter().map(|(text, flags)| (text.as_bytes(), flags.clone())).collect::<Vec<_>>());
            let mut reader = Reader::new(&file[..], 0);
            for (text, flags) in messages {
                let mut bytes = Vec::new();
                let found = reader.next(&mut |part| bytes.extend_from_slice(part)).unwrap().unwrap();
                prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
                prop_assert_eq!(found.flags, flags);
                prop_assert_eq!(found.date.unwrap().at, Timestamp(837_571_465));
            }
            prop_assert!(reader.next(&mut |_| ()).unwrap().is_none());
        }
    }
}
