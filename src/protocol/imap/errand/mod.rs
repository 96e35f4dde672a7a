//! Commands that take more than one step, each a small state machine in a file of its own.

pub(crate) mod acl; //      GETACL, SETACL, DELETEACL, LISTRIGHTS, MYRIGHTS
pub(crate) mod append; //   APPEND: a message streams by
pub(crate) mod batches; //  UIDBATCHES
pub(crate) mod context; //  kept searches: ADDTO, REMOVEFROM, CANCELUPDATE
pub(crate) mod delete; //   DELETE, of the selected mailbox too
pub(crate) mod expunge; //  EXPUNGE, CLOSE, UNSELECT
pub(crate) mod fetch; //    FETCH: rows in batches, bodies in chunks
pub(crate) mod list; //     LIST, LSUB
mod listing; //             a result of SEARCH, SORT or THREAD, written piece by piece
pub(crate) mod login; //    LOGIN, AUTHENTICATE
pub(crate) mod metadata; // GETMETADATA, SETMETADATA
pub(crate) mod multisearch; // ESEARCH
pub(crate) mod notify; //   NOTIFY, and what happens in other mailboxes
mod progress; //            how far a long command is
pub(crate) mod quota; //    GETQUOTA, GETQUOTAROOT
pub(crate) mod search; //   SEARCH in all its forms
pub(crate) mod section; //  one section of one message, streamed
pub(crate) mod select; //   SELECT, EXAMINE
pub(crate) mod single; //   one question, one answer
pub(crate) mod status; //   STATUS
pub(crate) mod store; //    STORE
pub(crate) mod sync; //     what other sessions changed
pub(crate) mod telling; //  all that is told unasked
pub(crate) mod transfer; // COPY, MOVE
pub(crate) mod urlauth; //  GENURLAUTH, URLFETCH, RESETKEY
