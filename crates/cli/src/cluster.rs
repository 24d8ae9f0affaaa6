//! What the commands that speak to a cluster share: how to reach it, and a runtime to do so.

use std::time::Duration;

use clap::Args;
use ottla_client::{Client, Timeouts};
use ottla_types::PartitionIndex;
use serde_json::Value;

use crate::{failure::Failure, output};

/// How to reach a cluster, and how to show what it says.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArgs {
    /// A broker to begin with; may be repeated
    #[arg(
        long,
        short,
        env = "OTTLA_BOOTSTRAP",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "localhost:9092"
    )]
    bootstrap: Vec<String>,
    /// Give up on a request and its retries after this long, such as 10s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Write JSON, one value a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl ClusterArgs {
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let with_port =
            |address: &String| if address.contains(':') { address.clone() } else { format!("{address}:9092") };
        let bootstrap: Vec<String> = self.bootstrap.iter().map(with_port).collect();
        let timeouts =
            Timeouts { connect: self.timeout.min(Duration::from_secs(5)), request: self.timeout, call: self.timeout };
        Ok(Client::connect_with(&bootstrap, "ottla", timeouts).await?)
    }

    /// Says what was done, to a person or to a program.
    pub(crate) fn say(&self, json: &Value, text: &str) -> Result<(), Failure> {
        if self.json { output::print_json(json) } else { output::print(&format!("{text}\n")) }
    }
}

/// Runs a command's future to its end.
pub(crate) fn run<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    crate::logging::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(command)
}

/// A partition's number on a command line.
pub(crate) fn partition(text: &str) -> Result<PartitionIndex, String> {
    match text.parse() {
        Ok(index) if index >= 0 => Ok(PartitionIndex(index)),
        _ => Err("a partition is a whole number from 0".to_owned()),
    }
}

/// `KEY=VALUE` on a command line.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must look like KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
