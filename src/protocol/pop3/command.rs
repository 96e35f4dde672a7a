//! The commands of POP3 (RFC 1939 section 9 and its extensions), read from a line without its CRLF.

use std::fmt;

use zeroize::Zeroizing;

use crate::mail::secret::Password;
use crate::protocol::sasl::{self, Mechanism};

/// A command.
#[derive(Debug)]
pub(super) enum Command {
    /// `CAPA` (RFC 2449 section 5)
    Capa,
    /// `STLS` (RFC 2595 section 4)
    Stls,
    /// `UTF8` (RFC 6856 section 2)
    Utf8,
    /// `USER name`
    User(String),
    /// `PASS string`: all of the rest, spaces too (RFC 1939 section 7).
    Pass(Password),
    /// `AUTH`: asks which mechanisms there are, as old clients do.
    AuthList,
    /// `AUTH mechanism [initial-response]` (RFC 5034 section 4)
    Auth(Mechanism, Option<InitialResponse>),
    /// `STAT`
    Stat,
    /// `LIST [msg]`
    List(Option<u32>),
    /// `UIDL [msg]`
    Uidl(Option<u32>),
    /// `RETR msg`
    Retr(u32),
    /// `TOP msg n`
    Top(u32, u32),
    /// `DELE msg`
    Dele(u32),
    /// `NOOP`
    Noop,
    /// `RSET`
    Rset,
    /// `QUIT`
    Quit,
}

/// An initial response, base64 undone; hides itself, for it may hold a password.
pub(super) struct InitialResponse(pub(super) Zeroizing<Vec<u8>>);

impl fmt::Debug for InitialResponse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("InitialResponse(hidden)")
    }
}

/// Why a line is no command; the text goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// We do not know the keyword.
    Unknown,
    /// The arguments are not what the command takes.
    Arguments(&'static str),
}

impl Command {
    /// Reads a line. Keywords have no case; arguments are set apart by spaces.
    pub(super) fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = std::str::from_utf8(line).map_err(|_| CommandError::Arguments("the line is not UTF-8"))?;
        let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ').filter(|word| !word.is_empty());
        let command = match keyword.to_ascii_uppercase().as_str() {
            "PASS" => {
                return Password::new(rest.to_owned()).map(Self::Pass).ok_or(CommandError::Arguments("PASS password"));
            }
            "CAPA" => Self::Capa,
            "STLS" => Self::Stls,
            "UTF8" => Self::Utf8,
            "STAT" => Self::Stat,
            "NOOP" => Self::Noop,
            "RSET" => Self::Rset,
            "QUIT" => Self::Quit,
            "USER" => {
                let name = rest.trim_matches(' ');
                let fits = !name.is_empty() && name.len() <= sasl::LOGIN_MAX && !name.chars().any(char::is_control);
                // Only the address itself may hold spaces, in its quoted local part.
                return fits.then(|| Self::User(name.to_owned())).ok_or(CommandError::Arguments("USER name"));
            }
            "AUTH" => match words.next() {
                None => Self::AuthList,
                Some(name) => {
                    let mechanism = offered(name).ok_or(CommandError::Arguments("no such mechanism"))?;
                    let initial = words.next().map(|word| sasl::decode_initial(word.as_bytes())).transpose();
                    let initial = initial.map_err(|_| CommandError::Arguments("the response is no base64"))?;
                    Self::Auth(mechanism, initial.map(InitialResponse))
                }
            },
            "LIST" => Self::List(words.next().map(|word| number(word, "LIST [message]")).transpose()?),
            "UIDL" => Self::Uidl(words.next().map(|word| number(word, "UIDL [message]")).transpose()?),
            "RETR" => Self::Retr(number(words.next().unwrap_or_default(), "RETR message")?),
            "DELE" => Self::Dele(number(words.next().unwrap_or_default(), "DELE message")?),
            "TOP" => {
                let message = number(words.next().unwrap_or_default(), "TOP message lines")?;
                Self::Top(message, number(words.next().unwrap_or_default(), "TOP message lines")?)
            }
            _ => return Err(CommandError::Unknown),
        };
        if words.next().is_some() {
            return Err(CommandError::Arguments("too many arguments"));
        }
        Ok(command)
    }
}

/// The mechanisms we offer in POP3: LOGIN is younger than USER and PASS and no better.
fn offered(name: &str) -> Option<Mechanism> {
    Mechanism::named(name).filter(|mechanism| *mechanism != Mechanism::Login)
}

fn number(word: &str, usage: &'static str) -> Result<u32, CommandError> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten().ok_or(CommandError::Arguments(usage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_password_keeps_its_spaces() {
        let command = Command::parse(b"pass  a b ").unwrap();
        assert!(matches!(command, Command::Pass(password) if password.reveal() == " a b "));
    }

    #[test]
    fn keywords_have_no_case_and_spaces_may_be_many() {
        assert!(matches!(Command::parse(b"tOp  3   0 "), Ok(Command::Top(3, 0))));
        assert!(matches!(Command::parse(b"LIST"), Ok(Command::List(None))));
        assert!(matches!(Command::parse(b"uidl 4294967295"), Ok(Command::Uidl(Some(u32::MAX)))));
        assert!(matches!(Command::parse(b"User \"a b\"@x.test"), Ok(Command::User(name)) if name == "\"a b\"@x.test"));
    }

    #[test]
    fn what_is_no_command_says_what_is_wrong() {
        for line in ["", " ", "HELO", "APOP a b", "LISTE", "AUTHX"] {
            assert_eq!(Command::parse(line.as_bytes()).unwrap_err(), CommandError::Unknown, "{line:?}");
        }
        for line in [
            "RETR",
            "RETR x",
            "RETR -1",
            "RETR +1",
            "RETR 1 2",
            "RETR 4294967296",
            "TOP 1",
            "TOP 1 x",
            "DELE",
            "LIST 1 2",
            "NOOP x",
            "PASS",
            "USER",
            "USER  ",
            "AUTH LOGIN",
            "AUTH X",
            "AUTH PLAIN %",
            "AUTH PLAIN AAAA AAAA",
        ] {
            let error = Command::parse(line.as_bytes()).unwrap_err();
            assert!(matches!(error, CommandError::Arguments(_)), "{line:?}");
        }
        assert!(matches!(Command::parse(b"USER \xff"), Err(CommandError::Arguments(_))));
    }

    #[test]
    fn a_command_does_not_show_its_secret() {
        let shown = format!("{:?} {:?}", Command::parse(b"PASS pencil"), Command::parse(b"AUTH PLAIN cGVuY2ls"));
        assert!(!shown.contains("pencil") && !shown.contains("112"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Command::parse(&line);
        }
    }
}
