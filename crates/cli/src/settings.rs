//! What a broker is started with: flag before environment before file before default, checked as a whole.
//!
//! Everything becomes one map of Kafka broker configs first, so that `--listen`, `OTTLA_LISTEN` and `listeners` in a
//! file are the same setting with different authority. Not here: reading files (`properties.rs`) and what a config
//! means (`ottla_metadata::config`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    thread::available_parallelism,
};

use clap::Args;
use ottla_metadata::config::{Scope, Settings};
use ottla_types::BrokerId;

use crate::{failure::Failure, properties};

const DEFAULT_LISTENER: &str = "PLAINTEXT://localhost:9092";
const DEFAULT_DATA: &str = "./ottla-data";
pub(crate) const DEFAULT_PORT: u16 = 9092;
/// Environment variables with a meaning of their own.
const OWN_VARIABLES: [&str; 8] = [
    "OTTLA_LISTEN",
    "OTTLA_ADVERTISE",
    "OTTLA_JOIN",
    "OTTLA_DATA",
    "OTTLA_CONFIG",
    "OTTLA_LOG",
    "OTTLA_BOOTSTRAP",
    HIGHEST_LEVEL,
];
/// For tests of mixed clusters: the broker serves no feature level above this one (`docs/decisions/feature-levels.md`).
const HIGHEST_LEVEL: &str = "OTTLA_MAX_FEATURE_LEVEL";

/// What can be said on the command line.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// Where to listen, as HOST:PORT or NAME://HOST:PORT; may be repeated [env: OTTLA_LISTEN] [default: localhost:9092]
    ///
    /// `localhost` is 127.0.0.1 and ::1; an empty host (`:9092`) is every address of the machine.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// Where clients are told to connect to [env: OTTLA_ADVERTISE] [default: the address by which each one came]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<String>,
    /// Any member of the cluster to join, as HOST:PORT; a name may stand for several, and it may be repeated
    /// [env: OTTLA_JOIN]
    ///
    /// It matters at the first start only: later ones know their cluster from the data directory.
    #[arg(long, value_name = "HOST:PORT")]
    join: Vec<String>,
    /// The directory that holds everything; created if it is not there [env: OTTLA_DATA] [default: ./ottla-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A broker config by Kafka's name, such as -o num.partitions=3; may be repeated [env: OTTLA_NUM_PARTITIONS etc.]
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    /// A file of settings: TOML, or a Kafka server.properties if its name ends so [env: OTTLA_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A listener to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Its name, `PLAINTEXT` unless configured.
    pub(crate) name: String,
    /// What to bind.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What clients are told; `None` is the address by which each one came.
    pub(crate) advertised: Option<(String, u16)>,
}

/// Everything `ottla serve` starts from.
#[derive(Clone, Debug)]
pub(crate) struct ServeSettings {
    pub(crate) listeners: Vec<Listener>,
    /// Nobody said where to listen: if the default is taken, another port will do.
    pub(crate) listens_anywhere: bool,
    /// Members of the cluster to join; none to found one.
    pub(crate) join: Vec<String>,
    pub(crate) data: PathBuf,
    pub(crate) node_id: Option<BrokerId>,
    pub(crate) rack: Option<String>,
    /// Threads that serve requests.
    pub(crate) workers: usize,
    /// Every static config, checked.
    pub(crate) configs: Settings,
    /// Sentences for the person who starts the broker.
    pub(crate) warnings: Vec<String>,
}

/// One map of settings, strongest last to be merged.
type Pairs = BTreeMap<String, String>;

impl ServeSettings {
    /// Merges and checks the settings. `environment` is all of it; `ipv6` says whether the machine has that.
    pub(crate) fn resolve(
        args: &ServeArgs,
        environment: impl IntoIterator<Item = (String, String)>,
        ipv6: bool,
    ) -> Result<ServeSettings, Failure> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let file = args.config.clone().or_else(|| environment.get("OTTLA_CONFIG").map(PathBuf::from));
        let mut warnings = Vec::new();
        let mut pairs: Pairs = match &file {
            Some(path) => properties::read(path)?.into_iter().map(|(key, value)| (canonical(&key), value)).collect(),
            None => Pairs::new(),
        };
        pairs.extend(from_environment(&environment, &mut warnings));
        pairs.extend(from_flags(args)?);
        let join = match environment.get("OTTLA_JOIN").filter(|_| args.join.is_empty()) {
            Some(given) => given.split(',').map(str::to_owned).collect(),
            None => args.join.clone(),
        };
        let join = join.iter().flat_map(|given| given.split(',')).map(seed).collect::<Result<_, _>>()?;
        let mut settings = Self::check(pairs, join, warnings, ipv6)?;
        if let Some(text) = environment.get(HIGHEST_LEVEL) {
            let level = text.parse().map_err(|_| {
                Failure::usage(format!("{HIGHEST_LEVEL}={text} is not valid, it must be a feature level, such as 1"))
            })?;
            settings.configs = settings.configs.with_highest_level(level);
        }
        Ok(settings)
    }

    fn check(
        mut pairs: Pairs,
        join: Vec<String>,
        mut warnings: Vec<String>,
        ipv6: bool,
    ) -> Result<ServeSettings, Failure> {
        let dirs = pairs.get("log.dirs").or_else(|| pairs.get("log.dir")).map_or(DEFAULT_DATA, String::as_str);
        if dirs.contains(',') {
            return Err(Failure::usage(format!(
                "log.dirs={dirs} names several directories, a broker has one; join disks with LVM or RAID"
            )));
        }
        if dirs.trim().is_empty() {
            return Err(Failure::usage("the data directory is empty, it must be a path, such as --data ./ottla-data"));
        }
        let data = PathBuf::from(dirs.trim());
        let node_id = match pairs.get("node.id").or_else(|| pairs.get("broker.id")).map(|text| (text, text.parse())) {
            None | Some((_, Ok(-1))) => None,
            Some((_, Ok(id))) if id >= 0 => Some(BrokerId(id)),
            Some((text, _)) => {
                return Err(Failure::usage(format!("node.id={text} is not valid, it must be a whole number from 0")));
            }
        };
        let rack = pairs.get("broker.rack").filter(|rack| !rack.is_empty()).cloned();
        let listens_anywhere = !pairs.contains_key("listeners");
        let listeners = listeners(&mut pairs, &mut warnings, ipv6)?;
        let (configs, ignored) =
            Settings::check(pairs).map_err(|error| Failure::usage(sentence(&error.to_string())))?;
        warnings.extend(ignored.iter().map(ToString::to_string));
        let workers = configs.get("ottla.worker.threads").and_then(|text| text.trim().parse().ok());
        let workers = workers.unwrap_or_else(all_cpus_but_one);
        Ok(ServeSettings { listeners, listens_anywhere, join, data, node_id, rack, workers, configs, warnings })
    }
}

/// Those that this process may use: a container may have fewer than the machine.
fn all_cpus_but_one() -> usize {
    available_parallelism().map_or(1, |cpus| cpus.get().saturating_sub(1).max(1))
}

/// The short names we allow in TOML and Kafka's own for the same.
fn canonical(key: &str) -> String {
    match key {
        "listen" => "listeners",
        "advertise" => "advertised.listeners",
        "data" | "log.dir" => "log.dirs",
        "broker.id" => "node.id",
        other => other,
    }
    .to_owned()
}

fn from_flags(args: &ServeArgs) -> Result<Pairs, Failure> {
    let mut pairs = Pairs::new();
    for option in &args.option {
        let Some((key, value)) = option.split_once('=') else {
            return Err(Failure::usage(format!("-o {option} has no value, it must look like -o num.partitions=3")));
        };
        let key = canonical(key.trim());
        // Kafka ignores what it does not know, for the sake of its plug-ins; what was typed just now is a mistake.
        if Scope::Broker.find(&key).is_none() && !key.starts_with("ottla.") {
            let hint = nearest(&key).map_or(String::new(), |name| format!(", did you mean {name}?"));
            return Err(Failure::usage(format!("{key} is not a broker config{hint}")));
        }
        pairs.insert(key, value.to_owned());
    }
    if !args.listen.is_empty() {
        pairs.insert("listeners".to_owned(), args.listen.join(","));
    }
    if !args.advertise.is_empty() {
        pairs.insert("advertised.listeners".to_owned(), args.advertise.join(","));
    }
    if let Some(data) = &args.data {
        let data = data.to_str().ok_or_else(|| Failure::usage("--data is not valid UTF-8"))?;
        pairs.insert("log.dirs".to_owned(), data.to_owned());
    }
    Ok(pairs)
}

/// `OTTLA_NUM_PARTITIONS` is `num.partitions`, `OTTLA_OTTLA_DURABILITY` is `ottla.durability`.
fn from_environment(environment: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Pairs {
    let mut pairs = Pairs::new();
    for (variable, value) in environment {
        let Some(rest) = variable.strip_prefix("OTTLA_") else { continue };
        if OWN_VARIABLES.contains(&variable.as_str()) {
            continue;
        }
        let key = canonical(&rest.to_lowercase().replace('_', "."));
        if Scope::Broker.find(&key).is_some() || key.starts_with("ottla.") {
            pairs.insert(key, value.clone());
        } else if !rest.contains("PORT") && !rest.starts_with("SERVICE_") {
            // Kubernetes gives every pod OTTLA_PORT, OTTLA_SERVICE_HOST and so on if a service is called ottla.
            warnings.push(format!("the environment variable {variable} means nothing to Ottla and is ignored"));
        }
    }
    for (variable, key) in
        [("OTTLA_LISTEN", "listeners"), ("OTTLA_ADVERTISE", "advertised.listeners"), ("OTTLA_DATA", "log.dirs")]
    {
        if let Some(value) = environment.get(variable) {
            pairs.insert(key.to_owned(), value.clone());
        }
    }
    pairs
}

/// A member to join, with the default port if none is written.
fn seed(text: &str) -> Result<String, Failure> {
    let (_, host, port) = endpoint("--join", text.trim())?;
    if host.is_empty() || port == 0 {
        return Err(Failure::usage(format!("--join {text} is not valid, it must be HOST:PORT of a member")));
    }
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// `NAME://HOST:PORT`, with the name upper-cased and left to `None` where it is not written.
fn endpoint(key: &str, text: &str) -> Result<(Option<String>, String, u16), Failure> {
    let wrong = |expected: &str| Failure::usage(format!("{key}={text} is not valid, {expected}"));
    let (name, address) = match text.split_once("://") {
        Some((name, address)) if !name.is_empty() => (Some(name.to_uppercase()), address),
        Some(_) => return Err(wrong("the listener's name is missing before ://")),
        None => (None, text),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || (host.starts_with('[') && host.ends_with(']')) => {
            let port = port.parse().map_err(|_| wrong("the port must be a number from 0 to 65535"))?;
            (host, port)
        }
        Some(_) if address.starts_with('[') && address.ends_with(']') => (address, DEFAULT_PORT),
        Some(_) => return Err(wrong("an IPv6 address needs brackets, as in [::1]:9092")),
        None => (address, DEFAULT_PORT),
    };
    Ok((name, host.trim_matches(['[', ']']).to_owned(), port))
}

fn listeners(pairs: &mut Pairs, warnings: &mut Vec<String>, ipv6: bool) -> Result<Vec<Listener>, Failure> {
    let items = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let given = pairs.get("listeners").cloned();
    let protocols: BTreeMap<String, String> = pairs
        .get("listener.security.protocol.map")
        .map_or_else(Vec::new, |text| items(text))
        .iter()
        .filter_map(|item| item.split_once(':'))
        .map(|(name, protocol)| (name.to_uppercase(), protocol.to_uppercase()))
        .collect();
    let controllers: BTreeSet<String> = pairs
        .get("controller.listener.names")
        .map_or_else(Vec::new, |text| items(text))
        .iter()
        .map(|name| name.to_uppercase())
        .collect();
    let mut advertised: Vec<(Option<String>, String, u16)> = Vec::new();
    for item in pairs.get("advertised.listeners").map_or_else(Vec::new, |text| items(text)) {
        let (name, host, port) = endpoint("advertised.listeners", &item)?;
        if port == 0 || host.is_empty() || host == "0.0.0.0" || host == "::" {
            return Err(Failure::usage(format!(
                "advertised.listeners={item} is not valid, it must be a host and port that clients can connect to"
            )));
        }
        advertised.push((name, host, port));
    }

    let mut listeners: Vec<Listener> = Vec::new();
    let mut kept = Vec::new();
    for item in items(given.as_deref().unwrap_or(DEFAULT_LISTENER)) {
        let (name, host, port) = endpoint("listeners", &item)?;
        let name = name.unwrap_or_else(|| "PLAINTEXT".to_owned());
        if controllers.contains(&name) {
            warnings.push(format!("the listener {item} is for Kafka's controllers and is not opened"));
            continue;
        }
        match protocols.get(&name).map_or(name.as_str(), String::as_str) {
            "SSL" | "SASL_SSL" | "SASL_PLAINTEXT" => {
                return Err(Failure::usage(format!(
                    "listeners={item} is not supported: TLS and SASL are not built yet"
                )));
            }
            _ => {}
        }
        let addresses = addresses(&item, &host, port, ipv6)?;
        // An address given without a name is one more address of the same listener.
        match listeners.iter_mut().find(|listener| listener.name == name) {
            Some(listener) => listener.addresses.extend(addresses),
            None => listeners.push(Listener { name: name.clone(), addresses, advertised: None }),
        }
        kept.push(written(&name, &host, port));
    }
    if listeners.is_empty() {
        return Err(Failure::usage("listeners is empty, it must name an address, such as --listen localhost:9092"));
    }
    let mut told = Vec::new();
    for (name, host, port) in advertised {
        let name = name.unwrap_or_else(|| "PLAINTEXT".to_owned());
        match listeners.iter_mut().find(|listener| listener.name == name) {
            Some(listener) => {
                told.push(written(&name, &host, port));
                listener.advertised = Some((host, port));
            }
            None if controllers.contains(&name) => {}
            None => {
                return Err(Failure::usage(format!(
                    "advertised.listeners names {name}, which is none of the listeners; they are {}",
                    listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ")
                )));
            }
        }
    }
    // What DescribeConfigs reports is what was opened.
    if given.is_some() {
        pairs.insert("listeners".to_owned(), kept.join(","));
    }
    if !told.is_empty() {
        pairs.insert("advertised.listeners".to_owned(), told.join(","));
    }
    Ok(listeners)
}

/// A listener in Kafka's notation.
fn written(name: &str, host: &str, port: u16) -> String {
    if host.contains(':') { format!("{name}://[{host}]:{port}") } else { format!("{name}://{host}:{port}") }
}

/// The addresses a host stands for.
fn addresses(item: &str, host: &str, port: u16, ipv6: bool) -> Result<Vec<SocketAddr>, Failure> {
    let v4 = |ip: Ipv4Addr| SocketAddr::from((ip, port));
    let v6 = |ip: Ipv6Addr| SocketAddr::from((ip, port));
    Ok(match host {
        // The IPv6 wildcard takes IPv4 as well.
        "" | "::" if ipv6 => vec![v6(Ipv6Addr::UNSPECIFIED)],
        "" | "::" => vec![v4(Ipv4Addr::UNSPECIFIED)],
        // Clients try ::1 first for this name.
        "localhost" if ipv6 => vec![v4(Ipv4Addr::LOCALHOST), v6(Ipv6Addr::LOCALHOST)],
        "localhost" => vec![v4(Ipv4Addr::LOCALHOST)],
        _ => {
            let resolved = (host, port).to_socket_addrs().map_err(|error| {
                Failure::usage(format!("listeners={item} is not valid, {host} has no address on this machine: {error}"))
            })?;
            resolved.collect::<BTreeSet<_>>().into_iter().collect()
        }
    })
}

/// The broker config whose name is the most like `key`, if one is like it at all.
fn nearest(key: &str) -> Option<&'static str> {
    let names = Scope::Broker.definitions().iter().map(|definition| definition.name);
    let (distance, name) = names.map(|name| (distance(key, name), name)).min()?;
    (distance <= key.len() / 3).then_some(name)
}

/// Insertions, deletions and replacements between two names.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Our sentences begin with a small letter behind `ottla:`, names of configs stay as they are.
fn sentence(text: &str) -> String {
    let lower = ["Invalid", "Unknown"].iter().any(|word| text.starts_with(word));
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if lower => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &ServeArgs, environment: &[(&str, &str)]) -> Result<ServeSettings, Failure> {
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ServeSettings::resolve(flags, environment, true)
    }

    fn options(options: &[&str]) -> ServeArgs {
        ServeArgs { option: options.iter().map(ToString::to_string).collect(), ..Default::default() }
    }

    fn refusal(flags: &ServeArgs, environment: &[(&str, &str)]) -> String {
        resolve(flags, environment).unwrap_err().to_string()
    }

    #[test]
    fn nothing_given_is_localhost_in_both_families() {
        let settings = resolve(&ServeArgs::default(), &[]).unwrap();
        assert_eq!(settings.data, PathBuf::from("./ottla-data"));
        let [listener] = &settings.listeners[..] else { panic!("{:?}", settings.listeners) };
        assert_eq!(listener.name, "PLAINTEXT");
        let addresses: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:9092", "[::1]:9092"]);
        assert_eq!((listener.advertised.as_ref(), settings.node_id), (None, None));
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn flag_beats_environment_beats_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ottla.toml");
        std::fs::write(&file, "data = '/file'\nnum.partitions = 2\n[log.retention]\nms = 1000\n").unwrap();
        let flags = ServeArgs { config: Some(file), ..options(&["num.partitions=4"]) };
        let environment = [("OTTLA_NUM_PARTITIONS", "3"), ("OTTLA_DATA", "/environment")];
        let settings = resolve(&flags, &environment).unwrap();
        assert_eq!(settings.configs.get("num.partitions"), Some("4"));
        assert_eq!(settings.data, PathBuf::from("/environment"));
        assert_eq!(settings.configs.get("log.retention.ms"), Some("1000"));
    }

    #[test]
    fn a_cpu_is_left_to_others_unless_more_workers_are_asked_for() {
        let cpus = available_parallelism().unwrap().get();
        assert_eq!(resolve(&ServeArgs::default(), &[]).unwrap().workers, (cpus - 1).max(1));
        let asked = resolve(&options(&["ottla.worker.threads=64"]), &[]).unwrap();
        assert_eq!(asked.workers, 64);
        assert!(refusal(&options(&["ottla.worker.threads=0"]), &[]).contains("ottla.worker.threads"));
    }

    #[test]
    fn a_kafka_server_properties_loads_with_a_warning_for_each_key_without_meaning() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.properties");
        let text = "process.roles=broker,controller\nnode.id=7\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
                    listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ncontroller.listener.names=CONTROLLER\n\
                    listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
                    advertised.listeners=PLAINTEXT://kafka.example:9092,CONTROLLER://kafka.example:9093\n\
                    log.dirs=/tmp/kraft\nnot.a.config=1\n";
        std::fs::write(&file, text).unwrap();
        let settings = resolve(&ServeArgs { config: Some(file), ..Default::default() }, &[]).unwrap();
        assert_eq!(settings.node_id, Some(BrokerId(7)));
        let [listener] = &settings.listeners[..] else { panic!("{:?}", settings.listeners) };
        assert_eq!(listener.advertised, Some(("kafka.example".to_owned(), 9092)));
        assert!(settings.warnings.iter().any(|warning| warning.contains("not.a.config")), "{:?}", settings.warnings);
        assert_eq!(settings.configs.get("listeners"), Some("PLAINTEXT://:9092"));
        assert_eq!(settings.configs.get("advertised.listeners"), Some("PLAINTEXT://kafka.example:9092"));
    }

    #[test]
    fn what_is_wrong_is_said_with_key_value_and_what_would_be_right() {
        let cases: [(&[&str], &str); 7] = [
            (&["ottla.durabilty=fsync"], "ottla.durability"),
            (&["num.partitons=3"], "did you mean num.partitions?"),
            (&["num.partitions=zero"], "num.partitions"),
            (&["num.partitions"], "-o num.partitions=3"),
            (&["listeners=PLAINTEXT://localhost:99999"], "0 to 65535"),
            (&["listeners=SASL_SSL://localhost:9092"], "not supported"),
            (&["log.dirs=/a,/b"], "several directories"),
        ];
        for (given, expected) in cases {
            let said = refusal(&options(given), &[]);
            assert!(said.contains(expected), "{given:?}: {said}");
        }
        assert!(refusal(&ServeArgs::default(), &[("OTTLA_OTTLA_DURABILTY", "fsync")]).contains("ottla.durability"));
        assert!(
            refusal(&ServeArgs { listen: vec!["::1:9092".to_owned()], ..Default::default() }, &[]).contains("brackets")
        );
        assert!(
            refusal(&ServeArgs { advertise: vec!["0.0.0.0:9092".to_owned()], ..Default::default() }, &[])
                .contains("connect")
        );
    }

    #[test]
    fn hosts_stand_for_the_addresses_they_name() {
        let addresses = |listen: &[&str], ipv6: bool| -> Vec<String> {
            let flags = ServeArgs { listen: listen.iter().map(ToString::to_string).collect(), ..Default::default() };
            let settings = ServeSettings::resolve(&flags, [], ipv6).unwrap();
            settings.listeners.iter().flat_map(|listener| &listener.addresses).map(ToString::to_string).collect()
        };
        assert_eq!(addresses(&[":1"], true), ["[::]:1"]);
        assert_eq!(addresses(&[":1"], false), ["0.0.0.0:1"]);
        assert_eq!(addresses(&["0.0.0.0:1"], true), ["0.0.0.0:1"]);
        assert_eq!(addresses(&["[::1]:0", "127.0.0.1:0"], true), ["[::1]:0", "127.0.0.1:0"]);
        assert_eq!(addresses(&["localhost"], false), ["127.0.0.1:9092"]);
    }

    #[test]
    fn kubernetes_service_variables_are_not_settings() {
        let environment = [("OTTLA_PORT", "tcp://10.0.0.1:9092"), ("OTTLA_SERVICE_HOST", "10.0.0.1"), ("OTTLA_X", "1")];
        let settings = resolve(&ServeArgs::default(), &environment).unwrap();
        assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    }
}
