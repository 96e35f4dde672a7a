//! Sockets, TLS, and the one loop that drives every session. The only folder that names rustls.

pub mod drive; // the one loop
