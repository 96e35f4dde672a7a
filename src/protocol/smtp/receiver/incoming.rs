//! DATA (RFC 5321 section 4.1.1.4), BDAT (RFC 3030) and BURL (RFC 4468): the ways by which a message's
//! content comes.

use super::{Framing, Receiver, State, out_of_order};
use crate::mail::envelope::{BodyType, Envelope};
use crate::protocol::smtp::content::{Content, Flow};
use crate::protocol::smtp::{Begin, Reply, Request, Role};

impl Receiver {
    /// RFC 5321 section 4.1.1.4.
    pub(super) fn data(&mut self) {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Addressing { envelope, refused } if envelope.body == BodyType::BinaryMime => {
                self.state = State::Addressing { envelope, refused };
                self.refuse(&out_of_order("BINARYMIME comes by BDAT"));
            }
            State::Addressing { envelope, refused } if envelope.recipients.is_empty() => {
                let reply = no_recipients(refused);
                self.state = State::Addressing { envelope, refused };
                self.refuse(&reply);
            }
            State::Addressing { envelope, .. } => {
                let content = Content::dotted(self.setup.role, envelope.body, self.message_max());
                self.begin(envelope, content, Framing::Data);
            }
            state => {
                self.state = state;
                self.refuse(&out_of_order("MAIL and RCPT come first"));
            }
        }
    }

    /// RFC 3030 section 2. Whatever is wrong, the chunk's bytes come and must be taken.
    pub(super) fn bdat(&mut self, size: u64, last: bool) {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Addressing { envelope, .. } if !envelope.recipients.is_empty() => {
                let mut content = Content::chunked(self.setup.role, envelope.body, self.message_max());
                content.chunk(size, last);
                self.begin(envelope, content, Framing::Bdat(size));
            }
            State::Chunking(mut content) => {
                if size > 0 {
                    // A chunk is content, which has bounds of its own: some clients send hundreds.
                    self.commands = self.commands.saturating_sub(1);
                }
                content.chunk(size, last);
                self.proceed(content, Framing::Bdat(size));
            }
            state => {
                let reply = match &state {
                    State::Addressing { refused, .. } => no_recipients(*refused),
                    _ => out_of_order("MAIL and RCPT come first"),
                };
                if matches!(state, State::Connected | State::Greeted) {
                    // Nobody who has not even said EHLO gets anything taken.
                    return self.end(&reply);
                }
                let mut content = Content::chunked(self.setup.role, BodyType::BinaryMime, self.message_max());
                content.refuse(reply, true);
                content.chunk(size, true);
                self.proceed(content, Framing::Unwanted);
            }
        }
    }

    /// RFC 4468 section 3.2. What fails ends the transaction.
    pub(super) fn burl(&mut self, url: String, last: bool) {
        let url = url.into_boxed_str();
        match std::mem::replace(&mut self.state, State::Ready) {
            state if self.setup.role == Role::Exchange => {
                self.state = state;
                self.refuse(&Reply::new(502, "5.5.1", "what is to be sent comes with DATA or BDAT on this port"));
            }
            State::Addressing { .. } | State::Chunking(_) if self.login.is_none() => {
                self.ask = Some(Request::Discard(None));
                self.refuse(&Reply::new(554, "5.7.8", "log in first: URLs are fetched for users of this server"));
            }
            State::Addressing { envelope, .. } if !envelope.recipients.is_empty() => {
                let mut content = Content::chunked(self.setup.role, envelope.body, self.message_max());
                content.fetch(last);
                self.url = Some(url);
                self.begin(envelope, content, Framing::Burl);
            }
            State::Chunking(mut content) => {
                content.fetch(last);
                self.url = Some(url);
                self.proceed(content, Framing::Burl);
            }
            state => {
                let reply = match &state {
                    State::Addressing { refused, .. } => no_recipients(*refused),
                    _ => out_of_order("MAIL and RCPT come first"),
                };
                self.state = state;
                self.refuse(&reply);
            }
        }
    }

    fn message_max(&self) -> u64 {
        u64::from(self.setup.config.message_max_bytes)
    }

    fn begin(&mut self, envelope: Envelope, content: Content, framing: Framing) {
        self.messages = self.messages.saturating_add(1);
        let mut client = self.client.clone();
        client.login = self.login.as_ref().map(|login| login.address.clone());
        self.ask = Some(Request::Begin(Box::new(Begin { client, envelope })));
        self.state = State::AskedBegin { content, framing };
    }

    /// Goes on with a content as far as the bytes there are allow.
    pub(super) fn proceed(&mut self, mut content: Content, framing: Framing) {
        match content.next() {
            Flow::More if framing == Framing::Burl => {
                self.ask = Some(self.url.take().map_or(Request::FetchMore, Request::Fetch));
                self.state = State::AskedFetch(content);
            }
            Flow::More => self.state = State::Receiving { content, framing },
            Flow::Ask(request) => {
                self.ask = Some(request);
                self.state = State::AskedContent { content, framing };
            }
            Flow::End => {
                self.ask = Some(Request::Finish);
                self.state = State::AskedFinish;
            }
            Flow::ChunkEnd if framing == Framing::Burl => {
                self.say(&Reply::new(250, "2.5.0", "fetched: more is to come"));
                self.state = State::Chunking(content);
            }
            Flow::ChunkEnd => {
                let size = if let Framing::Bdat(size) = framing { size } else { 0 };
                self.say(&Reply::new(250, "2.0.0", format!("{size} bytes taken")));
                self.state = State::Chunking(content);
            }
            Flow::Refused(reply) => {
                self.state = State::Ready;
                self.refuse(&reply);
            }
            Flow::Cut(reply) => self.end(&reply),
        }
    }
}

/// DATA or BDAT without recipients: were there none, or only refused ones (RFC 5321 section 4.1.1.4)?
fn no_recipients(refused: bool) -> Reply {
    if refused { Reply::new(554, "5.5.1", "no valid recipients") } else { out_of_order("RCPT comes first") }
}
