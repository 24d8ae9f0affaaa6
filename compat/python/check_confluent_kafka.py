"""confluent-kafka: librdkafka of today, through its Python binding. Runs the checks of `suite.py`."""

import time

import confluent_kafka
from confluent_kafka import (
    Consumer,
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

import suite
from suite import Record, Wrong


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
            message = self.consumer.poll(left)
            if message is None:
                continue
            if message.error():
                if message.error().retriable() or message.error().code() == KafkaError._TRANSPORT:
                    continue
                raise KafkaException(message.error())
            kind, timestamp = message.timestamp()
            got.append(
                (
                    message.offset(),
                    Record(message.value(), message.key(), tuple(message.headers() or ()), timestamp),
                )
            )
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


class Confluent(suite.Client):
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


if __name__ == "__main__":
    version = f"{confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})"
    suite.main("confluent-kafka", version, Confluent)
