package ottla.compat;

import static ottla.compat.Main.equal;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import ottla.compat.Main.NotAvailable;
import ottla.compat.Main.Wrong;

/** The named checks with kafka-clients: Admin, KafkaProducer, and KafkaConsumer on assigned partitions. */
final class Checks {
    private static final int BATCH = 50;

    final String bootstrap;
    final String prefix;
    final int timeout;

    Checks(String bootstrap, String prefix, int timeout) {
        this.bootstrap = bootstrap;
        this.prefix = prefix;
        this.timeout = timeout * 1000;
    }

    void addTo(Map<String, Main.Check> checks) {
        checks.put("topic.create", this::topicCreate);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (String acks : List.of("0", "1", "all")) {
                checks.put("produce." + codec + "." + acks, () -> produce(codec, acks));
            }
        }
        checks.put("produce.idempotent", this::idempotent);
        checks.put("records.headers", this::headers);
        checks.put("records.null_empty", this::nullEmpty);
        checks.put("records.1mb", this::large);
        checks.put("consume.start", this::consumeStart);
        checks.put("consume.middle", this::consumeMiddle);
        checks.put("consume.timestamp", this::consumeTimestamp);
        checks.put("consume.end", this::consumeEnd);
        checks.put("admin.describe_topic", this::describeTopic);
        checks.put("admin.describe_configs", this::describeConfigs);
        checks.put("admin.alter_configs", this::alterConfigs);
        checks.put("admin.create_partitions", this::createPartitions);
        checks.put("admin.delete_records", this::deleteRecords);
        checks.put("admin.delete_topic", this::deleteTopic);
        checks.put("admin.describe_cluster", this::describeCluster);
        checks.put("restart.clean", () -> restart("clean"));
        checks.put("restart.kill", () -> restart("kill"));
    }

    /** What is written, and must come back. Timestamp null: the client chooses. */
    record Item(byte[] key, byte[] value, Long timestamp, List<Header> headers) {
        Item(byte[] key, byte[] value) {
            this(key, value, null, List.of());
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** Records that compress well and are all different, one second apart, an hour ago. */
    static List<Item> batch(String tag, int count) {
        long base = (System.currentTimeMillis() / 1000 - 3600) * 1000;
        List<Item> items = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            String value = tag + " value " + i + " " + "the same words again and again, ".repeat(6);
            items.add(new Item(bytes(tag + " key " + i), bytes(value), base + i * 1000L, List.of()));
        }
        return items;
    }

    Properties common() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("request.timeout.ms", String.valueOf(Math.max(1000, timeout / 2)));
        properties.put("default.api.timeout.ms", String.valueOf(timeout));
        properties.put("reconnect.backoff.max.ms", "500");
        return properties;
    }

    Admin admin() {
        return Admin.create(common());
    }

    <T> T await(Future<T> future) throws Exception {
        try {
            return future.get(timeout + 1000L, TimeUnit.MILLISECONDS);
        } catch (ExecutionException error) {
            throw error.getCause() instanceof Exception cause ? cause : error;
        }
    }

    String newTopic(String name, int partitions, Map<String, String> configs) throws Exception {
        String topic = prefix + "-" + name;
        try (Admin admin = admin()) {
            await(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all());
        }
        // Kafka answers when its controller knows the topic, which may be before the broker does.
        long deadline = System.currentTimeMillis() + timeout;
        while (true) {
            try {
                equal("partitions", partitions(topic).size(), partitions);
                return topic;
            } catch (UnknownTopicOrPartitionException | Wrong notYet) {
                if (System.currentTimeMillis() > deadline) {
                    throw notYet;
                }
            }
            Thread.sleep(50);
        }
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, String> more) {
        Properties properties = common();
        properties.remove("default.api.timeout.ms");
        properties.put("enable.idempotence", "false");
        properties.put("max.block.ms", String.valueOf(timeout));
        properties.put("delivery.timeout.ms", String.valueOf(timeout + 1000));
        properties.put("linger.ms", "50"); // one batch per send()
        properties.put("batch.size", "1000000");
        properties.putAll(more);
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    List<Long> send(KafkaProducer<byte[], byte[]> producer, String topic, int partition, List<Item> items)
            throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        for (Item item : items) {
            futures.add(producer.send(new ProducerRecord<>(
                    topic, partition, item.timestamp(), item.key(), item.value(), item.headers())));
        }
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> future : futures) {
            offsets.add(await(future).offset());
        }
        return offsets;
    }

    private void write(String topic, List<Item> items, Map<String, String> more) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer(more);
        try {
            List<Long> offsets = send(producer, topic, 0, items);
            if (!"0".equals(more.get("acks"))) {
                List<Long> want = IntStream.range(0, items.size()).mapToObj(Long::valueOf).toList();
                equal("acknowledged offsets", offsets, want);
            }
        } finally {
            producer.close(Duration.ofSeconds(1));
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        Properties properties = common();
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "none");
        properties.put("fetch.max.wait.ms", "100");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private KafkaConsumer<byte[], byte[]> consumer(TopicPartition at, long offset) {
        KafkaConsumer<byte[], byte[]> consumer = consumer();
        consumer.assign(List.of(at));
        consumer.seek(at, offset);
        return consumer;
    }

    private List<ConsumerRecord<byte[], byte[]>> poll(
            KafkaConsumer<byte[], byte[]> consumer, int count, long milliseconds) {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        long deadline = System.nanoTime() + milliseconds * 1_000_000;
        while (got.size() < count && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(50)).forEach(got::add);
        }
        return got;
    }

    private void expect(KafkaConsumer<byte[], byte[]> consumer, List<Item> want, long first) throws Wrong {
        same(poll(consumer, want.size(), timeout), want, first);
    }

    /** Every offset, key, value, header and given timestamp, in order, nothing missing and nothing more. */
    static void same(List<ConsumerRecord<byte[], byte[]>> got, List<Item> want, long first) throws Wrong {
        equal("number of records", got.size(), want.size());
        for (int i = 0; i < got.size(); i++) {
            ConsumerRecord<byte[], byte[]> have = got.get(i);
            Item expect = want.get(i);
            equal("offset", have.offset(), first + i);
            if (!Arrays.equals(have.key(), expect.key()) || !Arrays.equals(have.value(), expect.value())) {
                throw new Wrong("key or value at " + have.offset() + ": " + have);
            }
            equal("headers at " + have.offset(), List.of(have.headers().toArray()), expect.headers());
            if (expect.timestamp() != null) {
                equal("timestamp at " + have.offset(), have.timestamp(), expect.timestamp());
            }
        }
    }

    private void readSame(String topic, long from, List<Item> want) throws Wrong {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(new TopicPartition(topic, 0), from)) {
            expect(consumer, want, from);
        }
    }

    private String filled(String name, List<Item> items) throws Exception {
        String topic = newTopic(name, 1, Map.of());
        write(topic, items, Map.of("compression.type", "gzip"));
        return topic;
    }

    private TopicDescription describe(String topic) throws Exception {
        try (Admin admin = admin()) {
            return await(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        }
    }

    private List<Integer> partitions(String topic) throws Exception {
        return describe(topic).partitions().stream().map(TopicPartitionInfo::partition).toList();
    }

    private Map<String, String> configs(String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Map<String, String> values = new HashMap<>();
        try (Admin admin = admin()) {
            await(admin.describeConfigs(List.of(resource)).all()).get(resource).entries()
                    .forEach(entry -> values.put(entry.name(), entry.value()));
        }
        return values;
    }

    private void alter(String topic, Map<String, String> changes) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Collection<AlterConfigOp> operations = changes.entrySet().stream()
                .map(e -> new AlterConfigOp(new ConfigEntry(e.getKey(), e.getValue()), AlterConfigOp.OpType.SET))
                .toList();
        try (Admin admin = admin()) {
            await(admin.incrementalAlterConfigs(Map.of(resource, operations)).all());
        }
    }

    private String topicCreate() throws Exception {
        String topic = newTopic("create", 3, Map.of("retention.ms", "86400000"));
        equal("partitions", partitions(topic), List.of(0, 1, 2));
        equal("retention.ms", configs(topic).get("retention.ms"), "86400000");
        try {
            newTopic("create", 3, Map.of());
        } catch (TopicExistsException expected) {
            return "3 partitions, its config, and refused the second time";
        }
        throw new Wrong("created a second time");
    }

    private String produce(String codec, String acks) throws Exception {
        String topic = newTopic("produce-" + codec + "-" + acks, 1, Map.of());
        List<Item> items = batch(codec + "/" + acks, BATCH);
        write(topic, items, Map.of("compression.type", codec, "acks", acks));
        readSame(topic, 0, items);
        return BATCH + " records";
    }

    private String idempotent() throws Exception {
        String topic = newTopic("idempotent", 1, Map.of());
        List<Item> items = batch("idempotent", BATCH * 8);
        // No waiting between batches: five are in flight at a time.
        Map<String, String> options = Map.of("enable.idempotence", "true", "batch.size", "4000", "linger.ms", "1");
        write(topic, items, options);
        readSame(topic, 0, items);
        return items.size() + " records, five batches in flight";
    }

    private String headers() throws Exception {
        String topic = newTopic("headers", 1, Map.of());
        byte[] above = new byte[128];
        for (int i = 0; i < above.length; i++) {
            above[i] = (byte) (128 + i);
        }
        List<List<Header>> kinds = List.of(
                List.of(new RecordHeader("a", bytes("1"))),
                List.of(new RecordHeader("b", bytes("1")), new RecordHeader("a", bytes("2")),
                        new RecordHeader("b", bytes("3"))),
                List.of(new RecordHeader("empty", new byte[0])),
                List.of(new RecordHeader("null", (byte[]) null)),
                List.of(new RecordHeader("ключ", bytes("значение")), new RecordHeader("bytes", above)),
                List.of());
        List<Item> items = kinds.stream().map(headers -> new Item(bytes("k"), bytes("v"), null, headers)).toList();
        write(topic, items, Map.of());
        readSame(topic, 0, items);
        return items.size() + " records";
    }

    private String nullEmpty() throws Exception {
        String topic = newTopic("null-empty", 1, Map.of());
        List<Item> items = new ArrayList<>();
        for (byte[] key : new byte[][] {null, {}, {'x'}}) {
            for (byte[] value : new byte[][] {null, {}, {'x'}}) {
                items.add(new Item(key, value));
            }
        }
        write(topic, items, Map.of());
        readSame(topic, 0, items);
        return "9 pairs of null, empty and filled key and value";
    }

    private String large() throws Exception {
        String topic = newTopic("large", 1, Map.of("max.message.bytes", "4194304"));
        List<Item> items = new ArrayList<>();
        for (int size : new int[] {1_000_000, 10, 2_000_000, 1_000_000}) {
            byte[] value = new byte[size];
            new Random(size).nextBytes(value);
            items.add(new Item(bytes("k"), value));
        }
        write(topic, items, Map.of("max.request.size", "8000000"));
        readSame(topic, 0, items);
        return "values of 1000000, 10, 2000000, 1000000 bytes";
    }

    private String consumeStart() throws Exception {
        List<Item> items = batch("start", BATCH);
        TopicPartition at = new TopicPartition(filled("start", items), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(List.of(at));
            consumer.seekToBeginning(List.of(at));
            expect(consumer, items, 0);
        }
        return BATCH + " records";
    }

    private String consumeMiddle() throws Exception {
        List<Item> items = batch("middle", BATCH);
        String topic = filled("middle", items);
        for (int from : new int[] {1, 23, BATCH - 1}) {
            readSame(topic, from, items.subList(from, BATCH));
        }
        return "from 1, 23 and 49 of 50";
    }

    private String consumeTimestamp() throws Exception {
        List<Item> items = batch("timestamp", BATCH);
        TopicPartition at = new TopicPartition(filled("timestamp", items), 0);
        long base = items.get(0).timestamp();
        long last = items.get(BATCH - 1).timestamp();
        long[][] rows = {
            {base - 1, 0}, {base, 0}, {base + 20_000, 20}, {base + 20_001, 21}, {last, 49}, {last + 1, -1},
        };
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            for (long[] row : rows) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(at, row[0])).get(at);
                equal("offset at " + row[0], found == null ? -1L : found.offset(), row[1]);
                if (found != null) {
                    equal("timestamp of it", found.timestamp(), base + row[1] * 1000);
                }
            }
            long offset = consumer.offsetsForTimes(Map.of(at, base + 19_500)).get(at).offset();
            consumer.assign(List.of(at));
            consumer.seek(at, offset);
            expect(consumer, items.subList(20, BATCH), 20);
        }
        return "before, at, between and after, inside one compressed batch";
    }

    private String consumeEnd() throws Exception {
        TopicPartition at = new TopicPartition(filled("end", batch("end", BATCH)), 0);
        List<Item> fresh = batch("new", 1);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer();
                KafkaProducer<byte[], byte[]> producer = producer(Map.of())) {
            consumer.assign(List.of(at));
            consumer.seekToEnd(List.of(at));
            equal("position", consumer.position(at), (long) BATCH);
            equal("records before anything new", poll(consumer, 1, 500).size(), 0);
            send(producer, at.topic(), 0, fresh);
            expect(consumer, fresh, BATCH);
            equal("records after it", poll(consumer, 1, 200).size(), 0);
        }
        return "nothing, then the new record";
    }

    private String describeTopic() throws Exception {
        String topic = newTopic("describe", 4, Map.of());
        TopicDescription description = describe(topic);
        equal("partitions", partitions(topic), List.of(0, 1, 2, 3));
        if (description.topicId().toString().equals("AAAAAAAAAAAAAAAAAAAAAA")) {
            throw new Wrong("no topic id");
        }
        for (TopicPartitionInfo row : description.partitions()) {
            if (!row.replicas().contains(row.leader()) || !row.isr().contains(row.leader())) {
                throw new Wrong("partition: " + row);
            }
        }
        try (Admin admin = admin()) {
            if (!await(admin.listTopics().names()).contains(topic)) {
                throw new Wrong("not in the list of topics");
            }
        }
        return "4 partitions with leader, replicas and in-sync replicas, and an id";
    }

    private String describeConfigs() throws Exception {
        String topic = newTopic("configs", 1, Map.of("max.message.bytes", "2000000"));
        Map<String, String> values = configs(topic);
        equal("max.message.bytes", values.get("max.message.bytes"), "2000000");
        equal("cleanup.policy", values.get("cleanup.policy"), "delete");
        if (values.size() < 25) {
            throw new Wrong("only " + values.size() + " configs");
        }
        return values.size() + " configs";
    }

    private String alterConfigs() throws Exception {
        String topic = newTopic("alter", 1, Map.of());
        alter(topic, Map.of("retention.ms", "123456789", "max.message.bytes", "3000000"));
        long deadline = System.currentTimeMillis() + timeout;
        Map<String, String> values = configs(topic);
        while (!"123456789".equals(values.get("retention.ms")) && System.currentTimeMillis() < deadline) {
            values = configs(topic);
        }
        equal("retention.ms", values.get("retention.ms"), "123456789");
        equal("max.message.bytes", values.get("max.message.bytes"), "3000000");
        try {
            alter(topic, Map.of("retention.ms", "soon"));
        } catch (InvalidConfigurationException expected) {
            return "changed two; a wrong value refused";
        }
        throw new Wrong("retention.ms=soon was accepted");
    }

    private String createPartitions() throws Exception {
        String topic = newTopic("partitions", 1, Map.of());
        try (Admin admin = admin()) {
            await(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
        }
        long deadline = System.currentTimeMillis() + timeout;
        while (partitions(topic).size() != 5 && System.currentTimeMillis() < deadline) {
            Thread.sleep(50);
        }
        equal("partitions", partitions(topic), List.of(0, 1, 2, 3, 4));
        List<Item> items = batch("partitions", 3);
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of());
                KafkaConsumer<byte[], byte[]> consumer = consumer(new TopicPartition(topic, 4), 0)) {
            send(producer, topic, 4, items);
            expect(consumer, items, 0);
        }
        return "1 to 5, and the fifth written and read";
    }

    private String deleteRecords() throws Exception {
        List<Item> items = batch("delete-records", BATCH);
        TopicPartition at = new TopicPartition(filled("delete-records", items), 0);
        try (Admin admin = admin();
                KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            KafkaFuture<Long> low = admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(20)))
                    .lowWatermarks().get(at).thenApply(deleted -> deleted.lowWatermark());
            equal("low watermark", await(low), 20L);
            equal("earliest", consumer.beginningOffsets(List.of(at)).get(at), 20L);
            equal("latest", consumer.endOffsets(List.of(at)).get(at), (long) BATCH);
        }
        readSame(at.topic(), 20, items.subList(20, BATCH));
        return "20 of 50 gone, the other 30 read";
    }

    private String deleteTopic() throws Exception {
        String topic = newTopic("delete-topic", 1, Map.of());
        try (Admin admin = admin()) {
            await(admin.deleteTopics(List.of(topic)).all());
            long deadline = System.currentTimeMillis() + timeout;
            while (await(admin.listTopics().names()).contains(topic)) {
                if (System.currentTimeMillis() > deadline) {
                    throw new Wrong("still in the list of topics");
                }
                Thread.sleep(50);
            }
        }
        return "gone from the list";
    }

    private String describeCluster() throws Exception {
        try (Admin admin = admin()) {
            DescribeClusterResult cluster = admin.describeCluster();
            List<String> addresses = await(cluster.nodes()).stream().map(n -> n.host() + ":" + n.port()).toList();
            Node controller = await(cluster.controller());
            if (!addresses.contains(bootstrap) || await(cluster.clusterId()).length() < 8 || controller == null) {
                throw new Wrong(addresses + ", id " + await(cluster.clusterId()) + ", controller " + controller);
            }
            return "cluster " + await(cluster.clusterId()) + ", " + addresses.size() + " broker";
        }
    }

    private String restart(String how) throws Exception {
        String topic = newTopic("restart-" + how, 1, Map.of());
        List<Item> items = batch("restart-" + how, 60);
        TopicPartition at = new TopicPartition(topic, 0);
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("enable.idempotence", "true"));
                KafkaConsumer<byte[], byte[]> consumer = consumer(at, 0)) {
            send(producer, topic, 0, items.subList(0, 20));
            expect(consumer, items.subList(0, 20), 0);
            Main.restart(how);
            for (int from : new int[] {20, 40}) {
                send(producer, topic, 0, items.subList(from, from + 20));
                expect(consumer, items.subList(from, from + 20), from);
            }
        }
        readSame(topic, 0, items);
        equal("partitions", partitions(topic), List.of(0));
        return "the same producer and consumer go on; all 60 records read again";
    }
}
