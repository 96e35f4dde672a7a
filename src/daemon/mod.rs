//! Which tasks run, and how they stop.

pub mod control; //    the socket on which commands speak to a running server
pub mod login; //      the door as connections use it: delays, password checks
pub mod serve_pop3; // POP3 connections
