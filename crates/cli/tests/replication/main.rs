//! Several nodes as one cluster, through the binary alone: they find each other, copy what is written, and go on
//! without those that are killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[allow(dead_code, reason = "what the tests of one node use alone")]
#[path = "../cli/broker.rs"]
mod broker;
mod cluster;
mod growing;
mod keeping;
mod losing;
mod near;
mod upgrading;
