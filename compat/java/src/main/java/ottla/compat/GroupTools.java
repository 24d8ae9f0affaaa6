package ottla.compat;

import static ottla.compat.Main.equal;
import static ottla.compat.Tools.contains;
import static ottla.compat.Tools.with;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import ottla.compat.Main.NotAvailable;
import ottla.compat.Main.Wrong;

/** Kafka's own command-line tools that look after groups, are members of them, or look at compaction. */
final class GroupTools {
    private static final int COUNT = 20; // records in a topic

    private final Tools tools;
    private final Checks checks;

    GroupTools(Tools tools, Checks checks) {
        this.tools = tools;
        this.checks = checks;
    }

    void addTo(Map<String, Main.Check> table) {
        table.put("tools.consumer_groups", this::consumerGroups);
        table.put("tools.groups", this::groups);
        table.put("tools.group_configs", this::groupConfigs);
        table.put("tools.console_group", this::consoleGroup);
        table.put("tools.verifiable_consumer", this::verifiableConsumer);
        table.put("tools.consumer_performance", this::consumerPerformance);
        table.put("tools.dump_offsets", this::dumpOffsets);
        table.put("tools.log_compaction", this::logCompaction);
    }

    private String filled(String name, int partitions) throws Exception {
        String topic = tools.topic(name, partitions);
        tools.produce(topic, COUNT);
        return topic;
    }

    private String groupCommand(String... arguments) throws Exception {
        return tools.run("", "consumer.group.ConsumerGroupCommand",
                with(new String[] {"--bootstrap-server", tools.bootstrap}, arguments));
    }

    /** A member that has read and committed the topic, and lives on without being polled. */
    private KafkaConsumer<String, String> member(String group, String topic, String protocol) {
        Properties properties = checks.common();
        properties.putAll(Map.of(
                "group.id", group, "client.id", "member", "group.protocol", protocol,
                "auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(topic));
        int got = 0;
        for (long deadline = System.nanoTime() + checks.timeout * 1_000_000L;
                got < COUNT && System.nanoTime() < deadline; ) {
            got += consumer.poll(Duration.ofMillis(100)).count();
        }
        consumer.commitSync();
        return consumer;
    }

    /** A line of a table, its columns one space apart. */
    private static void hasRow(String what, String text, String row) throws Wrong {
        if (text.lines().noneMatch(line -> line.strip().replaceAll("\\s+", " ").matches(row))) {
            throw new Wrong(what + " has no row '" + row + "': " + text.strip());
        }
    }

    private String consumerGroups() throws Exception {
        String topic = filled("consumer-groups", 1);
        for (String protocol : List.of("classic", "consumer")) {
            String group = topic + "-" + protocol;
            String assignor = protocol.equals("classic") ? "range" : "uniform";
            String owner = "\\S+ /\\S+ member";
            try (var member = member(group, topic, protocol)) {
                hasRow("list", groupCommand("--list", "--state"), group + " Stable");
                String[] describe = {"--describe", "--group", group};
                hasRow("describe", groupCommand(describe), group + " " + topic + " 0 20 20 0 " + owner);
                hasRow("members", groupCommand(with(describe, "--members", "--verbose")),
                        group + " " + owner + " 1 .*" + topic + ":0.*");
                hasRow("state", groupCommand(with(describe, "--state")),
                        group + " \\S+ \\(\\d+\\) " + assignor + " Stable 1");
                equal("assignment", member.assignment().size(), 1);
            }
        }
        String group = topic + "-classic";
        String[] reset = {"--reset-offsets", "--group", group, "--topic", topic};
        String row = group + " " + topic + " 0 ";
        hasRow("dry run", groupCommand(with(reset, "--to-earliest", "--dry-run")), row + "0");
        hasRow("after a dry run", groupCommand("--describe", "--group", group), row + "20 20 0 - - -");
        hasRow("execute", groupCommand(with(reset, "--shift-by", "-3", "--execute")), row + "17");
        hasRow("after it", groupCommand("--describe", "--group", group), row + "17 20 3 - - -");
        hasRow("delete-offsets", groupCommand("--delete-offsets", "--group", group, "--topic", topic + ":0"),
                topic + " 0 Successful");
        contains("delete", groupCommand("--delete", "--group", topic + "-consumer"), "was successful");
        equal("in the list", groupCommand("--list").lines().anyMatch((topic + "-consumer")::equals), false);
        return "list, describe with members and state, of both protocols; reset, delete-offsets, delete";
    }

    private String groups() throws Exception {
        String topic = filled("groups", 1);
        try (var classic = member(topic + "-classic", topic, "classic");
                var consumer = member(topic + "-consumer", topic, "consumer");
                Admin admin = checks.admin()) {
            var commit = Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(3));
            checks.await(admin.alterConsumerGroupOffsets(topic + "-simple", commit).all());
            String text = tools.run("", "GroupsCommand", "--bootstrap-server", tools.bootstrap, "--list");
            hasRow("list", text, topic + "-classic Classic consumer");
            hasRow("list", text, topic + "-consumer Consumer consumer");
            hasRow("list", text, topic + "-simple Classic");
            equal("members", List.of(classic.assignment().size(), consumer.assignment().size()), List.of(1, 1));
        }
        return "a classic group, a consumer group, and one of offsets only";
    }

    private String groupConfigs() throws Exception {
        String[] entity = {"--bootstrap-server", tools.bootstrap, "--entity-type", "groups",
            "--entity-name", tools.prefix + "-configs"};
        String tool = "kafka.admin.ConfigCommand";
        tools.run("", tool, with(entity, "--alter", "--add-config", "consumer.session.timeout.ms=50000"));
        String text = tools.run("", tool, with(entity, "--describe"));
        contains("describe", text, "consumer.session.timeout.ms=50000");
        tools.run("", tool, with(entity, "--alter", "--delete-config", "consumer.session.timeout.ms"));
        text = tools.run("", tool, with(entity, "--describe"));
        equal("still described", text.contains("consumer.session.timeout.ms=50000"), false);
        return "alter, describe, delete-config";
    }

    private List<String> consoleConsumer(String topic, int count) throws Exception {
        return tools.run("", "consumer.ConsoleConsumer", "--bootstrap-server", tools.bootstrap, "--topic", topic,
                "--group", topic, "--from-beginning", "--max-messages", String.valueOf(count),
                "--timeout-ms", "20000").lines().toList();
    }

    private String consoleGroup() throws Exception {
        String topic = filled("console-group", 1);
        List<String> values = IntStream.range(0, COUNT).mapToObj(i -> "value " + i).toList();
        equal("first", consoleConsumer(topic, 7), values.subList(0, 7));
        equal("then", consoleConsumer(topic, COUNT - 7), values.subList(7, COUNT));
        return "7 records, and the other 13 for the next";
    }

    private String verifiableConsumer() throws Exception {
        String topic = filled("verifiable-consumer", 1);
        for (String protocol : List.of("classic", "consumer")) {
            String text = tools.run("", "VerifiableConsumer", "--bootstrap-server", tools.bootstrap, "--topic", topic,
                    "--group-id", topic + "-" + protocol, "--group-protocol", protocol, "--max-messages", "20",
                    "--verbose");
            contains(protocol, text, "\"partitions_assigned\",\"partitions\":[{\"topic\":\"" + topic
                    + "\",\"partition\":0}]", "\"minOffset\":0,\"maxOffset\":19", "\"offset\":20}],\"success\":true",
                    "\"partitions_revoked\"", "shutdown_complete");
            long read = text.lines().filter(line -> line.contains("\"record_data\"")).count();
            equal("records", read, (long) COUNT);
        }
        return "20 records and a commit in each protocol";
    }

    private String consumerPerformance() throws Exception {
        String topic = tools.topic("consumer-performance", 2);
        tools.run("", "ProducerPerformance", "--bootstrap-server", tools.bootstrap, "--topic", topic,
                "--num-records", "50000", "--record-size", "100", "--throughput", "-1");
        String text = tools.run("", "ConsumerPerformance", "--bootstrap-server", tools.bootstrap, "--topic", topic,
                "--group", topic, "--num-records", "50000", "--timeout", "20000", "--hide-header");
        equal("records", text.strip().split(", ")[4], "50000");
        return text.strip();
    }

    /** Kafka's reader of group records on the files that the broker under test wrote. */
    private String dumpOffsets() throws Exception {
        String data = System.getenv("COMPAT_DATA");
        if (data == null) {
            throw new NotAvailable("the broker's files are not at hand");
        }
        String topic = filled("dump-offsets", 1);
        for (String protocol : List.of("classic", "consumer")) {
            String group = topic + "-" + protocol;
            member(group, topic, protocol).close();
            String text = "";
            for (Path log : segmentsWith(Path.of(data), group)) {
                text += tools.run("", "DumpLogSegments", "--files", log.toString(), "--offsets-decoder");
            }
            String named = "\"data\":{\"group\":\"" + group + "\"";
            contains("a commit", text, "{\"type\":\"1\"," + named + ",\"topic\":\"" + topic + "\",\"partition\":0}",
                    "\"data\":{\"offset\":20,");
            if (protocol.equals("classic")) {
                contains("a classic group", text, "{\"type\":\"2\"," + named, "\"protocol\":\"range\"",
                        "\"assignedPartitions\":[{\"topic\":\"" + topic + "\",\"partitions\":[0]}]");
            } else {
                for (String type : List.of("3", "5", "6", "7", "8")) {
                    String key = "{\"type\":\"" + type + "\",\"data\":{\"groupId\":\"" + group;
                    contains("a consumer group", text, key);
                }
                contains("a member", text, "\"subscribedTopicNames\":[\"" + topic + "\"]");
            }
        }
        return "commits, a classic group, and a consumer group with its members and their assignments";
    }

    /** Of the topic of commits, those that hold this text. */
    private static List<Path> segmentsWith(Path data, String text) throws IOException, Wrong {
        List<Path> found = new ArrayList<>();
        try (Stream<Path> files = Files.walk(data)) {
            for (Path file : files.filter(path -> path.toString().endsWith(".log")).toList()) {
                if (Files.isRegularFile(file) && !Pattern.matches("metadata.*", file.getFileName().toString())
                        && new String(Files.readAllBytes(file), StandardCharsets.ISO_8859_1).contains(text)) {
                    found.add(file);
                }
            }
        }
        if (found.isEmpty()) {
            throw new Wrong("no segment file under " + data + " tells of " + text);
        }
        return found;
    }

    private String logCompaction() throws Exception {
        String text = tools.run("", "LogCompactionTester", "--bootstrap-server", tools.bootstrap,
                "--messages", "20000", "--duplicates", "5", "--percent-deletes", "10", "--sleep", "5");
        contains("the tester", text, "Data verification is completed");
        return text.lines().reduce((first, second) -> second).orElse("").strip();
    }
}
