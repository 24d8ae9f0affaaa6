//! The commands, one file each.

pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod consume;
pub(crate) mod dump;
pub(crate) mod format;
pub(crate) mod group;
pub(crate) mod produce;
pub(crate) mod topic;
