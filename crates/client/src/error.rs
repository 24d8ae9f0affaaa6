//! What a call can fail with, and which failures are worth another try.
//!
//! Not here: the error codes themselves (`ottla_protocol::ErrorCode`), and how often a call is tried (`client.rs`).

use std::{io, sync::Arc, time::Duration};

use ottla_protocol::{ApiKey, DecodeError, EncodeError, ErrorCode};
use ottla_records::BatchError;

/// Why a call failed. Cheap to clone: the records of one batch share theirs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No address could be connected to.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The address, or all of them, separated by commas.
        address: String,
        /// What the last attempt said.
        reason: String,
    },
    /// The connection broke before the answer came. What was asked may or may not have been done.
    #[error("the connection to {address} broke: {reason}")]
    Disconnected {
        /// The broker's address.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No answer within the request timeout.
    #[error("{address} did not answer {} within {} ms", .api.name(), .after.as_millis())]
    Timeout {
        /// The broker's address.
        address: String,
        /// The API asked.
        api: ApiKey,
        /// The request timeout.
        after: Duration,
    },
    /// The broker refused.
    #[error("{what}: {}", broker_said(*.code, .message.as_deref()))]
    Broker {
        /// What was asked, such as `topic orders`.
        what: String,
        /// Kafka's code.
        code: ErrorCode,
        /// The broker's own words, where it sent some.
        message: Option<String>,
    },
    /// The broker has no version of the API in common with us.
    #[error("{address} offers no version of {} that this client speaks", .api.name())]
    Unsupported {
        /// The broker's address.
        address: String,
        /// The API.
        api: ApiKey,
    },
    /// The answer is not what the protocol says.
    #[error("{address} sent an answer that cannot be read: {reason}")]
    Malformed {
        /// The broker's address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request has no form in the version both sides speak.
    #[error("the request cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    /// Records cannot be put into a batch or read from one.
    #[error("{what}: {error}")]
    Batch {
        /// The topic and partition.
        what: String,
        /// What is wrong with the batch.
        error: BatchError,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The producer was dropped before the record was acknowledged.
    #[error("the producer was closed before the record was acknowledged")]
    Closed,
    /// A retriable failure lasted until the deadline.
    #[error("gave up after {} ms: {last}", .after.as_millis())]
    Deadline {
        /// How long it was tried.
        after: Duration,
        /// The last failure.
        last: Arc<Error>,
    },
}

impl Error {
    pub(crate) fn broker(what: impl Into<String>, code: i16, message: Option<&str>) -> Error {
        let known = ErrorCode::from_code(code);
        let message = match (message.filter(|text| !text.is_empty()), known) {
            (Some(text), _) => Some(text.to_owned()),
            (None, None) => Some(format!("error code {code}, which this client does not know")),
            (None, Some(_)) => None,
        };
        Error::Broker { what: what.into(), code: known.unwrap_or(ErrorCode::UnknownServerError), message }
    }

    pub(crate) fn malformed(address: &str, error: &DecodeError) -> Error {
        Error::Malformed { address: address.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn disconnected(address: &str, error: &io::Error) -> Error {
        Error::Disconnected { address: address.to_owned(), reason: error.to_string() }
    }

    /// The broker's code, if it answered with one; that of the last failure behind a deadline.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Broker { code, .. } => Some(*code),
            Error::Deadline { last, .. } => last.code(),
            _ => None,
        }
    }

    /// Whether the same call may succeed a moment later, perhaps at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Disconnected { .. } | Error::Timeout { .. } => true,
            Error::Broker { code, .. } => code.is_retriable(),
            _ => false,
        }
    }

    /// Whether no broker could be reached at all.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Error::Connect { .. } => true,
            Error::Deadline { last, .. } => last.is_unreachable(),
            _ => false,
        }
    }
}

/// Nothing for code 0, otherwise the error.
pub(crate) fn check(what: impl FnOnce() -> String, code: i16, message: Option<&str>) -> Result<(), Error> {
    if code == ErrorCode::None.code() { Ok(()) } else { Err(Error::broker(what(), code, message)) }
}

/// The one row that was asked for.
pub(crate) fn only<T>(row: Option<T>) -> Result<T, Error> {
    row.ok_or_else(|| Error::Malformed { address: "the broker".to_owned(), reason: "it has no rows".to_owned() })
}

fn broker_said(code: ErrorCode, message: Option<&str>) -> String {
    format!("{} ({})", message.unwrap_or(code.message()), code.name())
}
