//! The Authentication-Results field (RFC 8601): one, with our own name, for all that was found.
//!
//! Names come from peers and from the DNS, so each is cut down to what a name may hold. What was not checkable is
//! left away: the field has no word for it.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::mail::authentication::{Findings, Verdict};

/// The field's name.
pub const FIELD: &str = "Authentication-Results";

/// Longest name that is written.
const NAME_MAX: usize = 253;

/// Spells the field with its CRLF; `host` is our own name, under which whoever reads it trusts it.
#[must_use]
pub fn field(findings: &Findings, host: &str) -> String {
    let mut results = Vec::new();
    let mut add = |method: &str, verdict: Verdict, properties: &[(&str, &str)], comment: &str| {
        if verdict == Verdict::Unchecked {
            return;
        }
        let mut result = format!("{method}={}", verdict.word());
        if !comment.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(result, " ({})", plain(comment));
        }
        for (property, value) in properties {
            let value = name(value);
            if !value.is_empty() {
                let _ = write!(result, "\r\n\t  {property}={value}");
            }
        }
        results.push(result);
    };
    let Findings { spf, dkim, arc, dmarc, reverse, .. } = findings;
    let property = if spf.helo { "smtp.helo" } else { "smtp.mailfrom" };
    add("spf", spf.verdict, &[(property, &spf.domain)], "");
    for signature in dkim {
        let comment = if signature.verdict == Verdict::Pass { "" } else { &signature.reason };
        let properties = [("header.d", signature.domain.as_str()), ("header.s", &signature.selector)];
        add("dkim", signature.verdict, &properties, comment);
    }
    if dkim.is_empty() && dmarc.verdict != Verdict::Unchecked {
        add("dkim", Verdict::None, &[], "");
    }
    let policy = if dmarc.verdict == Verdict::None { String::new() } else { format!("p={}", dmarc.policy.word()) };
    add("dmarc", dmarc.verdict, &[("header.from", &dmarc.domain)], &policy);
    if arc.verdict != Verdict::None {
        add("arc", arc.verdict, &[], &format!("sealed by {}", name(&arc.domain)));
    }
    if let Some(client) = findings.client {
        let comment = reverse.name.as_deref().map(name).unwrap_or_default();
        if reverse.verdict != Verdict::Unchecked && reverse.verdict != Verdict::None {
            let word = reverse.verdict.word();
            results.push(format!("iprev={word} ({comment})\r\n\t  policy.iprev={}", literal(client)));
        }
    }
    if results.is_empty() {
        return format!("{FIELD}: {}; none\r\n", name(host));
    }
    format!("{FIELD}: {};\r\n\t{}\r\n", name(host), results.join(";\r\n\t"))
}

/// What is left of a text that is a name.
pub(super) fn name(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(NAME_MAX).collect()
}

/// A text that may stand in a comment.
fn plain(text: &str) -> String {
    let stays = |c: &char| (c.is_ascii_graphic() || *c == ' ') && !matches!(c, '(' | ')' | '\\');
    text.chars().filter(stays).take(100).collect()
}

/// An address as a value, in quotes where it is no token.
fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => format!("\"{six}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::authentication::{Dmarc, Policy, Reverse, Signature, Spf};

    fn findings() -> Findings {
        Findings {
            client: "192.0.2.1".parse().ok(),
            spf: Spf { verdict: Verdict::Pass, domain: "example.org".to_owned(), ..Spf::default() },
            dkim: vec![Signature {
                verdict: Verdict::Fail,
                domain: "example.org".to_owned(),
                selector: "s1".to_owned(),
                reason: "the body is not what was signed".to_owned(),
            }],
            dmarc: Dmarc {
                verdict: Verdict::Pass,
                domain: "example.org".to_owned(),
                policy: Policy::Reject,
                ..Dmarc::default()
            },
            reverse: Reverse { verdict: Verdict::Pass, name: Some("mx.example.org".to_owned()) },
            ..Findings::default()
        }
    }

    #[test]
    fn one_field_tells_all_that_was_found() {
        assert_eq!(
            field(&findings(), "pillarbox.test"),
            "Authentication-Results: pillarbox.test;\r\n\
             \tspf=pass\r\n\t  smtp.mailfrom=example.org;\r\n\
             \tdkim=fail (the body is not what was signed)\r\n\t  header.d=example.org\r\n\t  header.s=s1;\r\n\
             \tdmarc=pass (p=reject)\r\n\t  header.from=example.org;\r\n\
             \tiprev=pass (mx.example.org)\r\n\t  policy.iprev=192.0.2.1\r\n"
        );
    }

    #[test]
    fn what_was_not_checkable_is_left_away() {
        let none = Findings { client: "::1".parse().ok(), ..Findings::default() };
        let none = Findings { arc: crate::mail::authentication::Chain::default(), ..none };
        assert_eq!(field(&none, "pillarbox.test"), "Authentication-Results: pillarbox.test; none\r\n");
    }

    #[test]
    fn nothing_a_peer_says_breaks_the_field() {
        let mut hostile = findings();
        hostile.spf.domain = "x\r\nSubject: forged; dkim=pass \"(".repeat(100);
        hostile.dkim[0].selector = "a b;c=d\n".to_owned();
        hostile.dkim[0].reason = "(((\r\n)))\\".repeat(50);
        hostile.reverse.name = Some("evil) dmarc=pass (".to_owned());
        let field = field(&hostile, "pillarbox.test");
        assert!(field.is_ascii() && field.lines().all(|line| line.len() < 400), "{field}");
        let lines: Vec<&str> = field.split("\r\n").collect();
        let folded = |line: &str| line.starts_with('\t') || line.is_empty();
        assert!(lines.iter().skip(1).all(|line| folded(line)), "{field}");
        assert_eq!((field.matches("dkim=").count(), field.matches("dmarc=").count()), (1, 1), "{field}");
    }
}
