//! Questions to the person at the terminal: passwords without echo, and "are you sure".

use std::io::{self, BufRead, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::office::Failure;
use crate::mail::secret::{PASSWORD_MAX, Password};

/// Whether there is somebody to ask.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Reads a password from standard input: its first line.
pub(super) fn password_from_stdin() -> Result<Password, Failure> {
    let mut line = Zeroizing::new(Vec::new());
    io::stdin().lock().take(PASSWORD_MAX as u64 + 2).read_until(b'\n', &mut line)?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8(line.to_vec()).map_err(|_| Failure("the password is not UTF-8".into()))?;
    checked(text)
}

/// Asks for a new password twice; `None` when the answer is empty.
pub(super) fn new_password(whose: &str) -> Result<Option<Password>, Failure> {
    let first = hidden(&format!("New password for {whose} (empty: make one up): "))?;
    if first.is_empty() {
        return Ok(None);
    }
    let second = hidden("The same again: ")?;
    if *first != *second {
        return Err(Failure("the two passwords are not the same".into()));
    }
    checked(first.as_str().to_owned()).map(Some)
}

/// Asks for a passphrase; for a new one, of at least so many bytes, twice.
pub(super) fn passphrase(prompt: &str, new_min: Option<usize>) -> Result<Zeroizing<String>, Failure> {
    let first = hidden(prompt)?;
    let Some(least) = new_min else { return Ok(first) };
    if first.len() < least {
        return Err(Failure(format!("a passphrase has {least} bytes at least; a few words are easy to keep")));
    }
    if first.len() > PASSWORD_MAX {
        return Err(Failure(format!("a passphrase has {PASSWORD_MAX} bytes at most")));
    }
    let second = hidden("The same again: ")?;
    if *first == *second { Ok(first) } else { Err(Failure("the two passphrases are not the same".into())) }
}

/// Asks a question whose answer must be `yes`.
pub(super) fn are_you_sure(question: &str) -> Result<bool, Failure> {
    eprint!("{question} [yes/no] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(100).read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

fn checked(text: String) -> Result<Password, Failure> {
    Password::new(text).ok_or_else(|| Failure(format!("a password has 1 to {PASSWORD_MAX} bytes and no NUL")))
}

/// Gives the terminal its modes back, also after an error.
struct Quiet(Termios);

impl Quiet {
    /// Echo off, and every key comes through at once: Ctrl-C too, so that it cannot leave the
    /// terminal mute.
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn hidden(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    eprint!("{prompt}");
    io::stderr().flush()?;
    let quiet = Quiet::begin()?;
    let line = read_keys(&mut io::stdin().lock());
    drop(quiet);
    eprintln!();
    let line = line?.ok_or_else(|| Failure("cancelled".into()))?;
    let text = std::str::from_utf8(&line).map_err(|_| Failure("the password is not UTF-8".into()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads what is typed until Enter; `None` when the person gave up.
fn read_keys(keys: &mut impl BufRead) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const END_OF_INPUT: u8 = 4;
    const INTERRUPT: u8 = 3;
    const ERASE_LINE: u8 = 21;
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_MAX + 1));
    for key in keys.bytes() {
        match key? {
            b'\r' | b'\n' => return Ok(Some(line)),
            INTERRUPT => return Ok(None),
            END_OF_INPUT if line.is_empty() => return Ok(None),
            END_OF_INPUT => return Ok(Some(line)),
            ERASE_LINE => line.clear(),
            // Backspace takes a whole character back, whatever its bytes.
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {},
            // One more than fits is kept, so that a password too long is not cut but refused.
            key if line.len() <= PASSWORD_MAX => line.push(key),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> Option<String> {
        read_keys(&mut keys.as_bytes()).unwrap().map(|line| String::from_utf8(line.to_vec()).unwrap())
    }

    #[test]
    fn keys_make_a_line() {
        assert_eq!(typed("secret\nrest").as_deref(), Some("secret"));
        assert_eq!(typed("sé\u{7f}\u{7f}x\r").as_deref(), Some("x"));
        assert_eq!(typed("\u{7f}abc\u{15}d\n").as_deref(), Some("d"));
        assert_eq!(typed("ab\u{4}").as_deref(), Some("ab"));
        assert_eq!(typed(&format!("{}\n", "x".repeat(1000))).map(|line| line.len()), Some(PASSWORD_MAX + 1));
    }

    #[test]
    fn who_gives_up_has_typed_nothing() {
        for keys in ["secret\u{3}", "\u{4}", "secret", ""] {
            assert_eq!(typed(keys), None, "{keys:?}");
        }
    }
}
