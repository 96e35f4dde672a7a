//! MTA-STS: a domain says over HTTPS which servers take its mail, and that they speak verified TLS
//! (RFC 8461). The texts come in as arguments; fetching them is `net::mta_sts`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most `mx` patterns of a policy.
const PATTERNS_MAX: usize = 64;

/// Longest pattern in bytes: a domain's.
const PATTERN_MAX: usize = 255;

/// Longest time that a policy holds, in seconds (RFC 8461 section 3.2).
pub const MAX_AGE_MAX: u32 = 31_557_600;

/// Longest `id` of the DNS record (section 3.1).
const ID_MAX: usize = 32;

/// How a policy is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsMode {
    /// Mail goes to servers that keep it, and to no others.
    Enforce,
    /// Mail goes as if there were none, and failures are reported.
    Testing,
    /// There is none any more.
    None,
}

/// A policy (section 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StsPolicy {
    /// How it is meant.
    pub mode: StsMode,
    /// The servers' names, in lower case; `*.example.org` stands for one label more.
    pub mx: Vec<String>,
    /// How long it holds, in seconds.
    pub max_age_secs: u32,
}

/// Why a text is no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StsError {
    /// It does not say `version: STSv1`.
    Version,
    /// It has no `mode` that is known.
    Mode,
    /// It names no server, or too many, or something that is none.
    Mx,
    /// It does not say how long it holds.
    MaxAge,
}

impl fmt::Display for StsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Version => "it does not begin with version: STSv1",
            Self::Mode => "it names no mode that is known",
            Self::Mx => "it does not name its servers in the right way",
            Self::MaxAge => "it does not say how long it holds",
        })
    }
}

impl std::error::Error for StsError {}

impl StsPolicy {
    /// Reads a policy. Keys that are not known are passed over (section 3.2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, StsError> {
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim() {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" if mx.len() < PATTERNS_MAX => mx.push(value.trim_end_matches('.').to_ascii_lowercase()),
                "mx" => return Err(StsError::Mx),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(StsError::Version);
        }
        let mode = match mode {
            Some("enforce") => StsMode::Enforce,
            Some("testing") => StsMode::Testing,
            Some("none") => StsMode::None,
            _ => return Err(StsError::Mode),
        };
        let age =
            max_age.filter(|age| !age.is_empty() && age.len() <= 10 && age.bytes().all(|byte| byte.is_ascii_digit()));
        let age = age.and_then(|age| age.parse::<u64>().ok()).ok_or(StsError::MaxAge)?;
        if (mx.is_empty() && mode != StsMode::None) || !mx.iter().all(|pattern| is_pattern(pattern)) {
            return Err(StsError::Mx);
        }
        let max_age_secs = u32::try_from(age).unwrap_or(MAX_AGE_MAX).min(MAX_AGE_MAX);
        Ok(Self { mode, mx, max_age_secs })
    }

    /// Tells whether a server is among those that the policy names (section 4.1).
    pub fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => *pattern == host,
        })
    }
}

impl fmt::Display for StsPolicy {
    /// Writes the policy as it is published.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            StsMode::Enforce => "enforce",
            StsMode::Testing => "testing",
            StsMode::None => "none",
        };
        write!(out, "version: STSv1\r\nmode: {mode}\r\n")?;
        for pattern in &self.mx {
            write!(out, "mx: {pattern}\r\n")?;
        }
        write!(out, "max_age: {}\r\n", self.max_age_secs)
    }
}

fn is_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    text.len() <= PATTERN_MAX && name.split('.').all(label)
}

/// The `id` in the TXT records of `_mta-sts.DOMAIN` (section 3.1): it changes when the policy does.
/// `None` when the domain has no policy, which is also what several such records mean.
pub fn record_id(records: &[String]) -> Option<&str> {
    let mut ours =
        records.iter().filter(|record| record.split(';').next().is_some_and(|word| word.trim() == "v=STSv1"));
    let record = ours.next()?;
    if ours.next().is_some() {
        return None;
    }
    let id = record.split(';').find_map(|field| field.trim().strip_prefix("id="))?.trim();
    let fits = !id.is_empty() && id.len() <= ID_MAX && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_and_written() {
        let text = "version: STSv1\nmode: enforce\nmx: Mail.example.com\nmx: *.example.net\nx: y\nmax_age: 604800";
        let policy = StsPolicy::parse(text).unwrap();
        assert_eq!((policy.mode, policy.max_age_secs), (StsMode::Enforce, 604_800));
        assert_eq!(policy.mx, ["mail.example.com", "*.example.net"]);
        assert_eq!(StsPolicy::parse(&policy.to_string()), Ok(policy));
        assert_eq!(StsPolicy::parse("version: STSv1\r\nmode: none\r\nmax_age: 1\r\n").unwrap().mx, [""; 0]);
    }

    #[test]
    fn what_is_no_policy_says_why() {
        for (text, error) in [
            ("", StsError::Version),
            ("<html>", StsError::Version),
            ("version: STSv2\nmode: none\nmax_age: 1", StsError::Version),
            ("version: STSv1\nmode: maybe\nmx: a.b\nmax_age: 1", StsError::Mode),
            ("version: STSv1\nmode: enforce\nmax_age: 1", StsError::Mx),
            ("version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1", StsError::Mx),
            ("version: STSv1\nmode: enforce\nmx: a.*.b\nmax_age: 1", StsError::Mx),
            ("version: STSv1\nmode: enforce\nmx: a.b\nmax_age: -1", StsError::MaxAge),
            ("version: STSv1\nmode: enforce\nmx: a.b", StsError::MaxAge),
        ] {
            assert_eq!(StsPolicy::parse(text), Err(error), "{text:?}");
        }
        let many = format!("version: STSv1\nmode: enforce\n{}max_age: 1", "mx: a.b\n".repeat(PATTERNS_MAX + 1));
        assert_eq!(StsPolicy::parse(&many), Err(StsError::Mx));
        let long = StsPolicy::parse("version: STSv1\nmode: none\nmax_age: 9999999999").unwrap();
        assert_eq!(long.max_age_secs, MAX_AGE_MAX);
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let policy = StsPolicy::parse("version: STSv1\nmode: enforce\nmx: *.a.test\nmx: b.test\nmax_age: 1").unwrap();
        for (host, named) in [
            ("mx.a.test", true),
            ("MX.A.test.", true),
            ("b.test", true),
            ("a.test", false),
            ("x.mx.a.test", false),
            ("x.b.test", false),
            ("evil-a.test", false),
            (".a.test", false),
        ] {
            assert_eq!(policy.names(host), named, "{host}");
        }
    }

    #[test]
    fn the_record_has_one_id() {
        let id = |records: &[&str]| {
            let records: Vec<String> = records.iter().map(|&record| record.to_owned()).collect();
            record_id(&records).map(ToOwned::to_owned)
        };
        assert_eq!(id(&["v=spf1 -all", "v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(id(&["v=STSv1;id=1"]).as_deref(), Some("1"));
        for records in
            [&["v=STSv1; id=1;", "v=STSv1; id=2;"][..], &["v=STSv1"], &["v=STSv1; id="], &["v=STSv10; id=1"], &[]]
        {
            assert_eq!(id(records), None, "{records:?}");
        }
    }
}
