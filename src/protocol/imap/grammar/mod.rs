//! Turns a whole command into a [`Command`] (RFC 3501 section 9, RFC 9051 section 9).
//!
//! One function reads one command; LIST, FETCH, SEARCH and the flags of STORE and APPEND have a
//! file each. A command that breaks the grammar is answered with its usage, so that a person who
//! types one learns what it needs. Whether a command may come now is the session's business.

mod append;
mod fetch;
mod filter;
mod flags;
mod list;
mod metadata;
mod notify;
mod search;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::mail::mailbox::{MailboxName, ModSeq, SpecialUse};
use crate::mail::rights::{Rights, RightsMode};
use crate::mail::secret::Password;

use super::command::{Command, FetchCommand, Resync, StoreCommand, Tagged};
use super::fetch::SectionKind;
use super::name;
use super::sequence::SequenceSet;
use super::token::{Cursor, Parsed, Refusal};
pub(super) use append::{AppendLine, AppendStart, OpenMessage, append_rest, append_start};

/// Most fields of an ID that are kept (RFC 2971 section 3.3).
const ID_FIELDS_MAX: usize = 30;

/// A command that is not taken, and whose it was.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) tag: Option<String>,
    pub(super) refusal: Refusal,
}

/// Reads a whole command, without its last line end.
pub(super) fn parse(text: &[u8], utf8: bool) -> Result<Tagged, Rejected> {
    let mut cursor = Cursor::new(text);
    let Ok(tag) = cursor.tag() else {
        return Err(Rejected { tag: None, refusal: Refusal::Bad("a command begins with a tag and a space") });
    };
    match (Grammar { cursor, utf8 }).command() {
        Ok(command) => Ok(Tagged { tag: tag.to_owned(), command }),
        Err(refusal) => Err(Rejected { tag: Some(tag.to_owned()), refusal }),
    }
}

/// Refuses a command of which only the front may be there.
pub(super) fn rejected(text: &[u8], refusal: Refusal) -> Rejected {
    Rejected { tag: Cursor::new(text).tag().ok().map(str::to_owned), refusal }
}

/// Reads the section of a URL, which is spelled as in FETCH (RFC 5092 section 11).
pub(super) fn section_spec(text: &str) -> Option<(Vec<u32>, SectionKind)> {
    let mut cursor = Cursor::new(text.as_bytes());
    fetch::section_spec(&mut cursor).ok().filter(|(path, kind)| {
        let whole = path.is_empty() && *kind == SectionKind::Body;
        cursor.is_at_end() && !whole
    })
}

/// What a name that no mailbox can have is answered with.
#[derive(Clone, Copy)]
enum Wanted {
    /// A mailbox that should be there.
    Existing,
    /// A mailbox to be made, or to be made first.
    New,
}

/// Reads one command.
struct Grammar<'a> {
    cursor: Cursor<'a>,
    utf8: bool,
}

impl Grammar<'_> {
    /// The command's name and its arguments, up to the end.
    fn command(&mut self) -> Parsed<Command> {
        self.cursor.space().map_err(|_| Refusal::Bad("a command's name follows the tag"))?;
        let mut name = self.cursor.word();
        let uid = name == "UID";
        if uid {
            self.cursor.space().map_err(|_| Refusal::Bad(UID_USAGE))?;
            name = self.cursor.word();
        }
        let command = self.arguments(&name, uid).and_then(|command| self.cursor.end().map(|()| command));
        command.map_err(|refusal| if refusal == Refusal::Usage { Refusal::Bad(usage(&name)) } else { refusal })
    }

    fn arguments(&mut self, name: &str, uid: bool) -> Parsed<Command> {
        let command = match (name, uid) {
            ("CAPABILITY", false) => Command::Capability,
            ("NOOP", false) => Command::Noop,
            ("LOGOUT", false) => Command::Logout,
            ("STARTTLS", false) => Command::StartTls,
            ("NAMESPACE", false) => Command::Namespace,
            ("IDLE", false) => Command::Idle,
            ("COMPRESS", false) => {
                self.cursor.space()?;
                Command::Compress(self.cursor.atom()?.to_ascii_uppercase())
            }
            ("UNAUTHENTICATE", false) => Command::Unauthenticate,
            ("CLOSE", false) => Command::Close,
            ("UNSELECT", false) => Command::Unselect,
            ("CHECK", false) => Command::Check,
            ("EXPUNGE", false) => Command::Expunge { uids: None },
            ("EXPUNGE", true) => Command::Expunge { uids: Some(self.set()?) },
            ("ID", false) => self.id()?,
            ("AUTHENTICATE", false) => self.authenticate()?,
            ("LOGIN", false) => self.login()?,
            ("ENABLE", false) => self.enable()?,
            ("SELECT", false) => self.select(false)?,
            ("EXAMINE", false) => self.select(true)?,
            ("CREATE", false) => self.create()?,
            ("DELETE", false) => Command::Delete(self.mailbox(Wanted::Existing)?),
            ("RENAME", false) => {
                let from = self.mailbox(Wanted::Existing)?;
                Command::Rename { from, to: self.new_mailbox()? }
            }
            ("SUBSCRIBE", false) => Command::Subscribe(self.mailbox(Wanted::Existing)?),
            ("UNSUBSCRIBE", false) => Command::Unsubscribe(self.mailbox(Wanted::Existing)?),
            ("LIST", false) => Command::List(self.list()?),
            ("LSUB", false) => self.lsub()?,
            ("STATUS", false) => {
                let mailbox = self.mailbox(Wanted::Existing)?;
                self.cursor.space()?;
                Command::Status { mailbox, items: list::status_items(&mut self.cursor)? }
            }
            // Those whose messages have literals never come here.
            ("APPEND", false) | ("REPLACE", _) => self.whole_append(name == "REPLACE", uid)?,
            ("GETACL", false) => Command::GetAcl(self.mailbox(Wanted::Existing)?),
            ("MYRIGHTS", false) => Command::MyRights(self.mailbox(Wanted::Existing)?),
            ("DELETEACL", false) => {
                let mailbox = self.mailbox(Wanted::Existing)?;
                Command::DeleteAcl { mailbox, identifier: self.text()? }
            }
            ("LISTRIGHTS", false) => {
                let mailbox = self.mailbox(Wanted::Existing)?;
                Command::ListRights { mailbox, identifier: self.text()? }
            }
            ("SETACL", false) => self.set_acl()?,
            ("GETQUOTA", false) => Command::GetQuota(self.text()?),
            ("GETQUOTAROOT", false) => Command::GetQuotaRoot(self.mailbox(Wanted::Existing)?),
            ("SETQUOTA", false) => self.set_quota()?,
            ("GETMETADATA", false) => self.get_metadata()?,
            ("SETMETADATA", false) => self.set_metadata()?,
            ("NOTIFY", false) => self.notify()?,
            ("CANCELUPDATE", false) => self.cancel_update()?,
            ("ESEARCH", false) => self.esearch()?,
            ("SEARCH", _) => {
                self.cursor.space()?;
                Command::Search { uid, program: search::program(&mut self.cursor)? }
            }
            ("SORT", _) => {
                self.cursor.space()?;
                let (order, program) = search::sort(&mut self.cursor)?;
                Command::Sort { uid, order, program }
            }
            ("THREAD", _) => {
                self.cursor.space()?;
                let (threading, program) = search::thread(&mut self.cursor)?;
                Command::Thread { uid, threading, program }
            }
            ("GENURLAUTH", false) => self.gen_url_auth()?,
            ("URLFETCH", false) => {
                let mut urls = vec![self.text()?];
                while self.cursor.end().is_err() {
                    urls.push(self.text()?);
                }
                Command::UrlFetch(urls)
            }
            ("RESETKEY", false) => self.reset_key()?,
            ("UIDBATCHES", false) => self.uid_batches()?,
            ("FETCH", _) => self.fetch(uid)?,
            ("STORE", _) => Command::Store(self.store(uid)?),
            ("COPY", _) => {
                let set = self.set()?;
                Command::Copy { uid, set, mailbox: self.mailbox(Wanted::New)? }
            }
            ("MOVE", _) => {
                let set = self.set()?;
                Command::Move { uid, set, mailbox: self.mailbox(Wanted::New)? }
            }
            (_, true) => return Err(Refusal::Bad(UID_USAGE)),
            _ => return Err(Refusal::Bad("unknown command")),
        };
        Ok(command)
    }

    /// A space and a text.
    fn text(&mut self) -> Parsed<String> {
        self.cursor.space()?;
        self.cursor.text()
    }

    /// A space and a sequence set.
    fn set(&mut self) -> Parsed<SequenceSet> {
        self.cursor.space()?;
        SequenceSet::parse(&mut self.cursor)
    }

    /// A space and a mailbox name.
    fn mailbox(&mut self, wanted: Wanted) -> Parsed<MailboxName> {
        self.cursor.space()?;
        let spelled = self.cursor.astring()?;
        let name = name::decode(&spelled, self.utf8).ok_or(Refusal::Bad("a mailbox name is not UTF-8"))?;
        MailboxName::new(&name).ok_or(Refusal::No(match wanted {
            Wanted::Existing => "[NONEXISTENT] no mailbox has such a name",
            Wanted::New => "[CANNOT] no mailbox can have such a name",
        }))
    }

    /// A space and the name of a mailbox to be made. The separator at its end, by which clients
    /// say that they mean to put mailboxes below it, is dropped (RFC 9051 section 6.3.4).
    fn new_mailbox(&mut self) -> Parsed<MailboxName> {
        self.cursor.space()?;
        let spelled = self.cursor.astring()?;
        let name = name::decode(&spelled, self.utf8).ok_or(Refusal::Bad("a mailbox name is not UTF-8"))?;
        let name = name.strip_suffix('/').unwrap_or(&name);
        MailboxName::new(name).ok_or(Refusal::No("[CANNOT] no mailbox can have such a name"))
    }

    /// RFC 2971 section 3.1.
    fn id(&mut self) -> Parsed<Command> {
        self.cursor.space()?;
        let mut fields = Vec::new();
        if self.cursor.eat_word("NIL") {
            return Ok(Command::Id(fields));
        }
        self.cursor.list(|cursor| {
            let field = cursor.nstring()?.ok_or(Refusal::Usage)?;
            cursor.space()?;
            let value = cursor.nstring()?;
            if fields.len() < ID_FIELDS_MAX {
                fields.push((field, value));
            }
            Ok(())
        })?;
        Ok(Command::Id(fields))
    }

    /// RFC 9051 section 6.2.2; `=` is an initial response of no bytes.
    fn authenticate(&mut self) -> Parsed<Command> {
        self.cursor.space()?;
        let mechanism = self.cursor.atom()?.to_ascii_uppercase();
        let mut initial = None;
        if self.cursor.eat(b' ') && !self.cursor.is_at_end() {
            let coded = self.cursor.atom()?;
            let coded = if coded == "=" { "" } else { coded };
            let decoded = STANDARD.decode(coded);
            initial = Some(decoded.map_err(|_| Refusal::Bad("the initial response is not base64"))?);
        }
        Ok(Command::Authenticate { mechanism, initial })
    }

    fn login(&mut self) -> Parsed<Command> {
        let user = self.text()?;
        let password = Password::new(self.text()?);
        // No account has such a password, so nothing is told about any.
        let password = password.ok_or(Refusal::No("[AUTHENTICATIONFAILED] the user or the password is wrong"))?;
        Ok(Command::Login { user, password })
    }

    /// RFC 5161.
    fn enable(&mut self) -> Parsed<Command> {
        let mut capabilities = Vec::new();
        self.cursor.space()?;
        capabilities.push(self.cursor.atom()?.to_ascii_uppercase());
        while self.cursor.end().is_err() {
            self.cursor.space()?;
            capabilities.push(self.cursor.atom()?.to_ascii_uppercase());
        }
        Ok(Command::Enable(capabilities))
    }

    /// SELECT and EXAMINE; of the parameters of RFC 4466 we know CONDSTORE and QRESYNC (RFC 7162).
    fn select(&mut self, read_only: bool) -> Parsed<Command> {
        let mailbox = match self.mailbox(Wanted::Existing) {
            Ok(mailbox) => Some(mailbox),
            Err(Refusal::No(_)) => None,
            Err(refusal) => return Err(refusal),
        };
        let (mut condstore, mut resync) = (false, None);
        if self.cursor.end().is_err() {
            self.cursor.space()?;
            self.cursor.list(|cursor| match cursor.word().as_str() {
                "CONDSTORE" => {
                    condstore = true;
                    Ok(())
                }
                "QRESYNC" => {
                    cursor.space()?;
                    resync = Some(resynchronization(cursor)?);
                    Ok(())
                }
                "" => Err(Refusal::Usage),
                _ => Err(Refusal::Bad("unknown SELECT parameter")),
            })?;
        }
        let found = |mailbox| Command::Select { mailbox, read_only, condstore, resync };
        Ok(mailbox.map_or(Command::SelectNothing, found))
    }

    /// CREATE with `USE` (RFC 6154 section 3).
    fn create(&mut self) -> Parsed<Command> {
        let mailbox = self.new_mailbox()?;
        let mut special_use = Vec::new();
        if self.cursor.end().is_err() {
            self.cursor.space()?;
            self.cursor.list(|cursor| {
                match cursor.word().as_str() {
                    "USE" => cursor.space()?,
                    "" => return Err(Refusal::Usage),
                    _ => return Err(Refusal::Bad("unknown CREATE parameter")),
                }
                cursor.list(|cursor| {
                    cursor.need(b'\\')?;
                    let attribute = format!("\\{}", cursor.atom()?);
                    let special = SpecialUse::from_attribute(&attribute);
                    let special = special.ok_or(Refusal::No("[USEATTR] no mailbox here has that use"))?;
                    if !special_use.contains(&special) {
                        special_use.push(special);
                    }
                    Ok(())
                })
            })?;
        }
        Ok(Command::Create { mailbox, special_use })
    }

    /// RFC 5267 section 5.
    fn cancel_update(&mut self) -> Parsed<Command> {
        let mut tags = Vec::new();
        loop {
            self.cursor.space()?;
            let tag = self.cursor.quoted()?;
            tags.push(String::from_utf8_lossy(&tag).into_owned());
            if self.cursor.end().is_ok() {
                return Ok(Command::CancelUpdate(tags));
            }
        }
    }

    /// RFC 4314 section 3.1: `+` adds rights, `-` takes them away, neither puts them in place of others.
    fn set_acl(&mut self) -> Parsed<Command> {
        let mailbox = self.mailbox(Wanted::Existing)?;
        let identifier = self.text()?;
        let spelled = self.text()?;
        let (mode, letters) = match spelled.split_at_checked(1) {
            Some(("+", letters)) => (RightsMode::Add, letters),
            Some(("-", letters)) => (RightsMode::Remove, letters),
            _ => (RightsMode::Replace, spelled.as_str()),
        };
        let rights = Rights::parse(letters);
        self.cursor.end()?;
        let rights = rights.ok_or(Refusal::Bad("the rights are l r s w i p k x t e a, and c and d"))?;
        Ok(Command::SetAcl { mailbox, identifier, mode, rights })
    }

    /// RFC 9208 section 4.1.3. The limits are read and dropped: nobody may set them here.
    fn set_quota(&mut self) -> Parsed<Command> {
        let root = self.text()?;
        self.cursor.space()?;
        self.cursor.list(|cursor| {
            cursor.atom()?;
            cursor.space()?;
            cursor.number64().map(drop)
        })?;
        Ok(Command::SetQuota(root))
    }

    /// RFC 4467 section 9.
    fn gen_url_auth(&mut self) -> Parsed<Command> {
        let mut pairs = Vec::new();
        loop {
            let url = self.text()?;
            self.cursor.space()?;
            pairs.push((url, self.cursor.atom()?.to_ascii_uppercase()));
            if self.cursor.end().is_ok() {
                return Ok(Command::GenUrlAuth(pairs));
            }
        }
    }

    /// RFC 4467 section 9.
    fn reset_key(&mut self) -> Parsed<Command> {
        let (mut mailbox, mut mechanisms) = (None, Vec::new());
        if self.cursor.end().is_err() {
            mailbox = Some(self.mailbox(Wanted::Existing)?);
        }
        while self.cursor.end().is_err() {
            self.cursor.space()?;
            mechanisms.push(self.cursor.atom()?.to_ascii_uppercase());
        }
        Ok(Command::ResetKey { mailbox, mechanisms })
    }

    /// RFC 10022.
    fn uid_batches(&mut self) -> Parsed<Command> {
        self.cursor.space()?;
        let size = self.cursor.nz_number()?;
        let mut batches = None;
        if self.cursor.end().is_err() {
            self.cursor.space()?;
            let from = self.cursor.nz_number()?;
            self.cursor.need(b':')?;
            batches = Some((from, self.cursor.nz_number()?));
        }
        Ok(Command::UidBatches { size, batches })
    }

    /// FETCH with CHANGEDSINCE, VANISHED (RFC 7162 sections 3.1.4.1 and 3.2.6) and PARTIAL (RFC 9394).
    fn fetch(&mut self, uid: bool) -> Parsed<Command> {
        let set = self.set()?;
        self.cursor.space()?;
        let items = fetch::items(&mut self.cursor)?;
        let (mut changed_since, mut vanished, mut page) = (None, false, None);
        if self.cursor.end().is_err() {
            self.cursor.space()?;
            self.cursor.list(|cursor| match cursor.word().as_str() {
                "CHANGEDSINCE" => {
                    cursor.space()?;
                    changed_since = Some(ModSeq(cursor.number64()?));
                    Ok(())
                }
                "VANISHED" => {
                    vanished = true;
                    Ok(())
                }
                "PARTIAL" => {
                    cursor.space()?;
                    page = Some(search::page(cursor)?);
                    Ok(())
                }
                "" => Err(Refusal::Usage),
                _ => Err(Refusal::Bad("unknown FETCH modifier")),
            })?;
        }
        if vanished && (!uid || changed_since.is_none()) {
            return Err(Refusal::Bad("VANISHED goes with UID FETCH and CHANGEDSINCE"));
        }
        Ok(Command::Fetch(FetchCommand { uid, set, items, changed_since, vanished, page }))
    }

    /// STORE with UNCHANGEDSINCE (RFC 7162 section 3.1.3).
    fn store(&mut self, uid: bool) -> Parsed<StoreCommand> {
        let set = self.set()?;
        self.cursor.space()?;
        let mut unchanged_since = None;
        if self.cursor.peek() == Some(b'(') {
            self.cursor.list(|cursor| match cursor.word().as_str() {
                "UNCHANGEDSINCE" => {
                    cursor.space()?;
                    unchanged_since = Some(ModSeq(cursor.number64()?));
                    Ok(())
                }
                "" => Err(Refusal::Usage),
                _ => Err(Refusal::Bad("unknown STORE modifier")),
            })?;
            self.cursor.space()?;
        }
        let (mode, silent, flags) = flags::change(&mut self.cursor)?;
        Ok(StoreCommand { uid, set, mode, silent, flags, unchanged_since })
    }
}

/// `(uidvalidity modseq [known-uids] [(numbers uids)])` (RFC 7162 section 3.2.5). The pairs of
/// numbers and uids are read and not needed: what has vanished is always known closely enough.
fn resynchronization(cursor: &mut Cursor) -> Parsed<Resync> {
    cursor.need(b'(')?;
    let uid_validity = cursor.nz_number()?;
    cursor.space()?;
    let since = ModSeq(cursor.number64()?);
    let mut known = None;
    while !cursor.eat(b')') {
        cursor.space()?;
        if cursor.eat(b'(') {
            SequenceSet::parse(cursor)?;
            cursor.space()?;
            SequenceSet::parse(cursor)?;
            cursor.need(b')')?;
            cursor.need(b')')?;
            break;
        }
        if known.is_some() {
            return Err(Refusal::Usage);
        }
        known = Some(SequenceSet::parse(cursor)?);
    }
    Ok(Resync { uid_validity, since, known })
}

/// What may follow UID.
const UID_USAGE: &str = "UID goes before COPY, EXPUNGE, FETCH, MOVE, REPLACE, SEARCH, SORT, STORE or THREAD";

/// What a command needs, for who got it wrong.
fn usage(name: &str) -> &'static str {
    match name {
        "APPEND" => {
            "APPEND needs a mailbox, maybe flags and a date, and the message as a literal or CATENATE and its parts"
        }
        "AUTHENTICATE" => "AUTHENTICATE needs a mechanism",
        "CANCELUPDATE" => "CANCELUPDATE needs the tags of searches, in quotes",
        "COMPRESS" => "COMPRESS needs a mechanism",
        "COPY" => "COPY needs a sequence set and a mailbox",
        "CREATE" => "CREATE needs a mailbox",
        "DELETE" => "DELETE needs a mailbox",
        "DELETEACL" => "DELETEACL needs a mailbox and an identifier",
        "ENABLE" => "ENABLE needs capabilities",
        "ESEARCH" => "ESEARCH needs maybe IN and a list of mailboxes, maybe RETURN and a list, and search keys",
        "EXAMINE" => "EXAMINE needs a mailbox",
        "EXPUNGE" => "EXPUNGE needs nothing, UID EXPUNGE a sequence set",
        "FETCH" => "FETCH needs a sequence set and items",
        "GENURLAUTH" => "GENURLAUTH needs URLs that end with URLAUTH= and an access, each with a mechanism",
        "GETACL" => "GETACL needs a mailbox",
        "GETMETADATA" => "GETMETADATA needs maybe options in parentheses, a mailbox or \"\", and entries",
        "GETQUOTA" => "GETQUOTA needs a quota root",
        "GETQUOTAROOT" => "GETQUOTAROOT needs a mailbox",
        "ID" => "ID needs NIL or a list of fields and values",
        "LIST" => "LIST needs a reference and a mailbox pattern",
        "LISTRIGHTS" => "LISTRIGHTS needs a mailbox and an identifier",
        "LOGIN" => "LOGIN needs a user and a password",
        "LSUB" => "LSUB needs a reference and a mailbox pattern",
        "MOVE" => "MOVE needs a sequence set and a mailbox",
        "MYRIGHTS" => "MYRIGHTS needs a mailbox",
        "NOTIFY" => "NOTIFY needs NONE, or SET, maybe STATUS, and lists of mailboxes with their events",
        "RENAME" => "RENAME needs the old and the new mailbox",
        "REPLACE" => {
            "REPLACE needs a message, a mailbox, maybe flags and a date, and the message as a literal or CATENATE and its parts"
        }
        "RESETKEY" => "RESETKEY needs nothing, or a mailbox and maybe mechanisms",
        "SEARCH" => "SEARCH needs search keys",
        "SELECT" => "SELECT needs a mailbox",
        "SETACL" => "SETACL needs a mailbox, an identifier and rights",
        "SETMETADATA" => "SETMETADATA needs a mailbox or \"\" and a list of entries, each with a string or NIL",
        "SETQUOTA" => "SETQUOTA needs a quota root and a list of limits",
        "SORT" => "SORT needs criteria in parentheses, a charset and search keys",
        "STATUS" => "STATUS needs a mailbox and a list of items",
        "STORE" => "STORE needs a sequence set, FLAGS, +FLAGS or -FLAGS, and flags",
        "SUBSCRIBE" => "SUBSCRIBE needs a mailbox",
        "THREAD" => "THREAD needs an algorithm, a charset and search keys",
        "UIDBATCHES" => "UIDBATCHES needs the size of a batch and maybe a range of batches",
        "UNSUBSCRIBE" => "UNSUBSCRIBE needs a mailbox",
        "URLFETCH" => "URLFETCH needs URLs",
        _ => "this command takes no arguments",
    }
}

#[cfg(test)]
mod tests;
