//! Commands and their parameters (RFC 5321 section 4.1), with those of the extensions we speak:
//! SIZE (RFC 1870), BODY (RFC 6152, RFC 3030), SMTPUTF8 (RFC 6531), DSN (RFC 3461), AUTH (RFC 4954),
//! REQUIRETLS (RFC 8689), BDAT (RFC 3030), BURL (RFC 4468).
//!
//! [`Command::parse`] takes one line without its end. A line it cannot take is answered by the
//! [`Reply`] it returns; nothing of the line is repeated there. It allocates no more than the line.

use super::reply::Reply;
use crate::mail::address::{Address, AddressError, DOMAIN_MAX, Domain};
use crate::mail::envelope::{BodyType, ForwardPath, Notify, Recipient, ReturnContent, ReversePath};

/// Longest command line in bytes, CRLF included: 512 (RFC 5321 section 4.5.3.1.4), and what the
/// extensions add to MAIL and RCPT: SIZE 26, BODY 17, SMTPUTF8 10, DSN 500, AUTH 500; the sum is
/// rounded up.
pub const COMMAND_LINE_MAX: usize = 2048;

/// Longest line of a command on a port where BURL may come, in bytes, CRLF included (RFC 4468).
pub const BURL_LINE_MAX: usize = crate::protocol::imap::url::URL_MAX + "BURL  LAST\r\n".len();

/// Longest line of an AUTH command or response in bytes, CRLF included (RFC 4954 section 4).
pub const AUTH_LINE_MAX: usize = 12_288;

/// Longest ENVID in bytes (RFC 3461 section 4.4).
pub const ENVELOPE_ID_MAX: usize = 100;

/// Longest ORCPT in bytes (RFC 3461 section 4.2).
pub const ORIGINAL_RECIPIENT_MAX: usize = 500;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// EHLO, or HELO where not `extended`. The name is `None` where it is neither a domain nor an
    /// address literal: many clients call themselves something else.
    Hello {
        /// EHLO
        extended: bool,
        /// Who the client says it is.
        name: Option<Domain>,
    },
    /// MAIL
    Mail(Mail),
    /// RCPT
    Rcpt(Recipient),
    /// DATA
    Data,
    /// BDAT (RFC 3030 section 2)
    Bdat {
        /// Bytes that follow the command line.
        size: u64,
        /// It is the message's last chunk.
        last: bool,
    },
    /// BURL (RFC 4468)
    Burl {
        /// The URL as given.
        url: String,
        /// It is the message's last part.
        last: bool,
    },
    /// RSET
    Reset,
    /// NOOP
    Noop,
    /// HELP
    Help,
    /// VRFY
    Verify,
    /// EXPN
    Expand,
    /// QUIT
    Quit,
    /// STARTTLS (RFC 3207)
    StartTls,
    /// AUTH (RFC 4954)
    Auth {
        /// The mechanism's name as given.
        mechanism: String,
        /// The initial response in base64 as given.
        initial: Option<String>,
    },
    /// No SMTP at all: a web browser, an SSH client. Such a peer is cut off, because what it sends
    /// next could look like mail.
    Foreign,
}

/// MAIL and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Where notifications go.
    pub from: ReversePath,
    /// SIZE=
    pub size: Option<u64>,
    /// BODY=
    pub body: BodyType,
    /// SMTPUTF8
    pub utf8: bool,
    /// RET=
    pub ret: Option<ReturnContent>,
    /// ENVID=, in xtext as given.
    pub envelope_id: Option<String>,
    /// REQUIRETLS (RFC 8689)
    pub require_tls: bool,
}

impl Command {
    /// Reads a command line without its end.
    ///
    /// # Errors
    /// The reply to a line that is no command or has wrong arguments.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        if is_foreign(line) {
            return Ok(Self::Foreign);
        }
        let line = std::str::from_utf8(line).map_err(|_| Reply::new(500, "5.5.2", "command is not UTF-8"))?;
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Reply::new(500, "5.5.2", "command holds a control character"));
        }
        // Trailing white space is tolerated (RFC 5321 section 4.1.1).
        let line = line.trim_end_matches([' ', '\t']);
        let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let rest = rest.trim_start_matches([' ', '\t']);
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => hello(true, rest),
            "HELO" => hello(false, rest),
            "MAIL" => mail(rest),
            "RCPT" => rcpt(rest),
            "DATA" => alone(rest, Self::Data),
            "BDAT" => bdat(rest),
            "BURL" => burl(rest),
            "RSET" => alone(rest, Self::Reset),
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" if rest.is_empty() => Err(bad_arguments("VRFY needs a name")),
            "VRFY" => Ok(Self::Verify),
            "EXPN" => Ok(Self::Expand),
            "QUIT" => alone(rest, Self::Quit),
            "STARTTLS" => alone(rest, Self::StartTls),
            "AUTH" => auth(rest),
            // Known and never offered: RFC 5321 section 4.2.4 wants 502 for these.
            "SEND" | "SOML" | "SAML" | "TURN" | "ETRN" | "ATRN" | "XCLIENT" | "XFORWARD" => {
                Err(Reply::new(502, "5.5.1", "command not implemented"))
            }
            _ => Err(Reply::new(500, "5.5.1", "command unknown")),
        }
    }
}

/// Tells whether a line is one of another protocol: HTTP's request and header lines, SSH's greeting.
fn is_foreign(line: &[u8]) -> bool {
    const OPENINGS: [&[u8]; 12] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"CONNECT ",
        b"TRACE ",
        b"PATCH ",
        b"PRI * HTTP/",
        b"SSH-",
        b"HOST:",
    ];
    OPENINGS.iter().any(|opening| line.get(..opening.len()).is_some_and(|start| start.eq_ignore_ascii_case(opening)))
}

fn bad_arguments(text: &'static str) -> Reply {
    Reply::new(501, "5.5.4", text)
}

fn alone(rest: &str, command: Command) -> Result<Command, Reply> {
    if rest.is_empty() { Ok(command) } else { Err(bad_arguments("this command takes no arguments")) }
}

/// `EHLO`/`HELO` (RFC 5321 section 4.1.1.1). A name that is no domain is no reason to refuse a client.
fn hello(extended: bool, rest: &str) -> Result<Command, Reply> {
    if rest.is_empty() || rest.len() > DOMAIN_MAX {
        return Err(bad_arguments("say who you are: a domain or an address literal"));
    }
    Ok(Command::Hello { extended, name: Domain::parse(rest).ok() })
}

/// `BURL url [LAST]` (RFC 4468 section 3.5).
fn burl(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let url = words.next().ok_or_else(|| bad_arguments("BURL needs a URL"))?.to_owned();
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(bad_arguments("only LAST follows the URL")),
    };
    if words.next().is_some() { Err(bad_arguments("nothing follows LAST")) } else { Ok(Command::Burl { url, last }) }
}

/// `BDAT size [LAST]` (RFC 3030 section 2).
fn bdat(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let size = words.next().and_then(number).ok_or_else(|| bad_arguments("BDAT needs a size"))?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(bad_arguments("only LAST may follow the size")),
    };
    if words.next().is_some() {
        return Err(bad_arguments("only LAST may follow the size"));
    }
    Ok(Command::Bdat { size, last })
}

/// `AUTH mechanism [initial-response]` (RFC 4954 section 4).
fn auth(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let mechanism = words.next().ok_or_else(|| bad_arguments("AUTH needs a mechanism"))?.to_owned();
    let initial = words.next().map(str::to_owned);
    if words.next().is_some() {
        return Err(bad_arguments("AUTH takes a mechanism and one response"));
    }
    Ok(Command::Auth { mechanism, initial })
}

/// `MAIL FROM:<reverse-path> [parameters]` (RFC 5321 section 4.1.1.2).
fn mail(rest: &str) -> Result<Command, Reply> {
    let rest = after_keyword(rest, "FROM:").ok_or_else(|| bad_arguments("the syntax is MAIL FROM:<address>"))?;
    let (path, parameters) = split_path(rest).ok_or_else(|| Reply::new(501, "5.1.7", "the sender needs <...>"))?;
    let from = match path {
        "" => ReversePath::Null,
        path => ReversePath::Address(Address::parse(without_route(path)).map_err(|error| bad_address(error, "5.1.7"))?),
    };
    let mut mail = Mail {
        from,
        size: None,
        body: BodyType::SevenBit,
        utf8: false,
        ret: None,
        envelope_id: None,
        require_tls: false,
    };
    let mut seen = Seen::default();
    for (name, value) in parameters_of(parameters)? {
        match (name.as_str(), value) {
            ("SIZE", Some(value)) => {
                seen.once(1)?;
                mail.size = Some(number(value).ok_or_else(|| bad_arguments("SIZE is a number of bytes"))?);
            }
            ("BODY", Some(value)) => {
                seen.once(2)?;
                mail.body = body_type(value)?;
            }
            ("SMTPUTF8", None) => {
                seen.once(4)?;
                mail.utf8 = true;
            }
            ("RET", Some(value)) => {
                seen.once(8)?;
                mail.ret = Some(match value.to_ascii_uppercase().as_str() {
                    "FULL" => ReturnContent::Full,
                    "HDRS" => ReturnContent::Headers,
                    _ => return Err(bad_arguments("RET is FULL or HDRS")),
                });
            }
            ("ENVID", Some(value)) => {
                seen.once(16)?;
                if value.len() > ENVELOPE_ID_MAX || !is_xtext(value) {
                    return Err(bad_arguments("ENVID is xtext of at most 100 characters"));
                }
                mail.envelope_id = Some(value.to_owned());
            }
            ("REQUIRETLS", None) => {
                seen.once(64)?;
                mail.require_tls = true;
            }
            // RFC 4954 section 5: who submitted it first. We trust nobody's word for that.
            ("AUTH", Some(value)) if is_xtext(value) => seen.once(32)?,
            _ => return Err(unknown_parameter()),
        }
    }
    Ok(Command::Mail(mail))
}

/// `RCPT TO:<forward-path> [parameters]` (RFC 5321 section 4.1.1.3).
fn rcpt(rest: &str) -> Result<Command, Reply> {
    let rest = after_keyword(rest, "TO:").ok_or_else(|| bad_arguments("the syntax is RCPT TO:<address>"))?;
    let (path, parameters) = split_path(rest).ok_or_else(|| Reply::new(501, "5.1.3", "the recipient needs <...>"))?;
    let path = match without_route(path) {
        path if path.eq_ignore_ascii_case("postmaster") => ForwardPath::Postmaster,
        path => ForwardPath::Address(Address::parse(path).map_err(|error| bad_address(error, "5.1.3"))?),
    };
    let mut recipient = Recipient { path, notify: Notify::default(), original: None };
    let mut seen = Seen::default();
    for (name, value) in parameters_of(parameters)? {
        match (name.as_str(), value) {
            ("NOTIFY", Some(value)) => {
                seen.once(1)?;
                recipient.notify = notify(value)?;
            }
            ("ORCPT", Some(value)) => {
                seen.once(2)?;
                let typed = value.split_once(';').filter(|(kind, _)| is_atom(kind));
                if value.len() > ORIGINAL_RECIPIENT_MAX || !typed.is_some_and(|(_, address)| is_xtext(address)) {
                    return Err(bad_arguments("ORCPT is type;address in xtext of at most 500 characters"));
                }
                recipient.original = Some(value.to_owned());
            }
            _ => return Err(unknown_parameter()),
        }
    }
    Ok(Command::Rcpt(recipient))
}

/// Guards against a parameter given twice (RFC 5321 section 4.1.1.11).
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn once(&mut self, bit: u8) -> Result<(), Reply> {
        if self.0 & bit != 0 {
            return Err(bad_arguments("a parameter is given twice"));
        }
        self.0 |= bit;
        Ok(())
    }
}

fn unknown_parameter() -> Reply {
    Reply::new(555, "5.5.4", "parameter unknown or without its value")
}

fn bad_address(error: AddressError, enhanced: &'static str) -> Reply {
    Reply::new(501, enhanced, error.to_string())
}

/// The rest after `FROM:` or `TO:`; white space after the colon is common and harmless.
fn after_keyword<'a>(rest: &'a str, keyword: &str) -> Option<&'a str> {
    let start = rest.get(..keyword.len())?;
    let rest = rest.get(keyword.len()..)?;
    start.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches([' ', '\t']))
}

/// Splits `<path> parameters`; a `>` in a quoted local part does not end the path.
fn split_path(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    for (index, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                let rest = inner.get(index + 1..)?;
                let apart = rest.is_empty() || rest.starts_with([' ', '\t']);
                return apart.then(|| inner.get(..index)).flatten().map(|path| (path, rest));
            }
            _ => {}
        }
    }
    None
}

/// The path without its source route, which is accepted and ignored (RFC 5321 section 4.1.1.3).
fn without_route(path: &str) -> &str {
    path.strip_prefix('@').and_then(|route| route.split_once(':')).map_or(path, |(_, path)| path)
}

/// The parameters with their names in upper case (RFC 5321 `Mail-parameters`).
fn parameters_of(text: &str) -> Result<Vec<(String, Option<&str>)>, Reply> {
    text.split([' ', '\t'])
        .filter(|word| !word.is_empty())
        .map(|word| {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let named = is_atom(name) && value != Some("");
            named.then(|| (name.to_ascii_uppercase(), value)).ok_or_else(|| bad_arguments("malformed parameter"))
        })
        .collect()
}

fn body_type(value: &str) -> Result<BodyType, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(BodyType::SevenBit),
        "8BITMIME" => Ok(BodyType::EightBitMime),
        "BINARYMIME" => Ok(BodyType::BinaryMime),
        _ => Err(bad_arguments("BODY is 7BIT, 8BITMIME or BINARYMIME")),
    }
}

/// `NEVER`, or a list of the others (RFC 3461 section 4.1).
fn notify(value: &str) -> Result<Notify, Reply> {
    let mut notify = Notify { given: true, ..Notify::default() };
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(notify);
    }
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => notify.success = true,
            "FAILURE" => notify.failure = true,
            "DELAY" => notify.delay = true,
            _ => return Err(bad_arguments("NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY")),
        }
    }
    Ok(notify)
}

fn number(text: &str) -> Option<u64> {
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// `1*( ALPHA / DIGIT / "-" )`
fn is_atom(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// xtext (RFC 3461 section 4), in which `+` begins two upper-case hexadecimal digits. UTF-8 is let
/// through as RFC 6533 section 3 spells it.
fn is_xtext(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'+' => {
                let mut digit = || bytes.next().is_some_and(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
                digit() && digit()
            }
            b'=' => false,
            byte => byte.is_ascii_graphic() || byte >= 0x80,
        };
        if !fits {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sender(line: &str) -> Result<Mail, u16> {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => Ok(mail),
            Ok(other) => panic!("{other:?}"),
            Err(reply) => Err(reply.code),
        }
    }

    fn recipient(line: &str) -> Result<Recipient, u16> {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Rcpt(recipient)) => Ok(recipient),
            Ok(other) => panic!("{other:?}"),
            Err(reply) => Err(reply.code),
        }
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn verbs_are_known_in_any_case_and_with_blanks_behind() {
        assert_eq!(Command::parse(b"quit  "), Ok(Command::Quit));
        assert_eq!(Command::parse(b"dAtA"), Ok(Command::Data));
        assert_eq!(Command::parse(b"bdat 17 last"), Ok(Command::Bdat { size: 17, last: true }));
        assert_eq!(Command::parse(b"NOOP whatever"), Ok(Command::Noop));
    }

    #[test]
    fn a_path_may_hold_a_quoted_bracket_and_a_source_route() {
        let quoted = sender("MAIL FROM:<\"a> b\"@x.test> SIZE=5").unwrap();
        assert_eq!(quoted.from, ReversePath::Address(Address::parse("\"a> b\"@x.test").unwrap()));
        assert_eq!(quoted.size, Some(5));
        let routed = recipient("RCPT TO:<@a.test,@b.test:bob@c.test>").unwrap();
        assert_eq!(routed.path, ForwardPath::Address(address("bob@c.test")));
    }

    #[test]
    fn the_empty_sender_and_the_bare_postmaster_are_paths() {
        assert_eq!(sender("MAIL FROM:<>").unwrap().from, ReversePath::Null);
        assert_eq!(recipient("rcpt to:<PostMaster>").unwrap().path, ForwardPath::Postmaster);
        assert_eq!(recipient("RCPT TO:<>"), Err(501));
    }

    #[test]
    fn every_parameter_is_read() {
        let mail = sender("MAIL FROM:<a@x> SIZE=7 body=binarymime SMTPUTF8 RET=hdrs ENVID=a+2Bb AUTH=<>").unwrap();
        assert_eq!((mail.size, mail.body, mail.utf8), (Some(7), BodyType::BinaryMime, true));
        assert_eq!((mail.ret, mail.envelope_id.as_deref()), (Some(ReturnContent::Headers), Some("a+2Bb")));
        let to = recipient("RCPT TO:<a@x> NOTIFY=success,DELAY ORCPT=rfc822;a+40x").unwrap();
        assert_eq!(to.notify, Notify { given: true, success: true, failure: false, delay: true });
        assert_eq!(to.original.as_deref(), Some("rfc822;a+40x"));
    }

    #[test]
    fn wrong_parameters_are_refused() {
        for line in [
            "MAIL FROM:<a@x> SIZE=1 SIZE=1",
            "MAIL FROM:<a@x> SIZE=-1",
            "MAIL FROM:<a@x> SIZE=111111111111111111111",
            "MAIL FROM:<a@x> SIZE=99999999999999999999",
            "MAIL FROM:<a@x> BODY=9BIT",
            "MAIL FROM:<a@x> RET=NONE",
            "MAIL FROM:<a@x> ENVID=a+zz",
            "MAIL FROM:<a@x> =1",
            "MAIL FROM:<a@x>SIZE=1",
            "MAIL FROM:a@x",
            "MAIL FROM:<a@x",
            "MAIL <a@x>",
            "MAIL",
        ] {
            assert_eq!(sender(line), Err(501), "{line}");
        }
        for line in ["MAIL FROM:<a@x> WHAT=1", "MAIL FROM:<a@x> SIZE", "MAIL FROM:<a@x> SMTPUTF8=1"] {
            assert_eq!(sender(line), Err(555), "{line}");
        }
        for line in
            ["RCPT TO:<a@x> NOTIFY=NEVER,SUCCESS", "RCPT TO:<a@x> NOTIFY=NEVER NOTIFY=NEVER", "RCPT TO:<a@x> ORCPT=a"]
        {
            assert_eq!(recipient(line), Err(501), "{line}");
        }
        assert_eq!(recipient(&format!("RCPT TO:<a@x> ORCPT=rfc822;{}", "a".repeat(500))), Err(501));
    }

    #[test]
    fn another_protocol_is_told_from_a_typing_error() {
        for line in
            ["GET / HTTP/1.1", "post /x", "CONNECT pillarbox.test:25 HTTP/1.1", "SSH-2.0-OpenSSH_9.9", "Host: x"]
        {
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Foreign), "{line}");
        }
        assert_eq!(Command::parse(b"GETS").map_err(|reply| reply.code), Err(500));
    }

    #[test]
    fn control_characters_are_refused_before_anything_else() {
        for line in [&b"MAIL FROM:<a@x>\rRCPT"[..], b"NOOP\0", b"QUIT\x1b[A", b"NOOP \xff"] {
            assert_eq!(Command::parse(line).map_err(|reply| reply.code), Err(500));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn anything_behind_a_verb_is_read_without_a_panic(
            verb in prop::sample::select(vec!["MAIL FROM:<a@b> ", "RCPT TO:<", "MAIL FROM:", "BDAT ", "AUTH ", "EHLO "]),
            rest in "\\PC{0,80}",
        ) {
            let _ = Command::parse(format!("{verb}{rest}").as_bytes());
        }

        #[test]
        fn an_address_is_understood_as_it_is_written(local in "[a-zA-Z0-9 .>\"\\\\]{1,20}", domain in "[a-z]{1,10}\\.test") {
            let address = Address::new(&local, Domain::parse(&domain).unwrap()).unwrap();
            let read = recipient(&format!("RCPT TO:<{address}> NOTIFY=NEVER")).unwrap();
            prop_assert_eq!(read.path, ForwardPath::Address(address));
        }
    }
}
