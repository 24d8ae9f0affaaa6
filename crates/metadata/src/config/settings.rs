//! What a person set before the start: the static broker configs, checked as a whole.
//!
//! What is not here: flags, environment and files; the caller merges them (flag before environment before file) and
//! hands over one value per name. Next: `resolve.rs` for what else may decide a value.

use std::collections::BTreeMap;

use super::{ConfigError, Layers, Overrides, Scope, TopicConfig, check_groups, check_together};
use crate::{
    BrokerFeature, Feature, OTTLA_VERSION, Record, SUPPORTED_FEATURES, UnsupportedLevel, feature::check_level,
};

/// Static broker configs, each checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: Overrides,
    highest_level: Option<i16>,
}

/// A setting that was read and means nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its name.
    pub key: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} means nothing to Ottla and is ignored", self.key)
    }
}

impl Settings {
    /// Checks every pair. Names Ottla does not know are left out and returned as warnings, since a Kafka
    /// `server.properties` is full of them; a misspelt `ottla.` name is an error.
    ///
    /// # Errors
    /// The first value that is wrong or not supported yet, `ottla.` name that does not exist, or contradiction.
    pub fn check(pairs: impl IntoIterator<Item = (String, String)>) -> Result<(Settings, Vec<Warning>), ConfigError> {
        let mut values = BTreeMap::new();
        let mut warnings = Vec::new();
        for (key, value) in pairs {
            Scope::Broker.validate(&key, &value)?;
            if Scope::Broker.find(&key).is_some() {
                values.insert(key, value);
            } else {
                warnings.push(Warning { key });
            }
        }
        let settings = Settings { values, highest_level: None };
        let none = Overrides::new();
        let layers = Layers { broker: &none, cluster: &none, settings: &settings };
        check_together(TopicConfig::resolve(&layers))?;
        check_groups(&layers)?;
        Ok((settings, warnings))
    }

    /// The value a person set, or `None` where a default holds.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The same, for a broker that serves no level of [`OTTLA_VERSION`] above this one, as if it ran the version of
    /// Ottla that brought it. For tests of clusters of several versions.
    #[must_use]
    pub fn with_highest_level(self, level: i16) -> Settings {
        Settings { highest_level: Some(level.clamp(OTTLA_VERSION.min, OTTLA_VERSION.max)), ..self }
    }

    /// The features that a broker of these settings serves: all that this version does, unless it is held back.
    pub fn supported_features(&self) -> impl Iterator<Item = Feature> + use<> {
        let highest = self.highest_level;
        SUPPORTED_FEATURES.iter().map(move |&feature| match highest {
            Some(max) if feature.name == OTTLA_VERSION.name => Feature { max, ..feature },
            _ => feature,
        })
    }

    /// Whether a broker of these settings can go on after records that were agreed on.
    ///
    /// # Errors
    /// A record finalises a level that it does not serve: what follows may be anything.
    pub fn check_levels(&self, records: &[Record]) -> Result<(), UnsupportedLevel> {
        let mut levels = records.iter().filter_map(|record| match record {
            Record::FeatureLevel { name, level } => Some((name, *level)),
            _ => None,
        });
        let features = || self.supported_features().map(BrokerFeature::from).collect::<Vec<_>>();
        levels.try_for_each(|(name, level)| check_level(&features(), name, level))
    }

    /// Every value a person set.
    pub fn values(&self) -> &Overrides {
        &self.values
    }
}
