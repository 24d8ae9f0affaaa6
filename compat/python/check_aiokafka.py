"""aiokafka: the asyncio client. Runs the checks of `suite.py`, each call run to its end on one event loop."""

import asyncio

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, TopicAlreadyExistsError, for_code
from aiokafka.structs import OffsetAndMetadata

import groups
import suite
from suite import NotAvailable, Record, Wrong


class AioProducer:
    def __init__(self, client, codec, acks, idempotent, large):
        self.client = client

        async def start():
            producer = AIOKafkaProducer(
                **client.config,
                compression_type=None if codec == "none" else codec,
                acks=acks if acks == "all" else int(acks),
                enable_idempotence=idempotent,
                linger_ms=50,  # one batch per send
                max_batch_size=1_000_000,
                max_request_size=8_000_000 if large else 1_048_576,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            return producer

        self.producer = client.run(start())

    def send(self, topic, partition, records):
        async def send():
            futures = [
                await self.producer.send(
                    topic, r.value, r.key, partition, headers=list(r.headers), timestamp_ms=r.timestamp
                )
                for r in records
            ]
            return [report and report.offset for report in await asyncio.gather(*futures)]

        return self.client.run(send())

    def close(self):
        self.client.run(self.producer.stop())


class AioReader:
    def __init__(self, client, topic, partition, start):
        self.client = client
        where = TopicPartition(topic, partition)

        async def open_at():
            consumer = AIOKafkaConsumer(
                **client.config,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=8_000_000,
            )
            try:
                await consumer.start()
                consumer.assign([where])
                if start == suite.EARLIEST:
                    await consumer.seek_to_beginning(where)
                elif start == suite.LATEST:
                    await consumer.seek_to_end(where)
                    await consumer.position(where)
                else:
                    consumer.seek(where, start)
            except BaseException:
                await consumer.stop()
                raise
            return consumer

        self.consumer = client.run(open_at())

    async def poll(self, seconds, count):
        got = []
        try:
            async with asyncio.timeout(seconds):
                while len(got) < count:
                    m = await self.consumer.getone()
                    got.append((m.offset, Record(m.value, m.key, tuple(m.headers or ()), m.timestamp)))
        except TimeoutError:
            pass
        return got

    def read(self, count):
        got = self.client.loop.run_until_complete(self.poll(self.client.timeout, count))
        if len(got) < count:
            raise Wrong(f"{len(got)} of {count} records within {self.client.timeout} s")
        return got

    def quiet(self, seconds):
        return self.client.loop.run_until_complete(self.poll(seconds, 1 << 30))

    def close(self):
        self.client.run(self.consumer.stop())


def commits(offsets):
    return {TopicPartition(*place): OffsetAndMetadata(*row) for place, row in offsets.items()}


class AioMember(groups.Member, ConsumerRebalanceListener):
    def __init__(self, client, membership):
        super().__init__()
        self.client = client

        async def open_and_subscribe():
            consumer = AIOKafkaConsumer(
                **client.config,
                client_id=membership.client_id,
                group_id=membership.group,
                group_instance_id=membership.instance,
                session_timeout_ms=membership.session * 1000,
                rebalance_timeout_ms=60_000,
                heartbeat_interval_ms=500,
                metadata_max_age_ms=int(groups.REFRESH * 1000),
                partition_assignment_strategy=[RangePartitionAssignor],
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                fetch_max_wait_ms=100,
            )
            consumer.subscribe(list(membership.topics), listener=self)
            try:
                # Returns when the group has given it places, which needs the other members, which step meanwhile.
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            return consumer

        self.consumer = client.run(open_and_subscribe())

    async def on_partitions_assigned(self, assigned):
        self.gain((p.topic, p.partition) for p in assigned)

    async def on_partitions_revoked(self, revoked):
        self.lose((p.topic, p.partition) for p in revoked)

    def step(self):
        for where, messages in self.client.run(self.consumer.getmany(timeout_ms=50)).items():
            for m in messages:
                record = Record(m.value, m.key, tuple(m.headers or ()), m.timestamp)
                self.got.append(((where.topic, where.partition), m.offset, record))

    def commit(self, offsets):
        self.client.run(self.consumer.commit(commits(offsets)))

    def leave(self):
        self.client.run(self.consumer.stop())


class AioKafka(groups.Client):
    no_consumer_protocol = "aiokafka speaks only the classic group protocol"
    no_cooperative = "aiokafka has no cooperative assignor"
    impossible = ((None, None),)

    def __init__(self, bootstrap, timeout):
        super().__init__(bootstrap, timeout)
        self.config = {"bootstrap_servers": bootstrap, "request_timeout_ms": int(timeout * 1000)}
        self.loop = asyncio.new_event_loop()
        self.opened = None

    def run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, self.timeout * 1.5))

    def admin(self, call, *arguments):
        async def open_and_call():
            if self.opened is None:
                admin = AIOKafkaAdminClient(**self.config)
                await admin.start()
                self.opened = admin
            return await getattr(self.opened, call)(*arguments)

        return self.run(open_and_call())

    @staticmethod
    def must_be_ok(rows):
        """Rows of (name, error code, message...)."""
        for name, code, *message in rows:
            if code:
                raise for_code(code)(f"{name}: {message}")

    def create_topic(self, name, partitions, configs):
        topic = NewTopic(name, partitions, 1, topic_configs=configs)
        self.must_be_ok(self.admin("create_topics", [topic]).topic_errors)

    def exists_error(self, error):
        return isinstance(error, TopicAlreadyExistsError)

    def topics(self):
        return self.admin("list_topics")

    def describe_topic(self, name):
        (topic,) = self.admin("describe_topics", [name])
        return sorted((p["partition"], p["leader"], p["replicas"], p["isr"]) for p in topic["partitions"])

    def describe_configs(self, name):
        (answer,) = self.admin("describe_configs", [ConfigResource(ConfigResourceType.TOPIC, name)])
        (resource,) = answer.to_object()["resources"]
        if resource["error_code"]:
            raise for_code(resource["error_code"])(resource["error_message"])
        return {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}

    def alter_config(self, name, configs):
        (answer,) = self.admin("alter_configs", [ConfigResource(ConfigResourceType.TOPIC, name, configs)])
        for code, message, *_ in answer.resources:
            if code:
                raise for_code(code)(message)

    def create_partitions(self, name, total):
        self.admin("create_partitions", {name: NewPartitions(total)})

    def delete_records(self, name, partition, before):
        where = TopicPartition(name, partition)
        return self.admin("delete_records", {where: RecordsToDelete(before_offset=before)})[where]

    def delete_topic(self, name):
        self.must_be_ok(self.admin("delete_topics", [name]).topic_error_codes)

    def describe_cluster(self):
        cluster = self.admin("describe_cluster")
        return {
            "id": cluster["cluster_id"],
            "brokers": [(b["node_id"], b["host"], b["port"]) for b in cluster["brokers"]],
            "controller": cluster["controller_id"],
        }

    def ask(self, call, argument):
        async def ask():
            consumer = AIOKafkaConsumer(**self.config, group_id=None, enable_auto_commit=False)
            try:
                await consumer.start()
                return await getattr(consumer, call)(argument)
            finally:
                await consumer.stop()

        return self.run(ask())

    def offsets(self, name, partition):
        where = TopicPartition(name, partition)
        return self.ask("beginning_offsets", [where])[where], self.ask("end_offsets", [where])[where]

    def offset_for_time(self, name, partition, timestamp):
        where = TopicPartition(name, partition)
        found = self.ask("offsets_for_times", {where: timestamp})[where]
        return None if found is None else found.offset

    def producer(self, codec="none", acks="all", idempotent=False, large=False):
        return AioProducer(self, codec, acks, idempotent, large)

    def reader(self, name, partition, start):
        return AioReader(self, name, partition, start)

    def member(self, membership):
        return AioMember(self, membership)

    def groups(self):
        return {group: None for group, _ in self.admin("list_consumer_groups")}

    def describe_group(self, group):
        ((found,),) = [answer.groups for answer in self.admin("describe_consumer_groups", [group])]
        code, name, state, kind, protocol, rows, *_ = found
        if code:
            raise for_code(code)(name)
        members = {}
        for row in rows:
            client_id, assignment = (row[2], row[5]) if len(row) == 6 else (row[1], row[4])
            held = ConsumerProtocolMemberAssignment.decode(assignment)
            members[client_id] = {(p.topic, p.partition) for p in held.partitions()}
        return state, members

    def delete_group(self, group):
        raise NotAvailable("aiokafka has no call that deletes groups")

    def committed(self, group, place):
        where = TopicPartition(*place)
        found = self.admin("list_consumer_group_offsets", group, None, [where])[where]
        return None if found.offset < 0 else (found.offset, found.metadata)

    def set_offsets(self, group, offsets):
        """There is no admin call; a consumer that is assigned its partitions commits without being a member."""

        async def commit():
            consumer = AIOKafkaConsumer(**self.config, group_id=group, enable_auto_commit=False)
            try:
                await consumer.start()
                consumer.assign([TopicPartition(*place) for place in offsets])
                await consumer.commit(commits({place: (offset, "") for place, offset in offsets.items()}))
            finally:
                await consumer.stop()

        self.run(commit())

    def delete_offsets(self, group, places):
        raise NotAvailable("aiokafka has no call that deletes offsets")

    def error_name(self, error):
        # A consumer's commit fails with an error around the broker's.
        cause = error.__cause__ if isinstance(error, CommitFailedError) else error
        return getattr(cause, "message", type(cause).__name__)

    def close(self):
        if self.opened is not None:
            self.run(self.opened.close())
        self.loop.close()


if __name__ == "__main__":
    suite.main("aiokafka", aiokafka.__version__, AioKafka, groups.Suite)
