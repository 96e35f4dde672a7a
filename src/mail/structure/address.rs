//! Reads lists of addresses as ENVELOPE shows them (RFC 5322 sections 3.4 and 4.4, RFC 9051
//! section 7.5.2).
//!
//! Everything becomes an address somehow: what a sender wrote against the rules is still shown to
//! the reader. Encoded words stay as they are; IMAP clients decode them.

use super::scan;

/// Most addresses read from one field; the others are passed over. Bounds what ENVELOPE can grow to.
pub const ADDRESSES_MAX: usize = 500;

/// An entry of a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailAddress {
    /// One mailbox.
    Mailbox {
        /// Display name without quotes, or the comment that stands for it in old mail.
        name: Option<String>,
        /// Source route such as `@a,@b` (RFC 5322 section 4.4 `obs-route`).
        route: Option<String>,
        /// Local part without quotes.
        local: String,
        /// Domain, empty where the sender wrote none.
        host: String,
    },
    /// A group begins; its name.
    Group(String),
    /// The group ends.
    GroupEnd,
}

/// Reads the unfolded body of an address field.
pub fn addresses(text: &str) -> Vec<MailAddress> {
    let mut reader = Reader::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if reader.found.len() >= ADDRESSES_MAX {
            break;
        }
        rest = reader.take(c, rest);
    }
    reader.flush();
    if reader.in_group {
        reader.found.push(MailAddress::GroupEnd);
    }
    reader.found
}

/// What was read of the present entry, and the entries before it.
#[derive(Default)]
struct Reader {
    found: Vec<MailAddress>,
    in_group: bool,
    /// The words as a display name has them: joined by single spaces.
    phrase: String,
    /// White space stands before the next word.
    gap: bool,
    comment: Option<String>,
    plain: Plain,
    /// What stood in angle brackets.
    angle: Option<(Option<String>, Plain)>,
}

/// An address without brackets, as it gathers: white space and quotes left out.
#[derive(Default)]
struct Plain {
    text: String,
    /// Where the last `@` outside quotes is.
    at: Option<usize>,
}

impl Plain {
    fn push(&mut self, c: char) {
        if c == '@' {
            self.at = Some(self.text.len());
        }
        self.text.push(c);
    }

    fn split(self) -> (String, String) {
        let parts = self.at.and_then(|at| Some((self.text.get(..at)?.to_owned(), self.text.get(at + 1..)?.to_owned())));
        parts.unwrap_or((self.text, String::new()))
    }
}

impl Reader {
    /// Takes what begins with `c` off the front of `rest`.
    fn take<'t>(&mut self, c: char, rest: &'t str) -> &'t str {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            ' ' | '\t' => {
                self.gap = true;
                after
            }
            '(' => {
                let (content, after) = scan::comment(rest);
                self.comment = Some(content.trim().to_owned());
                self.gap = true;
                after
            }
            '"' => {
                let (content, after) = scan::quoted(rest);
                self.begin_word();
                self.phrase.push_str(&content);
                self.plain.text.push_str(&content);
                after
            }
            '<' if self.angle.is_none() => {
                let (route, plain, after) = angle(after);
                self.angle = Some((route, plain));
                after
            }
            ',' => {
                self.flush();
                after
            }
            // Outside a group a semicolon divides addresses for senders who know no better.
            ';' => {
                self.flush();
                if std::mem::take(&mut self.in_group) {
                    self.found.push(MailAddress::GroupEnd);
                }
                after
            }
            ':' if !self.in_group && self.angle.is_none() && self.plain.at.is_none() => {
                let name = std::mem::take(&mut self.phrase);
                self.clear();
                self.in_group = true;
                self.found.push(MailAddress::Group(name));
                after
            }
            '[' => {
                let end = rest.find(']').map_or(rest.len(), |end| end + 1);
                let (literal, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                self.begin_word();
                self.phrase.push_str(literal);
                self.plain.text.push_str(literal);
                after
            }
            '\\' => after,
            c => {
                self.begin_word();
                self.phrase.push(c);
                self.plain.push(c);
                after
            }
        }
    }

    fn begin_word(&mut self) {
        if std::mem::take(&mut self.gap) && !self.phrase.is_empty() {
            self.phrase.push(' ');
        }
    }

    /// Ends an entry.
    fn flush(&mut self) {
        let phrase = std::mem::take(&mut self.phrase);
        let comment = self.comment.take().filter(|comment| !comment.is_empty());
        let plain = std::mem::take(&mut self.plain);
        let entry = match self.angle.take() {
            Some((route, inner)) => {
                let (local, host) = inner.split();
                let name = Some(phrase).filter(|phrase| !phrase.is_empty()).or(comment);
                Some(MailAddress::Mailbox { name, route, local, host })
            }
            None if phrase.is_empty() && plain.text.is_empty() => None,
            None => {
                // Without an @ it is no address; what was written is shown as it was.
                let (local, host) = if plain.at.is_some() { plain.split() } else { (phrase, String::new()) };
                Some(MailAddress::Mailbox { name: comment, route: None, local, host })
            }
        };
        self.found.extend(entry);
        self.clear();
    }

    fn clear(&mut self) {
        self.phrase.clear();
        self.gap = false;
        self.comment = None;
        self.plain = Plain::default();
        self.angle = None;
    }
}

/// Reads what stands in angle brackets, after the opening one: route, address, and what follows the
/// closing bracket. Without a closing bracket the address ends at a comma or with the text.
fn angle(text: &str) -> (Option<String>, Plain, &str) {
    let mut route = None;
    let mut plain = Plain::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '>' => return (route, plain, after),
            ' ' | '\t' => rest = after,
            '(' => rest = scan::comment(rest).1,
            '"' => {
                let (content, after) = scan::quoted(rest);
                plain.text.push_str(&content);
                rest = after;
            }
            ':' if plain.text.starts_with('@') && route.is_none() => {
                route = Some(std::mem::take(&mut plain).text);
                rest = after;
            }
            ',' if !plain.text.starts_with('@') && !after.contains('>') => return (route, plain, rest),
            c => {
                plain.push(c);
                rest = after;
            }
        }
    }
    (route, plain, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Spells entries as ENVELOPE does, NIL as `-`.
    fn spell(text: &str) -> String {
        let show = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), |text| format!("'{text}'"));
        let entries = addresses(text).into_iter().map(|entry| match entry {
            MailAddress::Mailbox { name, route, local, host } => {
                format!("({} {} '{local}' '{host}')", show(&name), show(&route))
            }
            MailAddress::Group(name) => format!("(- - '{name}' -)"),
            MailAddress::GroupEnd => "(- - - -)".to_owned(),
        });
        entries.collect()
    }

    #[test]
    fn addresses_are_read_as_rfc_5322_shows() {
        let cases = [
            ("Terry Gray <gray@cac.washington.edu>", "('Terry Gray' - 'gray' 'cac.washington.edu')"),
            ("\"Joe Q. Public\" <john.q.public@example.com>", "('Joe Q. Public' - 'john.q.public' 'example.com')"),
            (
                "minutes@CNRI.Reston.VA.US, John Klensin <K@MIT.EDU>",
                "(- - 'minutes' 'CNRI.Reston.VA.US')('John Klensin' - 'K' 'MIT.EDU')",
            ),
            (
                "A Group:Ed Jones <joe@where.test>,john@one.test;",
                "(- - 'A Group' -)('Ed Jones' - 'joe' 'where.test')(- - 'john' 'one.test')(- - - -)",
            ),
            ("undisclosed-recipients:;", "(- - 'undisclosed-recipients' -)(- - - -)"),
            ("Undisclosed recipients:;, a@b", "(- - 'Undisclosed recipients' -)(- - - -)(- - 'a' 'b')"),
            ("<@node.test,@b.test:mary@example.net>", "(- '@node.test,@b.test' 'mary' 'example.net')"),
            ("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", "('Pete' - 'pete' 'silly.test')"),
            ("mrose@dbc.mtview.ca.us (Marshall Rose)", "('Marshall Rose' - 'mrose' 'dbc.mtview.ca.us')"),
            ("John Doe <jdoe@machine(comment).  example>", "('John Doe' - 'jdoe' 'machine.example')"),
            ("\"a b\"@c.test", "(- - 'a b' 'c.test')"),
            ("\"a@b\"@c.test", "(- - 'a@b' 'c.test')"),
            ("postmaster@[192.0.2.1]", "(- - 'postmaster' '[192.0.2.1]')"),
            (
                "=?utf-8?Q?J=C3=BCrgen?= =?utf-8?Q?_B?= <j@b.test>",
                "('=?utf-8?Q?J=C3=BCrgen?= =?utf-8?Q?_B?=' - 'j' 'b.test')",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(spell(text), expected, "{text}");
        }
    }

    #[test]
    fn what_breaks_the_rules_is_shown_somehow() {
        let cases = [
            ("", ""),
            (" , ,", ""),
            ("root", "(- - 'root' '')"),
            ("John Doe", "(- - 'John Doe' '')"),
            ("a@b; c@d", "(- - 'a' 'b')(- - 'c' 'd')"),
            ("foo@bar.test <foo@bar.test>", "('foo@bar.test' - 'foo' 'bar.test')"),
            ("Müller <m@x.test>", "('Müller' - 'm' 'x.test')"),
            ("<>", "(- - '' '')"),
            ("Open <a@b", "('Open' - 'a' 'b')"),
            ("Open <a@b, c@d", "('Open' - 'a' 'b')(- - 'c' 'd')"),
            ("\"open <a@b>", "(- - 'open <a@b>' '')"),
            ("G: a@b", "(- - 'G' -)(- - 'a' 'b')(- - - -)"),
            ("joe @ host . test", "(- - 'joe' 'host.test')"),
            ("a@b@c", "(- - 'a@b' 'c')"),
            ("(only a comment)", ""),
            ("Smith, John <js@x.test>", "(- - 'Smith' '')('John' - 'js' 'x.test')"),
        ];
        for (text, expected) in cases {
            assert_eq!(spell(text), expected, "{text}");
        }
    }

    #[test]
    fn a_list_has_a_bound() {
        assert_eq!(addresses(&"a@b,".repeat(10_000)).len(), ADDRESSES_MAX);
        assert!(addresses(&"a:;".repeat(10_000)).len() <= ADDRESSES_MAX + 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_groups_close(text in "[a@<>(),:;\"\\\\ \\[\\]é.]{0,40}") {
            let mut open = false;
            for entry in addresses(&text) {
                match entry {
                    MailAddress::Group(_) => { prop_assert!(!open); open = true; }
                    MailAddress::GroupEnd => { prop_assert!(open); open = false; }
                    MailAddress::Mailbox { .. } => {}
                }
            }
            prop_assert!(!open);
        }
    }
}
