"""confluent-kafka: librdkafka of today, through its Python binding. Runs the checks of `suite.py`."""

import time

import confluent_kafka
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    OFFSET_BEGINNING,
    OFFSET_END,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

import groups
import suite
from suite import NotAvailable, Record, Wrong


STATES = {"STABLE": "Stable", "EMPTY": "Empty", "DEAD": "Dead"}
PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


class ConfluentProducer:
    def __init__(self, client, codec, acks, idempotent, large):
        self.timeout = client.timeout
        config = client.config | {
            "compression.type": codec,
            "acks": acks,
            "linger.ms": 500,  # one batch per send: flush() ends the wait
            "batch.size": 4_000_000,
            "message.timeout.ms": int(client.timeout * 1000),
        }
        if idempotent:
            config["enable.idempotence"] = True
        if large:
            config["message.max.bytes"] = 8_000_000
        self.producer = Producer(config)

    def send(self, topic, partition, records):
        reports = []
        for record in records:
            self.producer.produce(
                topic,
                record.value,
                record.key,
                partition,
                timestamp=record.timestamp or 0,
                headers=list(record.headers),
                on_delivery=lambda error, message: reports.append((error, message)),
            )
        left = self.producer.flush(self.timeout)
        if left:
            raise Wrong(f"{left} of {len(records)} records not acknowledged")
        for error, _ in reports:
            if error:
                raise KafkaException(error)
        suite.equal("delivery reports", len(reports), len(records))
        return [message.offset() for _, message in reports]

    def close(self):
        self.producer.flush(0)


def polled(consumer, seconds):
    """The next message, or None; the loss of a connection is none."""
    message = consumer.poll(seconds)
    if message is None or not message.error():
        return message
    if message.error().retriable() or message.error().code() in PASSING:
        return None
    raise KafkaException(message.error())


def record_of(message):
    _, timestamp = message.timestamp()
    return Record(message.value(), message.key(), tuple(message.headers() or ()), timestamp)


class ConfluentReader:
    def __init__(self, client, topic, partition, start):
        self.timeout = client.timeout
        # The binding insists on a group id; nothing is subscribed or committed.
        self.consumer = Consumer(
            client.config
            | {
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                "fetch.message.max.bytes": 8_000_000,
            }
        )
        if start == suite.LATEST:
            # Resolved now, not when the first fetch goes out.
            start = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self.timeout)[1]
        where = {suite.EARLIEST: OFFSET_BEGINNING}.get(start, start)
        self.consumer.assign([TopicPartition(topic, partition, where)])

    def poll(self, seconds, count):
        got = []
        deadline = time.monotonic() + seconds
        while len(got) < count and (left := deadline - time.monotonic()) > 0:
            message = polled(self.consumer, left)
            if message is not None:
                got.append((message.offset(), record_of(message)))
        return got

    def read(self, count):
        got = self.poll(self.timeout, count)
        if len(got) < count:
            raise Wrong(f"{len(got)} of {count} records within {self.timeout} s")
        return got

    def quiet(self, seconds):
        return self.poll(seconds, 1 << 30)

    def close(self):
        self.consumer.close()


class ConfluentMember(groups.Member):
    def __init__(self, client, membership):
        super().__init__()
        config = client.config | {
            "group.id": membership.group,
            "client.id": membership.client_id,
            "group.protocol": membership.protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "topic.metadata.refresh.interval.ms": int(groups.REFRESH * 1000),
        }
        if membership.protocol == "classic":
            config["partition.assignment.strategy"] = "cooperative-sticky" if membership.cooperative else "range"
            config["session.timeout.ms"] = membership.session * 1000
            config["heartbeat.interval.ms"] = 500
        if membership.instance:
            config["group.instance.id"] = membership.instance
        self.consumer = Consumer(config)
        topics = [membership.pattern] if membership.pattern else list(membership.topics)
        self.consumer.subscribe(
            topics,
            on_assign=lambda _, places: self.gain((p.topic, p.partition) for p in places),
            on_revoke=lambda _, places: self.lose((p.topic, p.partition) for p in places),
            on_lost=lambda _, places: self.lose((p.topic, p.partition) for p in places),
        )

    def step(self):
        wait = 0.05
        while (message := polled(self.consumer, wait)) is not None:
            self.got.append(((message.topic(), message.partition()), message.offset(), record_of(message)))
            wait = 0

    def commit(self, offsets):
        rows = [TopicPartition(*place, offset, text) for place, (offset, text) in offsets.items()]
        for row in self.consumer.commit(offsets=rows, asynchronous=False):
            if row.error:
                raise KafkaException(row.error)

    def leave(self):
        self.consumer.close()


class Confluent(groups.Client):
    metadata_limit = 4095  # the binding adds a zero byte to the text

    def __init__(self, bootstrap, timeout):
        super().__init__(bootstrap, timeout)
        self.config = {
            "bootstrap.servers": bootstrap,
            "log_level": 2,
            "socket.timeout.ms": int(timeout * 1000),
            "reconnect.backoff.max.ms": 500,
        }
        self.admin = AdminClient(self.config)

    def one(self, futures):
        (future,) = futures.values()
        return future.result(self.timeout)

    def create_topic(self, name, partitions, configs):
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=configs)
        self.one(self.admin.create_topics([topic], request_timeout=self.timeout))

    def exists_error(self, error):
        return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS

    def topics(self):
        return list(self.admin.list_topics(timeout=self.timeout).topics)

    def describe_topic(self, name):
        topic = self.one(self.admin.describe_topics(TopicCollection([name]), request_timeout=self.timeout))
        return [
            (p.id, p.leader.id, [node.id for node in p.replicas], [node.id for node in p.isr])
            for p in topic.partitions
        ]

    def describe_configs(self, name):
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        entries = self.one(self.admin.describe_configs([resource], request_timeout=self.timeout))
        return {entry.name: entry.value for entry in entries.values()}

    def alter_config(self, name, configs):
        entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in configs.items()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        self.one(self.admin.incremental_alter_configs([resource], request_timeout=self.timeout))

    def create_partitions(self, name, total):
        self.one(self.admin.create_partitions([NewPartitions(name, total)], request_timeout=self.timeout))

    def delete_records(self, name, partition, before):
        where = TopicPartition(name, partition, before)
        return self.one(self.admin.delete_records([where], request_timeout=self.timeout)).low_watermark

    def delete_topic(self, name):
        self.one(self.admin.delete_topics([name], request_timeout=self.timeout))

    def describe_cluster(self):
        cluster = self.admin.describe_cluster(request_timeout=self.timeout).result(self.timeout)
        return {
            "id": cluster.cluster_id,
            "brokers": [(node.id, node.host, node.port) for node in cluster.nodes],
            "controller": cluster.controller.id,
        }

    def consumer(self):
        return Consumer(self.config | {"group.id": "unused", "enable.auto.commit": False})

    def offsets(self, name, partition):
        consumer = self.consumer()
        try:
            return consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=self.timeout)
        finally:
            consumer.close()

    def offset_for_time(self, name, partition, timestamp):
        consumer = self.consumer()
        try:
            where = TopicPartition(name, partition, timestamp)
            (found,) = consumer.offsets_for_times([where], timeout=self.timeout)
        finally:
            consumer.close()
        if found.error:
            raise KafkaException(found.error)
        return None if found.offset in (OFFSET_END, -1) else found.offset

    def producer(self, codec="none", acks="all", idempotent=False, large=False):
        return ConfluentProducer(self, codec, acks, idempotent, large)

    def reader(self, name, partition, start):
        return ConfluentReader(self, name, partition, start)

    def member(self, membership):
        return ConfluentMember(self, membership)

    def groups(self):
        found = self.admin.list_consumer_groups(request_timeout=self.timeout).result(self.timeout)
        if found.errors:
            raise found.errors[0]
        return {group.group_id: STATES.get(group.state.name, "other") for group in found.valid}

    def describe_group(self, group):
        try:
            found = self.one(self.admin.describe_consumer_groups([group], request_timeout=self.timeout))
        except KafkaException as error:
            if self.error_name(error) != "GROUP_ID_NOT_FOUND":
                raise
            return "Dead", {}
        members = {
            member.client_id: {(p.topic, p.partition) for p in member.assignment.topic_partitions}
            for member in found.members
        }
        return STATES.get(found.state.name, "other"), members

    def delete_group(self, group):
        self.one(self.admin.delete_consumer_groups([group], request_timeout=self.timeout))

    def committed(self, group, place):
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(*place)])
        (row,) = self.one(self.admin.list_consumer_group_offsets([asked])).topic_partitions
        if row.error:
            raise KafkaException(row.error)
        return None if row.offset < 0 else (row.offset, row.metadata or "")

    def set_offsets(self, group, offsets):
        rows = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        asked = ConsumerGroupTopicPartitions(group, rows)
        for row in self.one(self.admin.alter_consumer_group_offsets([asked])).topic_partitions:
            if row.error:
                raise KafkaException(row.error)

    def delete_offsets(self, group, places):
        raise NotAvailable("confluent-kafka has no call that deletes offsets")

    def error_name(self, error):
        return error.args[0].name()


if __name__ == "__main__":
    version = f"{confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})"
    suite.main("confluent-kafka", version, Confluent, groups.Suite)
