//! Which tasks run, and how they stop.

pub mod login; //      the door as connections use it: delays, password checks
pub mod receive; //    SMTP connections
pub mod serve_pop3; // POP3 connections
