"""The named checks, written once for every client that Python can drive.

A client's file (`check_*.py`) adapts its library to `Client` and calls `main`. Standard library only, so that kcat
needs no installed package. Not a test framework: it prints one JSON line per check for `cargo xtask compat`
(`xtask/src/compat.rs`); the lines are described in ../README.md. The Go, Java and JavaScript programs do the same
checks.
"""

import argparse
import json
import random
import sys
import time
import traceback
from contextlib import closing
from typing import NamedTuple

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ACKS = ("0", "1", "all")
EARLIEST = "earliest"
LATEST = "latest"
BATCH = 50
ATTEMPTS = 3  # at checks for which a client is `unreliable`


class NotAvailable(Exception):
    """The client cannot do this at all; the reason is shown in the table."""


class Wrong(Exception):
    """What came back is not what was expected."""


class Record(NamedTuple):
    value: bytes | None
    key: bytes | None = None
    headers: tuple = ()
    timestamp: int | None = None  # ms since 1970; None: the client chooses


class Client:
    """What a client's file implements. Every call blocks, and raises on failure or after `timeout` seconds."""

    # What the library's own interface cannot express.
    sets_timestamps = True
    null_header_values = True
    impossible = ()  # pairs of key and value
    values_above_1mb = True
    unreliable = {}  # check: what the library does wrong now and then, whatever the broker

    def __init__(self, bootstrap, timeout):
        self.bootstrap = bootstrap
        self.timeout = timeout

    def create_topic(self, name, partitions, configs):
        raise NotImplementedError

    def exists_error(self, error):
        """Whether `error` says that the topic exists already."""
        raise NotImplementedError

    def topics(self):
        """Names of all topics."""
        raise NotImplementedError

    def describe_topic(self, name):
        """[(partition, leader, replicas, in-sync replicas)], in order."""
        raise NotImplementedError

    def describe_configs(self, name):
        """{config name: value} of the topic, defaults included."""
        raise NotImplementedError

    def alter_config(self, name, configs):
        raise NotImplementedError

    def create_partitions(self, name, total):
        raise NotImplementedError

    def delete_records(self, name, partition, before):
        """Returns the new low watermark, or None if the client does not tell."""
        raise NotImplementedError

    def delete_topic(self, name):
        raise NotImplementedError

    def describe_cluster(self):
        """{"id": str or None, "brokers": [(id, host, port)], "controller": int or None}"""
        raise NotImplementedError

    def offsets(self, name, partition):
        """(earliest, latest)"""
        raise NotImplementedError

    def offset_for_time(self, name, partition, timestamp):
        """The first offset at or after a time, or None. (The end offset is None, too.)"""
        raise NotImplementedError

    def producer(self, codec="none", acks="all", idempotent=False, large=False):
        """An object with send(topic, partition, records) -> [offset] or None, which awaits the acks, and close().
        One call of send is one batch, unless large."""
        raise NotImplementedError

    def reader(self, name, partition, start):
        """An object with read(count) -> [(offset, Record)], which raises when `count` do not come in time,
        quiet(seconds) -> [(offset, Record)] that came meanwhile, and close(). start: an offset, EARLIEST or LATEST;
        LATEST is resolved when this returns."""
        raise NotImplementedError

    def reader_at_time(self, name, partition, timestamp):
        offset = self.offset_for_time(name, partition, timestamp)
        if offset is None:
            raise Wrong(f"no offset at or after {timestamp}")
        return self.reader(name, partition, offset)

    def close(self):
        pass


def equal(what, got, want):
    if got != want:
        raise Wrong(f"{what}: got {short(got)}, expected {short(want)}")


def short(value):
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:120]}... ({len(text)} characters)"


def same_records(got, want, first=0):
    """Every offset, key, value, header and given timestamp, in order, nothing missing and nothing more."""
    equal("offsets", [offset for offset, _ in got], list(range(first, first + len(want))))
    for (offset, have), expect in zip(got, want):
        equal(f"key at {offset}", have.key, expect.key)
        equal(f"value at {offset}", have.value, expect.value)
        equal(f"headers at {offset}", tuple(have.headers), tuple(expect.headers))
        if expect.timestamp is not None:
            equal(f"timestamp at {offset}", have.timestamp, expect.timestamp)


def batch(tag, count=BATCH, timestamps=True, first=0):
    """`count` records that compress well and are all different, one second apart, an hour ago."""
    base = (int(time.time()) - 3600) * 1000
    return [
        Record(
            value=(f"{tag} value {i} " + "the same words again and again, " * 6).encode(),
            key=f"{tag} key {i}".encode(),
            timestamp=base + i * 1000 if timestamps else None,
        )
        for i in range(first, first + count)
    ]


def incompressible(size, seed):
    """`size` bytes that no codec shrinks, the same for the same seed."""
    return random.Random(seed).randbytes(size)


class Suite:
    def __init__(self, client, prefix):
        self.client = client
        self.prefix = prefix

    def new_topic(self, name, partitions=1, **configs):
        topic = f"{self.prefix}-{name}"
        self.client.create_topic(topic, partitions, configs)
        # Kafka answers when its controller knows the topic, which may be before the broker does.
        deadline = time.monotonic() + self.client.timeout
        while True:
            try:
                equal("partitions", len(self.client.describe_topic(topic)), partitions)
                return topic
            except Exception:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def write(self, topic, records, **options):
        with closing(self.client.producer(**options)) as producer:
            offsets = producer.send(topic, 0, records)
        if offsets is not None and options.get("acks") != "0":
            equal("acknowledged offsets", offsets, list(range(len(records))))

    def read(self, topic, start, count):
        with closing(self.client.reader(topic, 0, start)) as reader:
            return reader.read(count)

    def filled(self, name):
        """A topic with one compressed batch, and its records."""
        records = batch(name, timestamps=self.client.sets_timestamps)
        topic = self.new_topic(name)
        self.write(topic, records, codec="gzip")
        return topic, records

    # The checks, in the order of the table.

    def topic_create(self):
        topic = self.new_topic("create", 3, **{"retention.ms": "86400000"})
        equal("partitions", [row[0] for row in self.client.describe_topic(topic)], [0, 1, 2])
        equal("retention.ms", self.client.describe_configs(topic).get("retention.ms"), "86400000")
        try:
            self.client.create_topic(topic, 3, {})
        except Exception as error:
            if self.client.exists_error(error):
                return "3 partitions, its config, and refused the second time"
            raise
        raise Wrong("created a second time")

    def produce(self, codec, acks):
        topic = self.new_topic(f"produce-{codec}-{acks}")
        records = batch(f"{codec}/{acks}", timestamps=self.client.sets_timestamps)
        self.write(topic, records, codec=codec, acks=acks)
        same_records(self.read(topic, 0, BATCH), records)
        return f"{BATCH} records"

    def idempotent(self):
        topic = self.new_topic("idempotent")
        records = batch("idempotent", BATCH * 8, timestamps=self.client.sets_timestamps)
        with closing(self.client.producer(idempotent=True)) as producer:
            for i in range(0, len(records), BATCH):
                producer.send(topic, 0, records[i : i + BATCH])
        same_records(self.read(topic, 0, len(records)), records)
        return f"{len(records)} records in 8 batches"

    def headers(self):
        topic = self.new_topic("headers")
        records = [
            Record(b"one", b"k", (("a", b"1"),)),
            Record(b"order and repetition", b"k", (("b", b"1"), ("a", b"2"), ("b", b"3"))),
            Record(b"empty value", b"k", (("empty", b""),)),
            Record(b"null value", b"k", (("null", None),)),
            Record(b"not ASCII", b"k", (("ключ", "значение".encode()), ("bytes", bytes(range(0x80, 0x100))))),
            Record(b"none", b"k", ()),
        ]
        if not self.client.null_header_values:
            del records[3]
        self.write(topic, records)
        same_records(self.read(topic, 0, len(records)), records)
        return f"{len(records)} records" + ("" if len(records) == 6 else ", no null value: the client refuses it")

    def null_empty(self):
        topic = self.new_topic("null-empty")
        pairs = [(key, value) for key in (None, b"", b"k") for value in (None, b"", b"v")]
        records = [Record(value, key) for key, value in pairs if (key, value) not in self.client.impossible]
        self.write(topic, records)
        same_records(self.read(topic, 0, len(records)), records)
        but = f"; the client cannot express {list(self.client.impossible)}" if self.client.impossible else ""
        return f"{len(records)} of 9 pairs of null, empty and filled key and value" + but

    def large(self):
        topic = self.new_topic("large", **{"max.message.bytes": "4194304"})
        sizes = (1_000_000, 10, 2_000_000 if self.client.values_above_1mb else 20, 1_000_000)
        records = [Record(incompressible(size, size), b"k") for size in sizes]
        self.write(topic, records, large=True)
        same_records(self.read(topic, 0, len(records)), records)
        return f"values of {', '.join(str(size) for size in sizes)} bytes"

    def consume_start(self):
        topic, records = self.filled("start")
        same_records(self.read(topic, EARLIEST, BATCH), records)
        return f"{BATCH} records"

    def consume_middle(self):
        topic, records = self.filled("middle")
        for start in (1, 23, BATCH - 1):
            same_records(self.read(topic, start, BATCH - start), records[start:], start)
        return f"from 1, 23 and {BATCH - 1} of {BATCH}"

    def consume_timestamp(self):
        client = self.client
        if not client.sets_timestamps:
            topic = self.new_topic("timestamp")
            with closing(client.producer(codec="gzip")) as producer:
                producer.send(topic, 0, batch("early", timestamps=False))
            time.sleep(0.05)
            middle = int(time.time() * 1000)
            time.sleep(0.05)
            late = batch("late", timestamps=False)
            with closing(client.producer(codec="gzip")) as producer:
                producer.send(topic, 0, late)
            with closing(client.reader_at_time(topic, 0, middle)) as reader:
                same_records(reader.read(BATCH), late, BATCH)
            return "between two batches"
        topic, records = self.filled("timestamp")
        for target, expect in (
            (records[0].timestamp - 1, 0),
            (records[0].timestamp, 0),
            (records[20].timestamp, 20),
            (records[20].timestamp + 1, 21),
            (records[BATCH - 1].timestamp, BATCH - 1),
            (records[BATCH - 1].timestamp + 1, None),
        ):
            equal(f"offset at {target}", client.offset_for_time(topic, 0, target), expect)
        with closing(client.reader_at_time(topic, 0, records[20].timestamp - 500)) as reader:
            same_records(reader.read(BATCH - 20), records[20:], 20)
        return "before, at, between and after, inside one compressed batch"

    def consume_end(self):
        topic, _ = self.filled("end")
        new = batch("new", 1, timestamps=False)
        with closing(self.client.reader(topic, 0, LATEST)) as reader:
            equal("records before anything new", reader.quiet(0.5), [])
            with closing(self.client.producer()) as producer:
                producer.send(topic, 0, new)
            same_records(reader.read(1), new, BATCH)
            equal("records after it", reader.quiet(0.2), [])
        return "nothing, then the new record"

    def describe_topic(self):
        topic = self.new_topic("describe", 4)
        rows = self.client.describe_topic(topic)
        brokers = {row[0] for row in self.client.describe_cluster()["brokers"]}
        equal("partitions", [row[0] for row in rows], [0, 1, 2, 3])
        for partition, leader, replicas, in_sync in rows:
            if leader not in brokers or leader not in replicas or leader not in in_sync:
                raise Wrong(f"partition {partition}: leader {leader}, replicas {replicas}, in sync {in_sync}")
        if topic not in self.client.topics():
            raise Wrong("not in the list of topics")
        return "4 partitions with leader, replicas and in-sync replicas"

    def describe_configs(self):
        topic = self.new_topic("configs", **{"max.message.bytes": "2000000"})
        configs = self.client.describe_configs(topic)
        equal("max.message.bytes", configs.get("max.message.bytes"), "2000000")
        equal("cleanup.policy", configs.get("cleanup.policy"), "delete")
        if len(configs) < 25:
            raise Wrong(f"only {len(configs)} configs: {sorted(configs)}")
        return f"{len(configs)} configs"

    def alter_configs(self):
        topic = self.new_topic("alter")
        self.client.alter_config(topic, {"retention.ms": "123456789", "max.message.bytes": "3000000"})
        deadline = time.monotonic() + self.client.timeout
        while True:  # Kafka answers before each broker has applied the change.
            configs = self.client.describe_configs(topic)
            if configs.get("retention.ms") == "123456789" or time.monotonic() > deadline:
                break
        equal("retention.ms", configs.get("retention.ms"), "123456789")
        equal("max.message.bytes", configs.get("max.message.bytes"), "3000000")
        try:
            self.client.alter_config(topic, {"retention.ms": "soon"})
        except Exception as error:
            self.must_be_refusal(error)
            return "changed two; a wrong value refused"
        raise Wrong("retention.ms=soon was accepted")

    def must_be_refusal(self, error):
        text = f"{type(error).__name__} {error}".lower()
        if "invalid" not in text and "not a number" not in text:
            raise error

    def create_partitions(self):
        topic = self.new_topic("partitions", 1)
        self.client.create_partitions(topic, 5)
        deadline = time.monotonic() + self.client.timeout
        while len(rows := self.client.describe_topic(topic)) != 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        equal("partitions", [row[0] for row in rows], [0, 1, 2, 3, 4])
        records = batch("partitions", 3)
        with closing(self.client.producer()) as producer:
            producer.send(topic, 4, records)
        with closing(self.client.reader(topic, 4, 0)) as reader:
            same_records(reader.read(3), records)
        return "1 to 5, and the fifth written and read"

    def delete_records(self):
        topic, records = self.filled("delete-records")
        low = self.client.delete_records(topic, 0, 20)
        if low is not None:
            equal("low watermark", low, 20)
        equal("offsets", self.client.offsets(topic, 0), (20, BATCH))
        same_records(self.read(topic, EARLIEST, BATCH - 20), records[20:], 20)
        return "20 of 50 gone, the other 30 read"

    def delete_topic(self):
        topic = self.new_topic("delete-topic")
        self.client.delete_topic(topic)
        deadline = time.monotonic() + self.client.timeout
        while topic in self.client.topics():
            if time.monotonic() > deadline:
                raise Wrong("still in the list of topics")
            time.sleep(0.05)
        return "gone from the list"

    def describe_cluster(self):
        cluster = self.client.describe_cluster()
        host, port = self.client.bootstrap.rsplit(":", 1)
        addresses = [(row[1], row[2]) for row in cluster["brokers"]]
        if (host, int(port)) not in addresses:
            raise Wrong(f"{host}:{port} is not among {addresses}")
        if cluster["id"] is not None and len(cluster["id"]) < 8:
            raise Wrong(f"cluster id {cluster['id']!r}")
        if cluster["controller"] is not None and cluster["controller"] not in [row[0] for row in cluster["brokers"]]:
            raise Wrong(f"controller {cluster['controller']} is not among the brokers")
        return f"cluster {cluster['id']}, {len(addresses)} broker"

    def restart_records(self, how):
        return batch(f"restart-{how}", 60, timestamps=self.client.sets_timestamps)

    def restart_broker(self, how):
        """Has the runner restart the broker, and returns when that is done."""
        print("RESTART", how, flush=True)
        answer = sys.stdin.readline().strip()
        if answer != "RESTARTED":
            raise NotAvailable(answer or "the runner did not restart the broker")

    def restart(self, how):
        client = self.client
        topic = self.new_topic(f"restart-{how}")
        records = self.restart_records(how)
        with closing(client.producer()) as producer, closing(client.reader(topic, 0, 0)) as reader:
            producer.send(topic, 0, records[:20])
            same_records(reader.read(20), records[:20])
            self.restart_broker(how)
            producer.send(topic, 0, records[20:40])
            same_records(reader.read(20), records[20:40], 20)
            producer.send(topic, 0, records[40:])
            same_records(reader.read(20), records[40:], 40)
        same_records(self.read(topic, 0, 60), records)
        try:
            equal("partitions", [row[0] for row in client.describe_topic(topic)], [0])
        except NotAvailable:
            pass
        return "the same producer and reader go on; all 60 records read again"

    def checks(self):
        yield "topic.create", self.topic_create
        for codec in CODECS:
            for acks in ACKS:
                yield f"produce.{codec}.{acks}", lambda codec=codec, acks=acks: self.produce(codec, acks)
        yield "produce.idempotent", self.idempotent
        yield "records.headers", self.headers
        yield "records.null_empty", self.null_empty
        yield "records.1mb", self.large
        yield "consume.start", self.consume_start
        yield "consume.middle", self.consume_middle
        yield "consume.timestamp", self.consume_timestamp
        yield "consume.end", self.consume_end
        yield "admin.describe_topic", self.describe_topic
        yield "admin.describe_configs", self.describe_configs
        yield "admin.alter_configs", self.alter_configs
        yield "admin.create_partitions", self.create_partitions
        yield "admin.delete_records", self.delete_records
        yield "admin.delete_topic", self.delete_topic
        yield "admin.describe_cluster", self.describe_cluster
        yield "restart.clean", lambda: self.restart("clean")
        yield "restart.kill", lambda: self.restart("kill")


def say(**line):
    print(json.dumps(line), flush=True)


def main(name, version, make, suite=Suite):
    """`make(bootstrap, timeout)` is called anew for each check: one broken client object cannot spoil the next."""
    parser = argparse.ArgumentParser(description=f"Compatibility checks with {name}")
    parser.add_argument("bootstrap", help="HOST:PORT of the broker")
    parser.add_argument("--prefix", default="compat", help="what the names of all topics begin with")
    parser.add_argument("--timeout", type=float, default=30, help="seconds that one call may take")
    parser.add_argument("--only", default="", help="run only checks whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="tracebacks on standard error")
    parser.add_argument("--member", help="be the member of a group that a check kills (groups.py)")
    options = parser.parse_args()
    if options.member:
        suite.be_member(make(options.bootstrap, options.timeout), options.member)
    say(client=name, version=version)
    for check, run in suite(None, None).checks():
        if options.only in check:
            one(check, options, make, suite)


def one(check, options, make, suite, attempt=1):
    client, again = None, None
    try:
        client = make(options.bootstrap, options.timeout)
        prefix = options.prefix if attempt == 1 else f"{options.prefix}-{attempt}"
        detail = dict(suite(client, prefix).checks())[check]()
        say(check=check, ok=True, detail=detail if attempt == 1 else f"{detail}; at attempt {attempt}")
    except NotAvailable as reason:
        say(check=check, na=str(reason))
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        again = client is not None and attempt < ATTEMPTS and client.unreliable.get(check)
        if again:
            print(f"{check}: {error}; tried again, since the client {again}", file=sys.stderr)
        else:
            say(check=check, ok=False, detail=f"{type(error).__name__}: {error}"[:400])
    finally:
        try:
            if client is not None:
                client.close()
        except Exception as error:
            print(f"{check}: closing: {error!r}", file=sys.stderr)
    if again:
        one(check, options, make, suite, attempt + 1)
