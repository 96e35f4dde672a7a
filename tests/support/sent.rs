//! The world behind a sender in a transcript: the mail it asks for, and what became of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pillarbox::mail::envelope::{Envelope, ForwardPath};
use pillarbox::mail::secret::Password;
use pillarbox::net::drive::Answers;
use pillarbox::protocol::smtp::command::Command;
use pillarbox::protocol::smtp::sender::{
    Answer, Credentials, Done, End, How, Mail, NONCE_BYTES, NatureReader, Outcome, Request, Sender, SenderSetup,
    TlsWish,
};
use pillarbox::protocol::{Notice, Session, Step, TlsFacts};

use super::script::{Letter, Script};
use super::words;

/// What a script's sender has told.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    done: Vec<(Envelope, Done)>,
    end: Option<End>,
}

impl Sent {
    /// Checks what became of a recipient.
    pub(crate) fn became(&self, message: usize, to: &str, what: &str) -> Result<(), String> {
        let told = self.0.lock().expect("a player that did not panic");
        let (envelope, done) = message.checked_sub(1).and_then(|at| told.done.get(at)).ok_or("it is not done")?;
        if envelope.recipients.len() != done.recipients.len() {
            return Err(format!("{} outcomes for {} recipients", done.recipients.len(), envelope.recipients.len()));
        }
        let is_meant = |path: &ForwardPath| path.to_string() == format!("<{to}>");
        let number = envelope.recipients.iter().position(|recipient| is_meant(&recipient.path));
        let found = number.map(|number| described(&done.recipients[number])).ok_or("there is no such recipient")?;
        if words::matches(what, &found) { Ok(()) } else { Err(format!("expected {what:?}, found {found:?}")) }
    }

    /// Checks that a message may be tried again at once.
    pub(crate) fn again(&self, message: usize) -> Result<(), String> {
        let told = self.0.lock().expect("a player that did not panic");
        let done = message.checked_sub(1).and_then(|at| told.done.get(at));
        if done.is_some_and(|(_, done)| done.again) { Ok(()) } else { Err("it may not".to_owned()) }
    }

    /// Checks how the connection ended.
    pub(crate) fn ended(&self, how: &str) -> Result<(), String> {
        let told = self.0.lock().expect("a player that did not panic");
        let found = match told.end.as_ref().map(|end| &end.how) {
            None => "nothing".to_owned(),
            Some(How::Fine) => "fine".to_owned(),
            Some(How::Failed(heard)) => format!("failed {:?} {heard}", heard.at),
        };
        if words::matches(how, &found) { Ok(()) } else { Err(format!("expected {how:?}, found {found:?}")) }
    }
}

/// An outcome as transcripts write it.
fn described(outcome: &Outcome) -> String {
    let word = match outcome {
        Outcome::Taken(_) => "taken",
        Outcome::Deferred(_) => "deferred",
        Outcome::Refused(_) => "refused",
    };
    let heard = outcome.heard();
    let unsure = if heard.unsure { " unsure" } else { "" };
    let dsn = if heard.dsn { " dsn" } else { "" };
    let more = if outcome.is_one_too_many() { " one-too-many" } else { "" };
    format!("{word}{unsure}{dsn}{more} {heard}")
}

/// The sender of a script and the world behind it.
pub(crate) fn sender(script: &Script, sent: &Sent) -> Result<(Watched, Outbox), String> {
    let sending = &script.sending;
    let tls = match sending.starttls.as_deref() {
        Some("never") => TlsWish::Never,
        Some("required") => TlsWish::Required,
        Some(other) => return Err(format!("@ starttls {other} means nothing")),
        None => TlsWish::IfOffered,
    };
    let credentials = sending.login.as_ref().map(|(login, password)| {
        let password = Password::new(password.clone()).ok_or("no password")?;
        let nonce = [7; NONCE_BYTES];
        Ok::<_, String>(Credentials { login: login.clone(), password, in_clear: script.clear_login, nonce })
    });
    let setup = SenderSetup { helo: "pillarbox.test".to_owned(), tls, credentials: credentials.transpose()? };
    let waiting = sending.mails.iter().map(|letter| Ok((mail(letter)?, letter.text.clone(), letter.broken)));
    let outbox = Outbox {
        waiting: waiting.collect::<Result<_, String>>()?,
        current: None,
        piece: sending.piece.unwrap_or(16_384),
        sent: sent.clone(),
    };
    let verified = sending.verified;
    Ok((Watched { sender: Sender::new(setup), sent: sent.clone(), verified }, outbox))
}

fn mail(letter: &Letter) -> Result<Mail, String> {
    let line = format!("MAIL FROM:{}", letter.from);
    let Ok(Command::Mail(from)) = Command::parse(line.as_bytes()) else { return Err(format!("{line:?} is no MAIL")) };
    let recipients = letter.to.iter().map(|to| match Command::parse(format!("RCPT TO:{to}").as_bytes()) {
        Ok(Command::Rcpt(recipient)) => Ok(recipient),
        _ => Err(format!("{to:?} is no recipient")),
    });
    let mut nature = NatureReader::default();
    nature.feed(&letter.text);
    Ok(Mail {
        envelope: Envelope {
            from: from.from,
            recipients: recipients.collect::<Result<_, _>>()?,
            body: from.body,
            utf8: from.utf8,
            ret: from.ret,
            envelope_id: from.envelope_id,
        },
        size: letter.text.len() as u64,
        nature: nature.finish(from.utf8),
        require_tls: letter.require_tls,
    })
}

/// The mail that waits.
pub(crate) struct Outbox {
    waiting: VecDeque<(Mail, Vec<u8>, bool)>,
    current: Option<(Mail, Vec<u8>, bool)>,
    piece: usize,
    sent: Sent,
}

impl Answers<Watched> for Outbox {
    async fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Mail => {
                self.current = self.waiting.pop_front();
                Answer::Mail(self.current.as_ref().map(|(mail, ..)| Box::new(mail.clone())))
            }
            Request::Body => {
                let (_, text, broken) = self.current.as_mut().expect("a message under way");
                if text.is_empty() && *broken {
                    return Answer::Broken;
                }
                let rest = text.split_off(self.piece.min(text.len()));
                Answer::Body(std::mem::replace(text, rest))
            }
            Request::Done(done) => {
                let (mail, ..) = self.current.take().expect("a message under way");
                self.sent.0.lock().expect("a player that did not panic").done.push((mail.envelope, *done));
                Answer::Noted
            }
            Request::Derive(mut derive) => {
                derive.run();
                Answer::Derived(derive)
            }
        }
    }

    async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// A sender whose end is told while it goes on.
pub(crate) struct Watched {
    sender: Sender,
    sent: Sent,
    /// TLS proves the server's name.
    verified: bool,
}

impl Session for Watched {
    type Request = Request;
    type Answer = Answer;

    fn next(&mut self) -> Step<'_, Request> {
        self.sent.0.lock().expect("a player that did not panic").end = Some(self.sender.end());
        self.sender.next()
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        self.sender.receive(bytes)
    }

    fn resume(&mut self, answer: Answer) {
        self.sender.resume(answer);
    }

    fn notice(&mut self, notice: Notice) {
        self.sender.notice(notice);
    }

    fn tls_started(&mut self, tls: TlsFacts) {
        self.sender.tls_started(TlsFacts { verified: self.verified, ..tls });
    }

    fn patience(&self) -> Duration {
        self.sender.patience()
    }
}
