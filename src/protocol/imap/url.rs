//! IMAP URLs that name a message or a part of one (RFC 5092), also with authorization (RFC 4467).
//!
//! `imap://ann@host/Drafts;UIDVALIDITY=3/;UID=20/;SECTION=1.2/;PARTIAL=0.100;URLAUTH=…`, or from the
//! path on for what is on this server. What is read is decoded once; the text itself is kept where a
//! signature is about it.

use super::fetch::SectionKind;
use super::grammar::section_spec;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{MailboxName, Uid};

/// Longest URL in bytes: a mailbox's longest name with each byte as `%hh`, and room for the rest.
pub const URL_MAX: usize = 4096;

/// A URL of a message or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImapUrl {
    /// Where it is and whose, when the URL is absolute.
    pub server: Option<Server>,
    /// The mailbox.
    pub mailbox: MailboxName,
    /// The mailbox's UIDVALIDITY, where the URL insists on one.
    pub uid_validity: Option<u32>,
    /// The message.
    pub uid: Uid,
    /// Which part of it: the path and what of the part; all of it when not given.
    pub section: Option<(Vec<u32>, SectionKind)>,
    /// From where on, and how many bytes at most.
    pub partial: Option<(u32, Option<u32>)>,
    /// Who may use it, where it carries an authorization.
    pub access: Option<Access>,
}

/// The server part of an absolute URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The user whose mailbox it is.
    pub user: Option<String>,
    /// The host, in lower case, without its port.
    pub host: String,
}

/// The authorization of a URL (RFC 4467 section 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Bytes of the URL's text that the token is about: up to the mechanism.
    pub rump: usize,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// For whom it is.
    pub bearer: Bearer,
    /// The token, where there is one already; only the mechanism `INTERNAL` is known.
    pub token: Option<[u8; 32]>,
}

/// Who may use an authorized URL (RFC 4467 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// The submission server on behalf of this user.
    Submit(String),
    /// This user.
    User(String),
    /// Any user.
    AnyUser,
    /// Anybody.
    Anybody,
}

impl ImapUrl {
    /// Reads a URL; `None` for what is none, or names no message.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > URL_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (server, path) = match strip_word(text, "imap://") {
            Some(rest) => {
                let (server, path) = rest.split_at(rest.find('/')?);
                (Some(server_of(server)?), path)
            }
            None => (None, text),
        };
        let path = path.strip_prefix('/')?;
        let (mailbox, rest) = split_word(path, "/;UID=")?;
        let (mailbox, uid_validity) = match split_word(mailbox, ";UIDVALIDITY=") {
            Some((mailbox, number)) => (mailbox, Some(nonzero(number)?)),
            None => (mailbox, None),
        };
        // The authorization stands behind everything else.
        let (rest, access) = match split_word(rest, ";EXPIRE=").or_else(|| split_word(rest, ";URLAUTH=")) {
            Some((before, _)) => (before, Some(access_of(text, rest.get(before.len()..)?)?)),
            None => (rest, None),
        };
        let (rest, partial) = match split_word(rest, "/;PARTIAL=") {
            Some((before, range)) => (before, Some(partial_of(range)?)),
            None => (rest, None),
        };
        let (uid, section) = match split_word(rest, "/;SECTION=") {
            Some((uid, section)) => (uid, Some(section_spec(&decoded(section)?)?)),
            None => (rest, None),
        };
        Some(Self {
            server,
            mailbox: MailboxName::new(&decoded(mailbox)?)?,
            uid_validity,
            uid: Uid::new(nonzero(uid)?)?,
            section,
            partial,
            access,
        })
    }
}

/// Tells whether `name` in a URL means the user with this `address`: the address, or as at login its
/// local part alone.
#[must_use]
pub fn is_user(address: &str, name: &str) -> bool {
    let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
    name.eq_ignore_ascii_case(address) || name.eq_ignore_ascii_case(local)
}

/// `[user[;AUTH=…]@]host[:port]`.
fn server_of(text: &str) -> Option<Server> {
    let (user, host) = match text.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, text),
    };
    let user = user.map(|user| split_word(user, ";AUTH=").map_or(user, |(user, _)| user));
    let user = match user.filter(|user| !user.is_empty()) {
        Some(user) => Some(decoded(user)?),
        None => None,
    };
    // An address of version 6 stands in brackets.
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    };
    (!host.is_empty()).then(|| Server { user, host: host.to_ascii_lowercase() })
}

/// `offset[.length]`; what lies beyond 32 bits lies beyond every message.
fn partial_of(text: &str) -> Option<(u32, Option<u32>)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u32::MAX))
    };
    match text.split_once('.') {
        Some((offset, length)) => Some((number(offset)?, Some(number(length).filter(|length| *length > 0)?))),
        None => Some((number(text)?, None)),
    }
}

/// `[;EXPIRE=…];URLAUTH=…[:INTERNAL:…]`, the end of `whole`.
fn access_of(whole: &str, text: &str) -> Option<Access> {
    let (expires, rest) = match strip_word(text, ";EXPIRE=") {
        Some(rest) => {
            let (date, _) = split_word(rest, ";URLAUTH=")?;
            (Some(ZonedTime::parse_rfc3339(&decoded(date)?)?.at), rest.get(date.len()..)?)
        }
        None => (None, text),
    };
    let rest = strip_word(rest, ";URLAUTH=")?;
    let (bearer, verifier) = rest.split_once(':').map_or((rest, None), |(bearer, verifier)| (bearer, Some(verifier)));
    let token = match verifier {
        Some(verifier) => Some(token_of(strip_word(verifier, "INTERNAL:")?)?),
        None => None,
    };
    let rump = whole.len() - verifier.map_or(0, |verifier| verifier.len() + 1);
    let bearer = if let Some(user) = strip_word(bearer, "submit+") {
        Bearer::Submit(decoded(user).filter(|user| !user.is_empty())?)
    } else if let Some(user) = strip_word(bearer, "user+") {
        Bearer::User(decoded(user).filter(|user| !user.is_empty())?)
    } else if bearer.eq_ignore_ascii_case("authuser") {
        Bearer::AnyUser
    } else if bearer.eq_ignore_ascii_case("anonymous") {
        Bearer::Anybody
    } else {
        return None;
    };
    Some(Access { rump, expires, bearer, token })
}

/// Sixty-four hexadecimal digits.
fn token_of(text: &str) -> Option<[u8; 32]> {
    let mut token = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in token.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(token)
}

/// Undoes `%hh`; `None` where it is no UTF-8 or holds a NUL.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(if *byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            rest = after;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            u8::from_str_radix(digits, 16).ok().filter(|byte| *byte != 0)?
        } else {
            *byte
        });
    }
    String::from_utf8(bytes).ok()
}

fn nonzero(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number > 0)
}

/// What stands before and behind the first `word`, in any case.
fn split_word<'t>(text: &'t str, word: &str) -> Option<(&'t str, &'t str)> {
    let at = text.as_bytes().windows(word.len()).position(|found| found.eq_ignore_ascii_case(word.as_bytes()))?;
    Some((text.get(..at)?, text.get(at + word.len()..)?))
}

/// What stands behind a `word` at the front, in any case.
fn strip_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (front, rest) = text.split_at_checked(word.len())?;
    front.eq_ignore_ascii_case(word).then_some(rest)
}

#[cfg(test)]
mod tests {
    //! What is read of the URLs of RFC 5092 and RFC 4467, and what is none.

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_names_a_message_or_a_part_of_one() {
        let url = ImapUrl::parse("/Drafts;UIDVALIDITY=385759045/;UID=20/;section=1.2.MIME/;PARTIAL=3.10").unwrap();
        assert_eq!(url.mailbox.as_str(), "Drafts");
        assert_eq!((url.uid_validity, url.uid.get(), url.partial), (Some(385_759_045), 20, Some((3, Some(10)))));
        assert_eq!(url.section, Some((vec![1, 2], SectionKind::Mime)));
        let url = ImapUrl::parse("/Ar%C3%A7/a%20b/;uid=1").unwrap();
        assert_eq!((url.mailbox.as_str(), url.section, url.partial), ("Arç/a b", None, None));
        let url = ImapUrl::parse("/x/;UID=1/;SECTION=HEADER.FIELDS%20(Subject%20To)").unwrap();
        let fields = SectionKind::HeaderFields(vec!["Subject".to_owned(), "To".to_owned()], false);
        assert_eq!(url.section, Some((vec![], fields)));
    }

    #[test]
    fn an_absolute_url_names_server_and_user() {
        let server = |text: &str| ImapUrl::parse(text).unwrap().server.unwrap();
        let found = server("imap://ann%40x.test;AUTH=*@Mail.X.test:1143/INBOX/;UID=1");
        assert_eq!((found.user.as_deref(), found.host.as_str()), (Some("ann@x.test"), "mail.x.test"));
        let found = server("IMAP://[::1]:143/INBOX/;UID=1");
        assert_eq!((found.user, found.host.as_str()), (None, "::1"));
    }

    #[test]
    fn an_authorization_is_about_all_that_stands_before_its_mechanism() {
        let token = "0123456789abcdef".repeat(4);
        let rump = "imap://ann@x/INBOX/;uid=20/;section=1.2;EXPIRE=2026-11-23T23:00:00Z;urlauth=submit+fred";
        let text = format!("{rump}:internal:{token}");
        let access = ImapUrl::parse(&text).unwrap().access.unwrap();
        assert_eq!(text.get(..access.rump), Some(rump));
        assert_eq!(access.bearer, Bearer::Submit("fred".to_owned()));
        assert_eq!(access.expires, Some(Timestamp(1_795_474_800)));
        assert_eq!(access.token.unwrap()[..2], [0x01, 0x23]);
        let access = ImapUrl::parse(rump).unwrap().access.unwrap();
        assert_eq!((access.rump, access.token), (rump.len(), None));
        for (word, bearer) in [("authuser", Bearer::AnyUser), ("ANONYMOUS", Bearer::Anybody)] {
            let url = ImapUrl::parse(&format!("imap://ann@x/INBOX/;UID=1;URLAUTH={word}")).unwrap();
            assert_eq!(url.access.unwrap().bearer, bearer);
        }
    }

    #[test]
    fn what_names_no_message_is_no_url() {
        for bad in [
            "",
            "INBOX/;UID=1",
            ";UID=1",
            "//x/INBOX/;UID=1",
            "/INBOX",
            "/INBOX/;UID=0",
            "/INBOX/;UID=x",
            "/INBOX/;UID=4294967296",
            "/INBOX;UIDVALIDITY=0/;UID=1",
            "/INBOX/;UID=1/;SECTION=",
            "/INBOX/;UID=1/;SECTION=1]",
            "/INBOX/;UID=1/;SECTION=1.NONE",
            "/INBOX/;UID=1/;PARTIAL=1.0",
            "/INBOX/;UID=1/;PARTIAL=",
            "/IN%zzBOX/;UID=1",
            "/IN%00BOX/;UID=1",
            "/%ff/;UID=1",
            "/IN BOX/;UID=1",
            "http://x/INBOX/;UID=1",
            "imap:///INBOX/;UID=1",
            "/INBOX/;UID=1;URLAUTH=root",
            "/INBOX/;UID=1;URLAUTH=user+",
            "/INBOX/;UID=1;URLAUTH=authuser:INTERNAL:00",
            "/INBOX/;UID=1;URLAUTH=authuser:OTHER:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "/INBOX/;UID=1;EXPIRE=tomorrow;URLAUTH=authuser",
            "/INBOX/;UID=1;EXPIRE=2026-11-23T23:00:00Z",
        ] {
            assert_eq!(ImapUrl::parse(bad), None, "{bad}");
        }
        assert_eq!(ImapUrl::parse(&format!("/{}/;UID=1", "x".repeat(URL_MAX))), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(
            text in "(imap://)?[a-z@;:%/\\[]{0,12}/(;UID=|;SECTION=|;PARTIAL=|;EXPIRE=|;URLAUTH=|[0-9A-Z.:+%é;/]){0,12}",
        ) {
            let _ = ImapUrl::parse(&text);
        }
    }
}
