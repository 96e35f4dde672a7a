//! What the whole of a message shows: whether its header is complete and agrees with itself, how much
//! of it is HTML, links, quotations. Such signs hold in anyone's mail, whatever its words are.

use std::net::Ipv4Addr;

use crate::mail::structure::{Part, Structure};
use crate::mail::text::decode_words;

use super::features::{About, Collector};

/// Fields whose absence is a sign.
const EXPECTED: &[&str] = &["from", "to", "date", "message-id", "subject", "mime-version"];

/// Fields whose presence is.
const TELLING: &[&str] = &[
    "in-reply-to",
    "references",
    "list-id",
    "list-unsubscribe",
    "list-post",
    "precedence",
    "user-agent",
    "x-mailer",
    "sender",
    "reply-to",
    "cc",
    "organization",
    "x-priority",
    "x-msmail-priority",
    "errors-to",
    "thread-index",
    "thread-topic",
    "dkim-signature",
    "domainkey-signature",
];

/// Words of a program's name that are looked at.
const PROGRAM_WORDS: usize = 3;

/// What stands in the names of lines that homes are given.
const HOME: &[&str] = &["dsl", "dial", "dyn", "ppp", "pool", "dhcp", "cable", "client", "cust", "broadband", "home"];

/// Who gave the message to a server.
#[derive(Debug)]
struct Hop {
    /// As it called itself.
    helo: String,
    /// As DNS calls it.
    seen: String,
    address: Ipv4Addr,
}

/// Gathers the signs of a message.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Which of [`EXPECTED`] and of [`TELLING`] are there.
    there: Vec<&'static str>,
    from: String,
    reply_to: String,
    id: String,
    to: String,
    subject: String,
    raw: bool,
    programs: Vec<String>,
    hops: usize,
    hop: Option<Hop>,
    words: usize,
    lines: usize,
    quoted: usize,
    links: usize,
    shown: usize,
    html: usize,
    code: usize,
    signed: bool,
    attributed: bool,
    capitals: usize,
    letters: usize,
    odd: usize,
    exclaimed: usize,
    money: usize,
}

impl Signs {
    /// Looks at a field of the header.
    pub(super) fn field(&mut self, name: &str, body: &str) {
        if let Some(known) = EXPECTED.iter().chain(TELLING).find(|known| **known == name)
            && !self.there.contains(known)
        {
            self.there.push(known);
        }
        self.raw |= matches!(name, "subject" | "from" | "to") && !body.is_ascii();
        let kept = match name {
            "from" => &mut self.from,
            "reply-to" => &mut self.reply_to,
            "message-id" => &mut self.id,
            "to" => &mut self.to,
            "subject" => &mut self.subject,
            "received" => {
                self.hop(body);
                return;
            }
            "x-mailer" | "user-agent" => {
                let words = body.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() > 1);
                self.programs.extend(words.take(PROGRAM_WORDS).map(str::to_lowercase));
                return;
            }
            _ => return,
        };
        decode_words(body).trim().clone_into(kept);
    }

    /// Looks at a text as it is shown; `html` is the length of the HTML that it came from.
    pub(super) fn text(&mut self, shown: &str, html: usize) {
        self.shown += shown.len();
        self.html += html;
        self.links += shown.matches("://").count();
        for line in shown.lines() {
            self.lines += 1;
            self.signed |= line == "-- ";
            self.quoted += usize::from(line.starts_with(['>', '|']));
            self.attributed |= line.ends_with("wrote:") || line.ends_with("writes:");
            self.code += usize::from(line.starts_with(['\t', '+', '-', '@', '#']) || line.ends_with([';', '{', '}']));
        }
        for word in shown.split_whitespace() {
            self.words += 1;
            self.exclaimed += usize::from(word.ends_with('!'));
            self.money += usize::from(word.starts_with(['$', '€', '£']) || word.ends_with('%'));
            let letters = word.chars().filter(|c| c.is_alphabetic()).count();
            self.letters += usize::from(letters > 1);
            self.capitals += usize::from(letters > 1 && word.chars().all(|c| !c.is_lowercase()));
            self.odd += usize::from(letters > 1 && word.chars().any(|c| c.is_ascii_digit()));
        }
    }

    /// Counts the links that a reader does not see the address of.
    pub(super) fn links(&mut self, links: usize) {
        self.links += links;
    }

    /// Looks at who gave the message to a server: the last one from outside.
    fn hop(&mut self, received: &str) {
        self.hops += 1;
        let from = received.split(" by ").next().unwrap_or_default();
        let Some(from) = from.trim_start().strip_prefix("from ").filter(|_| self.hop.is_none()) else { return };
        let addresses = from.split(|c: char| !(c.is_ascii_digit() || c == '.'));
        let Some(address) = addresses.filter_map(|text| text.parse::<Ipv4Addr>().ok()).next_back() else { return };
        if address.is_private() || address.is_loopback() || address.is_link_local() {
            return;
        }
        let name = |text: &str| text.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let helo = name(from.split_whitespace().next().unwrap_or_default());
        let seen = from.split_once('(').map_or("", |(_, seen)| seen).split(['[', ' ', ')']).next().unwrap_or_default();
        self.hop = Some(Hop { helo, seen: name(seen.rsplit('@').next().unwrap_or_default()), address });
    }

    /// Tells what was gathered.
    pub(super) fn tell(&self, structure: &Structure, out: &mut Collector) {
        let mut sign = |what: &str| out.add(About::Sign, what);
        for name in EXPECTED.iter().filter(|name| !self.there.contains(name)) {
            sign(&format!("no {name}"));
        }
        for name in TELLING.iter().filter(|name| self.there.contains(name)) {
            sign(&format!("has {name}"));
        }
        self.programs.iter().for_each(|word| sign(&format!("written with {word}")));
        self.addresses(&mut sign);
        self.way(&mut sign);
        self.titled(&mut sign);
        self.body(&mut sign);
        parts(structure, &mut sign);
    }

    fn addresses(&self, sign: &mut impl FnMut(&str)) {
        let (from, reply_to, id) = (domain(&self.from), domain(&self.reply_to), domain(&self.id));
        let same = |one: &str, other: &str| !one.is_empty() && base(one) == base(other);
        sign(if same(&from, &id) {
            "the Message-ID is of the sender's domain"
        } else {
            "the Message-ID is of another domain"
        });
        if !reply_to.is_empty() {
            sign(if same(&from, &reply_to) {
                "answers go to the sender's domain"
            } else {
                "answers go to another domain"
            });
        }
        if same(&from, &domain(&self.to)) {
            sign("from and to one domain");
        }
        if !self.id.is_empty() && !id.contains('.') {
            sign("the Message-ID is of no domain");
        }
        if self.id.contains('$') {
            sign("a $ in the Message-ID");
        }
        let name = self.from.split('<').next().unwrap_or_default().trim();
        sign(if self.from.contains('<') && !name.is_empty() {
            "the sender has a name"
        } else {
            "the sender has no name"
        });
        if name.starts_with('"') {
            sign("the sender's name is quoted");
        }
        let local = self.from.rsplit('<').next().unwrap_or_default().split('@').next().unwrap_or_default();
        if local.bytes().filter(u8::is_ascii_digit).count() > 1 {
            sign("digits in the sender's address");
        }
        sign(match self.to.matches('@').count() {
            0 => "to nobody",
            1 => "to one",
            2..=4 => "to a few",
            _ => "to many",
        });
        if self.to.contains('<') {
            sign("the recipient has a name");
        }
        let recipient = self.to.rsplit('<').next().unwrap_or_default().split('@').next().unwrap_or_default();
        if recipient.len() > 2 && self.subject.to_lowercase().contains(&recipient.to_lowercase()) {
            sign("the recipient's address in the subject");
        }
        if self.raw {
            sign("uncoded characters in the header");
        }
    }

    fn way(&self, sign: &mut impl FnMut(&str)) {
        sign(&format!("received about {} times", rounded(self.hops)));
        let Some(Hop { helo, seen, address }) = &self.hop else { return };
        let from = domain(&self.from);
        sign(match (helo.contains('.'), helo.parse::<Ipv4Addr>().is_ok()) {
            (_, true) => "a server that is called by a number",
            (false, _) => "a server without a full name",
            _ => "a server with a full name",
        });
        let octets = address.octets().map(|octet| octet.to_string());
        let parts: Vec<&str> = seen.split(|c: char| !c.is_ascii_digit()).collect();
        let numbered = octets.iter().filter(|octet| parts.contains(&octet.as_str())).count() > 1;
        sign(if !seen.contains('.') || seen.parse::<Ipv4Addr>().is_ok() {
            "a server whose address has no name"
        } else if numbered || HOME.iter().any(|word| seen.contains(word)) {
            "a server with the name of a home line"
        } else if base(seen) == base(helo) {
            "a server that says its name"
        } else {
            "a server that says another name than it has"
        });
        if !from.is_empty() && (base(seen) == base(&from) || base(helo) == base(&from)) {
            sign("a server of the sender's domain");
        }
    }

    fn titled(&self, sign: &mut impl FnMut(&str)) {
        let subject = self.subject.as_str();
        let lower = subject.to_lowercase();
        let is_answer = ["re:", "aw:", "sv:"].iter().any(|start| lower.starts_with(start));
        let refers = self.there.contains(&"in-reply-to") || self.there.contains(&"references");
        match (is_answer, refers) {
            (true, true) => sign("an answer"),
            (true, false) => sign("an answer to nothing"),
            (false, true) => sign("refers to another, by another name"),
            (false, false) => sign("the first of its kind"),
        }
        if lower.starts_with('[') || lower.starts_with("re: [") {
            sign("the subject names a list");
        }
        let letters = subject.chars().filter(|c| c.is_alphabetic()).count();
        if letters > 5 && subject.chars().filter(|c| c.is_uppercase()).count() * 2 > letters {
            sign("a subject in capitals");
        }
        for (mark, what) in
            [('!', "! in the subject"), ('?', "? in the subject"), ('$', "$ in the subject"), ('%', "% in the subject")]
        {
            if subject.contains(mark) {
                sign(what);
            }
        }
        if subject.contains("   ") {
            sign("a gap in the subject");
        }
        sign(&format!("a subject of about {} words", rounded(subject.split_whitespace().count())));
    }

    fn body(&self, sign: &mut impl FnMut(&str)) {
        sign(&format!("about {} words", rounded(self.words)));
        sign(&format!("about {} links", rounded(self.links)));
        if let Some(words) = self.words.checked_div(self.links) {
            sign(&format!("about {} words to a link", rounded(words)));
        }
        if self.html > 0 {
            sign(&format!("about {} times as much HTML as text", rounded(self.html / self.shown.max(1))));
        }
        let share = |part: usize, of: usize| if part == 0 { 0 } else { 1 + 8 * part / of.max(1) };
        sign(&format!("{} of 8 lines quoted", share(self.quoted, self.lines)));
        sign(&format!("{} of 8 lines marked", share(self.code, self.lines)));
        sign(&format!("{} of 8 words in capitals", share(self.capitals, self.letters)));
        sign(&format!("{} of 8 words with digits", share(self.odd, self.letters)));
        sign(&format!("about {} exclamations", rounded(self.exclaimed)));
        sign(&format!("about {} prices", rounded(self.money)));
        if self.signed {
            sign("a signature");
        }
        if self.attributed {
            sign("someone is quoted");
        }
    }
}

fn parts(structure: &Structure, sign: &mut impl FnMut(&str)) {
    let is = |part: &Part<'_>, kind: &str, of: &str| {
        let (found, sub) = part.media();
        found.eq_ignore_ascii_case(kind) && (of.is_empty() || sub.eq_ignore_ascii_case(of))
    };
    let (mut plain, mut html, mut images, mut coded) = (false, false, 0, false);
    for part in structure.parts().take(super::features::PARTS_MAX) {
        plain |= is(&part, "text", "plain");
        html |= is(&part, "text", "html");
        images += usize::from(is(&part, "image", ""));
        coded |= part.is_text() && part.encoding_name().eq_ignore_ascii_case("base64");
    }
    sign(match (plain, html) {
        (true, true) => "text and HTML",
        (true, false) => "text alone",
        (false, true) => "HTML alone",
        (false, false) => "no text",
    });
    if images > 0 {
        sign(&format!("about {} images", rounded(images)));
    }
    if coded {
        sign("text in base64");
    }
}

/// The domain of an address or a Message-ID.
fn domain(text: &str) -> String {
    let after = text.rsplit_once('@').map_or("", |(_, domain)| domain);
    after.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '.' | '-')).collect::<String>().to_lowercase()
}

/// The last two labels of a domain: near enough to what is registered.
fn base(domain: &str) -> &str {
    domain.rmatch_indices('.').nth(1).map_or(domain, |(place, _)| domain.get(place + 1..).unwrap_or(domain))
}

/// A count to the next lower power of two.
fn rounded(count: usize) -> usize {
    count.checked_ilog2().map_or(0, |power| 1 << power)
}

#[cfg(test)]
mod tests {
    use super::super::features::Features;
    use super::*;

    fn said(message: &str) -> Vec<String> {
        Features::with_words(message.as_bytes()).1.into_values().map(|saying| saying.what).collect()
    }

    #[test]
    fn a_letter_that_hides_its_origin_shows_it() {
        let said = said(concat!(
            "Received: from box (localhost [127.0.0.1]) by mx.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n",
            "Received: from mail (dsl-77-8.isp.example [192.0.2.7]) by mx.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n",
            "From: \"Bank\" <x99@bank.example>\r\nReply-To: me@free.example\r\nMessage-ID: <1@other.example>\r\n",
            "Subject: RE: WIN NOW!\r\nContent-Type: text/html\r\n\r\n<a href=\"http://a.example\">x</a>\r\n"
        ));
        for there in [
            "a server with the name of a home line",
            "a server without a full name",
            "answers go to another domain",
            "the Message-ID is of another domain",
            "an answer to nothing",
            "a subject in capitals",
            "digits in the sender's address",
            "HTML alone",
            "no date",
            "to nobody",
            "about 1 links",
        ] {
            assert!(said.iter().any(|said| said == there), "{there} is missing in {said:?}");
        }
    }

    #[test]
    fn an_answer_on_a_list_shows_it() {
        let said = said(concat!(
            "Received: from mail.list.example (mail.list.example [192.0.2.9]) by mx.example; x\r\n",
            "From: Ann <ann@list.example>\r\nTo: list@list.example\r\nDate: x\r\nMessage-ID: <1@list.example>\r\n",
            "In-Reply-To: <2@a.example>\r\nList-Id: <l.list.example>\r\nSubject: Re: [l] the port\r\n\r\n",
            "Bob wrote:\r\n> is it open?\r\nYes.\r\n-- \r\nAnn\r\n"
        ));
        for there in [
            "an answer",
            "has list-id",
            "someone is quoted",
            "a signature",
            "the subject names a list",
            "a server that says its name",
            "a server of the sender's domain",
            "the Message-ID is of the sender's domain",
            "from and to one domain",
        ] {
            assert!(said.iter().any(|said| said == there), "{there} is missing in {said:?}");
        }
    }

    #[test]
    fn domains_are_compared_by_what_is_registered() {
        assert_eq!(base("a.b.example.org"), "example.org");
        assert_eq!(base("localhost"), "localhost");
        assert_eq!(domain("Ann <ann@Example.ORG>"), "example.org");
        assert_eq!(rounded(0), 0);
        assert_eq!(rounded(13), 8);
    }
}
