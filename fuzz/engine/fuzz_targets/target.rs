//! One program for all targets, led by coverage: the environment variable `OTTLA_FUZZ_TARGET` says which.
//!
//! The targets themselves, and the inputs to begin with, are in `fuzz/src`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ottla_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("OTTLA_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).expect("OTTLA_FUZZ_TARGET names a target")
});

fuzz_target!(|data: &[u8]| {
    (TARGET.run)(data);
});
