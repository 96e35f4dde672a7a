//! The not authenticated state: greeting, STARTTLS, LOGIN, AUTHENTICATE (RFC 9051 section 6.2).

use crate::protocol::sasl::{self, Mechanism};

use super::any::capabilities;
use super::command::Command;
use super::desk::{Begun, Desk, End, Then};
use super::errand::login::Login;
use super::response::{Condition, write_status};

/// Says hello and what can be done (RFC 9051 section 7.1.1).
pub(crate) fn greet(desk: &mut Desk) {
    let code = format!("CAPABILITY {}", capabilities(desk));
    let text = format!("{} Pillarbox", desk.site.host);
    write_status(&mut desk.out, None, Condition::Ok, Some(&code), &text);
}

/// Begins a command of this state.
pub(crate) fn begin(desk: &mut Desk, command: Command) -> Begun {
    match command {
        Command::StartTls if desk.secure => End::bad("TLS is on already").into(),
        Command::StartTls if !desk.site.starttls => End::bad("there is no TLS here").into(),
        Command::StartTls => End::ok("begin the handshake").then(Then::StartTls).into(),
        // The password was sent all the same; at least it was not of use (RFC 9051 section 6.2.3).
        _ if !desk.may_log_in() => End::no("[PRIVACYREQUIRED] start TLS first").into(),
        Command::Login { user, password } => {
            Begun::errand(Login::asking(sasl::Request::CheckPassword { login: user, password }))
        }
        Command::Authenticate { mechanism, initial } => match Mechanism::offered(&mechanism, desk.channel.as_deref()) {
            Some(mechanism) => Begun::errand(Login::exchange(mechanism, initial.as_deref(), desk.channel.as_deref())),
            None => End::no("[CANNOT] there is no such mechanism").into(),
        },
        _ => End::bad("log in first").into(),
    }
}
