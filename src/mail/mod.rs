//! The words everyone shares. Names nothing else of ours and does no input or output.
//!
//! Types here are parsed once at the edge and trusted afterwards: their constructors keep the
//! invariants their docs state.

pub mod address; //   domains and addresses (RFC 5321 4.1.2)
pub mod annotation; // annotations of mailboxes (RFC 5464)
pub mod authentication; // what can be found out about a sender: SPF, DKIM, DMARC, ARC
pub mod certificate; // what is kept of a client certificate (RFC 5280, RFC 4422 appendix A)
pub mod date; //      instants and their RFC 5322 and IMAP spellings
pub mod der; //       certificates and signatures as they are spelled (X.690)
pub mod dkim_canon; // canonical forms of a message, as it streams by (RFC 6376 3.4)
pub mod envelope; //  who a message is from and for (RFC 5321 3.3, RFC 3461)
pub mod header; //    streams of header fields: subsets, one field's values (RFC 9051 6.4.5)
mod lines; //         lines of a message that streams by
pub mod list; //      mailing lists (RFC 2369, RFC 2919)
pub mod mailbox; //   names and numbers of IMAP mailboxes (RFC 9051 2.3, 5.1)
pub mod message; //   flags, keywords, sets of uids (RFC 9051 2.3)
pub mod network; //   networks: an address with the number of bits that count
pub mod queue; //     mail on its way out and how far each recipient is (RFC 3461)
pub mod rights; //    rights on a mailbox, and who has them (RFC 4314)
pub mod scanned; //   what the scan of a message leaves behind
pub mod secret; //    passwords and SCRAM verifiers (RFC 5803, RFC 7677)
pub mod signed; //    what signatures are about: the header, hashes of the body (RFC 6376 3.7)
pub mod srs; //       envelope senders of forwarded mail
pub mod structure; // the part walker: where everything is in a message (RFC 2045, RFC 9051 7.5.2)
pub mod text; //      decoded text of parts and header fields, for searching (RFC 2047)
pub mod trace; //     Received and Return-Path fields (RFC 5321 4.4)
