//! `ottla config`: show and change the configs of topics, groups and brokers.

use clap::{Args, Subcommand};
use ottla_client::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
use ottla_types::BrokerId;
use serde_json::json;

use crate::{
    cluster::{self, ClusterArgs, key_value},
    failure::Failure,
    output::{self, Table},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  ottla config list --topic orders
  ottla config list --broker 1 --set-only
  ottla config describe --topic orders retention.ms
  ottla config set --topic orders retention.ms=86400000 max.message.bytes=2000000
  ottla config unset --topic orders retention.ms
  ottla config set --group billing consumer.session.timeout.ms=60000
  ottla config set --all-brokers log.retention.ms=86400000")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Show all configs with their values and where those come from
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        of: ResourceArgs,
        /// Only what somebody has set
        #[arg(long)]
        set_only: bool,
    },
    /// Show everything about some configs: type, sources, meaning
    Describe {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        of: ResourceArgs,
        /// The configs' names; all if none is given
        keys: Vec<String>,
    },
    /// Set configs
    Set {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        of: ResourceArgs,
        /// What to set
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = key_value)]
        pairs: Vec<(String, String)>,
        /// Say whether it could be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Set configs back to their defaults
    Unset {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        of: ResourceArgs,
        /// What to set back
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        /// Say whether it could be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// What the configs belong to.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct ResourceArgs {
    /// A topic
    #[arg(long, short)]
    topic: Option<String>,
    /// A group of consumers
    #[arg(long, short)]
    group: Option<String>,
    /// One broker, by its id
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    broker: Option<i32>,
    /// All brokers together
    #[arg(long)]
    all_brokers: bool,
}

impl ResourceArgs {
    fn resource(&self) -> ConfigResource {
        match (&self.topic, &self.group, self.broker) {
            (Some(name), ..) => ConfigResource::Topic(name.clone()),
            (_, Some(name), _) => ConfigResource::Group(name.clone()),
            (.., Some(id)) => ConfigResource::Broker(BrokerId(id)),
            (None, None, None) => ConfigResource::AllBrokers,
        }
    }
}

pub(crate) fn run(args: ConfigArgs) -> Result<(), Failure> {
    cluster::run(async {
        match args.command {
            ConfigCommand::List { cluster, of, set_only } => {
                let mut configs = cluster.connect().await?.describe_configs(&of.resource(), None).await?;
                configs.retain(|config| !set_only || config.source != ConfigSource::Default);
                if cluster.json {
                    return configs.iter().try_for_each(|config| output::print_json(&to_json(config)));
                }
                let mut table = Table::new(&["CONFIG", "VALUE", "FROM"]);
                for config in configs {
                    table.row([config.name.clone(), value(&config), source(config.source)]);
                }
                table.print()
            }
            ConfigCommand::Describe { cluster, of, keys } => {
                let client = cluster.connect().await?;
                let names: Vec<&str> = keys.iter().map(String::as_str).collect();
                let asked = if names.is_empty() { None } else { Some(&names[..]) };
                let configs = client.describe_configs(&of.resource(), asked).await?;
                if let Some(missing) = keys.iter().find(|key| configs.iter().all(|config| config.name != **key)) {
                    return Err(Failure::failed(format!(
                        "there is no config {missing} here, `ottla config list` shows those there are"
                    )));
                }
                for (number, config) in configs.iter().enumerate() {
                    if cluster.json {
                        output::print_json(&to_json(config))?;
                    } else {
                        output::print(&format!("{}{}", if number > 0 { "\n" } else { "" }, describe(config)))?;
                    }
                }
                Ok(())
            }
            ConfigCommand::Set { cluster, of, pairs, dry_run } => {
                let changes = pairs.into_iter().map(|(key, value)| (key, ConfigChange::Set(value))).collect();
                change(&cluster, &of, changes, dry_run).await
            }
            ConfigCommand::Unset { cluster, of, keys, dry_run } => {
                let changes = keys.into_iter().map(|key| (key, ConfigChange::Unset)).collect();
                change(&cluster, &of, changes, dry_run).await
            }
        }
    })
}

async fn change(
    cluster: &ClusterArgs,
    of: &ResourceArgs,
    changes: Vec<(String, ConfigChange)>,
    dry_run: bool,
) -> Result<(), Failure> {
    cluster.connect().await?.alter_configs(&of.resource(), &changes, dry_run).await?;
    let keys: Vec<_> = changes.into_iter().map(|(key, _)| key).collect();
    if cluster.json {
        return output::print_json(&json!({ "configs": keys, "changed": !dry_run }));
    }
    output::print(&format!("{} {}.\n", if dry_run { "Could change" } else { "Changed" }, keys.join(", ")))
}

fn value(config: &ConfigEntry) -> String {
    match &config.value {
        Some(value) => value.clone(),
        None if config.sensitive => "(secret)".to_owned(),
        None => "(none)".to_owned(),
    }
}

fn source(source: ConfigSource) -> String {
    match source {
        ConfigSource::Topic => "topic".to_owned(),
        ConfigSource::Group => "group".to_owned(),
        ConfigSource::DynamicBroker => "this broker, at run time".to_owned(),
        ConfigSource::DynamicDefaultBroker => "all brokers, at run time".to_owned(),
        ConfigSource::StaticBroker => "broker, at its start".to_owned(),
        ConfigSource::Default => "default".to_owned(),
        ConfigSource::Other(number) => format!("source {number}"),
    }
}

fn describe(config: &ConfigEntry) -> String {
    let mut text = format!("{}={}\n  from: {}\n", config.name, value(config), source(config.source));
    text += &format!("  type: {}{}\n", config.kind, if config.read_only { ", only at the broker's start" } else { "" });
    for (name, value, from) in config.synonyms.iter().skip(1) {
        text += &format!("  otherwise: {name}={} ({})\n", value.as_deref().unwrap_or("(none)"), source(*from));
    }
    if let Some(documentation) = config.documentation.as_deref().filter(|text| !text.is_empty()) {
        text += &format!("  {documentation}\n");
    }
    text
}

fn to_json(config: &ConfigEntry) -> serde_json::Value {
    let name_of = |source: ConfigSource| match source {
        ConfigSource::Topic => "DYNAMIC_TOPIC_CONFIG".to_owned(),
        ConfigSource::Group => "DYNAMIC_GROUP_CONFIG".to_owned(),
        ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG".to_owned(),
        ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG".to_owned(),
        ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG".to_owned(),
        ConfigSource::Default => "DEFAULT_CONFIG".to_owned(),
        ConfigSource::Other(number) => number.to_string(),
    };
    let synonyms: Vec<_> = config
        .synonyms
        .iter()
        .map(|(name, value, source)| json!({ "name": name, "value": value, "source": name_of(*source) }))
        .collect();
    json!({
        "name": config.name,
        "value": config.value,
        "source": name_of(config.source),
        "type": config.kind,
        "read_only": config.read_only,
        "sensitive": config.sensitive,
        "synonyms": synonyms,
        "documentation": config.documentation,
    })
}
