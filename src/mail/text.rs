//! Decoded text of parts and header fields, for searching (RFC 2045 section 6, RFC 2047).
