// An idempotent producer of Kafka's own client that outlives its broker; ../README.md says what it prints.

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public final class Producer {
    private static final int VALUE_LENGTH = 120;
    private static final long PACE_MS = 2;

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length != 4) {
            System.err.println("usage: Producer BOOTSTRAP TOPIC PARTITIONS PRODUCER");
            System.exit(1);
        }
        String topic = arguments[1];
        int partitions = Integer.parseInt(arguments[2]);
        int producer = Integer.parseInt(arguments[3]);
        say("V kafka-clients " + AppInfoParser.getVersion());

        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("enable.idempotence", "true");
        settings.put("acks", "all");
        settings.put("delivery.timeout.ms", String.valueOf(Integer.MAX_VALUE));
        settings.put("max.block.ms", String.valueOf(Integer.MAX_VALUE));
        settings.put("request.timeout.ms", "10000");
        settings.put("retry.backoff.ms", "20");
        settings.put("reconnect.backoff.ms", "10");
        settings.put("reconnect.backoff.max.ms", "100");
        settings.put("buffer.memory", String.valueOf(1 << 20));

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

        ByteArraySerializer bytes = new ByteArraySerializer();
        try (KafkaProducer<byte[], byte[]> client = new KafkaProducer<>(settings, bytes, bytes)) {
            for (long next = 0; !closed.await(PACE_MS, TimeUnit.MILLISECONDS); next++) {
                for (int partition = 0; partition < partitions; partition++) {
                    send(client, topic, partition, producer + partition, next);
                }
            }
            client.flush();
        }
    }

    private static void send(
            KafkaProducer<byte[], byte[]> client, String topic, int partition, int producer, long number) {
        say("S " + partition + " " + number);
        client.send(new ProducerRecord<>(topic, partition, null, value(producer, number)), (metadata, error) -> {
            if (error != null) {
                say("F " + partition + " " + number + " " + error);
            } else {
                say("A " + partition + " " + number + " " + metadata.offset());
            }
        });
    }

    private static byte[] value(int producer, long number) {
        String name = producer + ":" + number + ":" + VALUE_LENGTH + ";";
        String repeated = name.repeat(VALUE_LENGTH / name.length() + 1);
        return repeated.substring(0, VALUE_LENGTH).getBytes(StandardCharsets.US_ASCII);
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
