//! What the facts about a sender mean: refuse, Junk, accept, and shares of the spam score.
//!
//! Pure: facts come in as [`Findings`], time as an argument. The table of what a failed check does stands in
//! [`SenderConfig`]. What was not checkable and what failed for a time counts for nothing: an air-gapped box takes
//! its mail as if nobody had looked.

mod aggregate; // DMARC aggregate reports that we send
mod config; //   the settings
mod greylist; // senders that are asked to come again
mod rate; //     how much one address may send
mod report; //   DMARC aggregate reports of others, added up
mod results; //  the Authentication-Results field (RFC 8601)
mod verdict; //  the table

pub use aggregate::{DmarcReportConfig, Row, TALLY_BYTES_MAX, TALLY_DOMAINS_MAX, Tally, is_report};
pub use config::{Action, SenderConfig};
pub use greylist::{ENTRIES_MAX as GREYLIST_MAX, Greylist, Wait};
pub use rate::{BUCKETS_MAX, Rates};
pub use report::{FILE_MAX, Source, Summary};
pub use results::{FIELD as RESULTS_FIELD, field};
pub use verdict::{Standing, judge};
