"""An idempotent librdkafka producer that outlives its broker; ../README.md says what it prints."""

import sys
import threading
import time

import confluent_kafka

VALUE_LENGTH = 120
PACE_SECONDS = 0.002


def value(producer, number):
    name = f"{producer}:{number}:{VALUE_LENGTH};"
    return (name * (VALUE_LENGTH // len(name) + 1))[:VALUE_LENGTH].encode()


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(bootstrap, topic, partitions, producer):
    say(f"V confluent-kafka {confluent_kafka.__version__}, librdkafka {confluent_kafka.libversion()[0]}")
    client = confluent_kafka.Producer({
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": 0,
        "retry.backoff.ms": 20,
        "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 100,
        "socket.timeout.ms": 10_000,
        "linger.ms": 1,
        "queue.buffering.max.messages": 500,
        "log_level": 0,
    })

    def answered(partition, number):
        def on_delivery(error, message):
            if error is not None:
                say(f"F {partition} {number} {error}")
            else:
                say(f"A {partition} {number} {message.offset()}")
        return on_delivery

    closed = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()

    number = 0
    while not closed.is_set():
        for partition in range(partitions):
            say(f"S {partition} {number}")
            while True:
                try:
                    client.produce(topic, value(producer + partition, number), partition=partition,
                                   on_delivery=answered(partition, number))
                    break
                except BufferError:
                    client.poll(0.05)
        number += 1
        client.poll(0)
        time.sleep(PACE_SECONDS)
    while client.flush(1) > 0:
        pass


if len(sys.argv) != 5:
    sys.exit("usage: producer.py BOOTSTRAP TOPIC PARTITIONS PRODUCER")
main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
