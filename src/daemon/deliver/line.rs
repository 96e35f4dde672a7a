//! One connection this way or that: to the first server that answers, for as many messages as there are.
//!
//! A message is claimed before anything is opened, so nobody connects for nothing. Where no server of a
//! way can be spoken to, all mail that is due that way is put off at one stroke: a dead destination
//! costs one attempt each time and not one for each message.

use std::cell::Cell;
use std::future::pending;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::select;

use super::board::Pace;
use super::hand::{Hand, Server};
use super::reach::{Target, Trouble};
use super::safety::Terms;
use super::{Hub, now};
use crate::daemon::login::random;
use crate::mail::queue::{Answer, Due};
use crate::mail::secret::Password;
use crate::net::drive::Driver;
use crate::net::outgoing::Outgoing;
use crate::net::verify::{TlsFault, TlsMode};
use crate::protocol::smtp::sender::{Credentials, End, How, Origin, Point, Sender, SenderSetup, TlsWish};
use crate::queue::RelayTls;
use crate::queue::outcome::Verdict;
use crate::queue::route::{Host, Way};

/// Who waits for his peer as long as this makes room for others.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Pages of mail that are put off at one stroke; what is left is seen by the next survey.
const PAGES_MAX: usize = 1024;

/// Reports about TLS that get through to a domain at one time whatever its policies are.
const TLS_REPORTS_MAX: usize = 4;

/// Longest password file that is read, in bytes.
const PASSWORD_FILE_MAX: u64 = 4096;

/// How a way was found.
#[derive(Debug)]
enum Found {
    /// There was nothing to send.
    Nothing,
    /// A server was spoken to.
    Served,
    /// None could be, and this is what that means for all mail that goes this way.
    Failed(Verdict),
    /// The network is away.
    Away,
}

/// By what mail the policies of a domain about TLS are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    ByAll,
    /// Only reports about TLS go.
    NotByReports,
}

/// How one server was found.
#[derive(Debug)]
enum Spoken {
    /// It was given what there was.
    Served,
    /// It was not given anything: try the next.
    Refused(Verdict, Box<Hand>),
    /// It took something in hand and failed at once.
    Failed(Verdict),
}

/// What TLS is to be with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Implicit,
    Start(TlsWish),
}

/// Serves a way until nothing more is due there.
pub(super) async fn run(hub: Rc<Hub>, way: Way) {
    let progress = Rc::new(Cell::new(Instant::now()));
    let mut pace = Pace::Brisk;
    let mut attempt = Box::pin(attempts(&hub, &way, &progress));
    let found = loop {
        let deadline = progress.get() + SLOW_AFTER;
        let slow = async {
            if pace == Pace::Brisk {
                tokio::time::sleep_until(deadline.into()).await;
            } else {
                pending::<()>().await;
            }
        };
        select! {
            biased;
            found = &mut attempt => break found,
            () = slow => {
                if progress.get().elapsed() >= SLOW_AFTER {
                    pace = hub.board.borrow_mut().slow_down(&hub.exit.config);
                    progress.set(Instant::now());
                    hub.wake.notify_one();
                }
            }
        }
    };
    drop(attempt);
    match found {
        Found::Nothing => {}
        Found::Served => hub.board.borrow_mut().succeeded(&way),
        Found::Away => hub.network_is_away(),
        // That we stop says nothing about the way.
        Found::Failed(_) if hub.stop.is_set() => {}
        Found::Failed(verdict) => put_off(&hub, &way, verdict).await,
    }
    hub.board.borrow_mut().close(&way, pace);
    hub.show();
    hub.wake.notify_one();
}

/// Puts everything off that is due a way that does not work.
async fn put_off(hub: &Hub, way: &Way, verdict: Verdict) {
    let (Verdict::Deferred(answer) | Verdict::Refused(answer) | Verdict::Taken { answer, .. }) = &verdict;
    let chance = u32::from_ne_bytes(random());
    let wait = match &verdict {
        Verdict::Deferred(_) => {
            hub.board.borrow_mut().failed(way, answer.clone(), chance, &hub.exit.config, Instant::now())
        }
        _ => Duration::ZERO,
    };
    let destination = hub.name_of(way);
    tracing::warn!(%destination, seconds = wait.as_secs(), why = answer.text(), "nothing gets through");
    let not_before = Due(Due::from(now()).0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(0)));
    for _ in 0..PAGES_MAX {
        let (exit, way, situation) = (hub.exit.clone(), way.clone(), hub.situation_without_rests());
        let (all, terms) = (verdict.clone(), hub.terms(not_before));
        let reading = tokio::task::spawn_blocking(move || exit.put_off(&way, &situation, &all, &terms));
        let changed = match reading.await {
            Ok(Ok(changed)) if !changed.is_empty() => changed,
            Ok(Err(error)) => return tracing::error!(%error, "the queue cannot be read"),
            _ => return,
        };
        for _ in changed.iter().flat_map(|changed| &changed.states) {
            hub.count(&verdict);
        }
        if !hub.keep(changed).await {
            return;
        }
    }
}

/// Serves a way as its domain's policies have it. Where that fails, reports about TLS get through without them: what
/// is wrong may be what they tell of (RFC 8460 section 3).
async fn attempts(hub: &Rc<Hub>, way: &Way, progress: &Rc<Cell<Instant>>) -> Found {
    let found = attempt(hub, way, progress, Kept::ByAll).await;
    if matches!((&found, way), (Found::Failed(_), Way::Direct(_))) {
        for _ in 0..TLS_REPORTS_MAX {
            if !matches!(attempt(hub, way, progress, Kept::NotByReports).await, Found::Served) {
                break;
            }
        }
    }
    found
}

async fn attempt(hub: &Rc<Hub>, way: &Way, progress: &Rc<Cell<Instant>>, kept: Kept) -> Found {
    let first = match kept {
        Kept::ByAll => hub.next_mail(way).await,
        Kept::NotByReports => hub.next_tls_report(way).await,
    };
    let Some(first) = first else { return Found::Nothing };
    let deferred = |text: &str| Verdict::Deferred(Answer::new("", text));
    let targets = match hub.targets(way).await {
        Ok(targets) => targets,
        Err(Trouble::Never(text)) => return Found::Failed(Verdict::Refused(Answer::new("", &text))),
        Err(Trouble::Later(text)) => return Found::Failed(deferred(&text)),
        Err(Trouble::Away) => return Found::Away,
    };
    let hand = Hand::new(Rc::clone(hub), way.clone(), first, Rc::clone(progress));
    let mut hand = Box::new(if kept == Kept::ByAll { hand } else { hand.with_one_alone() });
    let (mut last, mut never, mut away, mut reached, mut silent) = (None, None, false, false, false);
    // What a domain's own servers must prove; a route or a relay is the operator's word.
    let policy = Rc::new(match way {
        Way::Direct(domain) if kept == Kept::ByAll => hub.policy(domain).await,
        Way::Direct(_) | Way::Place(_) | Way::Relay(_) => super::safety::Policy::default(),
    });
    for target in &targets {
        progress.set(Instant::now());
        let demands = (hand.requires_tls(), !hand.brings_tls_report());
        let terms = match (way, &target.place.host) {
            (Way::Direct(domain), Host::Name(name)) if kept == Kept::ByAll => {
                match hub.terms_of(domain, &policy, name, target.place.port, demands).await {
                    Ok(terms) => {
                        let (domain, host, port) = (domain.clone(), name.clone(), target.place.port);
                        Some((terms, Server { domain, policy: Rc::clone(&policy), host, port }))
                    }
                    Err(text) => {
                        tracing::warn!(server = %target.place, why = text, "the server is not used");
                        let answer = Answer::new("", &text);
                        let never = text.starts_with('5');
                        let verdict = if never { Verdict::Refused(answer) } else { Verdict::Deferred(answer) };
                        last = Some(whichever_lasts(last, verdict));
                        continue;
                    }
                }
            }
            _ => None,
        };
        let socket = match hub.addresses(&target.place).await {
            Ok(addresses) => {
                let socket = hub.connect(&target.place, &addresses).await;
                reached |= socket.is_ok();
                silent |= matches!(socket, Err(Trouble::Later(_)));
                socket
            }
            Err(trouble) => Err(trouble),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(Trouble::Away) => {
                away = true;
                continue;
            }
            Err(Trouble::Later(text)) => {
                last = Some(deferred(&text));
                continue;
            }
            Err(Trouble::Never(text)) => {
                never = Some(text);
                continue;
            }
        };
        progress.set(Instant::now());
        if matches!(way, Way::Direct(_)) {
            hub.port_is_open();
        }
        let (terms, server) = terms.unzip();
        hand.is_to_meet(server);
        let spoken = converse(hub, target, terms.as_ref(), hand, socket).await;
        hub.safety.save(false).await;
        match spoken {
            Spoken::Served => return Found::Served,
            Spoken::Failed(verdict) => return Found::Failed(verdict),
            Spoken::Refused(verdict, back) => {
                last = Some(whichever_lasts(last, verdict));
                hand = back;
            }
        }
    }
    if away && last.is_none() {
        return Found::Away;
    }
    if let (Way::Direct(domain), true, false) = (way, silent, reached) {
        hub.port_is_silent(domain);
    }
    if let Some(verdict) = last.take_if(|_| hand.requires_tls()) {
        // It may be this message's own demand that nobody meets: the others are tried without it.
        hand.give_up(verdict).await;
        return Found::Nothing;
    }
    let none = || match (never, way) {
        // None of its servers has an address, and that will not change soon.
        (Some(text), Way::Direct(_)) => Verdict::Refused(Answer::new("", &text)),
        (Some(text), _) => deferred(&text),
        (None, _) => deferred("4.4.4 there is no server to send to"),
    };
    Found::Failed(last.unwrap_or_else(none))
}

/// What two servers of a way mean together: where one may yet take the mail, it waits for that one.
fn whichever_lasts(before: Option<Verdict>, verdict: Verdict) -> Verdict {
    match (before, &verdict) {
        (Some(waits @ Verdict::Deferred(_)), Verdict::Refused(_)) => waits,
        _ => verdict,
    }
}

/// Speaks with a server, in clear once more where TLS would be no gain and does not come about.
async fn converse(hub: &Rc<Hub>, target: &Target, terms: Option<&Terms>, hand: Box<Hand>, socket: TcpStream) -> Spoken {
    let opportunistic = match terms {
        Some(terms) if terms.demand.encrypted => Security::Start(TlsWish::Required),
        _ => Security::Start(TlsWish::IfOffered),
    };
    let security =
        target.relay.and_then(|number| hub.relays.get(number)).map_or(opportunistic, |relay| match relay.config.tls {
            RelayTls::None => Security::Start(TlsWish::Never),
            RelayTls::Opportunistic => Security::Start(TlsWish::IfOffered),
            RelayTls::Starttls => Security::Start(TlsWish::Required),
            RelayTls::Implicit => Security::Implicit,
        });
    let Over { hand, end, fault, noted } = match session(hub, target, terms, hand, socket, security).await {
        Ok(over) => over,
        Err((text, hand)) => return Spoken::Refused(Verdict::Deferred(Answer::new("", &text)), hand),
    };
    if let Some(terms) = terms {
        hub.note_safety(terms, &end, fault, noted);
    }
    let in_tls = matches!(&end.how, How::Failed(heard) if heard.at == Point::StartTls);
    if in_tls && security == Security::Start(TlsWish::IfOffered) && hand.is_full() {
        let fault = fault.map(|fault| fault.to_string()).unwrap_or_default();
        tracing::info!(server = %target.place, fault, "TLS failed; tried again in clear");
        let again = match hub.addresses(&target.place).await {
            Ok(addresses) => hub.connect(&target.place, &addresses).await,
            Err(trouble) => Err(trouble),
        };
        return match again {
            Ok(socket) => match session(hub, target, terms, hand, socket, Security::Start(TlsWish::Never)).await {
                Ok(Over { hand, end, .. }) => judge(target, hand, &end, None),
                Err((text, hand)) => Spoken::Refused(Verdict::Deferred(Answer::new("", &text)), hand),
            },
            Err(Trouble::Later(text) | Trouble::Never(text)) => {
                Spoken::Refused(Verdict::Deferred(Answer::new("", &text)), hand)
            }
            Err(Trouble::Away) => {
                let text = "4.4.2 the connection was lost, and with it the network";
                Spoken::Refused(Verdict::Deferred(Answer::new("", text)), hand)
            }
        };
    }
    judge(target, hand, &end, fault)
}

/// What a connection that is over means for the way.
fn judge(target: &Target, hand: Box<Hand>, end: &End, fault: Option<TlsFault>) -> Spoken {
    let How::Failed(heard) = &end.how else { return Spoken::Served };
    let host = target.place.host.to_string();
    let fault = fault.filter(|_| heard.at == Point::StartTls);
    let ours = heard.origin == Origin::Ourselves;
    // Who demanded TLS all the way hears at once that there is none (RFC 8689 section 4.2.1), unless it was an accident.
    let no_tls = match fault {
        Some(fault) => !matches!(fault, TlsFault::TimedOut | TlsFault::Lost),
        None => ours && heard.at == Point::StartTls,
    };
    if hand.requires_tls() && no_tls {
        let why = fault.map_or_else(|| heard.text.clone(), |fault| fault.to_string());
        return Spoken::Refused(Verdict::Refused(Answer::new("", &format!("5.7.10 no TLS with {host}: {why}"))), hand);
    }
    let said = match fault {
        Some(fault) => Answer::new("", &format!("4.7.5 no TLS with {host}: {fault}")),
        None => match heard.enhanced {
            Some(enhanced) if ours => Answer::new("", &format!("{enhanced} {host}: {}", heard.text)),
            _ => Answer::new(&host, &heard.to_string()),
        },
    };
    if hand.is_full() {
        // RFC 7504: such a server takes no mail, and never will.
        let never = matches!(heard.code, 521 | 556) && matches!(heard.at, Point::Greeting | Point::Hello);
        let verdict = if never { Verdict::Refused(said) } else { Verdict::Deferred(said) };
        return Spoken::Refused(verdict, hand);
    }
    // A server that has said something about a message works, however it ended.
    if hand.judged > 0 { Spoken::Served } else { Spoken::Failed(Verdict::Deferred(said)) }
}

/// A connection that is over.
#[derive(Debug)]
struct Over {
    hand: Box<Hand>,
    end: End,
    /// Why TLS did not come about.
    fault: Option<TlsFault>,
    /// What was wrong with the certificate, whether it mattered or not.
    noted: Option<TlsFault>,
}

/// One connection from its greeting to its end. The error is why nothing could be begun.
async fn session(
    hub: &Rc<Hub>,
    target: &Target,
    terms: Option<&Terms>,
    mut hand: Box<Hand>,
    socket: TcpStream,
    security: Security,
) -> Result<Over, (String, Box<Hand>)> {
    let relay = target.relay.and_then(|number| hub.relays.get(number));
    let credentials = match relay.map(|relay| (relay, &relay.config.user, &relay.config.password_file)) {
        Some((relay, Some(user), Some(file))) => {
            let (path, login) = (file.clone(), user.clone());
            let reading = tokio::task::spawn_blocking(move || read_password(&path)).await;
            let password = match reading.unwrap_or_else(|_| Err("the server stops".to_owned())) {
                Ok(password) => password,
                Err(error) => {
                    let text =
                        format!("4.3.5 the password file {} of the relay {}: {error}", file.display(), relay.place);
                    return Err((text, hand));
                }
            };
            Some(Credentials { login, password, in_clear: false, nonce: random() })
        }
        _ => None,
    };
    let name = match &target.place.host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    };
    let proven = matches!(security, Security::Implicit | Security::Start(TlsWish::Required));
    let names = vec![name.clone()];
    let mode = match terms {
        Some(terms) => terms.mode(),
        None if proven => TlsMode::Pkix { names },
        None => TlsMode::Unverified { names },
    };
    let setup = SenderSetup {
        helo: hub.exit.host.to_string(),
        tls: match security {
            Security::Implicit => TlsWish::Never,
            Security::Start(wish) => wish,
        },
        credentials,
    };
    let client = relay.map_or(&hub.tls, |relay| &relay.tls);
    let peer = match Outgoing::towards(socket, client, mode, &name) {
        Ok(peer) => peer,
        Err(error) => return Err((format!("4.3.5 {name}: {error}"), hand)),
    };
    let proof = peer.proof();
    hand.turn_to(name);
    let mut driver = Driver::new(Sender::new(setup), *hand, peer, hub.stop.clone());
    let secured = if security == Security::Implicit { driver.secure().await } else { Ok(()) };
    let ended = match secured {
        Ok(()) => driver.run_out().await.map(drop),
        Err(error) => Err(error),
    };
    let (session, hand) = driver.into_parts();
    let mut end = session.end();
    let fault = ended.err().map(|error| TlsFault::of(&error));
    if let (Security::Implicit, Some(_), How::Failed(heard)) = (security, &fault, &mut end.how)
        && end.tls.is_none()
    {
        heard.at = Point::StartTls;
    }
    Ok(Over { hand: Box::new(hand), end, fault, noted: proof.fault() })
}

/// The first line of a password file.
fn read_password(path: &Path) -> Result<Password, String> {
    use std::io::Read as _;

    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(PASSWORD_FILE_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let line = text.lines().next().unwrap_or_default();
    Password::new(line.to_owned()).ok_or_else(|| "its first line is empty or no password".to_owned())
}
