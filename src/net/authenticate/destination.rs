//! Whether whoever a DMARC record names for reports wants them (RFC 7489 section 7.1, RFC 9990 section 4): else
//! anybody could have the world write to anybody.

use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::dmarc::{Dmarc as Record, Psd};

use super::is_within;
use crate::net::resolver::{DnsError, Resolver};

/// Longest record that is read, in bytes.
const RECORD_MAX: usize = 8192;

/// Tells whether reports about `domain`, whose DMARC record stands there, may go to addresses in `target`.
///
/// # Errors
/// It cannot be known now.
pub async fn takes_reports(resolver: &Resolver, domain: &str, target: &str) -> Result<bool, DnsError> {
    let (domain, target) = (domain.trim_end_matches('.'), target.trim_end_matches('.'));
    if is_within(target, domain) {
        return Ok(true);
    }
    // A domain above is of the same organization if it publishes a policy itself, and not one for a registry.
    if is_within(domain, target) {
        let texts = texts(resolver, &format!("_dmarc.{target}")).await?;
        let mut records = texts.iter().filter_map(|text| Record::parse(text.as_bytes()).ok());
        if records.next().is_some_and(|record| record.psd != Psd::Yes) {
            return Ok(true);
        }
    }
    let texts = texts(resolver, &format!("{domain}._report._dmarc.{target}")).await?;
    let version = |text: &String| text.split(';').next().is_some_and(|word| word.replace(' ', "") == "v=DMARC1");
    Ok(texts.iter().any(version))
}

async fn texts(resolver: &Resolver, name: &str) -> Result<Vec<String>, DnsError> {
    match resolver.txt(name).await {
        Ok(found) => Ok(found.value.into_iter().filter(|text| text.len() <= RECORD_MAX).collect()),
        Err(DnsError::NoSuchName | DnsError::NoRecords | DnsError::Bogus) => Ok(Vec::new()),
        Err(error @ DnsError::Unavailable(_)) => Err(error),
    }
}
