//! Commands of any state: CAPABILITY, NOOP, LOGOUT, ID (RFC 9051 section 6.1, RFC 2971).

use super::command::Command;
use super::desk::{Desk, End, Stage, Then};
use crate::protocol::sasl::Mechanism;

/// Capabilities that clients look at first.
const FIRST: &str = "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE";

/// The other capabilities. They matter after login only, but many a client looks before it and
/// never again (Python's imaplib, for one).
const FURTHER: &str = "ACL BINARY CATENATE CHILDREN CONDSTORE CONTEXT=SEARCH CREATE-SPECIAL-USE ESEARCH ESORT I18NLEVEL=1 IDLE INPROGRESS LIST-EXTENDED \
     LIST-METADATA LIST-MYRIGHTS LIST-STATUS METADATA MOVE MULTIAPPEND MULTISEARCH NAMESPACE NOTIFY OBJECTID PARTIAL PREVIEW QRESYNC QUOTA \
     QUOTA=RES-STORAGE QUOTA=RES-MESSAGE REPLACE RIGHTS=kxte SAVEDATE SEARCHRES SORT SORT=DISPLAY SPECIAL-USE STATUS=SIZE \
     THREAD=ORDEREDSUBJECT THREAD=REFERENCES THREAD=REFS UIDBATCHES UIDONLY UIDPLUS UNAUTHENTICATE UNSELECT \
     URLAUTH UTF8=ACCEPT WITHIN";

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
    let login = match desk.stage {
        Stage::Authenticated if desk.compressed || desk.config.compressed_sessions_max == 0 => "",
        Stage::Authenticated => " COMPRESS=DEFLATE",
        Stage::Greeting if desk.may_log_in() => " AUTH=SCRAM-SHA-256 AUTH=PLAIN AUTH=LOGIN",
        Stage::Greeting => " LOGINDISABLED",
    };
    let had = |mechanism: Mechanism, name| {
        if desk.stage == Stage::Greeting && mechanism.is_had(desk.channel.as_deref()) { name } else { "" }
    };
    let external = had(Mechanism::External, " AUTH=EXTERNAL");
    let plus = had(Mechanism::ScramSha256Plus, " AUTH=SCRAM-SHA-256-PLUS");
    let starttls =
        if desk.site.starttls && !desk.secure && desk.stage != Stage::Authenticated { " STARTTLS" } else { "" };
    format!("{FIRST}{starttls}{external}{plus}{login} {FURTHER} APPENDLIMIT={}", desk.config.append_max_bytes)
}
