//! Simple mailing lists: an address whose mail goes to its members (RFC 2919, RFC 2369).
//!
//! A list's own addresses follow from its name: what cannot be delivered goes to `LIST-bounces`, and
//! what concerns the list itself to `LIST-owner`; both reach its owners, so nothing comes back to who
//! wrote.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::address::{Address, LOCAL_PART_MAX};

/// Most members of a list.
pub const MEMBERS_MAX: usize = 1000;

/// Most owners of a list, and most who are named to post.
pub const OWNERS_MAX: usize = 20;

/// Longest title in bytes.
pub const TITLE_MAX: usize = 128;

/// What the address has behind its name that a list's failures come back to.
pub const BOUNCES: &str = "-bounces";

/// What the address of its owners has.
pub const OWNER: &str = "-owner";

/// Who may post.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Posting {
    /// Members and owners.
    #[default]
    Members,
    /// Everybody.
    Anyone,
    /// These and the owners.
    Named(Vec<Address>),
}

/// Where answers go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// To who wrote, as the message says itself.
    #[default]
    Author,
    /// To the list, by a Reply-To field.
    List,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct List {
    /// What mail is addressed to.
    pub address: Address,
    /// What it is called, in printable ASCII; may be empty.
    pub title: String,
    /// Who gets what concerns the list itself; one at least.
    pub owners: Vec<Address>,
    /// Who gets its mail.
    pub members: Vec<Address>,
    /// Who may post.
    pub posting: Posting,
    /// Where answers go.
    pub answers: Answers,
}

impl List {
    /// What is wrong with it, if anything.
    pub fn fault(&self) -> Option<&'static str> {
        let longest = LOCAL_PART_MAX - BOUNCES.len().max(OWNER.len());
        let named = if let Posting::Named(named) = &self.posting { named.len() } else { 0 };
        if self.address.local().len() > longest {
            return Some("a list's name has 56 bytes at most");
        }
        if self.address.local().contains(['*', '+']) || !self.address.key().is_ascii() {
            return Some("a list's address has no `*`, no `+` and ASCII only");
        }
        if self.owners.is_empty() {
            return Some("a list needs an owner");
        }
        if self.owners.len() > OWNERS_MAX || named > OWNERS_MAX {
            return Some("a list has 20 owners at most, and names 20 to post");
        }
        if self.members.len() > MEMBERS_MAX {
            return Some("a list has 1,000 members at most");
        }
        if self.title.len() > TITLE_MAX || !self.title.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Some("a list's title has 128 printable ASCII characters at most");
        }
        if self.title.contains(['<', '>', '"', '\\']) {
            return Some("a list's title has no angle brackets, quotes or backslashes");
        }
        None
    }

    /// Tells whether mail from this sender may be posted.
    pub fn takes_from(&self, sender: &Address) -> bool {
        let has = |addresses: &[Address]| addresses.iter().any(|address| is_same(address, sender));
        has(&self.owners)
            || match &self.posting {
                Posting::Anyone => true,
                Posting::Members => has(&self.members),
                Posting::Named(named) => has(named),
            }
    }

    /// The list's own address with this behind its name.
    pub fn with_suffix(&self, suffix: &str) -> Option<Address> {
        Address::new(&format!("{}{suffix}", self.address.local()), self.address.domain().clone()).ok()
    }

    /// The list's identifier (RFC 2919 section 3): its address with a dot.
    pub fn id(&self) -> String {
        format!("{}.{}", self.address.local(), self.address.domain()).to_ascii_lowercase()
    }

    /// The fields that say so, with their CRLFs (RFC 2369, RFC 2919, RFC 2076 for `Precedence`).
    pub fn fields(&self) -> String {
        let id = self.id();
        let title = if self.title.is_empty() { String::new() } else { format!("\"{}\" ", self.title) };
        let owner = self.with_suffix(OWNER).unwrap_or_else(|| self.address.clone());
        let (owner, list) = (uri(&owner), uri(&self.address));
        let fields = format!(
            "List-Id: {title}<{id}>\r\nList-Post: <mailto:{list}>\r\n\
             List-Unsubscribe: <mailto:{owner}?subject=unsubscribe>\r\nList-Owner: <mailto:{owner}>\r\n\
             Precedence: list\r\n"
        );
        if self.answers == Answers::List {
            return fields + "Reply-To: <" + &self.address.to_string() + ">\r\n";
        }
        fields
    }
}

/// Tells whether two addresses reach the same mailbox as far as a list cares: `+detail` is the same.
fn is_same(one: &Address, other: &Address) -> bool {
    let plain = |address: &Address| address.without_detail().map_or_else(|| address.key(), |(plain, _)| plain.key());
    plain(one) == plain(other)
}

/// An address within a `mailto` (RFC 6068 section 2).
fn uri(address: &Address) -> String {
    address.to_string().bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' | b'\'' | b'*' | b'!' | b'$' => {
                out.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    pub(crate) fn list() -> List {
        List {
            address: address("Crew@ship.test"),
            title: "The crew".into(),
            owners: vec![address("ann@ship.test")],
            members: vec![address("bob@ship.test"), address("Cas@shore.test")],
            posting: Posting::Members,
            answers: Answers::Author,
        }
    }

    #[test]
    fn who_may_post_follows_from_the_posting() {
        let mut list = list();
        for (sender, may) in [
            ("BOB@ship.test", true),
            ("cas+phone@shore.test", true),
            ("ann@ship.test", true),
            ("eve@shore.test", false),
        ] {
            assert_eq!(list.takes_from(&address(sender)), may, "{sender}");
        }
        list.posting = Posting::Named(vec![address("eve@shore.test")]);
        assert!(list.takes_from(&address("eve@shore.test")) && !list.takes_from(&address("bob@ship.test")));
        list.posting = Posting::Anyone;
        assert!(list.takes_from(&address("zoe@x.test")));
    }

    #[test]
    fn its_fields_name_the_list_and_its_owner() {
        let mut list = list();
        list.answers = Answers::List;
        assert_eq!(
            list.fields(),
            "List-Id: \"The crew\" <crew.ship.test>\r\n\
             List-Post: <mailto:Crew@ship.test>\r\n\
             List-Unsubscribe: <mailto:Crew-owner@ship.test?subject=unsubscribe>\r\n\
             List-Owner: <mailto:Crew-owner@ship.test>\r\n\
             Precedence: list\r\n\
             Reply-To: <Crew@ship.test>\r\n"
        );
        assert_eq!(uri(&address("a&b%c@x.test")), "a%26b%25c@x.test");
    }

    #[test]
    fn what_cannot_be_a_list_is_told() {
        let change = |change: &dyn Fn(&mut List)| {
            let mut list = list();
            change(&mut list);
            list.fault()
        };
        assert_eq!(change(&|_| {}), None);
        let faults: [&dyn Fn(&mut List); 6] = [
            &|list| list.owners.clear(),
            &|list| list.address = address(&format!("{}@x.test", "a".repeat(57))),
            &|list| list.address = address("a+b@x.test"),
            &|list| list.title = "a\r\nB: c".into(),
            &|list| list.title = "<x>".into(),
            &|list| list.members = vec![address("a@x.test"); MEMBERS_MAX + 1],
        ];
        for (number, fault) in faults.iter().enumerate() {
            assert!(change(fault).is_some(), "{number}");
        }
    }
}
