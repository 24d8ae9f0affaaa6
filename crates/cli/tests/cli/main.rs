//! The binary as a person meets it: brokers started and killed, commands run against them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod broker;
mod cluster;
mod commands;
mod groups;
mod producer;
mod serve;
