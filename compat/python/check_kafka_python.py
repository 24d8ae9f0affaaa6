"""kafka-python: a pure Python client. Runs the checks of `suite.py`."""

import concurrent.futures
import queue
import sys
import threading
import time

import kafka
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import GroupIdNotFoundError, KafkaError, NoError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

import groups
import suite
from suite import Record, Wrong


class PythonProducer:
    def __init__(self, client, codec, acks, idempotent, large):
        self.timeout = client.timeout
        self.producer = KafkaProducer(
            **client.config,
            request_timeout_ms=int(client.timeout * 900),
            delivery_timeout_ms=int(client.timeout * 1000),
            max_block_ms=int(client.timeout * 1000),
            compression_type=None if codec == "none" else codec,
            acks=acks if acks == "all" else int(acks),
            enable_idempotence=idempotent,
            linger_ms=50,  # one batch per send
            batch_size=1_000_000,
            max_request_size=8_000_000 if large else 1_048_576,
        )

    def send(self, topic, partition, records):
        futures = [
            self.producer.send(
                topic, r.value, r.key, headers=list(r.headers), partition=partition, timestamp_ms=r.timestamp
            )
            for r in records
        ]
        self.producer.flush(self.timeout)
        return [future.get(self.timeout).offset for future in futures]

    def close(self):
        self.producer.close(timeout=1)


class PythonReader:
    def __init__(self, client, topic, partition, start):
        self.timeout = client.timeout
        self.where = TopicPartition(topic, partition)
        self.consumer = client.consumer(auto_offset_reset="none", max_partition_fetch_bytes=8_000_000)
        self.consumer.assign([self.where])
        if start == suite.EARLIEST:
            self.consumer.seek_to_beginning(self.where)
        elif start == suite.LATEST:
            self.consumer.seek_to_end(self.where)
            self.consumer.position(self.where, timeout_ms=int(self.timeout * 1000))
        else:
            self.consumer.seek(self.where, start)

    def poll(self, seconds, count):
        got = []
        deadline = time.monotonic() + seconds
        while len(got) < count and (left := deadline - time.monotonic()) > 0:
            polled = self.consumer.poll(timeout_ms=max(1, int(left * 1000)), max_records=count - len(got))
            for m in polled.get(self.where, []):
                got.append((m.offset, Record(m.value, m.key, tuple(m.headers or ()), m.timestamp)))
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


class PythonMember(groups.Member, ConsumerRebalanceListener):
    """Polled by a thread of its own, as a program would do it: kafka-python forgets an assignment that arrives while
    nobody polls."""

    def __init__(self, client, membership):
        super().__init__()
        self.timeout = client.timeout
        self.consumer = KafkaConsumer(
            **client.config,
            client_id=membership.client_id,
            group_id=membership.group,
            group_instance_id=membership.instance,
            request_timeout_ms=max(int(client.timeout * 1000), membership.session * 1000 + 5000),
            session_timeout_ms=membership.session * 1000,
            heartbeat_interval_ms=500,
            metadata_max_age_ms=int(groups.REFRESH * 1000),
            partition_assignment_strategy=[
                CooperativeStickyAssignor if membership.cooperative else RangePartitionAssignor
            ],
            fetch_max_wait_ms=100,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        self.consumer.subscribe(list(membership.topics), listener=self)
        self.calls = queue.SimpleQueue()  # functions for the thread to run between two polls, None to end
        self.thread = threading.Thread(target=self.poll, daemon=True)
        self.thread.start()

    def on_partitions_assigned(self, assigned):
        self.gain((p.topic, p.partition) for p in assigned)

    def on_partitions_revoked(self, revoked):
        self.lose((p.topic, p.partition) for p in revoked)

    def poll(self):
        while True:
            try:
                for where, messages in self.consumer.poll(timeout_ms=200).items():
                    for m in messages:
                        record = Record(m.value, m.key, tuple(m.headers or ()), m.timestamp)
                        self.got.append(((where.topic, where.partition), m.offset, record))
            except KafkaError as error:
                print(f"poll: {error!r}", file=sys.stderr)
            if not self.calls.empty():
                call = self.calls.get()
                if call is None:
                    return
                call()

    def step(self):
        time.sleep(0.02)

    def commit(self, offsets):
        rows = {TopicPartition(*place): OffsetAndMetadata(*row, -1) for place, row in offsets.items()}
        done = concurrent.futures.Future()

        def commit():
            try:
                done.set_result(self.consumer.commit(rows, timeout_ms=int(self.timeout * 1000)))
            except Exception as error:
                done.set_exception(error)

        self.calls.put(commit)
        done.result(self.timeout)

    def leave(self):
        self.calls.put(None)
        self.thread.join(self.timeout)
        self.consumer.close(autocommit=False)


class KafkaPython(groups.Client):
    unreliable = {"group.rebalance": "forgets an assignment that arrives between two polls"}
    no_consumer_protocol = "kafka-python speaks only the classic group protocol"
    null_header_values = False
    impossible = ((None, None),)

    def __init__(self, bootstrap, timeout):
        super().__init__(bootstrap, timeout)
        self.config = {
            "bootstrap_servers": bootstrap,
            "bootstrap_timeout_ms": int(timeout * 1000),
            "reconnect_backoff_max_ms": 500,
        }
        self.opened = None

    @property
    def admin(self):
        if self.opened is None:
            self.opened = KafkaAdminClient(**self.config, request_timeout_ms=int(self.timeout * 1000))
        return self.opened

    def consumer(self, **config):
        return KafkaConsumer(
            **self.config,
            **config,
            group_id=None,
            request_timeout_ms=int(self.timeout * 1000),
            fetch_max_wait_ms=100,
            enable_auto_commit=False,
        )

    def create_topic(self, name, partitions, configs):
        topic = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        self.admin.create_topics({name: topic}, wait_for_metadata=True)

    def exists_error(self, error):
        return isinstance(error, TopicAlreadyExistsError)

    def topics(self):
        return self.admin.list_topics()

    def describe_topic(self, name):
        (topic,) = self.admin.describe_topics([name])
        return sorted(
            (p["partition_index"], p["leader_id"], p["replica_nodes"], p["isr_nodes"]) for p in topic["partitions"]
        )

    def describe_configs(self, name):
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        found = self.admin.describe_configs([resource], config_filter="all")
        return {key: entry["value"] for key, entry in found["topic"][name].items()}

    def alter_config(self, name, configs):
        resource = ConfigResource(ConfigResourceType.TOPIC, name, configs)
        answer = self.admin.alter_configs([resource])["topic"][name]
        if isinstance(answer, KafkaError) or (isinstance(answer, str) and answer not in ("OK", "NoError")):
            raise Wrong(f"alter_configs: {answer}")

    def create_partitions(self, name, total):
        self.admin.create_partitions({name: total})

    def delete_records(self, name, partition, before):
        where = TopicPartition(name, partition)
        return self.admin.delete_records({where: before})[where]["low_watermark"]

    def delete_topic(self, name):
        self.admin.delete_topics([name])

    def describe_cluster(self):
        cluster = self.admin.describe_cluster()
        return {
            "id": cluster["cluster_id"],
            "brokers": [(b.get("broker_id", b.get("node_id")), b["host"], b["port"]) for b in cluster["brokers"]],
            "controller": cluster["controller_id"],
        }

    def offsets(self, name, partition):
        where = TopicPartition(name, partition)
        consumer = self.consumer()
        try:
            milliseconds = int(self.timeout * 1000)
            return (
                consumer.beginning_offsets([where], timeout_ms=milliseconds)[where],
                consumer.end_offsets([where], timeout_ms=milliseconds)[where],
            )
        finally:
            consumer.close()

    def offset_for_time(self, name, partition, timestamp):
        where = TopicPartition(name, partition)
        consumer = self.consumer()
        try:
            found = consumer.offsets_for_times({where: timestamp}, timeout_ms=int(self.timeout * 1000))[where]
        finally:
            consumer.close()
        return None if found is None else found.offset

    def producer(self, codec="none", acks="all", idempotent=False, large=False):
        return PythonProducer(self, codec, acks, idempotent, large)

    def reader(self, name, partition, start):
        return PythonReader(self, name, partition, start)

    def member(self, membership):
        return PythonMember(self, membership)

    def groups(self):
        return {group["group_id"]: group["group_state"] for group in self.admin.list_groups()}

    def describe_group(self, group):
        found = self.admin.describe_groups([group])[group]
        if found["error"] is not None and GroupIdNotFoundError.__name__ not in found["error"]:
            raise Wrong(found["error"])
        members = {}
        for member in found["members"]:
            held = member["member_assignment"]["assigned_partitions"]
            members[member["client_id"]] = {(row["topic"], p) for row in held for p in row["partitions"]}
        return found["group_state"], members

    def delete_group(self, group):
        answer = self.admin.delete_groups([group])[group]
        if answer != "OK":
            raise getattr(kafka.errors, answer)()

    def committed(self, group, place):
        where = TopicPartition(*place)
        found = self.admin.list_group_offsets({group: [where]})[group][where]
        return None if found.offset < 0 else (found.offset, found.metadata)

    def set_offsets(self, group, offsets):
        rows = {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
        self.must_be_ok(self.admin.alter_group_offsets(group, rows))

    def delete_offsets(self, group, places):
        self.must_be_ok(self.admin.delete_group_offsets(group, [TopicPartition(*place) for place in places]))

    @staticmethod
    def must_be_ok(answers):
        for error in answers.values():
            if error is not NoError:
                raise error()

    def error_name(self, error):
        # The commit of a consumer is refused with an error around the broker's.
        cause = error.__cause__ if getattr(error, "errno", None) is None and error.__cause__ else error
        return getattr(cause, "message", None) or type(cause).__name__

    def close(self):
        if self.opened is not None:
            self.opened.close()


if __name__ == "__main__":
    suite.main("kafka-python", kafka.__version__, KafkaPython, groups.Suite)
