//! The journeys of a message, tying the folders above together: plain functions, nothing awaits.
//!
//! Replies are chosen here, because here both the protocol's words and the store's are known.

pub mod access; //  logging in, reading and changing mailboxes (IMAP, POP3)
pub mod arrive; //  mail from anywhere for our users
pub mod backup; //  one encrypted file of the whole box, and back
pub mod brake; //   how much a user may send
pub mod carry; //   import and export: mbox and Maildir
pub mod dkim; //    the keys that mail on its way out is signed with
pub mod forward; // aliases that lead elsewhere, and what comes back
pub mod gate; //    who may bring mail: rate limits, greylisting
pub mod heading; // a message's header as it streams by
pub mod judge; //   the spam filter: judging what comes, learning
pub mod learn; //   what readers teach it by moving and marking mail
pub mod letter; //  a message on its way in
pub mod notify; //  notifications about what became of a message
pub mod post; //    mail to a list
pub mod publish; // what a domain has to publish in DNS
pub mod relay; //   mail on its way out
pub mod report; //  reports to other domains: TLS, DMARC
pub mod scan; //    signatures of malware: compiling them, scanning files and mail
pub mod sheets; //  the gram index, made of bodies
pub mod sign; //    DKIM signatures on mail that leaves
pub mod submit; //  mail from our users
