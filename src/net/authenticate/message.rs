//! What a message's header proves: DKIM (RFC 6376), ARC (RFC 8617) and DMARC (RFC 7489, RFC 9989), by mail-auth.
//!
//! mail-auth is given what it would look for: the header, hashes of the body that were made as it streamed by, and
//! the DNS's answers in a cache that holds only them. So nothing but [`Resolver`] asks the DNS, a message of any
//! size needs the same memory, and mail-auth's own reading of relaxed bodies, which keeps blank lines at the end
//! before 0.15, is not used. Bounds: [`SIGNATURES_MAX`] signatures, [`SETS_MAX`] ARC sets, [`NAMES_MAX`] names.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hickory_resolver::proto::op::ResponseCode;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::common::headers::Header;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::resolver::ToFqdn as _;
use mail_auth::common::verify::{DomainKey, VerifySignature as _};
use mail_auth::dkim::{Canonicalization, DkimError};
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::dmarc::{Alignment, Dmarc as Record, Policy as Wanted};
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DmarcResult, Error, MessageAuthenticator, Parameters, ResolverCache,
    SpfOutput, SpfResult, Txt,
};
use tokio::task::JoinSet;

use super::is_within;
use crate::mail::authentication::{Chain, Dmarc, Policy, Published, ReportAddress, Signature, Spf, Verdict};
use crate::mail::signed::{BodyHash, Signed};
use crate::net::resolver::{DnsError, Resolver};

/// Most signatures of a message that are looked at: those of From's domain first.
pub const SIGNATURES_MAX: usize = 8;

/// Most ARC sets of a message that is looked at.
pub const SETS_MAX: usize = 10;

/// Most names that are asked for one message.
pub const NAMES_MAX: usize = 48;

/// Questions for one message at one time: whoever names many dead domains waits himself.
const TOGETHER: usize = 8;

/// Longest record that is read, in bytes: an RSA key of 8,192 bits takes 1,500.
const RECORD_MAX: usize = 8192;

/// Most addresses for reports that are kept of a domain.
const REPORTS_MAX: usize = 4;

/// Longest of them, in bytes: a path's length (RFC 5321 section 4.5.3.1.3).
const REPORT_ADDRESS_MAX: usize = 256;

/// What was found in a message.
pub(super) struct Found {
    pub dkim: Vec<Signature>,
    pub arc: Chain,
    pub dmarc: Dmarc,
}

/// Looks at a message's header. While the body has not ended, it is taken to be what signatures say.
pub(super) async fn check(resolver: &Resolver, judge: &MessageAuthenticator, signed: &Signed, spf: &Spf) -> Found {
    let Some(question) = Question::read(signed) else {
        let reason = "the header cannot be read, or is too long to be looked at".to_owned();
        let dmarc = Dmarc { verdict: Verdict::PermError, reason: reason.clone(), ..Dmarc::default() };
        let arc = Chain { verdict: Verdict::None, reason, ..Chain::default() };
        return Found { dkim: Vec::new(), arc, dmarc };
    };
    let names = question.names(spf);
    let answers = Answers::fetch(resolver, names).await;
    let away = resolver.is_away();
    // Signatures cost the CPU milliseconds on a small board, so they are not the reactor's work.
    let (judge, signed, spf) = (judge.clone(), signed.clone(), spf.clone());
    let runtime = tokio::runtime::Handle::current();
    let proving = tokio::task::spawn_blocking(move || {
        Question::read(&signed).map(|question| runtime.block_on(question.prove(&judge, &answers, &spf, away)))
    });
    let Ok(Some((mut found, of_missing))) = proving.await else {
        let dmarc = Dmarc { verdict: Verdict::TempError, ..Dmarc::default() };
        return Found { dkim: Vec::new(), arc: Chain::default(), dmarc };
    };
    if let Some(policy) = of_missing
        && matches!(resolver.addresses_of(&found.dmarc.domain, false).await, Err(DnsError::NoSuchName))
    {
        found.dmarc.policy = policy;
    }
    found
}

/// A message's header, read.
struct Question<'s> {
    message: AuthenticatedMessage<'s>,
    /// Signatures that need no look.
    told: Vec<Signature>,
    /// From's domain, or why there is none.
    author: Result<String, String>,
    /// The ARC chain is worth a look.
    sealed: bool,
}

impl<'s> Question<'s> {
    fn read(signed: &'s Signed) -> Option<Self> {
        // Body lengths (l=) are allowed here and looked at below.
        let mut message = AuthenticatedMessage::parse_with_opts(signed.header.as_ref()?, None, false)?;
        let author = author(&message);
        let told = choose(&mut message, signed, author.as_deref().unwrap_or_default());
        fill_hashes(&mut message, signed);
        let sealed = (1..=SETS_MAX).contains(&message.ams_headers.len()) && !message.has_arc_errors;
        Some(Self { message, told, author, sealed })
    }

    /// The names that are looked up for it.
    fn names(&self, spf: &Spf) -> Vec<String> {
        let message = &self.message;
        let mut names: Vec<String> = message.dkim_headers.iter().map(|one| one.header.domain_key()).collect();
        if self.sealed {
            let last = message.ams_headers.iter().max_by_key(|one| one.header.i);
            names.extend(last.map(|one| one.header.domain_key()));
            names.extend(message.as_headers.iter().take(SETS_MAX).map(|one| one.header.domain_key()));
        }
        if let Ok(author) = &self.author {
            names.extend(walk(author));
            // Identities that may stand for From's domain, in relaxed alignment.
            let identities = message.dkim_headers.iter().map(|one| one.header.d.as_str()).chain([spf.domain.as_str()]);
            let identities = identities.map(mail_auth::common::to_a_label).filter(|domain| is_near(domain, author));
            names.extend(identities.flat_map(|domain| walk(&domain)));
        }
        names
    }

    /// What it proves, and the policy that would hold if From's domain does not exist, where that is another one.
    async fn prove(
        self,
        judge: &MessageAuthenticator,
        answers: &Answers,
        spf: &Spf,
        away: bool,
    ) -> (Found, Option<Policy>) {
        let Self { message, told: mut dkim, author, sealed } = self;
        let outputs = judge.verify_dkim(Parameters::new(&message).with_txt_cache(answers)).await;
        dkim.extend(outputs.iter().filter(|output| output.signature().is_some()).map(|one| signature(one, away)));
        let arc = if sealed {
            let output = judge.verify_arc(Parameters::new(&message).with_txt_cache(answers)).await;
            let last = message.as_headers.iter().max_by_key(|one| one.header.i);
            let (verdict, reason) = result(output.result(), away);
            let domain = last.map(|one| one.header.d.clone()).unwrap_or_default();
            Chain { verdict, domain, sets: message.ams_headers.len(), reason }
        } else {
            no_chain(&message)
        };
        let domain = match author {
            Err(reason) => {
                let dmarc = Dmarc { verdict: Verdict::PermError, reason, ..Dmarc::default() };
                return (Found { dkim, arc, dmarc }, None);
            }
            Ok(domain) => domain,
        };
        let spf_output = SpfOutput::new(spf.domain.clone()).with_result(spf_result(spf.verdict));
        let asked = DmarcParameters {
            message: &message,
            dkim_output: &outputs,
            dkim2_output: None,
            rfc5321_mail_from_domain: &spf.domain,
            spf_output: &spf_output,
        };
        let output = judge.verify_dmarc(Parameters::new(asked).with_txt_cache(answers)).await;
        let own = walk(&domain).first().is_some_and(|name| answers.has(name));
        let of_missing = output.dmarc_record().filter(|record| !own && record.np != record.sp).map(|record| {
            match (record.np, record.t) {
                // In test mode a policy falls by one (RFC 9989 section 4.7).
                (Wanted::Reject, false) => Policy::Reject,
                (Wanted::Reject, true) | (Wanted::Quarantine, false) => Policy::Quarantine,
                _ => Policy::None,
            }
        });
        let mut dmarc = dmarc(&output, &domain, away);
        dmarc.published =
            output.dmarc_record().map(|record| Box::new(published(record, answers.place(record, &domain))));
        (Found { dkim, arc, dmarc }, of_missing)
    }
}

/// The domain in From, if there is one alone (RFC 9989 section 5.3.1; two addresses of one domain are one).
fn author(message: &AuthenticatedMessage<'_>) -> Result<String, String> {
    let fields = message.headers.iter().filter(|(name, _)| name.trim_ascii().eq_ignore_ascii_case(b"from")).count();
    if fields != 1 {
        return Err(format!("the message has {fields} From fields, and one is right"));
    }
    let mut domains = message.from.iter().filter_map(|address| address.rsplit_once('@'));
    let Some((_, domain)) = domains.next() else { return Err("From names no address".to_owned()) };
    if domains.any(|(_, other)| other != domain) {
        return Err("From names addresses of several domains".to_owned());
    }
    Ok(mail_auth::common::to_a_label(domain).trim_end_matches('.').to_owned())
}

/// Leaves the signatures that are looked at, and tells of those that need no look.
fn choose(message: &mut AuthenticatedMessage<'_>, signed: &Signed, author: &str) -> Vec<Signature> {
    let broken = message.errors.iter().filter_map(|header| match &header.header {
        Error::Dkim(_) | Error::Base64 | Error::MissingParameters => Some(Signature {
            verdict: Verdict::PermError,
            reason: format!("a signature cannot be read: {}", header.header),
            ..Signature::default()
        }),
        _ => None,
    });
    let mut told: Vec<Signature> = broken.take(SIGNATURES_MAX).collect();
    message.dkim_headers.sort_by_key(|one| !is_near(&one.header.d, author));
    message.dkim_headers.truncate(SIGNATURES_MAX);
    message.dkim_headers.retain_mut(|one| {
        // What would be asked besides: where reports go (RFC 6651), who else may sign (RFC 6541).
        (one.header.r, one.header.atps) = (false, None);
        let body = body_of(signed, one.header.cb);
        let reason = if !one.header.h.iter().any(|name| name.eq_ignore_ascii_case("from")) {
            Some("From is not signed")
        } else if one.header.a == Algorithm::RsaSha1 {
            Some("it uses SHA-1, which proves nothing any more (RFC 8301)")
        } else if one.header.l > 0 && body.is_some_and(|body| one.header.l > body.length) {
            Some("the body is shorter than what was signed")
        } else if one.header.l > 0 && body.is_some_and(|body| one.header.l < body.length) {
            Some("only the beginning of the body is signed (l=), and more follows")
        } else {
            None
        };
        let Some(reason) = reason else { return true };
        told.push(Signature {
            verdict: Verdict::PermError,
            domain: one.header.d.clone(),
            selector: one.header.s.clone(),
            reason: reason.to_owned(),
        });
        false
    });
    told
}

/// Hands out the body's hashes; mail-auth wants one for each form that it found.
fn fill_hashes(message: &mut AuthenticatedMessage<'_>, signed: &Signed) {
    let dkim = message.dkim_headers.iter().map(|Header { header, .. }| (header.cb, header.a, header.l, &header.bh));
    let arc = message.ams_headers.iter().map(|Header { header, .. }| (header.cb, header.a, header.l, &header.bh));
    let mut hashes: Vec<(Canonicalization, HashAlgorithm, u64, Vec<u8>)> = Vec::new();
    for (form, algorithm, length, claimed) in dkim.chain(arc) {
        let hash = HashAlgorithm::from(algorithm);
        if hashes.iter().any(|(f, h, l, _)| *f == form && *h == hash && *l == length) {
            continue;
        }
        let body = body_of(signed, form).filter(|body| length == 0 || length == body.length);
        let value = match body {
            Some(body) if hash == HashAlgorithm::Sha256 => body.sha256.to_vec(),
            _ if !signed.ended && hash == HashAlgorithm::Sha256 => claimed.clone(),
            // None that could be right.
            _ => Vec::new(),
        };
        hashes.push((form, hash, length, value));
    }
    // A signature with an empty hash would agree with the one that could not be right.
    message.dkim_headers.retain(|one| !one.header.bh.is_empty());
    message.body_hashes = hashes;
}

fn body_of(signed: &Signed, form: Canonicalization) -> Option<BodyHash> {
    match form {
        Canonicalization::Simple => signed.simple,
        Canonicalization::Relaxed => signed.relaxed,
    }
}

fn no_chain(message: &AuthenticatedMessage<'_>) -> Chain {
    let sets = message.ams_headers.len();
    let (verdict, reason) = if sets > SETS_MAX {
        (Verdict::PermError, format!("{sets} ARC sets, and {SETS_MAX} are looked at"))
    } else if message.has_arc_errors || !message.as_headers.is_empty() || !message.aar_headers.is_empty() {
        (Verdict::Fail, "the ARC fields are broken".to_owned())
    } else {
        (Verdict::None, "there is no ARC seal".to_owned())
    };
    Chain { verdict, sets, reason, ..Chain::default() }
}

fn signature(output: &DkimOutput<'_>, away: bool) -> Signature {
    let (verdict, reason) = result(output.result(), away);
    let (domain, selector) = output.signature().map(|one| (one.d.clone(), one.s.clone())).unwrap_or_default();
    Signature { verdict, domain, selector, reason }
}

fn result(result: &DkimResult, away: bool) -> (Verdict, String) {
    match result {
        DkimResult::Pass => (Verdict::Pass, "the signature fits".to_owned()),
        DkimResult::None => (Verdict::None, "there is none".to_owned()),
        DkimResult::Neutral(error) | DkimResult::Fail(error) | DkimResult::PermError(error) => match error {
            Error::Dkim(DkimError::FailedBodyHashMatch) | Error::Arc(mail_auth::arc::ArcError::FailedBodyHashMatch) => {
                (Verdict::Fail, "the body is not what was signed".to_owned())
            }
            Error::Dkim(DkimError::SignatureExpired) | Error::Arc(mail_auth::arc::ArcError::SignatureExpired) => {
                (Verdict::Fail, "the signature has expired".to_owned())
            }
            Error::Crypto(_) => (Verdict::Fail, "the header is not what was signed".to_owned()),
            Error::Dns(_) => (Verdict::PermError, "the key is not in the DNS".to_owned()),
            error if matches!(result, DkimResult::Fail(_)) => (Verdict::Fail, error.to_string()),
            error => (Verdict::PermError, error.to_string()),
        },
        DkimResult::TempError(error) if away => (Verdict::Unchecked, error.to_string()),
        DkimResult::TempError(error) => (Verdict::TempError, error.to_string()),
    }
}

fn spf_result(verdict: Verdict) -> SpfResult {
    match verdict {
        Verdict::Pass => SpfResult::Pass,
        Verdict::Fail => SpfResult::Fail,
        Verdict::SoftFail => SpfResult::SoftFail,
        Verdict::Neutral => SpfResult::Neutral,
        Verdict::None => SpfResult::None,
        Verdict::TempError | Verdict::Unchecked => SpfResult::TempError,
        Verdict::PermError => SpfResult::PermError,
    }
}

fn dmarc(output: &mail_auth::DmarcOutput, domain: &str, away: bool) -> Dmarc {
    let by_spf = *output.spf_result() == DmarcResult::Pass;
    let by_dkim = *output.dkim_result() == DmarcResult::Pass;
    let policy = policy_of(output.policy());
    let (verdict, reason) = match output.result() {
        DmarcResult::Pass => {
            let by = match (by_spf, by_dkim) {
                (true, true) => "SPF and DKIM stand",
                (true, false) => "SPF stands",
                _ => "DKIM stands",
            };
            (Verdict::Pass, format!("{by} for {domain}"))
        }
        DmarcResult::Fail(_) => (Verdict::Fail, format!("neither SPF nor DKIM stands for {domain}")),
        DmarcResult::None => (Verdict::None, format!("{domain} has no DMARC record")),
        DmarcResult::PermError(error) => (Verdict::PermError, error.to_string()),
        DmarcResult::TempError(_) if away => (Verdict::Unchecked, "the DNS does not answer".to_owned()),
        DmarcResult::TempError(_) => (Verdict::TempError, "the DNS of a domain does not answer".to_owned()),
    };
    Dmarc { verdict, domain: domain.to_owned(), policy, by_spf, by_dkim, published: None, reason }
}

fn policy_of(wanted: Wanted) -> Policy {
    match wanted {
        Wanted::Reject => Policy::Reject,
        Wanted::Quarantine => Policy::Quarantine,
        Wanted::None | Wanted::Unspecified => Policy::None,
    }
}

/// What reports say of a record that was found at `domain`.
fn published(record: &Record, domain: String) -> Published {
    let reports = record.rua().iter().filter(|uri| uri.uri().contains('@') && uri.uri().len() <= REPORT_ADDRESS_MAX);
    let report = |uri: &mail_auth::dmarc::URI| ReportAddress {
        address: uri.uri().strip_prefix("mailto:").unwrap_or(uri.uri()).to_owned(),
        bytes_max: uri.max_size() as u64,
    };
    Published {
        domain,
        policy: policy_of(record.p),
        below: policy_of(record.sp),
        missing: policy_of(record.np),
        strict_dkim: record.adkim == Alignment::Strict,
        strict_spf: record.aspf == Alignment::Strict,
        testing: record.t,
        reports_to: reports.map(report).take(REPORTS_MAX).collect(),
    }
}

/// The names of the tree walk from a domain to its top (RFC 9989 section 4.10): eight at most.
fn walk(domain: &str) -> Vec<String> {
    let labels: Vec<&str> = domain.split('.').filter(|label| !label.is_empty()).collect();
    let name = |count: usize| {
        let rest = labels.get(labels.len().saturating_sub(count)..).unwrap_or_default();
        format!("_dmarc.{}.", rest.join("."))
    };
    match labels.len() {
        0 | 1 => Vec::new(),
        count => [count].into_iter().chain((1..count.min(8)).rev()).map(name).collect(),
    }
}

/// Whether two domains may have one organization: they share their last two labels.
fn is_near(domain: &str, author: &str) -> bool {
    let last = author.rmatch_indices('.').nth(1).map_or(author, |(at, _)| author.get(at + 1..).unwrap_or(author));
    !last.is_empty() && is_within(domain, last)
}

/// The DNS's answers for one message, by the whole name.
struct Answers(Mutex<HashMap<Box<str>, Txt>>);

impl Answers {
    /// Asks for all names, each once.
    async fn fetch(resolver: &Resolver, names: Vec<String>) -> Self {
        let mut names: Vec<String> = names.iter().map(|name| name.to_fqdn().into_owned()).collect();
        names.sort();
        names.dedup();
        names.truncate(NAMES_MAX);
        let (mut asking, mut names) = (JoinSet::new(), names.into_iter());
        let mut answers = HashMap::new();
        loop {
            while asking.len() < TOGETHER
                && let Some(name) = names.next()
            {
                let resolver = resolver.clone();
                asking.spawn(async move {
                    let texts = resolver.txt(&name).await;
                    (name, texts)
                });
            }
            let Some(answer) = asking.join_next().await else { break };
            let Ok((name, texts)) = answer else { continue };
            let texts = texts.map(|found| found.value);
            let record = if name.starts_with("_dmarc.") { policy(texts) } else { key(texts) };
            answers.insert(name.into_boxed_str(), record);
        }
        Self(Mutex::new(answers))
    }

    /// Where From's domain or one above it has this record.
    fn place(&self, record: &Record, author: &str) -> String {
        let names = walk(author);
        let here = |name: &&String| matches!(self.get(name.as_str()), Some(Txt::Dmarc(known)) if std::ptr::eq(Arc::as_ptr(&known), record));
        let name = names.iter().find(here).and_then(|name| name.strip_prefix("_dmarc."));
        name.map_or(author, |name| name.trim_end_matches('.')).to_owned()
    }

    /// Tells whether there is a DMARC record under a name.
    fn has(&self, name: &str) -> bool {
        matches!(self.get(&*name.to_fqdn()), Some(Txt::Dmarc(_)))
    }
}

/// A signer's key. Of several the first that is one counts (RFC 6376 section 3.6.2.2 leaves it open).
fn key(texts: Result<Vec<String>, DnsError>) -> Txt {
    let texts = match texts {
        Ok(texts) => texts,
        Err(error) => return Txt::Error(unanswered(&error)),
    };
    let mut parsed = Err(Error::Dns(mail_auth::DnsError::InvalidRecordType));
    for text in texts.iter().filter(|text| text.len() <= RECORD_MAX) {
        parsed = DomainKey::parse(text.as_bytes());
        if parsed.is_ok() {
            break;
        }
    }
    parsed.into()
}

/// A domain's DMARC record. Where there are several there is none (RFC 9989 section 4.10).
fn policy(texts: Result<Vec<String>, DnsError>) -> Txt {
    let texts = match texts {
        Ok(texts) => texts,
        Err(error) => return Txt::Error(unanswered(&error)),
    };
    let fits = texts.iter().filter(|text| text.len() <= RECORD_MAX);
    let mut records = fits.filter_map(|text| Record::parse(text.as_bytes()).ok());
    match (records.next(), records.next()) {
        (Some(record), None) => Txt::Dmarc(Arc::new(record)),
        _ => Txt::Error(Error::Dns(mail_auth::DnsError::InvalidRecordType)),
    }
}

fn unanswered(error: &DnsError) -> Error {
    Error::Dns(match error {
        DnsError::NoSuchName => mail_auth::DnsError::RecordNotFound(ResponseCode::NXDomain),
        DnsError::NoRecords => mail_auth::DnsError::RecordNotFound(ResponseCode::NoError),
        DnsError::Bogus | DnsError::Unavailable(_) => mail_auth::DnsError::Resolver(error.to_string()),
    })
}

impl ResolverCache<Box<str>, Txt> for Answers {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_goes_from_the_domain_to_its_top_in_eight_steps() {
        assert_eq!(walk("a.b.test"), ["_dmarc.a.b.test.", "_dmarc.b.test.", "_dmarc.test."]);
        assert_eq!(walk("test"), [""; 0]);
        let long = walk("a.b.c.d.e.f.g.h.i.j.test");
        assert_eq!((long.len(), long[0].as_str()), (8, "_dmarc.a.b.c.d.e.f.g.h.i.j.test."));
        assert_eq!((long[1].as_str(), long[7].as_str()), ("_dmarc.e.f.g.h.i.j.test.", "_dmarc.test."));
    }

    #[test]
    fn domains_that_share_two_labels_are_near() {
        assert!(is_near("mail.example.org", "example.org") && is_near("example.org", "news.example.org"));
        assert!(!is_near("badexample.org", "example.org") && !is_near("example.net", "example.org"));
        assert!(!is_near("", "") && !is_near("x.org", ""));
    }
}
