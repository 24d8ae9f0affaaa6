//! The configs of a broker that a single process honours or that clients and tools read, sorted by name.
//!
//! Kafka's names and defaults; twins of topic configs take type, range and refusals from the topic's row. What is not
//! here: names that mean nothing to Ottla, which a `server.properties` may hold and which load with a warning.

use super::{
    Definition, Valid,
    definition::{boolean, double, int, list, long, text},
    topic::{
        CLEANUP_POLICY, COMPRESSION_GZIP_LEVEL, COMPRESSION_LZ4_LEVEL, COMPRESSION_TYPE, COMPRESSION_ZSTD_LEVEL,
        DELETE_RETENTION_MS, FILE_DELETE_DELAY_MS, FLUSH_MESSAGES, FLUSH_MS, FLUSH_MS_CONFIG, INDEX_INTERVAL_BYTES,
        LOCAL_RETENTION_BYTES, LOCAL_RETENTION_MS, MAX_COMPACTION_LAG_MS, MAX_MESSAGE_BYTES,
        MESSAGE_TIMESTAMP_AFTER_MAX_MS, MESSAGE_TIMESTAMP_BEFORE_MAX_MS, MESSAGE_TIMESTAMP_TYPE,
        MIN_CLEANABLE_DIRTY_RATIO, MIN_COMPACTION_LAG_MS, MIN_INSYNC_REPLICAS, OTTLA_DURABILITY,
        OTTLA_RETENTION_DISK_PERCENT, OTTLA_RETENTION_TOPIC_BYTES, PREALLOCATE, RETENTION_BYTES, RETENTION_MS,
        RETENTION_MS_CONFIG, ROLL_JITTER_MS, ROLL_MS, SEGMENT_BYTES, SEGMENT_INDEX_BYTES, SEGMENT_JITTER_MS,
        SEGMENT_MS, UNCLEAN_LEADER_ELECTION_ENABLE,
    },
};

const I32_MAX: &str = "2147483647";
const NO_AUTHORIZER: &str = "Ottla has no authorizer yet, and must not seem to have one; leave it out";
const NO_TLS: &str = "Ottla does not serve TLS yet; leave it out";
const NO_SASL: &str = "Ottla does not serve SASL yet; leave it out";
const NO_TIERING: &str = "Ottla has no tiered storage; keep the default";
const NO_QUORUM: &str = "Ottla agrees on metadata by itself; leave it out";

/// Has consumers read from leaders alone.
pub(super) const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// Every broker config, sorted by name.
pub(super) const CONFIGS: &[Definition] = &[
    list(
        "advertised.listeners",
        "",
        "The addresses clients are told to connect to, one for each listener; by default the listeners themselves.",
    )
    .unset()
    .valid(Valid::Endpoints),
    text("authorizer.class.name", "", "What decides who may do what; empty means that everybody may do everything.")
        .later(NO_AUTHORIZER),
    boolean(
        "auto.create.topics.enable",
        "true",
        "Whether asking for the metadata of a topic that does not exist creates it.",
    ),
    boolean("auto.leader.rebalance.enable", "true", "Whether leadership goes back to preferred replicas by itself.")
        .stored(),
    int("background.threads", "10", "Threads for background work. Ottla sizes its own; the value is only reported.")
        .at_least(1)
        .stored()
        .dynamic(),
    int("broker.heartbeat.interval.ms", "2000", "How often a broker reports to the controller, in milliseconds.")
        .at_least(1)
        .stored(),
    text("broker.rack", "", "Where this broker stands, so that replicas can be spread and readers can stay near.")
        .unset(),
    int(
        "broker.session.timeout.ms",
        "9000",
        "How long the controller waits for a broker that has gone quiet before it fences it, in milliseconds.",
    )
    .at_least(1)
    .stored(),
    COMPRESSION_GZIP_LEVEL,
    COMPRESSION_LZ4_LEVEL,
    COMPRESSION_TYPE,
    COMPRESSION_ZSTD_LEVEL,
    int(
        "connection.failed.authentication.delay.ms",
        "100",
        "How long the answer to a failed authentication is held back, in milliseconds.",
    )
    .at_least(0)
    .stored(),
    long(
        "connections.max.idle.ms",
        "600000",
        "A connection on which nothing has happened for this long is closed, in milliseconds; -1 for never.",
    )
    .at_least(-1),
    long(
        "connections.max.reauth.ms",
        "0",
        "How long an authenticated session lasts before it must authenticate again, in milliseconds; 0 for ever.",
    )
    .at_least(0)
    .later(NO_SASL),
    list("controller.quorum.voters", "", "The controllers of a Kafka cluster.").later(NO_QUORUM),
    int(
        "default.replication.factor",
        "1",
        "How many replicas a topic gets when its creator does not say. Unless it is set, 3, or as many as there are \
         brokers.",
    )
    .valid(Valid::Between(1, i16::MAX as i64)),
    long(
        "delegation.token.expiry.time.ms",
        "86400000",
        "How long a delegation token is valid before it must be renewed, in milliseconds.",
    )
    .at_least(1)
    .stored(),
    long(
        "delegation.token.max.lifetime.ms",
        "604800000",
        "How long a delegation token may be renewed for, in milliseconds.",
    )
    .at_least(1)
    .stored(),
    boolean("delete.topic.enable", "true", "Whether topics can be deleted."),
    int("fetch.max.bytes", "57671680", "The most one fetch answer carries, in bytes, whatever the client asks for.")
        .at_least(1024),
    int(
        "group.consumer.assignment.interval.ms",
        "1000",
        "The least time between two assignments of one consumer group, in milliseconds.",
    )
    .at_least(0)
    .dynamic(),
    list(
        "group.consumer.assignors",
        "uniform,range",
        "How the broker can spread partitions over a consumer group; the first for members that do not choose.",
    )
    .valid(Valid::OneOrMoreOf(&["uniform", "range"])),
    int("group.consumer.heartbeat.interval.ms", "5000", "How often the members of a consumer group report, in ms.")
        .at_least(1),
    int("group.consumer.max.assignment.interval.ms", "15000", "The longest assignment interval of a group, in ms.")
        .at_least(0),
    int("group.consumer.max.heartbeat.interval.ms", "15000", "The longest heartbeat interval of a group, in ms.")
        .at_least(1),
    int("group.consumer.max.session.timeout.ms", "60000", "The longest session timeout of a group, in ms.").at_least(1),
    int("group.consumer.max.size", I32_MAX, "The most members a consumer group may have.").at_least(1),
    text(
        "group.consumer.migration.policy",
        "bidirectional",
        "Which way a group with members may move between the classic protocol and the consumer protocol.",
    )
    .valid(Valid::OneOfAnyCase(&["bidirectional", "upgrade", "downgrade", "disabled"])),
    int("group.consumer.min.assignment.interval.ms", "0", "The shortest assignment interval of a group, in ms.")
        .at_least(0),
    int("group.consumer.min.heartbeat.interval.ms", "5000", "The shortest heartbeat interval of a group, in ms.")
        .at_least(1),
    int("group.consumer.min.session.timeout.ms", "45000", "The shortest session timeout of a group, in ms.")
        .at_least(1),
    int(
        "group.consumer.regex.refresh.interval.ms",
        "600000",
        "How often a subscription by pattern is matched against the topics again, in milliseconds.",
    )
    .at_least(10_000),
    int("group.consumer.session.timeout.ms", "45000", "How long a quiet member stays in a consumer group, in ms.")
        .at_least(1),
    int(
        "group.coordinator.append.linger.ms",
        "-1",
        "How long Kafka's coordinator gathers writes. Ottla's writes what is there; the value is only reported.",
    )
    .at_least(-1)
    .stored(),
    int("group.coordinator.background.threads", "2", "Threads for the long work of coordinators. Ottla sizes its own.")
        .at_least(1)
        .stored(),
    int(
        "group.coordinator.cached.buffer.max.bytes",
        "1048588",
        "The write buffer Kafka's coordinator keeps, in bytes.",
    )
    .at_least(524_288)
    .stored()
    .dynamic(),
    list(
        "group.coordinator.rebalance.protocols",
        "classic,consumer",
        "The group protocols that are served; classic is always one of them.",
    )
    .valid(Valid::OneOrMoreOf(&["classic", "consumer"])),
    int("group.coordinator.threads", "4", "Threads of the group coordinators. Ottla sizes its own.")
        .at_least(1)
        .stored(),
    int(
        "group.initial.rebalance.delay.ms",
        "3000",
        "How long the first member of an empty classic group waits for others, in milliseconds.",
    )
    .at_least(0),
    int("group.max.session.timeout.ms", "1800000", "The longest session timeout a classic member may ask for, in ms.")
        .at_least(1),
    int("group.max.size", I32_MAX, "The most members a classic group may have.").at_least(1),
    int("group.min.session.timeout.ms", "6000", "The shortest session timeout a classic member may ask for, in ms.")
        .at_least(1),
    int(
        "group.share.assignment.interval.ms",
        "1000",
        "The least time between two assignments of a share group, in ms.",
    )
    .at_least(0)
    .stored()
    .dynamic(),
    int("group.share.delivery.count.limit", "5", "How often a share group is handed a record before it is given up.")
        .valid(Valid::Between(2, 10))
        .stored(),
    int("group.share.heartbeat.interval.ms", "5000", "How often the members of a share group report, in milliseconds.")
        .at_least(1)
        .stored(),
    int("group.share.max.size", "200", "The most members a share group may have.")
        .valid(Valid::Between(1, 1000))
        .stored(),
    int(
        "group.share.partition.max.record.locks",
        "2000",
        "The most records of a partition a share group may have in flight.",
    )
    .valid(Valid::Between(100, 10_000))
    .stored(),
    int("group.share.record.lock.duration.ms", "30000", "How long a member of a share group holds a record, in ms.")
        .at_least(1000)
        .stored(),
    int("group.share.session.timeout.ms", "45000", "How long a quiet member stays in a share group, in milliseconds.")
        .at_least(1)
        .stored(),
    int(
        "group.streams.assignment.interval.ms",
        "1000",
        "The least time between assignments of a streams group, in ms.",
    )
    .at_least(0)
    .stored()
    .dynamic(),
    int("group.streams.heartbeat.interval.ms", "5000", "How often the members of a streams group report, in ms.")
        .at_least(1)
        .stored(),
    int("group.streams.initial.rebalance.delay.ms", "3000", "How long a new streams group waits for members, in ms.")
        .at_least(0)
        .stored(),
    int("group.streams.num.standby.replicas", "0", "How many standby replicas each task of a streams group has.")
        .at_least(0)
        .stored(),
    int("group.streams.session.timeout.ms", "45000", "How long a quiet member stays in a streams group, in ms.")
        .at_least(1)
        .stored(),
    text(
        "inter.broker.listener.name",
        "",
        "The listener that brokers use among each other, and clients don't; empty means that they come in on any.",
    )
    .unset(),
    text(
        "inter.broker.protocol.version",
        "4.3-IV0",
        "The release whose surface this broker serves. Kafka 4 dropped the config; tools read it to show a version.",
    )
    .stored(),
    long(
        "leader.imbalance.check.interval.seconds",
        "300",
        "How often it is checked whether leadership should go back to preferred replicas, in seconds.",
    )
    .at_least(1)
    .stored(),
    list(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT",
        "Which security protocol each listener name stands for.",
    )
    .valid(Valid::ProtocolMap),
    list(
        "listeners",
        "PLAINTEXT://localhost:9092",
        "The addresses the broker listens on. localhost means both 127.0.0.1 and ::1; no host at all means every \
         interface.",
    )
    .valid(Valid::Endpoints),
    long(
        "log.cleaner.backoff.ms",
        "15000",
        "How long the cleaner rests when there is nothing to clean, in milliseconds.",
    )
    .at_least(0)
    .dynamic(),
    long(
        "log.cleaner.dedupe.buffer.size",
        "134217728",
        "The most memory the cleaner uses for keys while it works, all its threads together, in bytes.",
    )
    .at_least(1_048_576)
    .dynamic(),
    DELETE_RETENTION_MS.named("log.cleaner.delete.retention.ms"),
    boolean("log.cleaner.enable", "true", "Whether logs are compacted at all."),
    double(
        "log.cleaner.io.max.bytes.per.second",
        "1.7976931348623157E308",
        "How fast the cleaner may read and write, in bytes a second.",
    )
    .dynamic(),
    MAX_COMPACTION_LAG_MS.named("log.cleaner.max.compaction.lag.ms"),
    MIN_CLEANABLE_DIRTY_RATIO.named("log.cleaner.min.cleanable.ratio"),
    MIN_COMPACTION_LAG_MS.named("log.cleaner.min.compaction.lag.ms"),
    int("log.cleaner.threads", "1", "Threads that compact logs; with 0 none is compacted.").at_least(0).dynamic(),
    CLEANUP_POLICY.named("log.cleanup.policy"),
    text("log.dir", "ottla-data", "The data directory, where log.dirs is not set."),
    list("log.dirs", "", "The data directory. Ottla has one; several disks are the volume manager's work.")
        .unset()
        .valid(Valid::AtMostOne),
    FLUSH_MESSAGES.named("log.flush.interval.messages"),
    FLUSH_MS_CONFIG.named("log.flush.interval.ms").unset(),
    long(
        "log.flush.scheduler.interval.ms",
        "9223372036854775807",
        "How often it is checked whether a log must be synced, in milliseconds; flush.ms where nothing else says.",
    )
    .at_least(0)
    .synonyms(FLUSH_MS),
    INDEX_INTERVAL_BYTES.named("log.index.interval.bytes"),
    SEGMENT_INDEX_BYTES.named("log.index.size.max.bytes"),
    LOCAL_RETENTION_BYTES.named("log.local.retention.bytes"),
    LOCAL_RETENTION_MS.named("log.local.retention.ms"),
    MESSAGE_TIMESTAMP_AFTER_MAX_MS.named("log.message.timestamp.after.max.ms"),
    MESSAGE_TIMESTAMP_BEFORE_MAX_MS.named("log.message.timestamp.before.max.ms"),
    MESSAGE_TIMESTAMP_TYPE.named("log.message.timestamp.type"),
    PREALLOCATE.named("log.preallocate"),
    RETENTION_BYTES.named("log.retention.bytes"),
    long(
        "log.retention.check.interval.ms",
        "300000",
        "How often it is checked whether old segments can go, in milliseconds. Budgets of ottla.retention.* are held \
         as data arrives.",
    )
    .at_least(1),
    int("log.retention.hours", "168", "How long records are kept, in hours; minutes and milliseconds win over it.")
        .synonyms(RETENTION_MS),
    int("log.retention.minutes", "", "How long records are kept, in minutes; milliseconds win over it.")
        .unset()
        .synonyms(RETENTION_MS),
    RETENTION_MS_CONFIG.named("log.retention.ms").unset(),
    int("log.roll.hours", "168", "The age at which a new segment begins, in hours; milliseconds win over it.")
        .at_least(1)
        .synonyms(ROLL_MS),
    int("log.roll.jitter.hours", "0", "At most how much that age is shortened by chance, in hours.")
        .at_least(0)
        .stored()
        .synonyms(ROLL_JITTER_MS),
    SEGMENT_JITTER_MS.named("log.roll.jitter.ms").unset(),
    SEGMENT_MS.named("log.roll.ms").unset(),
    SEGMENT_BYTES.named("log.segment.bytes"),
    FILE_DELETE_DELAY_MS.named("log.segment.delete.delay.ms"),
    int("max.connection.creation.rate", I32_MAX, "How many new connections the broker takes in a second.")
        .at_least(0)
        .dynamic(),
    int("max.connections", I32_MAX, "The most connections the broker holds at once.").at_least(0).dynamic(),
    int("max.connections.per.ip", I32_MAX, "The most connections it holds from one address.").at_least(0).dynamic(),
    int("max.incremental.fetch.session.cache.slots", "1000", "The most incremental fetch sessions it remembers.")
        .at_least(0),
    int(
        "max.request.partition.size.limit",
        "2000",
        "The most partitions one DescribeTopicPartitions answer describes.",
    )
    .at_least(1),
    MAX_MESSAGE_BYTES.named("message.max.bytes"),
    MIN_INSYNC_REPLICAS,
    int("node.id", "-1", "The number of this broker in its cluster; it is kept in the data directory.")
        .unset()
        .at_least(0),
    int("num.io.threads", "8", "Threads that process requests. Ottla sizes its own; the value is only reported.")
        .at_least(1)
        .stored()
        .dynamic(),
    int("num.network.threads", "3", "Threads that serve sockets. Ottla sizes its own; the value is only reported.")
        .at_least(1)
        .stored()
        .dynamic(),
    int("num.partitions", "1", "How many partitions a topic gets when its creator does not say.").at_least(1),
    int("num.recovery.threads.per.data.dir", "2", "Threads that recover logs at start.").at_least(1).stored().dynamic(),
    int("num.replica.fetchers", "1", "Threads that fetch from each leader. Ottla sizes its own.")
        .at_least(1)
        .stored()
        .dynamic(),
    int("offset.metadata.max.bytes", "4096", "The longest metadata a committed offset may carry, in bytes.")
        .at_least(0),
    int("offsets.commit.timeout.ms", "5000", "How long a write of a coordinator waits for its replicas, in ms.")
        .at_least(1),
    int("offsets.load.buffer.size", "5242880", "How much Kafka reads at a time to load a coordinator, in bytes.")
        .at_least(1)
        .stored(),
    long(
        "offsets.retention.check.interval.ms",
        "600000",
        "How often it is checked whether committed offsets have expired, in milliseconds.",
    )
    .at_least(1),
    int("offsets.retention.minutes", "10080", "How long the committed offsets of an empty group are kept, in minutes.")
        .at_least(1),
    int(
        "offsets.topic.compression.codec",
        "0",
        "The codec of the records of __consumer_offsets: 0 for none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.",
    )
    .valid(Valid::Between(0, 4)),
    // The most that one topic can be created with.
    int("offsets.topic.num.partitions", "50", "The partitions __consumer_offsets is created with.")
        .valid(Valid::Between(1, 10_000)),
    int("offsets.topic.replication.factor", "3", "Its replicas, as far as there are brokers.")
        .valid(Valid::Between(1, i16::MAX as i64)),
    // The least that segment.bytes of a topic may be: with less the topic could never be created.
    int("offsets.topic.segment.bytes", "104857600", "The size of its segments, in bytes.").at_least(1_048_576),
    long(
        "ottla.disk.reserve.bytes",
        "16777216",
        "Disk space that records never take, in bytes, so that metadata, checkpoints and retention work on a disk \
         that is full.",
    )
    .at_least(0),
    OTTLA_DURABILITY,
    long(
        "ottla.memory.bytes",
        "268435456",
        "The one budget for requests, parked answers and buffers, in bytes; connections wait when it is spent.",
    )
    .at_least(16_777_216),
    OTTLA_RETENTION_DISK_PERCENT,
    OTTLA_RETENTION_TOPIC_BYTES,
    int(
        "ottla.worker.threads",
        "",
        "Threads that serve requests. Unless it is set, one for each CPU but one, which is left for the kernel's part \
         and for what waits for the disk.",
    )
    .unset()
    .valid(Valid::Between(1, 1024)),
    list(
        "process.roles",
        "broker,controller",
        "What this process is. Every Ottla node is both; tools read it to tell how the cluster is run.",
    )
    .valid(Valid::SomeOf(&["broker", "controller"]))
    .stored(),
    int(
        "producer.id.expiration.ms",
        "86400000",
        "How long the state of an idempotent producer that has gone quiet is kept, in milliseconds.",
    )
    .at_least(1)
    .dynamic(),
    int("quota.window.num", "11", "How many samples a quota is measured over.").at_least(1).stored(),
    int("quota.window.size.seconds", "1", "How long one sample of a quota is, in seconds.").at_least(1).stored(),
    boolean("remote.log.storage.system.enable", "false", "Whether topics may be tiered.").later(NO_TIERING),
    int("replica.fetch.max.bytes", "1048576", "How much a follower asks for of each partition, in bytes.")
        .at_least(0)
        .stored(),
    int("replica.fetch.response.max.bytes", "10485760", "How much a follower asks for in one fetch, in bytes.")
        .at_least(0)
        .stored(),
    int("replica.fetch.wait.max.ms", "500", "How long a follower's fetch may wait for data, in milliseconds.")
        .at_least(1)
        .stored(),
    long(
        "replica.lag.time.max.ms",
        "30000",
        "How long a follower may lag before it leaves the in-sync replicas, in milliseconds.",
    )
    .at_least(1)
    .stored(),
    text(
        "replica.selector.class",
        "",
        "Where consumers read: RackAwareReplicaSelector, also unless it is set, sends those that name a rack to a \
         follower there, LeaderSelector sends all to leaders.",
    )
    .unset()
    .valid(Valid::OneOf(&[RACK_AWARE_SELECTOR, LEADER_SELECTOR])),
    list("sasl.enabled.mechanisms", "GSSAPI", "The SASL mechanisms a secured listener offers.").later(NO_SASL),
    int("share.coordinator.state.topic.min.isr", "2", "min.insync.replicas of __share_group_state.")
        .at_least(1)
        .stored(),
    int("share.coordinator.state.topic.num.partitions", "50", "The partitions of __share_group_state.")
        .at_least(1)
        .stored(),
    int("share.coordinator.state.topic.replication.factor", "3", "Its replicas, as far as there are brokers.")
        .at_least(1)
        .stored(),
    int(
        "socket.request.max.bytes",
        "104857600",
        "The largest request the broker reads, in bytes; a larger one ends its connection.",
    )
    .at_least(1024),
    text("ssl.client.auth", "none", "Whether clients of a TLS listener must show a certificate.")
        .valid(Valid::OneOf(&["required", "requested", "none"]))
        .later(NO_TLS),
    int(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "10000",
        "How often it is checked whether transactions have timed out, in milliseconds.",
    )
    .at_least(1)
    .stored(),
    int("transaction.max.timeout.ms", "900000", "The longest transaction timeout a producer may ask for, in ms.")
        .at_least(1)
        .stored(),
    boolean(
        "transaction.partition.verification.enable",
        "true",
        "Whether a transactional write to a partition is checked against the coordinator.",
    )
    .stored()
    .dynamic(),
    int("transaction.state.log.min.isr", "2", "min.insync.replicas of __transaction_state.").at_least(1).stored(),
    int("transaction.state.log.num.partitions", "50", "The partitions of __transaction_state.").at_least(1).stored(),
    int("transaction.state.log.replication.factor", "3", "Its replicas, as far as there are brokers.")
        .at_least(1)
        .stored(),
    int(
        "transactional.id.expiration.ms",
        "604800000",
        "How long a transactional id that has gone quiet is kept, in milliseconds.",
    )
    .at_least(1)
    .stored(),
    UNCLEAN_LEADER_ELECTION_ENABLE,
];
