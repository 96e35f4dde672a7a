//! Plays the transcripts of `tests/session` on a real store: straight into the sessions, and over
//! sockets and TLS through the program's loop.

mod support;

use std::net::IpAddr;
use std::sync::Arc;

use pillarbox::daemon::checks::Checks;
use pillarbox::daemon::receive::Office;
use pillarbox::daemon::serve_imap::ImapAnswers;
use pillarbox::daemon::serve_pop3::Pop3Answers;
use pillarbox::daemon::teacher::Teacher;
use pillarbox::filter::sender::SenderConfig;
use pillarbox::flow::judge::{Filter, SpamConfig};
use pillarbox::net::authenticate::Authenticator;
use pillarbox::net::resolver::{DnsConfig, Resolver};
use pillarbox::protocol::imap::{ImapConfig, Session, Site};
use pillarbox::protocol::pop3;
use pillarbox::protocol::smtp::{Receiver, Role, Setup, SmtpConfig};
use support::script::Script;
use support::sent;
use support::wire::{self, Wire};
use support::world::World;
use support::{Pace, Stage, play_folder};

#[test]
fn imap() {
    play_folder("imap", &Imap);
}

#[test]
fn smtp() {
    play_folder("smtp", &Smtp);
}

#[test]
fn sender() {
    play_folder("sender", &Outgoing);
}

#[test]
fn pop3() {
    play_folder("pop3", &Pop3);
}

/// A teacher whose lessons nobody takes: transcripts are about protocols.
fn teacher(world: &World) -> Teacher {
    let config = SpamConfig { enabled: false, ..SpamConfig::default() };
    Teacher::new(world.store.clone(), Filter::new(world.store.clone(), config)).0
}

/// Checks that are off: transcripts are about protocols.
fn checks(world: &World, host: &Arc<str>) -> Result<Checks, String> {
    let resolver = Resolver::new(&DnsConfig::default()).map_err(|error| error.to_string())?;
    let authenticator = Authenticator::new(resolver, host.clone()).map_err(|error| error.to_string())?;
    let config = SenderConfig { enabled: false, ..SenderConfig::default() };
    let filter = teacher(world).filter().clone();
    Ok(Checks::new(authenticator, world.store.clone(), config, host.clone(), filter, None))
}

/// An IMAP session with the world behind it.
struct Imap;

impl Stage for Imap {
    fn open(&self, script: &Script, world: &World, pace: Pace) -> Result<Box<dyn Wire>, String> {
        let config: ImapConfig = toml::from_str(&script.settings).map_err(|error| error.to_string())?;
        let peer = script.client.unwrap_or(IpAddr::from([192, 0, 2, 1]));
        let names = Arc::new(["127.0.0.1".to_owned()].into());
        let site =
            Site { host: "pillarbox.test".into(), starttls: !script.tls, clear_login: script.clear_login, names };
        let session = Session::new(Arc::new(config), site);
        let answers = ImapAnswers::new(world.store.clone(), teacher(world), &world.doorway, peer);
        wire::open(session, answers, script, world, pace)
    }
}

/// The receiver of either role with the world behind it.
struct Smtp;

impl Stage for Smtp {
    fn open(&self, script: &Script, world: &World, pace: Pace) -> Result<Box<dyn Wire>, String> {
        let role = match script.role.as_deref() {
            None | Some("exchange") => Role::Exchange,
            Some("submission") => Role::Submission,
            Some(other) => return Err(format!("there is no role {other}")),
        };
        let config: SmtpConfig = toml::from_str(&script.settings).map_err(|error| error.to_string())?;
        let peer = script.client.unwrap_or(IpAddr::from([192, 0, 2, 1]));
        let name: Arc<str> = "pillarbox.test".into();
        let store = world.store.clone();
        let office =
            Office::new(store, world.doorway.clone(), teacher(world), checks(world, &name)?, name.clone(), &config);
        let config = Arc::new(config);
        let setup =
            Setup { role, name, config, peer, starttls: !script.tls, login_in_clear: script.clear_login, open: false };
        wire::open(Receiver::new(setup), office.reception(peer), script, world, pace)
    }
}

/// The sending end, with the mail that waits for it.
struct Outgoing;

impl Stage for Outgoing {
    fn paces(&self) -> &[Pace] {
        &[Pace::Whole, Pace::ByteByByte]
    }

    fn is_client(&self) -> bool {
        true
    }

    fn open(&self, script: &Script, world: &World, pace: Pace) -> Result<Box<dyn Wire>, String> {
        let (sender, outbox) = sent::sender(script, &world.sent)?;
        wire::open(sender, outbox, script, world, pace)
    }
}

/// A POP3 session with its maildrop.
struct Pop3;

impl Stage for Pop3 {
    fn open(&self, script: &Script, world: &World, pace: Pace) -> Result<Box<dyn Wire>, String> {
        let config = toml::from_str(&script.settings).map_err(|error| error.to_string())?;
        let peer = script.client.unwrap_or(IpAddr::from([192, 0, 2, 1]));
        let session = pop3::Session::new(Arc::new(config), "pillarbox.test", script.clear_login);
        let answers = Pop3Answers::new(world.store.clone(), world.locks.clone(), &world.doorway, peer);
        wire::open(session, answers, script, world, pace)
    }
}
