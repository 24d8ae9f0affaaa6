//! Where log lines go: standard error, readable on a terminal, JSON otherwise, warnings and errors unless asked for
//! more.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// What is logged unless asked for more. The library behind the metadata log warns of every peer that does not answer,
/// which the nodes themselves report once.
const DEFAULT: &str = "warn,openraft=error";

/// Starts logging. `OTTLA_LOG` takes a level or a filter such as `warn,ottla_node=debug`.
pub(crate) fn start() -> Result<(), Failure> {
    let filter = match std::env::var("OTTLA_LOG") {
        Ok(text) => EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("OTTLA_LOG={text} is not a filter such as info: {error}")))?,
        Err(_) => EnvFilter::new(DEFAULT),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
    Ok(())
}
