//! What DNS says beside what it should say, in plain words.
//!
//! A record may differ from the one we would print and still be right: a DMARC policy of one's own, an
//! SPF record that names more servers. Only what does harm counts as a difference.

use std::net::IpAddr;

use serde::Serialize;

use super::{Data, Need, Purpose, Record};

/// What DNS answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These, at least one.
    Found(Vec<Data>),
    /// There is nothing.
    Nothing,
    /// It cannot be known now; why.
    Unknown(String),
}

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is as it should be.
    Good,
    /// It is not there.
    Missing,
    /// It says something else.
    Different,
    /// It cannot be known now.
    NotCheckable,
}

/// What was found about one record, or all with one name and purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What the record is for.
    pub purpose: Purpose,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// How it stands.
    pub state: State,
    /// What that means, in a sentence or two.
    pub text: String,
    /// Something should be done about it.
    pub counts: bool,
}

/// Compares what DNS answered for the name and type of `wanted`, which are the records that should be
/// there: one, or several of which each has its place (the addresses of a host).
pub fn compare(wanted: &[&Record], answer: &Answer) -> Option<Finding> {
    let first = *wanted.first()?;
    let (state, text) = match answer {
        Answer::Unknown(why) => (State::NotCheckable, format!("not checkable: {why}")),
        Answer::Nothing => (State::Missing, missing(first)),
        Answer::Found(found) => match judge(wanted, found) {
            Ok(text) => (State::Good, text),
            Err(Fault::Missing) => (State::Missing, missing(first)),
            Err(Fault::Different(text)) => (State::Different, text),
        },
    };
    let counts = match state {
        State::Good | State::NotCheckable => false,
        State::Missing => first.need <= Need::Advised,
        State::Different => first.need <= Need::Optional,
    };
    Some(Finding { purpose: first.purpose, name: first.name.clone(), kind: first.data.kind(), state, text, counts })
}

/// Compares the names that an address has in DNS with the box's.
pub fn host_pointer(address: IpAddr, host: &str, answer: &Answer) -> Finding {
    let wrong = |names: &str| {
        format!(
            "the reverse name of {address} {names}, and should be {host}: many servers take no mail otherwise. \
             Whoever gave you the address can set it."
        )
    };
    let (state, text) = match answer {
        Answer::Unknown(why) => (State::NotCheckable, format!("not checkable: {why}")),
        Answer::Nothing => (State::Missing, wrong("is not there")),
        Answer::Found(found) if found.iter().any(|data| matches!(data, Data::Ptr(name) if same(name, host))) => {
            (State::Good, format!("{address} is called {host}"))
        }
        Answer::Found(found) => (State::Different, wrong(&format!("is {}", listed(found)))),
    };
    let counts = matches!(state, State::Missing | State::Different);
    Finding { purpose: Purpose::Address, name: address.to_string(), kind: "PTR", state, text, counts }
}

enum Fault {
    /// What is there is about something else.
    Missing,
    Different(String),
}

fn different<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Different(text.into()))
}

fn missing(record: &Record) -> String {
    let what = match record.purpose {
        Purpose::Mx => "nobody knows where mail for the domain goes",
        Purpose::Address => "nobody finds the box",
        Purpose::Spf => "others cannot know that the box may send the domain's mail",
        Purpose::Dkim => "signatures with this key cannot be verified",
        Purpose::Dmarc => "others do not know what to do with mail that is forged in your name",
        Purpose::TlsReports => "nobody tells you when mail to you could not be encrypted",
        Purpose::MtaSts => "others may send to you without encryption; that is no fault",
        Purpose::Tlsa => "others cannot check the box's certificate with DANE; that is no fault",
        Purpose::Service => "mail programs have to be told the server's name; that is no fault",
        Purpose::Autoconfig => "mail programs have to be set up by hand; that is no fault",
    };
    format!("it is not published, so {what}")
}

fn judge(wanted: &[&Record], found: &[Data]) -> Result<String, Fault> {
    let Some(first) = wanted.first() else { return Err(Fault::Missing) };
    match first.purpose {
        Purpose::Mx => mail_exchange(&first.data, found),
        Purpose::Address => addresses(wanted, found),
        Purpose::Spf => spf(wanted, found),
        Purpose::Dkim => key(&first.data, found),
        Purpose::Dmarc => policy(found),
        Purpose::TlsReports => {
            let text = only(found, "v=TLSRPTv1")?;
            if text.contains("rua=") {
                Ok(format!("it says `{text}`"))
            } else {
                different("it names no place for reports (`rua=`)")
            }
        }
        Purpose::MtaSts => {
            let text = only(found, "v=STSv1")?;
            if text.contains("id=") { Ok(format!("it says `{text}`")) } else { different("it has no `id=`") }
        }
        Purpose::Tlsa => {
            if found.contains(&first.data) {
                return Ok("it names the key of the box's certificate".into());
            }
            different(format!(
                "it names another key ({}), so servers that check it deliver nothing; the box has {}",
                listed(found),
                shown(&first.data)
            ))
        }
        Purpose::Service | Purpose::Autoconfig => {
            if found.contains(&first.data) {
                return Ok(format!("it says {}", shown(&first.data)));
            }
            different(format!("it says {}, and should say {}", listed(found), shown(&first.data)))
        }
    }
}

fn mail_exchange(wanted: &Data, found: &[Data]) -> Result<String, Fault> {
    let Data::Mx(_, host) = wanted else { return Err(Fault::Missing) };
    let others: Vec<&Data> =
        found.iter().filter(|data| !matches!(data, Data::Mx(_, name) if same(name, host))).collect();
    if others.iter().any(|data| matches!(data, Data::Mx(_, name) if name.is_empty())) {
        return different("it says that the domain takes no mail at all (RFC 7505)");
    }
    if others.len() == found.len() {
        return different(format!("mail goes to {}, and not to this box, {host}", listed(found)));
    }
    if others.is_empty() {
        return Ok(format!("mail comes to {host}"));
    }
    let others: Vec<Data> = others.into_iter().cloned().collect();
    Ok(format!("mail comes to {host}, and also to {}, which has to pass it on", listed(&others)))
}

fn addresses(wanted: &[&Record], found: &[Data]) -> Result<String, Fault> {
    if wanted.iter().all(|record| record.need == Need::Later) {
        return Ok(format!("the box's name leads to {}; see that it is this box's address", listed(found)));
    }
    if wanted.iter().any(|record| found.contains(&record.data)) {
        return Ok(format!("the box's name leads to {}", listed(found)));
    }
    let own: Vec<Data> = wanted.iter().map(|record| record.data.clone()).collect();
    different(format!("the box's name leads to {}, and the box has {}", listed(found), listed(&own)))
}

/// Looks for what lets the box send; whether the rest of the record does what is meant, SPF itself tells.
fn spf(wanted: &[&Record], found: &[Data]) -> Result<String, Fault> {
    let text = only(found, "v=spf1")?;
    if wanted.iter().any(|record| matches!(&record.data, Data::Txt(own) if *own == text)) {
        return Ok(format!("it says `{text}`"));
    }
    let terms: Vec<String> = text.split_ascii_whitespace().skip(1).map(str::to_ascii_lowercase).collect();
    if terms.iter().any(|term| matches!(term.as_str(), "all" | "+all")) {
        return different(format!("it lets everybody send in your name (`{text}`)"));
    }
    let passes = |term: &String| {
        let term = term.strip_prefix('+').unwrap_or(term);
        ["mx", "a", "ip4", "ip6", "include", "exists"]
            .iter()
            .any(|name| term.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
            || term.starts_with("redirect=")
    };
    if terms.iter().any(passes) {
        return Ok(format!("it says `{text}`; see that it names this box"));
    }
    different(format!("it lets nobody send in your name (`{text}`)"))
}

fn key(wanted: &Data, found: &[Data]) -> Result<String, Fault> {
    let Data::Txt(wanted) = wanted else { return Err(Fault::Missing) };
    let texts: Vec<&String> =
        found.iter().filter_map(|data| if let Data::Txt(text) = data { Some(text) } else { None }).collect();
    let [text] = texts.as_slice() else {
        return different(format!("there are {} texts under this name, and one is allowed", texts.len()));
    };
    match (tag(text, "p"), tag(wanted, "p")) {
        (Some(p), _) if p.is_empty() => different("it says that the key is withdrawn (`p=` is empty)"),
        (None, _) => different(format!("it is no DKIM key: `{}`", short(text))),
        (Some(p), own) if own.as_ref() == Some(&p) => match (tag(text, "k"), tag(wanted, "k")) {
            (k, own) if k.as_deref().unwrap_or("rsa") == own.as_deref().unwrap_or("rsa") => {
                Ok("it is the key that the box has".into())
            }
            _ => different("the key is right, but `k=` names another kind of key"),
        },
        (Some(p), Some(own)) if own.starts_with(&p) => {
            different("it is the beginning of the key: the form cut it off; enter it in pieces of 255 characters")
        }
        _ => different("it is another key than the box has, so signatures fail"),
    }
}

fn policy(found: &[Data]) -> Result<String, Fault> {
    let text = only(found, "v=DMARC1")?;
    match tag(&text, "p").as_deref() {
        Some("none" | "quarantine" | "reject") => Ok(format!("it says `{text}`")),
        _ => different(format!("it has no policy that others understand: `{}`", short(&text))),
    }
}

/// The one text that begins with this version.
fn only(found: &[Data], version: &str) -> Result<String, Fault> {
    let is_ours = |text: &&String| {
        let head = text.get(..version.len()).is_some_and(|head| head.eq_ignore_ascii_case(version));
        head && !text.get(version.len()..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
    };
    let texts = found.iter().filter_map(|data| if let Data::Txt(text) = data { Some(text) } else { None });
    let ours: Vec<&String> = texts.filter(is_ours).collect();
    match ours.as_slice() {
        [] => Err(Fault::Missing),
        [text] => Ok((*text).clone()),
        several => {
            different(format!("there are {} records that begin with `{version}`, and then none counts", several.len()))
        }
    }
}

/// The value of a tag in a list such as DKIM's (RFC 6376 section 3.2), without white space.
fn tag(text: &str, name: &str) -> Option<String> {
    text.split(';').find_map(|part| {
        let (found, value) = part.split_once('=')?;
        (found.trim() == name).then(|| value.chars().filter(|c| !c.is_whitespace()).collect())
    })
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn shown(data: &Data) -> String {
    match data {
        Data::Mx(preference, host) => format!("{host} ({preference})"),
        Data::Address(address) => address.to_string(),
        Data::Txt(text) => format!("`{}`", short(text)),
        Data::Tlsa(usage, selector, matching, data) => format!("{usage} {selector} {matching} {}", short(data)),
        Data::Srv(priority, weight, port, host) => format!("{priority} {weight} {port} {host}"),
        Data::Cname(name) | Data::Ptr(name) => name.clone(),
    }
}

/// What is there, the first few of many.
fn listed(found: &[Data]) -> String {
    const SHOWN_MAX: usize = 5;
    let mut text = found.iter().take(SHOWN_MAX).map(shown).collect::<Vec<_>>().join(", ");
    if found.len() > SHOWN_MAX {
        text.push_str(" and more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::dkim::Turn;
    use super::super::tests::{host, key as row};
    use super::super::{Publication, publication};
    use super::*;

    fn all() -> Publication {
        publication("x.test", &host(), &[row("pb1-rsa", Turn::Signs)]).unwrap()
    }

    fn found(purpose: Purpose, data: &[Data]) -> Finding {
        let all = all();
        let wanted: Vec<&Record> = all.records.iter().filter(|record| record.purpose == purpose).collect();
        let answer = if data.is_empty() { Answer::Nothing } else { Answer::Found(data.to_vec()) };
        compare(if purpose == Purpose::Service { &wanted[..1] } else { &wanted }, &answer).unwrap()
    }

    fn texts(purpose: Purpose, texts: &[&str]) -> Finding {
        found(purpose, &texts.iter().map(|text| Data::Txt((*text).to_owned())).collect::<Vec<_>>())
    }

    fn is(finding: &Finding, state: State, counts: bool, words: &str) {
        assert!(finding.state == state && finding.counts == counts && finding.text.contains(words), "{finding:?}");
    }

    #[test]
    fn what_we_print_is_good() {
        for record in all().records.iter().filter(|record| record.need != Need::Later) {
            is(&compare(&[record], &Answer::Found(vec![record.data.clone()])).unwrap(), State::Good, false, "");
        }
    }

    #[test]
    fn mail_that_goes_elsewhere_is_told() {
        let mx = |preference, host: &str| Data::Mx(preference, host.to_owned());
        is(&found(Purpose::Mx, &[mx(5, "Mail.X.test")]), State::Good, false, "comes to mail.x.test");
        is(&found(Purpose::Mx, &[mx(10, "mail.x.test"), mx(20, "b.test")]), State::Good, false, "b.test (20)");
        is(
            &found(Purpose::Mx, &[mx(10, "old.test")]),
            State::Different,
            true,
            "goes to old.test (10), and not to this",
        );
        is(&found(Purpose::Mx, &[mx(0, "")]), State::Different, true, "no mail at all");
        is(&found(Purpose::Mx, &[]), State::Missing, true, "nobody knows");
        let address = |text: &str| Data::Address(text.parse().unwrap());
        is(&found(Purpose::Address, &[address("2001:db8::7")]), State::Good, false, "");
        is(&found(Purpose::Address, &[address("203.0.113.1")]), State::Different, true, "leads to 203.0.113.1");
    }

    #[test]
    fn an_spf_record_of_ones_own_may_be_right() {
        let spf = |texts_: &[&str]| texts(Purpose::Spf, texts_);
        is(&spf(&["v=spf1 mx ~all", "other"]), State::Good, false, "");
        is(&spf(&["v=spf1 ip4:198.51.100.7 include:relay.test -all"]), State::Good, false, "see that");
        is(&spf(&["v=spf1 mx -all", "v=spf1 a -all"]), State::Different, true, "2 records");
        is(&spf(&["v=spf1 -all"]), State::Different, true, "nobody");
        is(&spf(&["v=spf1 mx +all"]), State::Different, true, "everybody");
        is(&spf(&["v=spf10 mx", "google-site-verification=1"]), State::Missing, true, "may send");
    }

    #[test]
    fn a_key_must_be_the_boxs_own() {
        let own = row("pb1-rsa", Turn::Signs).record;
        let key = |text: &str| texts(Purpose::Dkim, &[text]);
        is(&key(&own.replace("v=DKIM1; ", "").replace("AAAA", " AA\tAA")), State::Good, false, "");
        is(&key(&own.replace("p=A", "p=B")), State::Different, true, "another key");
        is(&key(&own[..200]), State::Different, true, "cut it off");
        is(&key("v=DKIM1; p="), State::Different, true, "withdrawn");
        is(&key("hello"), State::Different, true, "no DKIM key");
        is(&key(&own.replace("k=rsa", "k=ed25519")), State::Different, true, "kind");
        is(&texts(Purpose::Dkim, &[&own, "x"]), State::Different, true, "2 texts");
    }

    #[test]
    fn what_may_be_left_away_must_still_not_be_wrong() {
        is(&found(Purpose::Tlsa, &[]), State::Missing, false, "no fault");
        is(&found(Purpose::Tlsa, &[Data::Tlsa(3, 1, 1, "00".into())]), State::Different, true, "deliver nothing");
        is(&found(Purpose::Service, &[Data::Srv(0, 1, 465, "old.test".into())]), State::Different, true, "old.test");
        is(&texts(Purpose::Dmarc, &["v=DMARC1; p=reject"]), State::Good, false, "reject");
        is(&texts(Purpose::Dmarc, &["v=DMARC1; p=maybe"]), State::Different, true, "no policy");
        is(&texts(Purpose::Dmarc, &["v=spf1 -all"]), State::Missing, true, "forged");
        is(&texts(Purpose::MtaSts, &["v=STSv1; id=1"]), State::Good, false, "");
    }

    #[test]
    fn without_dns_nothing_is_wrong() {
        for record in &all().records {
            let finding = compare(&[record], &Answer::Unknown("no DNS server is known".into())).unwrap();
            is(&finding, State::NotCheckable, false, "not checkable: no DNS server");
        }
        let address = "198.51.100.7".parse().unwrap();
        is(&host_pointer(address, "mail.x.test", &Answer::Unknown("x".into())), State::NotCheckable, false, "");
        is(&host_pointer(address, "mail.x.test", &Answer::Nothing), State::Missing, true, "not there");
        let named = |name: &str| Answer::Found(vec![Data::Ptr(name.into())]);
        is(&host_pointer(address, "mail.x.test", &named("MAIL.x.test")), State::Good, false, "");
        is(&host_pointer(address, "mail.x.test", &named("p1.isp.test")), State::Different, true, "is p1.isp.test");
    }
}
