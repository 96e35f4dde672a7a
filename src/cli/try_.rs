//! `pillarbox try`: a server to try out, as an ordinary user, without a config file.
//!
//! Everything is in one folder: mail, certificates, and the two accounts with their passwords, so
//! that a second start shows the same ones. It listens on this machine alone.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Failure, print};
use crate::config::Settings;
use crate::daemon::listen::{ListenConfig, OpenError, Service};
use crate::daemon::log::{self, LogConfig};
use crate::daemon::login::random;
use crate::daemon::{self, DaemonError, OnHangup, Ready};
use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::message::FlagNames;
use crate::mail::secret::{ITERATIONS_DEFAULT, Password, ScramVerifier};
use crate::mail::structure::Walker;
use crate::net::authority::write_atomically;
use crate::net::budget::NetConfig;
use crate::net::listener::{BindError, Endpoint};
use crate::queue::QueueConfig;
use crate::queue::route::Routes;
use crate::store::{Folder, NewMessage, Pending, Quota, Store, WriteError};

/// Ports are counted from here, so 10025 is SMTP's.
const PORTS_DEFAULT: u16 = 10_000;

/// The highest base that leaves room for POP3S (995).
const PORTS_MAX: i64 = 65_535 - 995;

/// Connections at the same time.
const SESSIONS_MAX: u32 = 1_000;

/// Who lives here.
const PEOPLE: [&str; 2] = ["ann@pillarbox.local", "bob@pillarbox.local"];

/// Remembers in the store that the welcome message was delivered.
const WELCOMED: &str = "try-welcomed";

/// The first letter.
const WELCOME: &str = "\
From: Pillarbox <postmaster@pillarbox.local>
To: {to}
Date: {date}
Message-ID: <welcome.{since}@pillarbox.local>
Subject: Welcome to Pillarbox
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

Good day,

this letter lies in a mailbox of your own mail server. Send one to the
other account and watch it arrive; a mail program that stays connected
is told at once.

What you were told is kept stays kept: pull the plug, start again, and
look.
";

/// Arguments of `try`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where everything is kept [default: pillarbox-try in your data folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Ports are counted from here: 10000 puts SMTP at 10025
    #[arg(long, value_name = "BASE", default_value_t = PORTS_DEFAULT,
          value_parser = clap::value_parser!(u16).range(..=PORTS_MAX))]
    ports: u16,
    /// For scripts: print one line of JSON once everything listens, and nothing more
    #[arg(long)]
    json: bool,
    /// Allow logins without TLS too (all clients are on this machine)
    #[arg(long)]
    allow_clear_auth: bool,
    /// Send mail for a domain to a server, such as example.org=127.0.0.1:2525 ('*' for all domains);
    /// without this no mail leaves this machine
    #[arg(long, value_name = "DOMAIN=HOST:PORT", value_parser = parse_route)]
    route: Vec<(String, String)>,
}

/// An account as it is kept in `try-accounts.json`.
#[derive(Clone, Serialize, Deserialize)]
struct TryAccount {
    address: String,
    password: String,
}

/// Runs until Ctrl-C.
pub(super) fn run(args: &Args, log_level: Option<&str>) -> Result<(), Failure> {
    let data = match &args.data {
        Some(folder) => folder.clone(),
        None => default_folder().ok_or("there is no home folder to keep the mail in; name one with --data DIR")?,
    };
    let data = std::path::absolute(data)?;
    let mut settings = settings(&data, args);
    log_level.unwrap_or("warn").clone_into(&mut settings.log.level);
    let handle = log::start(&settings.log)?;
    let prepared = daemon::prepare(settings.setup()).map_err(|error| advise(error, args.ports))?;

    let file = data.join("try-accounts.json");
    let ready = |ready: &Ready, accounts: Vec<TryAccount>| {
        let text =
            if args.json { as_json(ready, &accounts, &data) } else { as_table(ready, &accounts, &data, &args.route) };
        print(&text).map_err(|error| DaemonError::System("standard output", io::Error::other(error.to_string())))
    };
    daemon::run(prepared, &OnHangup::Stop, handle.as_ref(), |store| furnish(store, &file), ready)?;
    if !args.json {
        print("Stopped.\n")?;
    }
    Ok(())
}

/// `$XDG_DATA_HOME/pillarbox-try`, or the same in `~/.local/share`.
fn default_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(base.join("pillarbox-try"))
}

fn settings(data: &Path, args: &Args) -> Settings {
    let at = |port| Endpoint::At(SocketAddr::from((Ipv4Addr::LOCALHOST, args.ports.saturating_add(port))));
    Settings {
        data: data.to_owned(),
        hostname: Some("pillarbox.local".to_owned()),
        // Root has no better right to a trial than anybody else, but containers know no other user.
        allow_root: true,
        auth_in_clear_on_loopback: args.allow_clear_auth,
        listen: ListenConfig::at(at),
        // Everybody comes from the one loopback address here, and benches come in hundreds.
        net: NetConfig { sessions_max: SESSIONS_MAX, sessions_per_address_max: SESSIONS_MAX },
        log: LogConfig::default(),
        // Who tries a server out expects it to write to nobody by itself.
        queue: QueueConfig { direct: false, ..QueueConfig::default() },
        route: args.route.iter().cloned().collect(),
        ..Settings::default()
    }
}

/// Reads a route of the command line.
fn parse_route(text: &str) -> Result<(String, String), String> {
    let route = text.split_once('=').map(|(domain, place)| (domain.to_owned(), place.to_owned()));
    let route = route.ok_or("write DOMAIN=HOST:PORT")?;
    let table = [route.clone()].into_iter().collect();
    Routes::new(&QueueConfig::default(), &table, &[]).map(|_| route).map_err(|(_, problem)| problem)
}

/// Adds what helps to an error that somebody who tries the program will meet.
fn advise(error: DaemonError, base: u16) -> Failure {
    match &error {
        DaemonError::Open(OpenError::Bind(_, BindError::InUse(_))) => {
            let other = if base <= 50_000 { base + 10_000 } else { PORTS_DEFAULT };
            format!("{error}; `--ports {other}` counts from {other} instead of {base}").into()
        }
        DaemonError::Open(OpenError::Bind(_, BindError::Forbidden(_))) => {
            format!("{error}; `--ports {PORTS_DEFAULT}` is such a choice").into()
        }
        _ => error.into(),
    }
}

/// Makes sure that the two accounts are there with the passwords in `file`, and that they have been
/// welcomed.
fn furnish(store: &Store, file: &Path) -> Result<Vec<TryAccount>, DaemonError> {
    let failed = |error: String| DaemonError::Store(format!("the accounts cannot be set up: {error}"));
    let kept = read_accounts(file).map_err(|error| DaemonError::Folder(file.to_owned(), error))?;
    let accounts = if kept.len() == PEOPLE.len() {
        kept
    } else {
        let new = PEOPLE.map(|address| TryAccount {
            address: address.to_owned(),
            password: Password::generate(&random()).reveal().to_owned(),
        });
        // First the file: a password nobody can read again would be of no use.
        let json = serde_json::to_vec_pretty(&new).map_err(|error| failed(error.to_string()))?;
        write_atomically(file, &json, 0o600).map_err(|error| DaemonError::Folder(file.to_owned(), error))?;
        new.to_vec()
    };
    let mut ids = Vec::new();
    for account in &accounts {
        let address = Address::parse(&account.address).map_err(|error| failed(error.to_string()))?;
        let password =
            Password::new(account.password.clone()).ok_or_else(|| failed("a password is empty".to_owned()))?;
        let reader = store.reader().map_err(|error| failed(error.to_string()))?;
        let known = reader.login(&account.address).map_err(|error| failed(error.to_string()))?;
        drop(reader);
        let derive = || ScramVerifier::derive(&password, random(), ITERATIONS_DEFAULT);
        let id = if let Some((known, verifier)) = known {
            if !verifier.matches(&password) {
                store.set_verifier(known.id, derive()).wait().map_err(|error| failed(error.to_string()))?;
            }
            known.id
        } else {
            let adding = store.add_account(address, derive(), Quota::default());
            adding.wait().map_err(|error| failed(error.to_string()))?
        };
        ids.push((id, Folder::Inbox));
    }
    let welcomed =
        store.reader().and_then(|reader| reader.note(WELCOMED)).map_err(|error| failed(error.to_string()))?;
    if welcomed.is_none() {
        let welcoming = welcome(store, &accounts, SystemTime::now()).map(|message| store.deliver(message, ids));
        welcoming
            .and_then(Pending::wait)
            .and_then(|_| store.put_note(WELCOMED, vec![1]).wait())
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(accounts)
}

/// The first letter in both mailboxes.
fn welcome(store: &Store, accounts: &[TryAccount], now: SystemTime) -> Result<NewMessage, WriteError> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = ZonedTime::utc(Timestamp(i64::try_from(since).unwrap_or(0)));
    let to: Vec<&str> = accounts.iter().map(|account| account.address.as_str()).collect();
    let text = WELCOME
        .replace("{to}", &to.join(", "))
        .replace("{date}", &at.to_rfc5322())
        .replace("{since}", &since.to_string())
        .replace('\n', "\r\n");
    let mut spool = store.spool()?;
    spool.write(text.as_bytes())?;
    let mut walker = Walker::new();
    walker.feed(text.as_bytes());
    let (body, structure) = (spool.finish()?, walker.finish());
    Ok(NewMessage { body, structure, internal_date: at, flags: FlagNames::default() })
}

/// None when there is no file yet.
fn read_accounts(file: &Path) -> io::Result<Vec<TryAccount>> {
    match fs::read(file) {
        Ok(json) => serde_json::from_slice(&json).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// One line for scripts.
fn as_json(ready: &Ready, accounts: &[TryAccount], data: &Path) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        listeners: serde_json::Map<String, serde_json::Value>,
        accounts: &'a [TryAccount],
        ca: Option<&'a Path>,
        data: &'a Path,
        pid: u32,
    }
    let listeners =
        ready.listeners.iter().map(|(service, at)| (service.name().to_owned(), at.to_string().into())).collect();
    let shown = Shown { listeners, accounts, ca: ready.ca.as_deref(), data, pid: std::process::id() };
    serde_json::to_string(&shown).map(|line| line + "\n").unwrap_or_default()
}

/// What a person needs to know to begin.
fn as_table(ready: &Ready, accounts: &[TryAccount], data: &Path, routes: &[(String, String)]) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    let at = |wanted: Service| {
        ready.listeners.iter().find(|(service, _)| *service == wanted).map_or(0, |(_, address)| address.port())
    };
    line(format_args!("Pillarbox is running. Ctrl-C stops it; mail and accounts stay in\n  {}\n", data.display()));
    line(format_args!("  {:<12} {:<18} {}", "Service", "Address", "For"));
    for (service, address) in &ready.listeners {
        line(format_args!("  {:<12} {:<18} {}", service.name(), address.to_string(), purpose(*service)));
    }
    line(format_args!("\n  {:<22} {}", "Account", "Password"));
    for account in accounts {
        line(format_args!("  {:<22} {}", account.address, account.password));
    }
    let ca = ready.ca.as_deref().map(|ca| ca.display().to_string()).unwrap_or_default();
    if routes.is_empty() {
        line(format_args!(
            "\nMail for other domains is refused: a trial writes to nobody. To send a domain's mail to a server\nof yours, \
             start it with --route example.org=HOST:PORT."
        ));
    }
    for (domain, place) in routes {
        let who = if domain == "*" { "all other domains" } else { domain };
        line(format_args!("\nMail for {who} goes to {place}."));
    }
    line(format_args!("\nThe certificate authority that mail programs must trust:\n  {ca}\n"));
    let (Some(ann), Some(bob)) = (accounts.first(), accounts.get(1)) else { return text };
    let ca = quoted(&ca);
    line(format_args!(
        "Send a message:\n  printf 'From: {ann}\\nTo: {bob}\\nSubject: Hello\\n\\nHello Bob.\\n' | curl --cacert {ca} --crlf \\\n    \
         --user '{ann}:{password}' --mail-from {ann} --mail-rcpt {bob} \\\n    --upload-file - \
         smtps://localhost:{port}\n",
        ann = ann.address,
        bob = bob.address,
        password = ann.password,
        port = at(Service::Submissions),
    ));
    line(format_args!(
        "Read the newest one:\n  curl --cacert {ca} --user '{bob}:{password}' 'imaps://localhost:{port}/INBOX;MAILINDEX=*'\n",
        bob = bob.address,
        password = bob.password,
        port = at(Service::Imaps),
    ));
    text
}

fn purpose(service: Service) -> &'static str {
    match service {
        Service::Smtp => "mail from other servers",
        Service::Submission => "sending, STARTTLS",
        Service::Submissions => "sending, TLS",
        Service::Imap => "reading by IMAP, STARTTLS",
        Service::Imaps => "reading by IMAP, TLS",
        Service::Pop3 => "reading by POP3, STLS",
        Service::Pop3s => "reading by POP3, TLS",
    }
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        let at = |service: Service| (service, SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + service.port())));
        Ready { listeners: Service::ALL.map(at).to_vec(), ca: Some("/tmp/a b/tls/ca.crt".into()) }
    }

    fn accounts() -> Vec<TryAccount> {
        let account = |address: &str| TryAccount { address: address.to_owned(), password: "pass-word".to_owned() };
        PEOPLE.map(account).to_vec()
    }

    #[test]
    fn the_line_for_scripts_is_one_object_with_everything() {
        let line = as_json(&ready(), &accounts(), Path::new("/tmp/a b"));
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["listeners"]["pop3s"], "127.0.0.1:10995");
        assert_eq!(value["accounts"][1]["address"], "bob@pillarbox.local");
        assert_eq!((value["ca"].as_str(), value["data"].as_str()), (Some("/tmp/a b/tls/ca.crt"), Some("/tmp/a b")));
        assert!(value["pid"].is_u64());
    }

    #[test]
    fn the_table_quotes_what_a_shell_would_split() {
        let text = as_table(&ready(), &accounts(), Path::new("/tmp/a b"), &[]);
        assert!(text.contains("--cacert '/tmp/a b/tls/ca.crt'"), "{text}");
        assert!(text.contains("smtps://localhost:10465") && text.contains("imaps://localhost:10993/"), "{text}");
        assert!(text.lines().filter(|line| !line.contains("/tmp")).all(|line| line.len() <= 120), "{text}");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }

    #[test]
    fn no_mail_leaves_unless_a_route_says_where_to() {
        let told = |routes: &[(String, String)]| as_table(&ready(), &accounts(), Path::new("/tmp/x"), routes);
        assert!(told(&[]).contains("Mail for other domains is refused"));
        let route = parse_route("*=127.0.0.1:2525").unwrap();
        assert!(told(std::slice::from_ref(&route)).contains("Mail for all other domains goes to 127.0.0.1:2525."));
        for wrong in ["example.org", "example.org=", "a b=h:1", "x.test=h:0"] {
            assert!(parse_route(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_in_use_is_answered_with_another_base() {
        let taken = BindError::InUse("127.0.0.1:10025".parse().unwrap());
        let text = advise(DaemonError::Open(OpenError::Bind(Service::Smtp, taken)), 10_000).to_string();
        assert!(text.contains("port 10025 on 127.0.0.1 is in use") && text.contains("--ports 20000"), "{text}");
    }
}
