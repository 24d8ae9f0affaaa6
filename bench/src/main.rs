//! The binary `ottla-bench`; all of it is in `lib.rs`, which is empty on systems it cannot measure.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    ottla_bench::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("error: measuring needs Linux");
    ExitCode::FAILURE
}
