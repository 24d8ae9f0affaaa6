// A client of a cluster under torture, with Kafka's own library; ../README.md says what it does and prints.

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public final class Client {
    private static final int VALUE_LENGTH = 120;
    private static final long PACE_MICROS = 20_000;
    private static final long COMMIT_EVERY_MICROS = 1_000_000;
    private static final Duration COMMIT_PATIENCE = Duration.ofSeconds(10);
    private static final Duration POLL_PATIENCE = Duration.ofMillis(200);

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length < 4) {
            System.err.println("usage: Client ROLE BOOTSTRAP TOPICS ...");
            System.exit(1);
        }
        say("version kafka-clients " + AppInfoParser.getVersion());
        String bootstrap = arguments[1];
        List<String> topics = List.of(arguments[2].split(","));
        switch (arguments[0]) {
            case "produce" ->
                produce(bootstrap, topics, Integer.parseInt(arguments[3]), Integer.parseInt(arguments[4]));
            case "assign" -> assign(bootstrap, topics, Integer.parseInt(arguments[3]));
            case "group" -> group(bootstrap, topics, arguments[3]);
            default -> {
                System.err.println("the roles are produce, assign and group");
                System.exit(1);
            }
        }
    }

    private static Properties settings(String bootstrap) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("request.timeout.ms", "10000");
        settings.put("retry.backoff.ms", "50");
        settings.put("reconnect.backoff.ms", "50");
        settings.put("reconnect.backoff.max.ms", "500");
        settings.put("socket.connection.setup.timeout.ms", "3000");
        settings.put("socket.connection.setup.timeout.max.ms", "3000");
        settings.put("metadata.max.age.ms", "5000");
        return settings;
    }

    private static void produce(String bootstrap, List<String> topics, int partitions, int first)
            throws InterruptedException {
        Properties settings = settings(bootstrap);
        settings.put("enable.idempotence", "true");
        settings.put("acks", "all");
        settings.put("delivery.timeout.ms", String.valueOf(Integer.MAX_VALUE));
        settings.put("max.block.ms", String.valueOf(Integer.MAX_VALUE));
        settings.put("linger.ms", "2");
        settings.put("buffer.memory", String.valueOf(1 << 20));
        ByteArraySerializer bytes = new ByteArraySerializer();
        CountDownLatch closed = closed();
        try (KafkaProducer<byte[], byte[]> client = new KafkaProducer<>(settings, bytes, bytes)) {
            long began = now();
            for (long number = 0; ; number++) {
                long intended = began + number * PACE_MICROS;
                if (closed.await(Math.max(0, intended - now()), TimeUnit.MICROSECONDS)) {
                    break;
                }
                for (int index = 0; index < topics.size(); index++) {
                    for (int partition = 0; partition < partitions; partition++) {
                        int producer = first + index * partitions + partition;
                        send(client, new TopicPartition(topics.get(index), partition), producer, number, intended);
                    }
                }
            }
            client.flush();
        }
    }

    private static void send(
            KafkaProducer<byte[], byte[]> client, TopicPartition to, int producer, long number, long intended) {
        String sent = "=" + producer + "." + number;
        say("send " + intended + " " + now() + " " + to + sent);
        byte[] value = value(producer, number).getBytes(StandardCharsets.US_ASCII);
        try {
            client.send(new ProducerRecord<>(to.topic(), to.partition(), null, value), (metadata, error) -> {
                if (error != null) {
                    say("fail " + now() + " " + Errors.forException(error).name() + " " + to + sent);
                } else {
                    say("ack " + now() + " " + to + "@" + (metadata.hasOffset() ? metadata.offset() : -1) + sent);
                }
            });
        } catch (KafkaException error) {
            // Thrown only where the library can no longer send anything at all.
            System.err.println(error);
            System.exit(1);
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Properties settings) {
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        settings.put("fetch.max.wait.ms", "200");
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        return new KafkaConsumer<>(settings, bytes, bytes);
    }

    private static void assign(String bootstrap, List<String> topics, int partitions) {
        List<TopicPartition> everything = new ArrayList<>();
        for (String topic : topics) {
            for (int partition = 0; partition < partitions; partition++) {
                everything.add(new TopicPartition(topic, partition));
            }
        }
        CountDownLatch closed = closed();
        try (KafkaConsumer<byte[], byte[]> client = consumer(settings(bootstrap))) {
            StringBuilder places = new StringBuilder();
            everything.forEach(it -> places.append(' ').append(it).append("@0"));
            say("assign " + now() + places);
            client.assign(everything);
            everything.forEach(it -> client.seek(it, 0));
            while (closed.getCount() > 0) {
                poll(client, record -> { });
            }
            say("ended " + now());
        }
    }

    private static void group(String bootstrap, List<String> topics, String name) {
        Properties settings = settings(bootstrap);
        settings.put("group.id", name);
        settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor");
        settings.put("session.timeout.ms", "10000");
        settings.put("heartbeat.interval.ms", "1000");
        // What is read and not committed.
        Map<TopicPartition, OffsetAndMetadata> pending = new HashMap<>();
        CountDownLatch closed = closed();
        try (KafkaConsumer<byte[], byte[]> client = consumer(settings)) {
            client.subscribe(topics, new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    say("assigned " + now() + " " + client.groupMetadata().generationId() + keys(partitions));
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    pending.keySet().removeAll(partitions);
                    say("revoked " + now() + keys(partitions));
                }
            });
            long next = now();
            while (closed.getCount() > 0) {
                poll(client, record -> pending.put(
                        new TopicPartition(record.topic(), record.partition()),
                        new OffsetAndMetadata(record.offset() + 1, record.leaderEpoch(), "")));
                if (now() >= next && !pending.isEmpty()) {
                    commit(client, pending);
                    next = now() + COMMIT_EVERY_MICROS;
                }
            }
        }
        say("ended " + now());
    }

    /** Commits what is pending; what is not refused is no longer pending. */
    private static void commit(
            KafkaConsumer<byte[], byte[]> client, Map<TopicPartition, OffsetAndMetadata> pending) {
        Map<TopicPartition, OffsetAndMetadata> asked = Map.copyOf(pending);
        StringBuilder places = new StringBuilder();
        asked.forEach((key, offset) -> places.append(' ').append(key).append('@').append(offset.offset()));
        long began = now();
        try {
            client.commitSync(asked, COMMIT_PATIENCE);
        } catch (KafkaException error) {
            say("refused " + began + " " + now() + " " + Errors.forException(error).name() + places);
            return;
        }
        pending.keySet().removeAll(asked.keySet());
        say("commit " + began + " " + now() + places);
    }

    /** Takes what there is, and says so. */
    private static void poll(
            KafkaConsumer<byte[], byte[]> client, Consumer<ConsumerRecord<byte[], byte[]>> handled) {
        long began = now();
        ConsumerRecords<byte[], byte[]> polled;
        try {
            polled = client.poll(POLL_PATIENCE);
        } catch (KafkaException error) {
            say("error " + now() + " " + error.getClass().getSimpleName());
            return;
        }
        if (polled.isEmpty()) {
            return;
        }
        StringBuilder records = new StringBuilder("poll " + began + " " + now());
        for (ConsumerRecord<byte[], byte[]> record : polled) {
            records.append(' ').append(record.topic()).append('-').append(record.partition());
            records.append('@').append(record.offset()).append('=').append(show(record.value()));
            handled.accept(record);
        }
        say(records.toString());
    }

    private static String keys(Collection<TopicPartition> partitions) {
        StringBuilder keys = new StringBuilder();
        partitions.forEach(it -> keys.append(' ').append(it));
        return keys.toString();
    }

    private static String value(int producer, long number) {
        String name = producer + ":" + number + ":" + VALUE_LENGTH + ";";
        return name.repeat(VALUE_LENGTH / name.length() + 1).substring(0, VALUE_LENGTH);
    }

    /** A value as a history has it, `?` if it is not whole. */
    private static String show(byte[] found) {
        String text = found == null ? "" : new String(found, StandardCharsets.ISO_8859_1);
        String[] name = text.split(";", 2)[0].split(":");
        try {
            int producer = Integer.parseInt(name[0]);
            long number = name.length == 3 ? Long.parseLong(name[1]) : -1;
            return text.equals(value(producer, number)) ? producer + "." + number : "?";
        } catch (NumberFormatException error) {
            return "?";
        }
    }

    /** Counted down when the input ends. */
    private static CountDownLatch closed() {
        CountDownLatch closed = new CountDownLatch(1);
        Thread reader = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // Nothing is expected; the end is the message.
                }
            } catch (IOException error) {
                // An input that cannot be read is as good as closed.
            }
            closed.countDown();
        });
        reader.setDaemon(true);
        reader.start();
        return closed;
    }

    private static long now() {
        return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
