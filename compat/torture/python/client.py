"""A client of a cluster under torture, with librdkafka; ../README.md says what it does and prints."""

import struct
import sys
import threading
import time

import confluent_kafka
from confluent_kafka import TopicPartition

VALUE_LENGTH = 120
PACE_MICROS = 20_000
COMMIT_EVERY_MICROS = 1_000_000
POLL_PATIENCE = 0.2
MOST_AT_ONCE = 500


def now():
    return time.time_ns() // 1000


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def value(producer, number):
    name = f"{producer}:{number}:{VALUE_LENGTH};"
    return (name * (VALUE_LENGTH // len(name) + 1))[:VALUE_LENGTH].encode()


def show(data):
    """A value as a history has it, `?` if it is not whole."""
    try:
        producer, number, _ = data.split(b";", 1)[0].decode("ascii").split(":")
        if data == value(int(producer), int(number)):
            return f"{int(producer)}.{int(number)}"
    except (AttributeError, UnicodeError, ValueError):
        pass
    return "?"


def settings(bootstrap):
    return {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "socket.timeout.ms": 10_000,
        "socket.connection.setup.timeout.ms": 3_000,
        "topic.metadata.refresh.interval.ms": 5_000,
        "log_level": 0,
    }


def closed():
    event = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), event.set()), daemon=True).start()
    return event


def produce(bootstrap, topics, partitions, first):
    client = confluent_kafka.Producer(settings(bootstrap) | {
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": 0,
        "request.timeout.ms": 10_000,
        "retry.backoff.ms": 50,
        "linger.ms": 2,
        "queue.buffering.max.messages": 2_000,
    })

    def answered(key, sent):
        def on_delivery(error, message):
            if error is not None:
                say(f"fail {now()} {error.name()} {key}={sent}")
            else:
                # None of a duplicate whose place the broker no longer knew.
                offset = -1 if message.offset() is None else message.offset()
                say(f"ack {now()} {key}@{offset}={sent}")
        return on_delivery

    end = closed()
    began, number = now(), 0
    while not end.is_set():
        intended = began + number * PACE_MICROS
        while (left := intended - now()) > 0 and not end.is_set():
            client.poll(left / 1e6)
        for index, topic in enumerate(topics):
            for partition in range(partitions):
                producer = first + index * partitions + partition
                key, sent = f"{topic}-{partition}", f"{producer}.{number}"
                say(f"send {intended} {now()} {key}={sent}")
                while True:
                    try:
                        client.produce(topic, value(producer, number), partition=partition,
                                       on_delivery=answered(key, sent))
                        break
                    except BufferError:
                        client.poll(0.05)
        number += 1
        client.poll(0)
    while client.flush(1) > 0:
        pass


def consumer(bootstrap, group):
    return confluent_kafka.Consumer(settings(bootstrap) | {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 200,
        "partition.assignment.strategy": "range",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 1_000,
    })


class Poll:
    """Takes what there is at once, and says it as one poll; what a rebalance takes away meanwhile is said before."""

    def __init__(self, client):
        self.client = client
        self.records = []
        self.began = now()

    def tell(self):
        records, self.records = self.records, []
        if records:
            say(f"poll {self.began} {now()} " + " ".join(records))

    def turn(self, handled):
        self.began = now()
        patience = POLL_PATIENCE
        while len(self.records) < MOST_AT_ONCE:
            message = self.client.poll(patience)
            if message is None:
                break
            if message.error() is not None:
                continue
            patience = 0
            self.records.append(
                f"{message.topic()}-{message.partition()}@{message.offset()}={show(message.value())}")
            handled(message)
        self.tell()


def assign(bootstrap, topics, partitions):
    client = consumer(bootstrap, "not-used")
    everything = [TopicPartition(topic, partition, 0) for topic in topics for partition in range(partitions)]
    say(f"assign {now()} " + " ".join(f"{it.topic}-{it.partition}@0" for it in everything))
    client.assign(everything)
    end, poll = closed(), Poll(client)
    while not end.is_set():
        poll.turn(lambda _: None)
    say(f"ended {now()}")
    client.close()


def group(bootstrap, topics, name):
    client = consumer(bootstrap, name)
    poll = Poll(client)
    pending = {}

    def generation():
        # librdkafka writes it behind the name of the format, and Python has no other way to it.
        written = bytes(client.consumer_group_metadata())
        return struct.unpack_from("<i", written, written.index(b":") + 1)[0]

    def keys(partitions):
        return "".join(f" {it.topic}-{it.partition}" for it in partitions)

    def assigned(_client, partitions):
        say(f"assigned {now()} {generation()}{keys(partitions)}")

    def gone(_client, partitions):
        poll.tell()
        for it in partitions:
            pending.pop((it.topic, it.partition), None)
        say(f"revoked {now()}{keys(partitions)}")

    def handled(message):
        pending[message.topic(), message.partition()] = message.offset() + 1

    def commit():
        began = now()
        offsets = [TopicPartition(*place, offset) for place, offset in pending.items()]
        places = "".join(f" {it.topic}-{it.partition}@{it.offset}" for it in offsets)
        try:
            answers = client.commit(offsets=offsets, asynchronous=False)
        except confluent_kafka.KafkaException as error:
            say(f"refused {began} {now()} {error.args[0].name()}{places}")
            return
        for it in answers:
            place = f"{it.topic}-{it.partition}@{it.offset}"
            if it.error is not None:
                say(f"refused {began} {now()} {it.error.name()} {place}")
            else:
                say(f"commit {began} {now()} {place}")
                pending.pop((it.topic, it.partition), None)

    client.subscribe(topics, on_assign=assigned, on_revoke=gone, on_lost=gone)
    end, next_commit = closed(), now()
    while not end.is_set():
        poll.turn(handled)
        if pending and now() >= next_commit:
            commit()
            next_commit = now() + COMMIT_EVERY_MICROS
    client.close()
    say(f"ended {now()}")


def main(role, bootstrap, topics, *rest):
    say(f"version confluent-kafka {confluent_kafka.__version__}, librdkafka {confluent_kafka.libversion()[0]}")
    if role == "produce":
        produce(bootstrap, topics.split(","), *map(int, rest))
    elif role == "assign":
        assign(bootstrap, topics.split(","), *map(int, rest))
    elif role == "group":
        group(bootstrap, topics.split(","), *rest)
    else:
        sys.exit("the roles are produce, assign and group")


main(*sys.argv[1:])
