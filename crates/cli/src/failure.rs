//! How a command ends when it does not succeed: one sentence and an exit code.
//!
//! The codes are part of the interface (`ottla --help`): 0 done, 1 failed, 2 wrong usage or wrong setting, 3 no broker
//! could be reached.

use std::{fmt, io, process::ExitCode};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// It was tried and did not work: code 1.
    pub(crate) fn failed(message: impl fmt::Display) -> Failure {
        Failure { code: 1, message: message.to_string() }
    }

    /// It cannot be tried as it was asked for: code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Failure {
        Failure { code: 2, message: message.to_string() }
    }

    /// Says so, and gives the exit code. A reader that went away (`ottla consume | head`) is no failure.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("ottla: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

/// Whether a broker refused with that code of Kafka's.
pub(crate) fn is(error: &ottla_client::Error, code: &str) -> bool {
    error.code().is_some_and(|found| found.name() == code)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ottla_client::Error> for Failure {
    fn from(error: ottla_client::Error) -> Failure {
        if error.is_unreachable() {
            let message = format!("{error}; start a broker with `ottla serve`, or name one with --bootstrap HOST:PORT");
            return Failure { code: 3, message };
        }
        Failure::failed(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure { code: 0, message: String::new() };
        }
        Failure::failed(error)
    }
}
