//! What the cluster agrees on: topics, brokers, configs, feature levels and producer ids.
//!
//! A machine whose state is a replayed log: [`decide`] turns a [`Command`] into [`Record`]s and a [`Reply`] without
//! changing anything; [`Image::apply`] is the only mutator and cannot fail. A reply is owed to the client only when its
//! records are committed. What is not here: files, sockets, clocks and randomness (the node stores the records, passes
//! `now` and draws the bits), and what a partition does with its config (`ottla-log`, `ottla-replica`).
//!
//! ```
//! use ottla_metadata::{Command, Image, Reply, config::Settings, decide};
//! use ottla_types::Timestamp;
//!
//! let (mut image, settings) = (Image::default(), Settings::default());
//! let (records, reply) = decide(&image, &settings, Timestamp(0), &mut || [7; 16], Command::Bootstrap)?;
//! // Here the node stores record.encode() for each and waits until that is committed.
//! records.iter().for_each(|record| image.apply(record));
//! assert_eq!(reply, Reply::Bootstrapped(image.cluster_id().unwrap().clone()));
//! # Ok::<(), ottla_metadata::Refusal>(())
//! ```
//!
//! Where to go next: `record.rs` for what is written down, `image.rs` for what it adds up to, `command.rs` for what can
//! be asked, `decide.rs` for who may change what, `config.rs` for every setting as data. The bytes are in
//! `docs/formats/metadata-record.md`.

#![forbid(unsafe_code)]

mod wire;

mod record;

mod broker;

mod topic;

mod image;

mod health;

mod name;

mod command;

mod reply;

mod refusal;

mod decide;

mod feature;

pub mod config;

pub use broker::Broker;
pub use command::{
    AlteredConfigs, BrokerRegistration, CleanEnd, Command, ConfigAlteration, DamagedCopy, Election, FeatureChange,
    FeatureUpdate, IncrementalAlteration, IsrChange, NewPartitions, NewTopic, Reported, TopicRef,
};
pub use decide::decide;
pub use feature::{
    BrokerFeature, CHANGES_OF_DURABILITY, ELIGIBLE_LEADER_REPLICAS_VERSION, FEATURES_IN_REGISTRATIONS, Feature,
    GROUP_VERSION, METADATA_VERSION, OTTLA_VERSION, SUPPORTED_FEATURES, UnsupportedLevel,
};
pub use health::{Health, Load};
pub use image::Image;
pub use name::{MAX_TOPIC_NAME, OFFSETS_TOPIC, is_internal_topic, validate_topic_name};
pub use record::{ConfigResource, DecodeError, Listener, Record};
pub use refusal::Refusal;
pub use reply::{CreatedTopic, DeletedTopic, Move, Reply, Rows};
pub use topic::{Partition, Topic};
