//! Commands of any state: CAPABILITY, NOOP, LOGOUT, ID (RFC 9051 section 6.1, RFC 2971).

use super::command::Command;
use super::desk::{Desk, End, Stage, Then};

/// Capabilities of every state.
const ALWAYS: &str = "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE";

/// Capabilities that matter after login.
const AFTER_LOGIN: &str = "BINARY CHILDREN CONDSTORE CREATE-SPECIAL-USE ESEARCH IDLE LIST-EXTENDED LIST-STATUS \
     MOVE NAMESPACE QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE SEARCHRES SPECIAL-USE STATUS=SIZE UIDPLUS UNSELECT \
     UTF8=ACCEPT WITHIN";

/// Carries a command of any state out.
pub(crate) fn begin(desk: &mut Desk, command: &Command) -> End {
    match command {
        Command::Capability => {
            let list = capabilities(desk);
            desk.put(format_args!("* CAPABILITY {list}\r\n"));
            End::ok("CAPABILITY completed")
        }
        Command::Logout => {
            desk.put(format_args!("* BYE goodbye\r\n"));
            End::ok("LOGOUT completed").then(Then::Close)
        }
        Command::Id(_) => {
            let version = env!("CARGO_PKG_VERSION");
            desk.put(format_args!("* ID (\"name\" \"Pillarbox\" \"version\" \"{version}\")\r\n"));
            End::ok("ID completed")
        }
        _ => End::ok("NOOP completed"),
    }
}

/// What can be done now (RFC 9051 section 6.1.1).
pub(crate) fn capabilities(desk: &Desk) -> String {
    if desk.stage == Stage::Authenticated {
        return format!("{ALWAYS} {AFTER_LOGIN} APPENDLIMIT={}", desk.config.append_max_bytes);
    }
    let starttls = if desk.site.starttls && !desk.secure { " STARTTLS" } else { "" };
    let login = if desk.may_log_in() { " AUTH=SCRAM-SHA-256 AUTH=PLAIN AUTH=LOGIN" } else { " LOGINDISABLED" };
    format!("{ALWAYS}{starttls}{login}")
}
