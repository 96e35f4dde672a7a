//! Logging in, reading and changing mailboxes: what IMAP, POP3 and SASL ask, answered by the store.

pub mod acl; //   who has which rights on a mailbox
pub mod admit; // may this account do that there?
pub mod imap; //    what an IMAP session asks about its account
pub mod lockout; // who may try to log in now, who waits, who is locked out
pub mod order; //   SORT and THREAD
pub mod pop3; //    what a POP3 session asks about its maildrop
pub mod sasl; //    passwords and SCRAM keys, the same door for all three protocols
pub mod search; //  SEARCH in slices
mod sift; //        what a search need not read
pub mod url; //     what an IMAP URL names
