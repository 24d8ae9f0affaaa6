// A member of a group, with Kafka's own client; ../README.md says what it does and prints.

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.utils.AppInfoParser;

public final class Member {
    private static final Duration COMMIT_PATIENCE = Duration.ofSeconds(5);
    private static final Duration POLL_PATIENCE = Duration.ofMillis(500);
    private static final long PACE_MS = 100;
    /** What the input asks for by its end; a stall of that many milliseconds is never asked for. */
    private static final long LEAVE = -1;

    private final KafkaConsumer<String, String> consumer;
    /** How far what this member owns is handled and not committed. */
    private final Map<TopicPartition, OffsetAndMetadata> pending = new HashMap<>();

    private Member(KafkaConsumer<String, String> consumer) {
        this.consumer = consumer;
    }

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length != 4 && arguments.length != 5) {
            System.err.println("usage: Member BOOTSTRAP TOPIC GROUP KIND [INSTANCE]");
            System.exit(1);
        }
        say("start", ",\"client\":\"kafka-clients " + AppInfoParser.getVersion() + "\"");
        StringDeserializer text = new StringDeserializer();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings(arguments), text, text)) {
            new Member(consumer).run(arguments[1]);
        }
    }

    private static Properties settings(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("group.id", arguments[2]);
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        settings.put("max.poll.interval.ms", "7000");
        settings.put("request.timeout.ms", "10000");
        settings.put("retry.backoff.ms", "100");
        settings.put("reconnect.backoff.ms", "50");
        settings.put("reconnect.backoff.max.ms", "500");
        if (arguments[3].equals("consumer")) {
            settings.put("group.protocol", "consumer");
        } else {
            String assignor = arguments[3].equals("range") ? "RangeAssignor" : "CooperativeStickyAssignor";
            settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
            settings.put("session.timeout.ms", "6000");
            settings.put("heartbeat.interval.ms", "1000");
        }
        if (arguments.length == 5) {
            settings.put("group.instance.id", arguments[4]);
        }
        return settings;
    }

    private void run(String topic) throws InterruptedException {
        BlockingQueue<Long> asked = input();
        consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                String member = ",\"member\":\"" + consumer.groupMetadata().memberId() + "\"";
                say("assigned", member + generation() + partitions(partitions));
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                pending.keySet().removeAll(partitions);
                say("revoked", partitions(partitions));
            }

            @Override
            public void onPartitionsLost(Collection<TopicPartition> partitions) {
                pending.keySet().removeAll(partitions);
                say("lost", partitions(partitions));
            }
        });
        while (true) {
            handle();
            Long stall = asked.poll(PACE_MS, TimeUnit.MILLISECONDS);
            if (stall != null && stall == LEAVE) {
                return;
            }
            if (stall != null) {
                Thread.sleep(stall);
            }
            if (!pending.isEmpty()) {
                commit();
            }
        }
    }

    /** Takes what there is, and says so. */
    private void handle() {
        ConsumerRecords<String, String> polled;
        try {
            polled = consumer.poll(POLL_PATIENCE);
        } catch (KafkaException error) {
            say("error", error(error));
            return;
        }
        StringBuilder records = new StringBuilder();
        for (ConsumerRecord<String, String> record : polled) {
            records.append(records.isEmpty() ? "[" : ",[").append(record.partition()).append(',');
            records.append(record.offset()).append(',').append(number(record.value())).append(']');
            TopicPartition partition = new TopicPartition(record.topic(), record.partition());
            pending.put(partition, new OffsetAndMetadata(record.offset() + 1, record.leaderEpoch(), ""));
        }
        if (!polled.isEmpty()) {
            say("handled", ",\"records\":[" + records + "]");
        }
    }

    private void commit() {
        Map<TopicPartition, OffsetAndMetadata> ends = Map.copyOf(pending);
        long began = now();
        try {
            consumer.commitSync(ends, COMMIT_PATIENCE);
        } catch (KafkaException error) {
            say("refused", error(error));
            return;
        }
        pending.keySet().removeAll(ends.keySet());
        String offsets = ends.entrySet().stream()
                .map(end -> "[" + end.getKey().partition() + "," + end.getValue().offset() + "]")
                .collect(Collectors.joining(","));
        say("committed", ",\"began\":" + began + generation() + ",\"offsets\":[" + offsets + "]");
    }

    /** Each line of the input asks for a stall of so many milliseconds; its end asks to leave. */
    private static BlockingQueue<Long> input() {
        BlockingQueue<Long> asked = new LinkedBlockingQueue<>();
        Thread reader = new Thread(() -> {
            try {
                BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    asked.add(Long.parseLong(line));
                }
            } catch (IOException error) {
                // An input that cannot be read is as good as closed.
            }
            asked.add(LEAVE);
        });
        reader.setDaemon(true);
        reader.start();
        return asked;
    }

    private String generation() {
        return ",\"generation\":" + consumer.groupMetadata().generationId();
    }

    private static String partitions(Collection<TopicPartition> partitions) {
        String numbers =
                partitions.stream().map(it -> String.valueOf(it.partition())).collect(Collectors.joining(","));
        return ",\"partitions\":[" + numbers + "]";
    }

    private static String error(KafkaException error) {
        String words = error.getClass().getSimpleName() + ": " + error.getMessage();
        return ",\"error\":\"" + words.replaceAll("[\"\\\\\\p{Cntrl}]", " ") + "\"";
    }

    private static long number(String value) {
        try {
            return Long.parseLong(value);
        } catch (NumberFormatException error) {
            return -1;
        }
    }

    private static long now() {
        return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
    }

    private static synchronized void say(String event, String fields) {
        System.out.println("{\"at\":" + now() + ",\"event\":\"" + event + "\"" + fields + "}");
        System.out.flush();
    }
}
