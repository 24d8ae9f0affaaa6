package ottla.compat;

import static ottla.compat.Main.equal;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import ottla.compat.Main.NotAvailable;
import ottla.compat.Main.Wrong;

/** Kafka's own command-line tools, each started as its script would start it, and what they print compared. */
final class Tools {
    private static final String TOOLS = "org.apache.kafka.tools.";

    final String bootstrap;
    final String prefix;
    private final int timeout;

    Tools(String bootstrap, String prefix, int timeout) {
        this.bootstrap = bootstrap;
        this.prefix = prefix + "-tools";
        this.timeout = timeout;
    }

    void addTo(Map<String, Main.Check> checks) {
        checks.put("tools.topics", this::topics);
        checks.put("tools.configs", this::configs);
        checks.put("tools.console", this::console);
        checks.put("tools.get_offsets", this::getOffsets);
        checks.put("tools.delete_records", this::deleteRecords);
        checks.put("tools.log_dirs", this::logDirs);
        checks.put("tools.cluster", this::cluster);
        checks.put("tools.broker_api_versions", this::apiVersions);
        checks.put("tools.verifiable_producer", this::verifiableProducer);
        checks.put("tools.producer_performance", this::producerPerformance);
        checks.put("tools.client_compatibility", this::clientCompatibility);
        checks.put("tools.dump_log", this::dumpLog);
    }

    /** Runs a tool to its end; returns what it printed on standard output. A status other than 0 is a failure. */
    String run(String input, String tool, String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile"),
                "-cp", System.getProperty("java.class.path"),
                tool.contains(".") && !tool.startsWith("consumer.") ? tool : TOOLS + tool));
        command.addAll(List.of(arguments));
        File out = File.createTempFile("compat", ".out");
        File err = File.createTempFile("compat", ".err");
        try {
            Process process = new ProcessBuilder(command).redirectOutput(out).redirectError(err).start();
            try (var stdin = process.getOutputStream()) {
                stdin.write(input.getBytes(StandardCharsets.UTF_8));
            } catch (IOException ended) {
                // Its status tells more.
            }
            boolean ended = process.waitFor(timeout * 2L + 10, TimeUnit.SECONDS);
            if (!ended) {
                process.destroyForcibly().waitFor();
            }
            String printed = Files.readString(out.toPath());
            if (!ended || process.exitValue() != 0) {
                String said = (printed + Files.readString(err.toPath())).strip();
                said = said.substring(Math.max(0, said.length() - 300));
                throw new Wrong(tool + (ended ? " ended with " + process.exitValue() : " hangs") + ": " + said);
            }
            return printed;
        } finally {
            Files.delete(out.toPath());
            Files.delete(err.toPath());
        }
    }

    String topic(String name, int partitions) throws Exception {
        String topic = prefix + "-" + name;
        run("", "TopicCommand", "--bootstrap-server", bootstrap, "--create", "--topic", topic,
                "--partitions", String.valueOf(partitions), "--replication-factor", "1");
        return topic;
    }

    void produce(String topic, int count) throws Exception {
        String lines = IntStream.range(0, count).mapToObj(i -> "value " + i + "\n").collect(Collectors.joining());
        run(lines, "ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", topic);
    }

    static void contains(String what, String text, String... parts) throws Wrong {
        for (String part : parts) {
            if (!text.contains(part)) {
                throw new Wrong(what + " does not say '" + part + "': " + text.strip());
            }
        }
    }

    private String topics() throws Exception {
        String topic = topic("topics", 2);
        String list = run("", "TopicCommand", "--bootstrap-server", bootstrap, "--list");
        equal("in the list", list.lines().anyMatch(topic::equals), true);
        run("", "TopicCommand", "--bootstrap-server", bootstrap, "--alter", "--topic", topic, "--partitions", "3");
        String text = run("", "TopicCommand", "--bootstrap-server", bootstrap, "--describe", "--topic", topic);
        contains("describe", text, "PartitionCount: 3", "ReplicationFactor: 1", "Partition: 2", "TopicId: ");
        run("", "TopicCommand", "--bootstrap-server", bootstrap, "--delete", "--topic", topic);
        list = run("", "TopicCommand", "--bootstrap-server", bootstrap, "--list");
        equal("in the list", list.lines().anyMatch(topic::equals), false);
        return "create, list, alter, describe, delete";
    }

    private String configs() throws Exception {
        String topic = topic("configs", 1);
        String[] entity = {"--bootstrap-server", bootstrap, "--entity-type", "topics", "--entity-name", topic};
        String tool = "kafka.admin.ConfigCommand";
        run("", tool, with(entity, "--alter", "--add-config", "retention.ms=60000000,max.message.bytes=2000000"));
        String text = run("", tool, with(entity, "--describe"));
        contains("describe", text, "retention.ms=60000000", "max.message.bytes=2000000");
        run("", tool, with(entity, "--alter", "--delete-config", "retention.ms"));
        text = run("", tool, with(entity, "--describe"));
        contains("describe", text, "max.message.bytes=2000000");
        equal("retention.ms shown", text.contains("retention.ms"), false);
        text = run("", tool, "--bootstrap-server", bootstrap, "--entity-type", "brokers", "--entity-default",
                "--describe");
        contains("brokers", text, "Default configs for brokers");
        return "alter, describe, delete-config; the brokers' default";
    }

    static String[] with(String[] some, String... more) {
        return Stream.concat(Stream.of(some), Stream.of(more)).toArray(String[]::new);
    }

    private String console() throws Exception {
        String topic = topic("console", 1);
        String lines = "a:1,b:2\tk0|v0\nc:3\tk1|v1\nd:4\tk2|v2\n";
        run(lines, "ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", topic,
                "--reader-property", "parse.key=true", "--reader-property", "key.separator=|",
                "--reader-property", "parse.headers=true");
        String[] print = {
            "--bootstrap-server", bootstrap, "--topic", topic, "--timeout-ms", "15000",
            "--formatter-property", "print.key=true", "--formatter-property", "print.headers=true",
            "--formatter-property", "print.offset=true", "--formatter-property", "key.separator=|",
        };
        String text = run("", "consumer.ConsoleConsumer",
                with(print, "--partition", "0", "--offset", "earliest", "--max-messages", "3"));
        equal("from the start", text.lines().toList(), List.of(
                "Offset:0|a:1,b:2|k0|v0", "Offset:1|c:3|k1|v1", "Offset:2|d:4|k2|v2"));
        text = run("", "consumer.ConsoleConsumer",
                with(print, "--partition", "0", "--offset", "2", "--max-messages", "1"));
        equal("from offset 2", text.lines().toList(), List.of("Offset:2|d:4|k2|v2"));
        return "3 records with keys and headers, from the start and from an offset";
    }

    private String getOffsets() throws Exception {
        String topic = topic("offsets", 1);
        produce(topic, 7);
        for (String[] row : new String[][] {{"-2", "0"}, {"-1", "7"}, {"earliest", "0"}, {"latest", "7"}}) {
            String text =
                    run("", "GetOffsetShell", "--bootstrap-server", bootstrap, "--topic", topic, "--time", row[0]);
            equal("time " + row[0], text.strip(), topic + ":0:" + row[1]);
        }
        String text = run("", "GetOffsetShell", "--bootstrap-server", bootstrap, "--topic", topic, "--time", "-3");
        equal("max timestamp", text.strip().matches(Pattern.quote(topic) + ":0:[0-6]"), true);
        return "earliest, latest, max timestamp";
    }

    private String deleteRecords() throws Exception {
        String topic = topic("delete-records", 1);
        produce(topic, 9);
        File file = File.createTempFile("compat", ".json");
        try {
            Files.writeString(file.toPath(), "{\"version\":1,\"partitions\":[{\"topic\":\"" + topic
                    + "\",\"partition\":0,\"offset\":4}]}");
            String text = run("", "DeleteRecordsCommand", "--bootstrap-server", bootstrap,
                    "--offset-json-file", file.getPath());
            contains("delete-records", text, "partition: " + topic + "-0\tlow_watermark: 4");
        } finally {
            Files.delete(file.toPath());
        }
        String text = run("", "GetOffsetShell", "--bootstrap-server", bootstrap, "--topic", topic, "--time", "-2");
        equal("earliest", text.strip(), topic + ":0:4");
        return "low watermark 4 of 9";
    }

    private String logDirs() throws Exception {
        String topic = topic("log-dirs", 1);
        produce(topic, 20);
        String text = run("", "LogDirsCommand", "--bootstrap-server", bootstrap, "--describe", "--topic-list", topic);
        String row = "\"partition\":\"" + Pattern.quote(topic) + "-0\",\"size\":(\\d+)";
        Matcher size = Pattern.compile(row).matcher(text);
        if (!size.find() || Long.parseLong(size.group(1)) < 100) {
            throw new Wrong("no size of the partition: " + text.strip());
        }
        return size.group(1) + " bytes";
    }

    private String cluster() throws Exception {
        String text = run("", "ClusterTool", "cluster-id", "--bootstrap-server", bootstrap);
        contains("cluster-id", text, "Cluster ID: ");
        String endpoints = run("", "ClusterTool", "list-endpoints", "--bootstrap-server", bootstrap);
        contains("list-endpoints", endpoints, bootstrap.split(":")[1]);
        return text.strip();
    }

    private String apiVersions() throws Exception {
        String text = run("", "BrokerApiVersionsCommand", "--bootstrap-server", bootstrap);
        contains("api versions", text, bootstrap, "Produce(0): 0 to ", "Fetch(1): ", "ApiVersions(18): ",
                "Metadata(3): ");
        return text.lines().filter(line -> line.contains("usable: ")).count() + " keys that the tool can use";
    }

    private String verifiableProducer() throws Exception {
        String topic = topic("verifiable", 1);
        String text = run("", "VerifiableProducer", "--bootstrap-server", bootstrap, "--topic", topic,
                "--max-messages", "500", "--throughput", "-1", "--acks", "-1");
        contains("the last line", text, "\"sent\":500", "\"acked\":500");
        equal("lines of success", text.lines().filter(line -> line.contains("producer_send_success")).count(), 500L);
        String read = run("", "consumer.ConsoleConsumer", "--bootstrap-server", bootstrap, "--topic", topic,
                "--partition", "0", "--offset", "earliest", "--max-messages", "500", "--timeout-ms", "15000");
        equal("values", read.lines().toList(), IntStream.range(0, 500).mapToObj(String::valueOf).toList());
        return "500 sent, 500 acknowledged, 500 read in order";
    }

    private String producerPerformance() throws Exception {
        String topic = topic("performance", 1);
        String text = run("", "ProducerPerformance", "--bootstrap-server", bootstrap, "--topic", topic,
                "--num-records", "50000", "--record-size", "100", "--throughput", "-1");
        contains("performance", text, "50000 records sent");
        String end = run("", "GetOffsetShell", "--bootstrap-server", bootstrap, "--topic", topic, "--time", "-1");
        equal("end offset", end.strip(), topic + ":0:50000");
        return text.lines().reduce((first, second) -> second).orElse("").strip();
    }

    private String clientCompatibility() throws Exception {
        // The tool creates a topic of this name, and does not delete it.
        run("", "TopicCommand", "--bootstrap-server", bootstrap, "--delete", "--if-exists", "--topic", "newtopic");
        run("", "ClientCompatibilityTest", "--bootstrap-server", bootstrap, "--topic", topic("client-compatibility", 1),
                "--num-cluster-nodes", "1", "--offsets-for-times-supported", "true", "--cluster-id-supported", "true",
                "--expect-record-too-large-exception", "false", "--create-topics-supported", "true",
                "--describe-acls-supported", "true", "--describe-configs-supported", "true",
                "--idempotent-producer-supported", "true");
        return "all of its features";
    }

    /** Kafka's reader of segment files on the files that the broker under test wrote. */
    private String dumpLog() throws Exception {
        String data = System.getenv("COMPAT_DATA");
        if (data == null) {
            throw new NotAvailable("the broker's files are not at hand");
        }
        String topic = topic("dump", 1);
        String marker = "marker of " + topic;
        run(marker + "\n" + marker + "\n" + marker + "\n", "ConsoleProducer", "--bootstrap-server", bootstrap,
                "--topic", topic, "--compression-codec", "zstd", "--batch-size", "100000");
        run(marker + " again\n", "ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", topic);
        Path log = segmentWith(Path.of(data), marker + " again");
        String text = run("", "DumpLogSegments", "--files", log.toString(), "--print-data-log", "--deep-iteration");
        contains("the dump", text, "Log starting offset: 0", "isvalid: true", "compresscodec: zstd", "magic: 2",
                "| offset: 0 ", "| offset: 2 ", "| offset: 3 ", "payload: " + marker, "payload: " + marker + " again");
        equal("valid bytes, all of them", text.contains("isvalid: false") || text.contains("Found"), false);
        return "both batches, with their records, in " + log.getFileName();
    }

    /** The segment file that holds this uncompressed text, wherever the broker keeps its partitions. */
    static Path segmentWith(Path data, String text) throws Exception {
        try (Stream<Path> files = Files.walk(data)) {
            for (Path file : files.filter(path -> path.toString().endsWith(".log")).toList()) {
                if (Files.isRegularFile(file)
                        && new String(Files.readAllBytes(file), StandardCharsets.ISO_8859_1).contains(text)) {
                    return file;
                }
            }
        }
        throw new Wrong("no segment file under " + data + " holds the records");
    }
}
