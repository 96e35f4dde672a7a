//! GENURLAUTH, URLFETCH and RESETKEY (RFC 4467): URLs that let others fetch one message, or a part of
//! one, without a login of its owner's.

use std::fmt::Write as _;
use std::vec::IntoIter;

use crate::mail::mailbox::MailboxName;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, BODY_CHUNK, Request};
use crate::protocol::imap::response::{write_astring, write_literal_header};
use crate::protocol::imap::url::ImapUrl;

use super::single::Single;

/// The one mechanism there is.
const MECHANISM: &str = "INTERNAL";

/// RESETKEY.
pub(crate) fn reset(mailbox: Option<MailboxName>, mechanisms: &[String]) -> Begun {
    if mechanisms.iter().any(|mechanism| mechanism != MECHANISM) {
        return End::bad("the only mechanism is INTERNAL").into();
    }
    let end = match mailbox {
        Some(_) => "[URLMECH INTERNAL] RESETKEY completed",
        None => "RESETKEY completed",
    };
    Begun::errand(Single::new(Request::ResetKeys(mailbox), move |_, answer| match answer {
        Answer::Done => Turn::Done(End::ok(end)),
        other => unexpected(Some(other)),
    }))
}

/// GENURLAUTH: only of what the user has here (RFC 4467 section 7).
pub(crate) fn generate(desk: &Desk, pairs: Vec<(String, String)>) -> Begun {
    let mut rumps = Vec::new();
    for (rump, mechanism) in pairs {
        if mechanism != MECHANISM {
            return End::bad("the only mechanism is INTERNAL").into();
        }
        let url = ImapUrl::parse(&rump).filter(|url| desk.is_own(url));
        let Some(url) = url.filter(|url| url.server.as_ref().is_some_and(|server| server.user.is_some())) else {
            return End::bad("such a URL names you, this server, and a message of yours").into();
        };
        if url.access.is_none_or(|access| access.token.is_some()) {
            return End::bad("such a URL ends with URLAUTH= and whom it is for").into();
        }
        rumps.push((rump, url.mailbox));
    }
    Begun::errand(Generate { rumps: rumps.into_iter(), rump: String::new(), full: Vec::new() })
}

/// GENURLAUTH on its way.
#[derive(Debug)]
struct Generate {
    /// Those to come, each with its mailbox.
    rumps: IntoIter<(String, MailboxName)>,
    /// The one that is asked about.
    rump: String,
    /// Those that are done; together not much longer than the command.
    full: Vec<String>,
}

impl Errand for Generate {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match answer {
            None => {}
            Some(Answer::Token(token)) => {
                let mut url = std::mem::take(&mut self.rump);
                url.push_str(":internal:");
                for byte in token {
                    // Writing to a String cannot fail.
                    let _ = write!(url, "{byte:02x}");
                }
                self.full.push(url);
            }
            Some(Answer::Mailbox(None)) => return Turn::Done(End::bad("there is no such mailbox")),
            other => return unexpected(other),
        }
        if let Some((rump, mailbox)) = self.rumps.next() {
            self.rump.clone_from(&rump);
            return Turn::Ask(Request::Authorize { rump, mailbox });
        }
        desk.put(format_args!("* GENURLAUTH"));
        for url in &self.full {
            desk.out.push(b' ');
            write_astring(&mut desk.out, url.as_bytes());
        }
        desk.put(format_args!("\r\n"));
        Turn::Done(End::ok("GENURLAUTH completed"))
    }
}

/// URLFETCH on its way: one response for each URL.
#[derive(Debug)]
pub(crate) struct UrlFetch {
    urls: IntoIter<String>,
    /// Bytes of a literal still to be sent.
    left: u64,
}

impl UrlFetch {
    pub(crate) fn new(urls: Vec<String>) -> Self {
        Self { urls: urls.into_iter(), left: 0 }
    }

    /// Asks for the next URL.
    fn next(&mut self, desk: &mut Desk) -> Turn {
        for text in self.urls.by_ref() {
            desk.put(format_args!("* URLFETCH "));
            write_astring(&mut desk.out, text.as_bytes());
            match ImapUrl::parse(&text) {
                Some(url) => return Turn::Ask(Request::OpenUrl { text, url: Box::new(url) }),
                None => desk.put(format_args!(" NIL\r\n")),
            }
        }
        Turn::Done(End::ok("URLFETCH completed"))
    }

    fn more(&mut self, desk: &mut Desk) -> Turn {
        if self.left > 0 {
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            return Turn::Ask(Request::UrlBytes(most.min(BODY_CHUNK)));
        }
        desk.put(format_args!("\r\n"));
        self.next(desk)
    }
}

impl Errand for UrlFetch {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match answer {
            None => self.next(desk),
            Some(Answer::UrlSize(Some(0))) => {
                desk.put(format_args!(" \"\"\r\n"));
                self.next(desk)
            }
            Some(Answer::UrlSize(Some(size))) => {
                desk.out.push(b' ');
                write_literal_header(&mut desk.out, size, false);
                self.left = size;
                self.more(desk)
            }
            Some(Answer::Bytes(bytes)) if !bytes.is_empty() && bytes.len() as u64 <= self.left => {
                self.left -= bytes.len() as u64;
                desk.out.extend_from_slice(&bytes);
                self.more(desk)
            }
            // A literal was promised.
            _ if self.left > 0 => Turn::Done(End::abort()),
            Some(Answer::UrlSize(None) | Answer::Refused(_)) => {
                desk.put(format_args!(" NIL\r\n"));
                self.next(desk)
            }
            other => unexpected(other),
        }
    }
}
