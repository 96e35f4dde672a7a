//! Reads a transcript: lines of text into steps. The format is `tests/session/README.md`.

use std::net::IpAddr;

use super::words;

/// A transcript.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What makes the world before the first line on a wire.
    pub(crate) head: Vec<Step>,
    /// What happens then.
    pub(crate) steps: Vec<Step>,
    /// `@ role`
    pub(crate) role: Option<String>,
    /// `@ tls`
    pub(crate) tls: bool,
    /// `@ clear-login`
    pub(crate) clear_login: bool,
    /// `@ client`
    pub(crate) client: Option<IpAddr>,
    /// The lines of `@ set`, a TOML document.
    pub(crate) settings: String,
    /// What we send where we are the client.
    pub(crate) sending: Sending,
}

/// What a sender is set up with, and the mail that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// `@ starttls`
    pub(crate) starttls: Option<String>,
    /// `@ verified`
    pub(crate) verified: bool,
    /// `@ login`
    pub(crate) login: Option<(String, String)>,
    /// `@ pieces`
    pub(crate) piece: Option<usize>,
    /// `@ mail` and what follows it
    pub(crate) mails: Vec<Letter>,
}

/// A message to be sent.
#[derive(Debug, Default)]
pub(crate) struct Letter {
    /// What stands behind `MAIL FROM:`
    pub(crate) from: String,
    /// What stands behind each `RCPT TO:`
    pub(crate) to: Vec<String>,
    /// `@ require-tls`
    pub(crate) require_tls: bool,
    /// The content.
    pub(crate) text: Vec<u8>,
    /// `@ broken`: it cannot be read to its end.
    pub(crate) broken: bool,
}

/// One line of a transcript that does something, with those that belong to it.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// What it does.
    pub(crate) action: Action,
}

/// What a line does.
#[derive(Debug)]
pub(crate) enum Action {
    /// `C:`, `S:` and their kin.
    Wire { connection: usize, part: WirePart },
    /// Something happens to a connection.
    Event(Event),
    /// `= closed`
    Closed(usize),
    /// `= patience`
    Patience { seconds: u64, connection: usize },
    /// `@ account`
    Account { name: String, password: String },
    /// `@ certificate`
    Certificate { name: String, over: bool },
    /// `@ revoke`
    Revoke(String),
    /// `@ disk-full`
    DiskFull,
    /// `@ domain`
    Domain(String),
    /// `@ alias`
    Alias { address: String, targets: Vec<String> },
    /// `@ quota`
    Quota { name: String, bytes: Option<u64>, messages: Option<u64> },
    /// `@ url-key`
    UrlKey { name: String, mailbox: String },
    /// `@ mailbox`
    Mailbox { name: String, mailbox: String },
    /// `@ message` and `@ messages`
    Message { times: usize, name: String, mailbox: String, flags: Vec<String>, lines: Vec<String> },
    /// `@ remove`
    Remove { name: String, mailbox: String, uid: u32 },
    /// `= MAILBOX of NAME holds N messages`
    Holds { name: String, mailbox: String, count: u32, body: Option<Vec<u8>> },
    /// `= message UID in MAILBOX of NAME is`
    Is { name: String, mailbox: String, uid: u32, lines: Vec<Wanted> },
    /// `= message UID in MAILBOX of NAME has`
    Has { name: String, mailbox: String, uid: u32, flags: Vec<String> },
    /// `= message N to ADDRESS WORDS`
    Became { message: usize, to: String, what: String },
    /// `= message N may be sent again at once`
    Again { message: usize },
    /// `= end WORDS`
    Ended { how: String },
}

/// What happens on a wire.
#[derive(Debug)]
pub(crate) enum WirePart {
    /// The client sends `text`, words to be filled in, so many times.
    Send { text: Vec<u8>, times: usize },
    /// The server sends a line.
    Expect { pattern: Vec<u8>, exact: bool },
    /// Skip lines until one fits the next expectation.
    Skip,
    /// TLS starts.
    Tls,
}

/// Something that happens to a connection.
#[derive(Debug)]
pub(crate) enum Event {
    Silence(usize),
    Hangup(usize),
    Stop,
}

/// A line that a message should have.
#[derive(Debug)]
pub(crate) enum Wanted {
    Exactly(String),
    Like(String),
    AnyLines,
}

impl Step {
    /// Tells whether `next` is sent in one piece with this step.
    pub(crate) fn continues_in(&self, next: &Self) -> bool {
        let sender = |action: &Action| match action {
            Action::Wire { connection, part: WirePart::Send { .. } } => Some(*connection),
            _ => None,
        };
        sender(&self.action).is_some_and(|connection| sender(&next.action) == Some(connection))
    }
}

impl Script {
    /// Reads a transcript; the error is `line: what is wrong`.
    /// Where we are the `client`, `S` lines are what reaches us and `C` lines what we say.
    pub(crate) fn parse(text: &str, client: bool) -> Result<Self, String> {
        let mut script = Self::default();
        for (index, line) in text.lines().enumerate() {
            script
                .take(index + 1, line, if client { ("S", "C") } else { ("C", "S") })
                .map_err(|error| format!("{}: {error}: {line:?}", index + 1))?;
        }
        Ok(script)
    }

    /// Tells whether somebody would have to wait until a session's patience is at its end.
    pub(crate) fn waits_out_patience(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Event(Event::Silence(_))))
    }

    fn take(&mut self, number: usize, line: &str, sides: (&str, &str)) -> Result<(), String> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (mark, rest) = line.split_at(1);
        match mark {
            "|" => self.body_line(Wanted::Exactly(after_space(rest).to_owned())),
            "~" if rest == "..." => self.body_line(Wanted::AnyLines),
            "~" => self.body_line(Wanted::Like(after_space(rest).to_owned())),
            "@" => self.directive(number, rest.trim()),
            "=" => {
                let action = fact(rest.trim())?;
                self.push(number, action);
                Ok(())
            }
            _ => {
                let action = wire(line, sides)?;
                self.steps.push(Step { line: number, action });
                Ok(())
            }
        }
    }

    fn push(&mut self, line: usize, action: Action) {
        let into = if self.steps.is_empty() { &mut self.head } else { &mut self.steps };
        into.push(Step { line, action });
    }

    /// Adds a `|` or `~` line to what came before.
    fn body_line(&mut self, line: Wanted) -> Result<(), String> {
        if let (Some(letter), Wanted::Exactly(text), true) =
            (self.sending.mails.last_mut(), &line, self.steps.is_empty())
        {
            letter.text.extend_from_slice(format!("{text}\r\n").as_bytes());
            return Ok(());
        }
        let last = if self.steps.is_empty() { self.head.last_mut() } else { self.steps.last_mut() };
        match (last.map(|step| &mut step.action), line) {
            (Some(Action::Message { lines, .. }), Wanted::Exactly(line)) => lines.push(line),
            (Some(Action::Is { lines, .. }), line) => lines.push(line),
            _ => return Err("this line belongs to nothing".into()),
        }
        Ok(())
    }

    fn directive(&mut self, number: usize, text: &str) -> Result<(), String> {
        if let Some(setting) = text.strip_prefix("set ") {
            self.settings.push_str(setting);
            self.settings.push('\n');
            return Ok(());
        }
        if self.sending.directive(text)? {
            return Ok(());
        }
        let words = split(text)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let action = match words.as_slice() {
            ["role", role] => {
                self.role = Some((*role).to_owned());
                return Ok(());
            }
            ["tls"] => {
                self.tls = true;
                return Ok(());
            }
            ["clear-login"] => {
                self.clear_login = true;
                return Ok(());
            }
            ["client", address] => {
                self.client = Some(address.parse().map_err(|_| "no IP address")?);
                return Ok(());
            }
            ["account", name, password] => Action::Account { name: full(name), password: (*password).to_owned() },
            ["certificate", name] => Action::Certificate { name: full(name), over: false },
            ["certificate", name, "over"] => Action::Certificate { name: full(name), over: true },
            ["revoke", name] => Action::Revoke(full(name)),
            ["disk-full"] => Action::DiskFull,
            ["domain", name] => Action::Domain((*name).to_owned()),
            ["alias", address, targets @ ..] if !targets.is_empty() => {
                Action::Alias { address: full(address), targets: targets.iter().map(|name| full(name)).collect() }
            }
            ["quota", name, "bytes", most] => {
                Action::Quota { name: full(name), bytes: Some(integer(most)?), messages: None }
            }
            ["quota", name, "messages", most] => {
                Action::Quota { name: full(name), bytes: None, messages: Some(integer(most)?) }
            }
            ["mailbox", name, mailbox] => Action::Mailbox { name: full(name), mailbox: (*mailbox).to_owned() },
            ["url-key", name, mailbox] => Action::UrlKey { name: full(name), mailbox: (*mailbox).to_owned() },
            ["message", name, mailbox, flags @ ..] => message(1, name, mailbox, flags),
            ["messages", times, name, mailbox, flags @ ..] => message(integer(times)?, name, mailbox, flags),
            ["remove", name, mailbox, uid] => {
                Action::Remove { name: full(name), mailbox: (*mailbox).to_owned(), uid: integer(uid)? }
            }
            ["silence"] => Action::Event(Event::Silence(1)),
            ["silence", connection] => Action::Event(Event::Silence(integer(connection)?)),
            ["hangup"] => Action::Event(Event::Hangup(1)),
            ["hangup", connection] => Action::Event(Event::Hangup(integer(connection)?)),
            ["stop"] => Action::Event(Event::Stop),
            _ => return Err("unknown @ line".into()),
        };
        self.push(number, action);
        Ok(())
    }
}

impl Sending {
    /// Takes an `@` line about what is sent; tells whether it was one.
    fn directive(&mut self, text: &str) -> Result<bool, String> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        match name {
            "mail" => self.mails.push(Letter { from: rest.to_owned(), ..Letter::default() }),
            "starttls" => self.starttls = Some(rest.to_owned()),
            "verified" => self.verified = true,
            "pieces" => self.piece = Some(integer(rest)?),
            "login" => {
                let (login, password) = rest.split_once(' ').ok_or("a login needs a name and a password")?;
                self.login = Some((login.to_owned(), password.to_owned()));
            }
            "rcpt" | "rcpts" | "require-tls" | "bytes" | "broken" => {
                let letter = self.mails.last_mut().ok_or("there is no @ mail before this line")?;
                match name {
                    "rcpt" => letter.to.push(rest.to_owned()),
                    "rcpts" => {
                        let (times, to) = rest.split_once(' ').ok_or("how many?")?;
                        let names = 1..=integer::<usize>(times)?;
                        letter.to.extend(names.map(|number| to.replace('#', &number.to_string())));
                    }
                    "require-tls" => letter.require_tls = true,
                    "bytes" => letter.text.extend(words::unescape(rest)?),
                    _ => letter.broken = true,
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn message(times: usize, name: &str, mailbox: &str, flags: &[&str]) -> Action {
    let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    Action::Message { times, name: full(name), mailbox: mailbox.to_owned(), flags, lines: Vec::new() }
}

fn fact(text: &str) -> Result<Action, String> {
    let words = split(text)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["closed"] => Ok(Action::Closed(1)),
        ["closed", connection] => Ok(Action::Closed(integer(connection)?)),
        ["patience", seconds] => Ok(Action::Patience { seconds: integer(seconds)?, connection: 1 }),
        ["patience", seconds, connection] => {
            Ok(Action::Patience { seconds: integer(seconds)?, connection: integer(connection)? })
        }
        [mailbox, "of", name, "holds", count, "message" | "messages" | "message," | "messages,", rest @ ..] => {
            let body = match rest {
                [] => None,
                ["body", body] => Some((*body).as_bytes().to_vec()),
                _ => return Err("expected: body \"text\"".into()),
            };
            let (name, mailbox) = (full(name), (*mailbox).to_owned());
            Ok(Action::Holds { name, mailbox, count: integer(count)?, body })
        }
        ["message", uid, "in", mailbox, "of", name, "is"] => {
            let (name, mailbox) = (full(name), (*mailbox).to_owned());
            Ok(Action::Is { name, mailbox, uid: integer(uid)?, lines: Vec::new() })
        }
        ["message", uid, "in", mailbox, "of", name, "has", flags @ ..] => {
            let (name, mailbox) = (full(name), (*mailbox).to_owned());
            let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
            Ok(Action::Has { name, mailbox, uid: integer(uid)?, flags })
        }
        ["message", number, "to", address, what @ ..] if !what.is_empty() => {
            let message = integer(number)?;
            Ok(Action::Became { message, to: (*address).to_owned(), what: what.join(" ") })
        }
        ["message", number, "may", "be", "sent", "again", "at", "once"] => {
            Ok(Action::Again { message: integer(number)? })
        }
        ["end", how @ ..] if !how.is_empty() => Ok(Action::Ended { how: how.join(" ") }),
        _ => Err("unknown = line".into()),
    }
}

/// A line on the wire; `told` is the side whose words reach the session.
fn wire(line: &str, (told, heard): (&str, &str)) -> Result<Action, String> {
    if let Some(number) = line.strip_prefix("TLS") {
        let connection = if number.trim().is_empty() { 1 } else { integer(number.trim())? };
        return Ok(Action::Wire { connection, part: WirePart::Tls });
    }
    let side = line.get(..1).filter(|side| [told, heard].contains(side)).ok_or("unknown line")?;
    let rest = line.get(1..).unwrap_or_default();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = rest.split_at(digits);
    let connection = if number.is_empty() { 1 } else { integer(number)? };
    if side == heard {
        let part = if rest == "..." {
            WirePart::Skip
        } else if let Some(text) = rest.strip_prefix(':') {
            WirePart::Expect { pattern: after_space(text).into(), exact: true }
        } else if let Some(text) = rest.strip_prefix('~') {
            WirePart::Expect { pattern: after_space(text).into(), exact: false }
        } else {
            return Err("unknown line of what is expected".into());
        };
        return Ok(Action::Wire { connection, part });
    }
    let (times, rest) = match rest.strip_prefix('*') {
        None => (1, rest),
        Some(rest) => {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (times, rest) = rest.split_at(digits);
            (integer(times)?, rest)
        }
    };
    let text = if let Some(text) = rest.strip_prefix(':') {
        format!("{}\r\n", after_space(text)).into_bytes()
    } else if let Some(text) = rest.strip_prefix('>') {
        words::unescape(after_space(text))?
    } else {
        return Err("unknown line of what is told".into());
    };
    Ok(Action::Wire { connection, part: WirePart::Send { text, times } })
}

/// The text after one space, as written.
fn after_space(text: &str) -> &str {
    text.strip_prefix(' ').unwrap_or(text)
}

fn integer<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// An address; a name alone is one at pillarbox.test.
fn full(name: &str) -> String {
    if name.contains('@') { name.to_owned() } else { format!("{name}@pillarbox.test") }
}

/// Splits at spaces; quoted words may hold spaces and escapes.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = if let Some(quoted) = rest.strip_prefix('"') {
            let mut end = None;
            let mut escaped = false;
            for (index, c) in quoted.char_indices() {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '"' => {
                        end = Some(index);
                        break;
                    }
                    _ => {}
                }
            }
            let end = end.ok_or("a quote is not closed")?;
            let word = words::unescape(quoted.get(..end).unwrap_or_default())?;
            words.push(String::from_utf8(word).map_err(|_| "a quoted word is not UTF-8")?);
            end + 2
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            words.push(rest.get(..end).unwrap_or_default().to_owned());
            end
        };
        rest = rest.get(end..).unwrap_or_default().trim_start();
    }
    Ok(words)
}
