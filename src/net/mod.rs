//! Sockets, TLS, and the one loop that drives every session. The only folder that names rustls.
//!
//! An idle connection holds no buffer: it waits until its socket is readable and borrows one from
//! [`buffer`]'s pool. TLS runs on rustls' unbuffered interface for the same reason. Nothing here
//! knows which protocol is spoken: sessions come in as [`crate::protocol::Session`].

pub mod authenticate; // what the DNS tells about senders: SPF, DKIM, DMARC, ARC
pub mod authority; // the local certificate authority and the server certificate it signs
pub mod budget; //    how many connections there may be, in all and from one address
pub mod buffer; //    buffers that are borrowed while bytes are on their way
pub mod drive; //     the one loop
mod exporter; //      what a login can be bound to on a TLS connection (RFC 9266)
pub mod listener; //  where to listen, and sentences for what can go wrong with that
pub mod mta_sts; //   fetches MTA-STS policies over HTTPS
pub mod outgoing; //  connections to others' servers, TLS as a client
pub mod presented; // certificates that clients present
mod records; //       TLS on rustls' unbuffered interface, of either side
pub mod resolver; //  questions to the DNS
pub mod stream; //    a connection, in clear or over TLS
pub mod tls; //       TLS settings, certificates and their renewal
pub mod uplink; //    whether this machine is connected to anything
pub mod verify; //    whose certificate a server's is: PKIX and DANE
