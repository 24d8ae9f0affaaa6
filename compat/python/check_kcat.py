"""kcat, the command line over librdkafka, as Debian ships it. Runs the checks of `suite.py` that kcat can do.

kcat has no admin commands: topics are created by the broker when kcat first asks for them, with one partition. A group
has several topics therefore, found by a pattern.
"""

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time

import groups
import suite
from suite import NotAvailable, Record, Wrong

NO_ADMIN = "kcat has no such command"


def headers_of(line):
    """kcat prints headers as key=value,... (a null value as NULL)."""
    if not line:
        return ()
    pairs = (item.split(b"=", 1) for item in line.split(b","))
    return tuple((key.decode(), None if value == b"NULL" else value) for key, value in pairs)


class KcatProducer:
    """One `kcat -P` that reads lines, as long as the records are plain ones; else one process per record."""

    def __init__(self, client, codec, acks, large):
        self.client = client
        self.options = ["-X", f"acks={acks}", "-X", "linger.ms=200", "-X", "batch.size=2000000", "-z", codec]
        if large:
            self.options += ["-X", "message.max.bytes=8000000"]
        self.large = large
        self.running = None

    def start(self, topic, partition, *options):
        command = ["-P", "-t", topic, "-p", str(partition), *self.options, *options]
        return self.client.start(command, stdin=subprocess.PIPE)

    def send(self, topic, partition, records):
        plain = all(r.key and r.value and not r.headers and b"\n" not in r.value for r in records)
        if plain and not self.large:
            if self.running is None:
                self.running = self.start(topic, partition, "-K", "\t")
            for record in records:
                self.running.stdin.write(record.key + b"\t" + record.value + b"\n")
            self.running.stdin.flush()
            return None
        for record in records:
            self.send_alone(topic, partition, record)
        return None

    def send_alone(self, topic, partition, record):
        options = []
        for key, value in record.headers:
            options += ["-H", key if value is None else os.fsencode(key) + b"=" + value]
        if not record.value:
            # Only a line with a key delimiter can be an empty message; -Z turns every empty part into null.
            options += ["-K", "\t"] + (["-Z"] if record.value is None else [])
            line = (record.key or b"") + b"\t\n"
            return finish(self.start(topic, partition, *options), self.client.timeout, line)
        if record.key == b"":
            line = b"\t" + record.value + b"\n"
            return finish(self.start(topic, partition, *options, "-K", "\t"), self.client.timeout, line)
        if record.key is not None:
            options += ["-k", record.key]
        # A file is one message, whatever is in it.
        with tempfile.NamedTemporaryFile() as file:
            file.write(record.value)
            file.flush()
            return finish(self.start(topic, partition, *options, file.name), self.client.timeout, None)

    def close(self):
        if self.running is not None:
            finish(self.running, self.client.timeout, b"")


def finish(process, timeout, data):
    try:
        _, errors = process.communicate(data, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
        raise Wrong(f"kcat did not finish within {timeout} s: {errors.decode()[-200:]}") from None
    if process.returncode:
        raise Wrong(f"kcat ended with {process.returncode}: {errors.decode()[-200:]}")


class KcatOutput:
    # With lengths, so that any bytes can follow; -1 is null.
    FORMAT = "%t %p %o %T %K %S %h\n%k%s\n"

    def __init__(self, process):
        self.process = process
        self.out = b""
        self.err = b""
        os.set_blocking(process.stdout.fileno(), False)
        os.set_blocking(process.stderr.fileno(), False)

    def more(self, deadline):
        """Waits for more output; False at the deadline or when kcat has ended."""
        streams = [self.process.stdout, self.process.stderr]
        ready, _, _ = select.select(streams, [], [], max(0, deadline - time.monotonic()))
        ended = False
        for stream in ready:
            data = stream.read() or b""
            ended |= stream is self.process.stdout and not data
            if stream is self.process.stdout:
                self.out += data
            else:
                self.err += data
        return bool(ready) and not ended

    def parse(self):
        """The next record that is there as a whole: (place, offset, Record), or None."""
        head, newline, rest = self.out.partition(b"\n")
        if not newline:
            return None
        topic, partition, offset, timestamp, key, value, headers = head.split(b" ", 6)
        key, value = int(key), int(value)
        size = max(key, 0) + max(value, 0)
        if len(rest) < size + 1:
            return None
        middle = max(key, 0)
        record = Record(
            rest[middle:size] if value >= 0 else None,
            rest[:middle] if key >= 0 else None,
            headers_of(headers),
            int(timestamp),
        )
        if rest[size : size + 1] != b"\n":
            raise Wrong("kcat's output does not have the lengths that it says")
        self.out = rest[size + 1 :]
        return (topic.decode(), int(partition)), int(offset), record


class KcatReader(KcatOutput):

    def __init__(self, client, topic, partition, start):
        self.timeout = client.timeout
        where = {suite.EARLIEST: "beginning", suite.LATEST: "end"}.get(start, str(start))
        command = ["-C", "-t", topic, "-p", str(partition), "-o", where, "-u", "-f", self.FORMAT]
        command += ["-X", "fetch.wait.max.ms=100", "-X", "fetch.message.max.bytes=8000000", "-X", "check.crcs=true"]
        super().__init__(client.start(command, stdin=subprocess.DEVNULL))
        if start == suite.LATEST:
            deadline = time.monotonic() + self.timeout
            while b"Reached end" not in self.err:
                if not self.more(deadline):
                    raise Wrong(f"kcat never reached the end: {self.err.decode()[-200:]}")

    def poll(self, seconds, count):
        got = []
        deadline = time.monotonic() + seconds
        while len(got) < count:
            parsed = self.parse()
            if parsed is not None:
                got.append(parsed[1:])
            elif not self.more(deadline):
                break
        return got

    def read(self, count):
        got = self.poll(self.timeout, count)
        if len(got) < count:
            raise Wrong(f"{len(got)} of {count} records within {self.timeout} s: {self.err.decode()[-200:]}")
        return got

    def quiet(self, seconds):
        return self.poll(seconds, 1 << 30)

    def close(self):
        self.process.kill()
        self.process.communicate()


class KcatMember(groups.Member):
    REBALANCE = re.compile(rb"% Group \S+ rebalanced.*?(assign|revo).*: (.*)\n")

    def __init__(self, client, membership):
        super().__init__()
        pattern = membership.topics[0].removesuffix("0")
        settings = {
            "session.timeout.ms": membership.session * 1000,
            "heartbeat.interval.ms": 500,
            "topic.metadata.refresh.interval.ms": int(groups.REFRESH * 1000),
            "partition.assignment.strategy": "cooperative-sticky" if membership.cooperative else "roundrobin",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
        }
        if membership.instance:
            settings["group.instance.id"] = membership.instance
        command = [text for key, value in settings.items() for text in ("-X", f"{key}={value}")]
        command += ["-u", "-f", KcatOutput.FORMAT, "-G", membership.group, f"^{pattern}[0-9]$"]
        self.timeout = client.timeout
        self.output = KcatOutput(client.start(command, stdin=subprocess.DEVNULL))

    def step(self):
        self.output.more(time.monotonic() + 0.05)
        while (line := self.output.err.partition(b"\n"))[1]:
            self.output.err = line[2]
            if said := self.REBALANCE.match(line[0] + b"\n"):
                places = [place.rsplit(" ", 1) for place in said[2].decode().split(", ") if place]
                places = [(topic, int(partition.strip("[]"))) for topic, partition in places]
                (self.gain if said[1] == b"assign" else self.lose)(places)
        while (parsed := self.output.parse()) is not None:
            self.got.append(parsed)

    def commit(self, offsets):
        """kcat commits what it has printed when partitions are taken from it and when it ends; it cannot be told to."""

    def leave(self):
        self.output.process.terminate()
        self.output.process.communicate(timeout=self.timeout)


class Kcat(groups.Client):
    no_consumer_protocol = "kcat's librdkafka is older than the new group protocol"
    no_describe = NO_ADMIN
    tells_commits = False
    sets_timestamps = False
    impossible = ((None, b""), (b"", None))
    values_above_1mb = False

    def start(self, command, stdin):
        milliseconds = int(self.timeout * 1000)
        limits = ["-X", f"message.timeout.ms={milliseconds}", "-X", "reconnect.backoff.max.ms=500"]
        return subprocess.Popen(
            ["kcat", "-E", "-b", self.bootstrap, "-m", str(max(1, int(self.timeout))), *limits, *command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def metadata(self, *options):
        process = self.start(["-L", "-J", *options], subprocess.DEVNULL)
        out, errors = process.communicate(timeout=self.timeout + 5)
        if process.returncode:
            raise Wrong(f"kcat -L ended with {process.returncode}: {errors.decode()[-200:]}")
        return json.loads(out)

    def create_topic(self, name, partitions, configs):
        deadline = time.monotonic() + self.timeout
        while not self.describe_topic(name):
            if time.monotonic() > deadline:
                raise Wrong("the topic was not created automatically")
            time.sleep(0.1)

    def topics(self):
        return [topic["topic"] for topic in self.metadata()["topics"]]

    def describe_topic(self, name):
        """Empty while there is no such topic; kcat's question makes the broker create it."""
        rows = []
        for topic in self.metadata("-t", name)["topics"]:
            for p in topic["partitions"]:
                if "error" not in p:
                    ids = [[node["id"] for node in p[kind]] for kind in ("replicas", "isrs")]
                    rows.append((p["partition"], p["leader"], *ids))
        return sorted(rows)

    def describe_cluster(self):
        found = self.metadata()
        brokers = [(b["id"], *b["name"].rsplit(":", 1)) for b in found["brokers"]]
        return {
            "id": None,
            "brokers": [(node, host, int(port)) for node, host, port in brokers],
            "controller": found.get("controllerid"),
        }

    def producer(self, codec="none", acks="all", idempotent=False, large=False):
        producer = KcatProducer(self, codec, acks, large)
        if idempotent:
            producer.options += ["-X", "enable.idempotence=true"]
        return producer

    def reader(self, name, partition, start):
        return KcatReader(self, name, partition, start)

    def reader_at_time(self, name, partition, timestamp):
        return KcatReader(self, name, partition, f"s@{timestamp}")

    def member(self, membership):
        return KcatMember(self, membership)


class KcatSuite(groups.Suite):
    def topic_create(self):
        topic = self.new_topic("create")
        suite.equal("partitions", [row[0] for row in self.client.describe_topic(topic)], [0])
        return "created automatically, 1 partition"

    def headers(self):
        """kcat prints headers without lengths, so values here hold none of its separators."""
        topic = self.new_topic("headers")
        records = [
            Record(b"one", b"k", (("a", b"1"),)),
            Record(b"order and repetition", b"k", (("b", b"1"), ("a", b"2"), ("b", b"3"))),
            Record(b"empty value", b"k", (("empty", b""),)),
            Record(b"null value", b"k", (("null", None),)),
            Record(b"not ASCII", b"k", (("ключ", "значение".encode()),)),
            Record(b"none", b"k", ()),
        ]
        self.write(topic, records)
        suite.same_records(self.read(topic, 0, len(records)), records)
        return f"{len(records)} records"

    def restart_records(self, how):
        """kcat reads its input in blocks of 1024 bytes and waits until each is full, so each line is one block."""
        records = []
        for i in range(60):
            key = f"{how} {i}".encode()
            value = f"value {i} ".encode()
            records.append(Record(value.ljust(1024 - len(key) - len(b"\t\n"), b"."), key))
        return records

    def describe_topic(self):
        topic = self.new_topic("describe")
        ((partition, leader, replicas, in_sync),) = self.client.describe_topic(topic)
        brokers = [row[0] for row in self.client.describe_cluster()["brokers"]]
        suite.equal("row", (partition, leader in brokers, replicas, in_sync), (0, True, [leader], [leader]))
        if topic not in self.client.topics():
            raise Wrong("not in the list of topics")
        return "leader, replicas and in-sync replicas"

    def group_places(self, name):
        return [(self.new_topic(f"{name}-{i}"), 0) for i in range(groups.PLACES)]

    def add_places(self, party):
        for i in (groups.PLACES, groups.PLACES + 1):
            topic = party.places[0][0].removesuffix("0") + str(i)
            self.client.create_topic(topic, 1, {})
            party.places.append((topic, 0))

    def group_resume(self, protocol="classic"):
        with groups.Party(self, "resume", protocol) as party:
            first = party.join()
            party.write()
            party.read()
            party.leave(first)
            party.write()
            party.join()
            party.read()
        return "a new member goes on where the first one ended"

    def not_available(self, protocol="classic"):
        raise NotAvailable(NO_ADMIN)

    describe_configs = alter_configs = create_partitions = delete_records = delete_topic = not_available
    group_metadata = group_reset = group_delete = group_delete_offsets = not_available


def version():
    text = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Version (\S+).*librdkafka (\S+)", text)
    return f"{found[1]} (librdkafka {found[2]})" if found else text


if __name__ == "__main__":
    try:
        installed = version()
    except FileNotFoundError:
        sys.exit("kcat is not installed: apt-get install kcat")
    suite.main("kcat", installed, Kcat, KcatSuite)
