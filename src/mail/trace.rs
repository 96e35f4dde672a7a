//! Received and Return-Path fields (RFC 5321 section 4.4).
