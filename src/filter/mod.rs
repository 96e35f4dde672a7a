//! Judgements on a message: pure functions of what it holds and of what is known.

pub mod scan; //   what is in attachments: signatures of malware, unpacking, dangerous types
pub mod sender; // what the facts about a sender mean: refuse, Junk, accept
pub mod spam; // how much a message looks like spam, and learning that
