//! Lines with a bound (RFC 5321 section 4.5.3.1).
