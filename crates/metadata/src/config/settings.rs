//! What a person set before the start: the static broker configs, checked as a whole.
//!
//! What is not here: flags, environment and files; the caller merges them (flag before environment before file) and
//! hands over one value per name. Next: `resolve.rs` for what else may decide a value.

use std::collections::BTreeMap;

use super::{ConfigError, Layers, Overrides, Scope, TopicConfig, check_groups, check_together};

/// Static broker configs, each checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: Overrides,
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
        let settings = Settings { values };
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

    /// Every value a person set.
    pub fn values(&self) -> &Overrides {
        &self.values
    }
}
