//! What all of a session's commands share: settings, what was enabled, the view, and the output.
//!
//! A command that takes more than one step is an [`Errand`]: a small state machine of its own that
//! says in a [`Turn`] what it needs next and ends with the tagged response. The session runs one
//! errand at a time and keeps nothing of it afterwards.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::config::ImapConfig;
use super::intake::Intake;
use super::notify::Notify;
use super::request::{Answer, Refused, Request};
use super::response::Condition;
use super::url::{ImapUrl, is_user};
use super::view::View;
use crate::mail::mailbox::ModSeq;
use crate::protocol::Channel;

/// Output is handed out when it has grown to this many bytes.
pub(crate) const OUTPUT_CHUNK: usize = 16 * 1024;

/// What a session must know of where it runs.
#[derive(Clone, Debug)]
pub struct Site {
    /// The server's name, for the greeting.
    pub host: Arc<str>,
    /// STARTTLS can be done.
    pub starttls: bool,
    /// LOGIN and AUTHENTICATE are allowed in clear (loopback, and the settings say so).
    pub clear_login: bool,
    /// What else the server is called, in lower case: names and addresses in URLs.
    pub names: Arc<BTreeSet<String>>,
}

impl Site {
    /// Tells whether this server is meant by `host`, which is in lower case.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        host.eq_ignore_ascii_case(&self.host) || self.names.contains(host)
    }
}

/// What the client enabled (RFC 5161, RFC 6855, RFC 7162, RFC 9051 section 6.3.1).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Enabled {
    /// IMAP4rev2: no `\Recent`, ESEARCH answers, UTF-8 names.
    pub(crate) rev2: bool,
    /// UTF8=ACCEPT.
    pub(crate) utf8: bool,
    /// CONDSTORE, by ENABLE or by a command that implies it.
    pub(crate) condstore: bool,
    /// QRESYNC: VANISHED in place of EXPUNGE (RFC 7162 section 3.2).
    pub(crate) qresync: bool,
    /// UIDONLY: no message numbers in either direction (RFC 9586).
    pub(crate) uid_only: bool,
}

impl Enabled {
    /// Tells whether mailbox names travel in UTF-8.
    pub(crate) fn utf8_names(self) -> bool {
        self.rev2 || self.utf8
    }

    /// Tells whether what has gone is told as VANISHED, by uid, and not as EXPUNGE.
    pub(crate) fn vanishes(self) -> bool {
        self.qresync || self.uid_only
    }

    /// Tells whether `\Recent` is spoken of.
    pub(crate) fn recent(self) -> bool {
        !self.rev2
    }
}

/// Where a session stands (RFC 9051 section 3). The selected state is `Authenticated` with a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not authenticated.
    Greeting,
    /// Authenticated.
    Authenticated,
}

/// What commands share.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) config: Arc<ImapConfig>,
    pub(crate) site: Site,
    /// TLS is on.
    pub(crate) secure: bool,
    /// What a login can rest on, until there is one; a certificate also for the next after UNAUTHENTICATE.
    pub(crate) channel: Option<Box<Channel>>,
    /// What travels is compressed.
    pub(crate) compressed: bool,
    pub(crate) stage: Stage,
    pub(crate) enabled: Enabled,
    /// What NOTIFY asked to be told of; without it as ever (RFC 5465 section 3.1).
    pub(crate) notify: Option<Box<Notify>>,
    /// The selected mailbox, if there is one.
    pub(crate) view: Option<Box<View>>,
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
    pub(crate) failed_logins: u8,
    /// Who is logged in.
    pub(crate) user: Option<Box<str>>,
}

impl Desk {
    /// Tells whether a URL is about what the logged-in user has here.
    pub(crate) fn is_own(&self, url: &ImapUrl) -> bool {
        url.server.as_ref().is_none_or(|server| {
            let own = |user: &String| self.user.as_deref().is_some_and(|own| is_user(own, user));
            self.site.is_called(&server.host) && server.user.as_ref().is_none_or(own)
        })
    }

    /// Adds to the output.
    pub(crate) fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = self.out.write_fmt(text);
    }

    /// Tells whether the output should be sent before more is made.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() >= OUTPUT_CHUNK
    }

    /// Tells whether passwords may be sent.
    pub(crate) fn may_log_in(&self) -> bool {
        self.secure || self.site.clear_login
    }

    /// Up to which change all of the selected mailbox has been told, for a client that
    /// resynchronises by it.
    pub(crate) fn told_modseq(&self) -> Option<ModSeq> {
        let view = self.view.as_deref().filter(|_| self.enabled.qresync)?;
        Some(ModSeq(view.modseq.min(view.flags_modseq).0.max(1)))
    }

    /// Turns CONDSTORE on; a selected mailbox's HIGHESTMODSEQ is told then (RFC 7162 section 3.1).
    pub(crate) fn enable_condstore(&mut self) {
        if !self.enabled.condstore {
            self.enabled.condstore = true;
            if let Some(view) = &self.view {
                let modseq = view.modseq.0.max(1);
                self.put(format_args!("* OK [HIGHESTMODSEQ {modseq}] CONDSTORE is on\r\n"));
            }
        }
    }
}

/// What an errand needs next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The answer to this.
    Ask(Request),
    /// The output sent.
    Flush,
    /// Bytes of the client.
    Read,
    /// Nothing: it is over.
    Done(End),
}

/// One command being answered.
pub(crate) trait Errand: fmt::Debug + Send {
    /// Goes on. `answer` is the answer to the last [`Turn::Ask`], `None` after anything else.
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn;

    /// Takes bytes after [`Turn::Read`] and says how many; `go` is called next.
    fn receive(&mut self, desk: &mut Desk, intake: &mut Intake, bytes: &[u8]) -> usize {
        let _ = (desk, intake);
        bytes.len()
    }

    /// How long the client may be silent, if the errand has an opinion.
    fn patience(&self, config: &ImapConfig) -> Option<Duration> {
        let _ = config;
        None
    }

    /// Tells whether the errand waits for changes of the mailbox (IDLE).
    fn wants_changes(&self) -> bool {
        false
    }

    /// Something changed in the account.
    fn changed(&mut self) {}
}

/// What the session does after the tagged response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    #[default]
    GoOn,
    StartTls,
    /// From here on both directions are compressed.
    Compress,
    Close,
    /// Closes with no tagged response: the stream can't be completed.
    Abort,
}

/// How a command ends.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) condition: Condition,
    /// Response code, if any, and text.
    pub(crate) text: Cow<'static, str>,
    /// What changed in the selected mailbox is not told: the view was made a moment ago.
    pub(crate) quiet: bool,
    /// The tagged response tells HIGHESTMODSEQ, where the client is one that resynchronises
    /// (RFC 7162 section 3.2.7).
    pub(crate) tells_modseq: bool,
    pub(crate) then: Then,
}

impl End {
    fn new(condition: Condition, text: impl Into<Cow<'static, str>>) -> Self {
        Self { condition, text: text.into(), quiet: false, tells_modseq: false, then: Then::default() }
    }

    pub(crate) fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Condition::Ok, text)
    }

    pub(crate) fn no(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Condition::No, text)
    }

    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Condition::Bad, text)
    }

    /// NO for what the store refused.
    pub(crate) fn refused(refused: Refused) -> Self {
        Self::no(refused.to_string())
    }

    /// Ends the connection where it stands: a literal can't be completed.
    pub(crate) fn abort() -> Self {
        let mut end = Self::no("");
        end.then = Then::Abort;
        end
    }

    pub(crate) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    pub(crate) fn with_modseq(mut self) -> Self {
        self.tells_modseq = true;
        self
    }

    pub(crate) fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// What a command came to at once: its end, or an errand.
#[derive(Debug)]
pub(crate) enum Begun {
    End(End),
    Errand(Box<dyn Errand>),
}

impl Begun {
    pub(crate) fn errand(errand: impl Errand + 'static) -> Self {
        Self::Errand(Box::new(errand))
    }
}

impl From<End> for Begun {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// NO for an answer that says why not, or that fits no question of ours.
#[expect(clippy::needless_pass_by_value, reason = "an answer that ends an errand is used up")]
pub(crate) fn unexpected(answer: Option<Answer>) -> Turn {
    match answer {
        Some(Answer::Refused(refused)) => Turn::Done(End::refused(refused)),
        _ => Turn::Done(End::refused(Refused::Unavailable)),
    }
}
