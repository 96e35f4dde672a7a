//! When and where to try next, and what to tell the sender. Pure: nothing here awaits, reads a clock,
//! draws random numbers or knows the store; all of it comes in as arguments.
//!
//! [`route`] says which way a recipient's mail goes, [`schedule`] when it is tried again,
//! [`outcome`] what an attempt makes of a recipient's state, and [`report`] spells the notification
//! that its sender gets (RFC 3461 to 3464). [`policy`] says how safe a connection must be.

pub mod config; //   the settings
pub mod outcome; //  what an attempt makes of a recipient's state
pub mod policy; //   how safe a connection must be
pub mod report; //   notifications about what became of a message
pub mod route; //    which way a recipient's mail goes, and to which servers
pub mod schedule; // when to try again, when to warn, when to give up
pub mod sts; //      MTA-STS policies
pub mod tls_report; // how TLS went with other domains, and telling them

pub use config::{QueueConfig, RelayConfig, RelayTls, RouteTable};
pub use policy::TlsPolicyConfig;
pub use tls_report::TlsReportConfig;
