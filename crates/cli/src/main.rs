//! `ottla`: the broker, and the command line to use it and look after it, in one binary.
//!
//! Not here: what the broker does (`ottla_broker`, `ottla_node`) and how requests are made (`ottla_client`). One file
//! per command in `commands`; `serve.rs` with `settings.rs` starts the broker.

#![forbid(unsafe_code)]

mod cluster;
mod commands;
mod failure;
mod logging;
mod output;
mod properties;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{commands as c, settings::ServeArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  ottla                                    start a broker on localhost:9092, data in ./ottla-data
  ottla topic create orders --partitions 3
  echo 'hello' | ottla produce orders
  ottla consume orders                     print what is there
  ottla consume orders --from end --follow print what comes
  ottla cluster status                     is all well?

Commands other than serve speak Kafka's protocol and work against any Kafka-compatible broker.

Exit codes: 0 done, 1 failed, 2 wrong usage or setting, 3 no broker could be reached.";

/// An event log that speaks Kafka's protocol. Without a command it starts a broker.
#[derive(Parser)]
#[command(name = "ottla", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Start a broker; what `ottla` does without a command
    #[command(after_help = serve::EXAMPLES)]
    Serve(ServeArgs),
    /// Create, list, describe, alter and delete topics
    Topic(c::topic::TopicArgs),
    /// Write records, from standard input or a file
    #[command(after_help = c::produce::EXAMPLES)]
    Produce(c::produce::ProduceArgs),
    /// Read records
    #[command(after_help = c::consume::EXAMPLES)]
    Consume(c::consume::ConsumeArgs),
    /// List, describe, reset and delete consumer groups
    Group(c::group::GroupArgs),
    /// Look after a cluster: its nodes, and where partitions are and who leads them
    Cluster(c::cluster::ClusterCommandArgs),
    /// Show and change the configs of topics, groups and brokers
    Config(c::config::ConfigArgs),
    /// Show what is in the files of a data directory
    #[command(after_help = c::dump::EXAMPLES)]
    Dump(c::dump::DumpArgs),
    /// Measure how fast a cluster takes and gives records
    #[command(after_help = c::bench::EXAMPLES)]
    Bench(c::bench::BenchArgs),
    /// Print the completions for a shell
    #[command(after_help = "Example:\n  source <(ottla completions bash)")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args),
        Command::Topic(args) => c::topic::run(args),
        Command::Produce(args) => c::produce::run(args),
        Command::Consume(args) => c::consume::run(args),
        Command::Group(args) => c::group::run(args),
        Command::Cluster(args) => c::cluster::run(args),
        Command::Config(args) => c::config::run(args),
        Command::Dump(args) => c::dump::run(&args),
        Command::Bench(args) => c::bench::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "ottla", &mut script);
            output::print(&String::from_utf8_lossy(&script))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
