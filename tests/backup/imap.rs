//! A client that speaks as little IMAP as these tests need, in clear.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// What a client remembers of a mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) uid_validity: u32,
    pub(crate) uid_next: u32,
    pub(crate) highest_modseq: u64,
    pub(crate) messages: Vec<Message>,
}

/// What it remembers of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) uid: u32,
    modseq: u64,
    flags: Vec<String>,
    body: Vec<u8>,
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl Client {
    pub(crate) fn login(address: &str, user: &str, password: &str) -> Self {
        let stream = BufReader::new(TcpStream::connect(address).unwrap());
        let mut client = Self { stream, tag: 0 };
        let greeting = client.line();
        assert!(greeting.starts_with("* OK"), "{greeting}");
        client.ok(&format!("LOGIN \"{user}\" \"{password}\""));
        client
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "{}", String::from_utf8_lossy(&line));
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }

    /// Gives a command that must succeed; literals in the answer are put into the line, in `latin-1`
    /// free text of ours.
    pub(crate) fn ok(&mut self, command: &str) -> Vec<String> {
        self.tag += 1;
        let tag = format!("a{}", self.tag);
        write!(self.stream.get_mut(), "{tag} {command}\r\n").unwrap();
        self.answer(&tag, command)
    }

    fn answer(&mut self, tag: &str, command: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = self.line();
            while let Some(length) = line.rsplit_once('{').and_then(|(_, rest)| rest.strip_suffix('}')) {
                let mut literal = vec![0; length.parse().unwrap()];
                self.stream.read_exact(&mut literal).unwrap();
                line.push_str(&String::from_utf8(literal).unwrap());
                line.push_str(&self.line());
            }
            if let Some(rest) = line.strip_prefix(&format!("{tag} ")) {
                assert!(rest.starts_with("OK"), "{command}: {line}");
                lines.push(line);
                return lines;
            }
            lines.push(line);
        }
    }

    pub(crate) fn append(&mut self, mailbox: &str, text: &str) {
        self.tag += 1;
        let tag = format!("a{}", self.tag);
        write!(self.stream.get_mut(), "{tag} APPEND {mailbox} {{{}+}}\r\n{text}\r\n", text.len()).unwrap();
        self.answer(&tag, "APPEND");
    }

    pub(crate) fn view(&mut self, mailbox: &str) -> View {
        let selected = self.ok(&format!("EXAMINE {mailbox} (CONDSTORE)"));
        let number = |word: &str| {
            let line = selected.iter().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}"));
            let rest = line.split_once(word).unwrap().1.trim_start();
            rest.split(']').next().unwrap().parse::<u64>().unwrap()
        };
        let (uid_validity, uid_next) = (number("[UIDVALIDITY"), number("[UIDNEXT"));
        let highest_modseq = number("[HIGHESTMODSEQ");
        let answers = self.ok("UID FETCH 1:* (UID FLAGS MODSEQ BODY.PEEK[])");
        let rows = answers.iter().filter(|line| line.contains(" FETCH ("));
        let messages = rows.map(|line| {
            let field = |from: &str, to: char| {
                line.split_once(from).and_then(|(_, rest)| rest.split(to).next()).unwrap_or_else(|| panic!("{from}"))
            };
            let mut flags: Vec<String> = field("FLAGS (", ')').split(' ').map(str::to_owned).collect();
            flags.retain(|flag| flag != "\\Recent");
            flags.sort();
            Message {
                uid: field("UID ", ' ').parse().unwrap(),
                modseq: field("MODSEQ (", ')').parse().unwrap(),
                flags,
                body: line.split_once("BODY[] {").unwrap().1.as_bytes().to_vec(),
            }
        });
        View {
            uid_validity: u32::try_from(uid_validity).unwrap(),
            uid_next: u32::try_from(uid_next).unwrap(),
            highest_modseq,
            messages: messages.collect(),
        }
    }
}
