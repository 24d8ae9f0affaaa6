"""A member of a group, with librdkafka; ../README.md says what it does and prints."""

import json
import struct
import sys
import threading
import time

import confluent_kafka

COMMIT_PATIENCE_MS = 5_000
POLL_PATIENCE = 0.2
PACE_SECONDS = 0.1
MOST_AT_ONCE = 500


def now():
    return time.time_ns() // 1000


def say(event, **fields):
    line = json.dumps({"at": now(), "event": event, **fields}, separators=(",", ":"))
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Member:
    def __init__(self, bootstrap, topic, group, kind, instance=None):
        self.topic = topic
        self.records = []
        # How far what this member owns is handled and not committed.
        self.pending = {}
        self.stalls = []
        self.closed = threading.Event()
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "max.poll.interval.ms": 7_000,
            # Also how long a commit is tried again.
            "socket.timeout.ms": COMMIT_PATIENCE_MS,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "fetch.wait.max.ms": 200,
            "log_level": 0,
        }
        if kind == "consumer":
            settings["group.protocol"] = "consumer"
        else:
            settings["partition.assignment.strategy"] = {"range": "range", "cooperative": "cooperative-sticky"}[kind]
            settings["session.timeout.ms"] = 6_000
            settings["heartbeat.interval.ms"] = 1_000
        if instance is not None:
            settings["group.instance.id"] = instance
        self.consumer = confluent_kafka.Consumer(settings)
        self.consumer.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)

    def generation(self):
        """librdkafka writes it behind the name of the format, and Python has no other way to it."""
        written = bytes(self.consumer.consumer_group_metadata())
        return struct.unpack_from("<i", written, written.index(b":") + 1)[0]

    def assigned(self, consumer, partitions):
        numbers = [it.partition for it in partitions]
        say("assigned", member=consumer.memberid() or "", generation=self.generation(), partitions=numbers)

    def revoked(self, _consumer, partitions):
        self.gone("revoked", partitions)

    def lost(self, _consumer, partitions):
        self.gone("lost", partitions)

    def gone(self, event, partitions):
        self.tell_handled()
        numbers = [it.partition for it in partitions]
        for number in numbers:
            self.pending.pop(number, None)
        say(event, partitions=numbers)

    def tell_handled(self):
        """Says what was handled since the last time; from now on it may be committed."""
        records, self.records = self.records, []
        if records:
            say("handled", records=records)
        self.pending.update({partition: offset + 1 for partition, offset, _ in records})

    def poll(self):
        """Takes what there is. Rebalances happen in here, between two records."""
        patience = POLL_PATIENCE
        while len(self.records) < MOST_AT_ONCE:
            message = self.consumer.poll(patience)
            if message is None:
                return
            if message.error() is not None:
                continue
            patience = 0
            value = message.value()
            self.records.append([message.partition(), message.offset(), int(value) if value.isdigit() else -1])

    def commit(self):
        began = now()
        offsets = [confluent_kafka.TopicPartition(self.topic, *it) for it in self.pending.items()]
        try:
            answers = self.consumer.commit(offsets=offsets, asynchronous=False)
        except confluent_kafka.KafkaException as error:
            say("refused", error=str(error.args[0]))
            return
        for answer in answers:
            if answer.error is not None:
                say("refused", error=str(answer.error))
        done = [[it.partition, it.offset] for it in answers if it.error is None]
        for partition, _ in done:
            del self.pending[partition]
        say("committed", began=began, generation=self.generation(), offsets=done)

    def input(self):
        """Each line asks for a stall of so many milliseconds; the end asks to leave."""
        for line in sys.stdin:
            self.stalls.append(int(line) / 1000)
        self.closed.set()

    def run(self):
        threading.Thread(target=self.input, daemon=True).start()
        while not self.closed.is_set():
            self.poll()
            self.tell_handled()
            self.closed.wait(self.stalls.pop(0) if self.stalls else PACE_SECONDS)
            if self.pending:
                self.commit()
        self.consumer.close()


if len(sys.argv) not in (5, 6):
    sys.exit("usage: member.py BOOTSTRAP TOPIC GROUP KIND [INSTANCE]")
say("start", client=f"confluent-kafka {confluent_kafka.__version__}, librdkafka {confluent_kafka.libversion()[0]}")
Member(*sys.argv[1:]).run()
