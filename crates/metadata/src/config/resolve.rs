//! Which value of a config holds, and why: what DescribeConfigs answers.
//!
//! From strongest to weakest: the topic's or group's own, the broker's dynamic, all brokers' dynamic, static, default.
//! Within one layer the most precise synonym wins (`log.retention.ms` before minutes before hours). What is not here:
//! the typed structs (`typed.rs`), and who is allowed to ask.

use std::collections::BTreeMap;

use super::{Change, Definition, Kind, Scope, Settings, Synonym, definition::same};

/// Configs set on one resource, by name.
pub type Overrides = BTreeMap<String, String>;

/// Where a value comes from, with Kafka's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic,
    /// Set at run time on this broker.
    DynamicBroker,
    /// Set at run time for all brokers.
    DynamicDefaultBroker,
    /// Set before the start.
    StaticBroker,
    /// Nobody set it.
    Default,
    /// Set on the group.
    Group,
}

impl Source {
    /// The code in a DescribeConfigs answer (v1+).
    pub fn code(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::DynamicBroker => 2,
            Source::DynamicDefaultBroker => 3,
            Source::StaticBroker => 4,
            Source::Default => 5,
            Source::Group => 8,
        }
    }
}

/// One value that a config has, or would have if stronger ones went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySynonym {
    /// The name it is set under.
    pub name: String,
    /// The value, in that name's unit; `None` if it is a secret.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

/// One config as DescribeConfigs reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its value; `None` if it is a secret, or if only a synonym has one.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// Its type; `None` for a name Ottla does not know.
    pub kind: Option<Kind>,
    /// Whether only a restart can change it.
    pub read_only: bool,
    /// Whether the value is a secret.
    pub sensitive: bool,
    /// Every value it has, the one that holds first.
    pub synonyms: Vec<EntrySynonym>,
    /// What it does.
    pub documentation: &'static str,
}

/// The broker-level layers as one broker sees them.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Set at run time on this broker.
    pub broker: &'a Overrides,
    /// Set at run time for all brokers.
    pub cluster: &'a Overrides,
    /// Set before the start.
    pub settings: &'a Settings,
}

impl Layers<'_> {
    /// The value set for the broker config `name` in the strongest layer that sets it, or its default; `None` if it has
    /// neither, or no such config exists. Synonyms are other names: they are not looked at.
    pub fn broker_value(&self, name: &str) -> Option<&str> {
        let set = self.strongest_first().into_iter().find_map(|(layer, _)| taken(layer, name));
        set.or_else(|| Scope::Broker.find(name)?.default)
    }

    /// The value of a topic's or group's config where it sets none, in that config's unit.
    pub(super) fn inherited(&self, definition: &Definition) -> Option<String> {
        let found = self.found(definition.synonyms).find_map(|(synonym, value, _)| {
            let value = convert(value, synonym.unit)?;
            definition.check(&value).is_ok().then_some(value)
        });
        found.or_else(|| definition.default.map(str::to_owned))
    }

    /// Every topic config, set or not, for a topic with these overrides.
    pub fn topic_entries(&self, overrides: &Overrides) -> Vec<Entry> {
        self.entries_over(Scope::Topic, Source::Topic, overrides)
    }

    /// Every group config, set or not, for a group with these overrides.
    pub fn group_entries(&self, overrides: &Overrides) -> Vec<Entry> {
        self.entries_over(Scope::Group, Source::Group, overrides)
    }

    fn entries_over(&self, scope: Scope, source: Source, overrides: &Overrides) -> Vec<Entry> {
        let entry = |definition: &Definition| {
            let mut synonyms: Vec<EntrySynonym> = self.synonyms(definition.synonyms).collect();
            let own = overrides.get(definition.name).filter(|value| definition.check(value).is_ok());
            if let Some(value) = own {
                synonyms
                    .insert(0, EntrySynonym { name: definition.name.to_owned(), value: Some(value.clone()), source });
            }
            Entry {
                value: own.cloned().or_else(|| self.inherited(definition)),
                ..described(definition, synonyms, false)
            }
        };
        scope.definitions().iter().map(entry).collect()
    }

    /// Every config of this broker, with what was set under names Ottla does not know.
    pub fn broker_entries(&self) -> Vec<Entry> {
        let known = Scope::Broker.definitions().iter().map(|definition| {
            let own = [same(definition.name)];
            let names = if definition.synonyms.len() > 1 { definition.synonyms } else { &own };
            let synonyms = self.synonyms(names).collect();
            Entry {
                value: self.broker_value(definition.name).map(str::to_owned),
                ..described(definition, synonyms, definition.change == Change::ReadOnly)
            }
        });
        let layers = [(self.broker, Source::DynamicBroker), (self.cluster, Source::DynamicDefaultBroker)];
        let unknown = layers.into_iter().flat_map(|(layer, source)| {
            let hidden = move |key: &String| source == Source::DynamicDefaultBroker && self.broker.contains_key(key);
            layer
                .keys()
                .filter(move |key| Scope::Broker.find(key).is_none() && !hidden(key))
                .map(move |key| unknown(key, source))
        });
        known.chain(unknown).collect()
    }

    /// What is set at run time for all brokers, and nothing else: the answer for a BROKER with an empty name.
    pub fn cluster_entries(&self) -> Vec<Entry> {
        let entry = |(key, value): (&String, &String)| match Scope::Broker.find(key) {
            None => unknown(key, Source::DynamicDefaultBroker),
            Some(definition) => {
                let source = Source::DynamicDefaultBroker;
                let synonym = EntrySynonym { name: key.clone(), value: Some(value.clone()), source };
                let read_only = definition.change == Change::ReadOnly;
                Entry { value: Some(value.clone()), ..described(definition, vec![synonym], read_only) }
            }
        };
        self.cluster.iter().map(entry).collect()
    }

    /// Every value under any of these names: layer by layer, in each the names in their order.
    fn found<'b>(&'b self, names: &'b [Synonym]) -> impl Iterator<Item = (&'b Synonym, &'b str, Source)> {
        let set = self.strongest_first().into_iter().flat_map(move |(layer, source)| {
            names.iter().filter_map(move |synonym| Some((synonym, taken(layer, synonym.name)?, source)))
        });
        let defaults = names
            .iter()
            .filter_map(|synonym| Some((synonym, Scope::Broker.find(synonym.name)?.default?, Source::Default)));
        set.chain(defaults)
    }

    fn strongest_first(&self) -> [(&Overrides, Source); 3] {
        [
            (self.broker, Source::DynamicBroker),
            (self.cluster, Source::DynamicDefaultBroker),
            (self.settings.values(), Source::StaticBroker),
        ]
    }

    fn synonyms<'b>(&'b self, names: &'b [Synonym]) -> impl Iterator<Item = EntrySynonym> {
        self.found(names).map(|(synonym, value, source)| EntrySynonym {
            name: synonym.name.to_owned(),
            value: Some(value.to_owned()),
            source,
        })
    }
}

/// The value of a known broker config in a layer. One that this version does not take (an older one did) counts as not
/// set: a decision taken once must not keep a broker from starting.
fn taken<'a>(layer: &'a Overrides, name: &str) -> Option<&'a str> {
    let value = layer.get(name)?;
    Scope::Broker.find(name)?.check(value).is_ok().then_some(value)
}

/// An entry without its value.
fn described(definition: &Definition, synonyms: Vec<EntrySynonym>, read_only: bool) -> Entry {
    Entry {
        name: definition.name.to_owned(),
        value: None,
        source: synonyms.first().map_or(Source::Default, |first| first.source),
        kind: Some(definition.kind),
        read_only,
        sensitive: false,
        synonyms,
        documentation: definition.documentation,
    }
}

/// A name nobody here knows may hold a secret, so its value is not shown (as Kafka does).
fn unknown(key: &str, source: Source) -> Entry {
    let synonym = EntrySynonym { name: key.to_owned(), value: None, source };
    Entry {
        name: key.to_owned(),
        value: None,
        source,
        kind: None,
        read_only: false,
        sensitive: true,
        synonyms: vec![synonym],
        documentation: "",
    }
}

/// `value` in the smaller unit. Negative means "never" in every unit, so it is not multiplied.
fn convert(value: &str, unit: i64) -> Option<String> {
    if unit == 1 {
        return Some(value.to_owned());
    }
    let number: i64 = value.trim().parse().ok()?;
    Some(if number < 0 { -1 } else { number.checked_mul(unit)? }.to_string())
}
