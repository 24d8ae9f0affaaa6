package ottla.compat;

import static ottla.compat.Main.equal;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import ottla.compat.Main.Wrong;

/** Kafka Connect in distributed mode: its worker's group, its three topics, and the connectors for files. */
final class Connect {
    private static final List<String> TOPICS = List.of("offsets", "configs", "status");
    private static final int LINES = 100;

    private final Checks checks;
    private final String prefix;
    private final HttpClient http = HttpClient.newHttpClient();
    private String rest;

    Connect(Checks checks) {
        this.checks = checks;
        this.prefix = checks.prefix + "-connect";
    }

    void addTo(Map<String, Main.Check> table) {
        table.put("connect.distributed", this::distributed);
    }

    private Process worker(Path place) throws IOException {
        try (ServerSocket free = new ServerSocket(0)) {
            rest = "http://127.0.0.1:" + free.getLocalPort();
        }
        Path file = place.resolve("worker.properties");
        Stream<String> topics = TOPICS.stream().flatMap(name -> {
            String key = name.equals("offsets") ? "offset" : name.equals("configs") ? "config" : name;
            return Stream.of(key + ".storage.topic=" + prefix + "-" + name, key + ".storage.replication.factor=1");
        });
        Files.write(file, Stream.concat(topics, Stream.of(
                "bootstrap.servers=" + checks.bootstrap,
                "group.id=" + prefix,
                "listeners=" + rest,
                "key.converter=org.apache.kafka.connect.storage.StringConverter",
                "value.converter=org.apache.kafka.connect.storage.StringConverter",
                "offset.storage.partitions=5",
                "status.storage.partitions=2",
                "offset.flush.interval.ms=500",
                "consumer.auto.offset.reset=earliest")).toList());
        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        return new ProcessBuilder(java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile"),
                "-cp", System.getProperty("java.class.path"),
                "org.apache.kafka.connect.cli.ConnectDistributed", file.toString())
                .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .redirectError(ProcessBuilder.Redirect.INHERIT).start();
    }

    /** A worker that has just started, or that lost its group, answers with errors for a while. */
    private void until(String what, Callable<Boolean> holds) throws Exception {
        long deadline = System.currentTimeMillis() + checks.timeout * 2L;
        while (true) {
            Object last;
            try {
                if (holds.call()) {
                    return;
                }
                last = "not yet";
            } catch (IOException | Wrong error) {
                last = error;
            }
            if (System.currentTimeMillis() > deadline) {
                throw new Wrong(what + ": " + last);
            }
            Thread.sleep(100);
        }
    }

    private JsonNode ask(String path, String body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(rest + path));
        if (body != null) {
            request.header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body));
        }
        HttpResponse<String> answer = http.send(request.build(), HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() / 100 != 2) {
            throw new Wrong(path + " was answered " + answer.statusCode() + ": " + answer.body());
        }
        return new ObjectMapper().readTree(answer.body());
    }

    private void connect(String name, String kind, Path file, String topicKey) throws Exception {
        String body = new ObjectMapper().writeValueAsString(Map.of("name", name, "config", Map.of(
                "connector.class", "org.apache.kafka.connect.file." + kind, "tasks.max", "1",
                "file", file.toString(), topicKey, prefix + "-lines")));
        until(name, () -> ask("/connectors", body).path("name").asText().equals(name));
        until(name + " runs", () -> {
            JsonNode tasks = ask("/connectors/" + name + "/status", null).path("tasks");
            return tasks.size() == 1 && tasks.get(0).path("state").asText().equals("RUNNING");
        });
    }

    private static List<String> lines(int from, int to) {
        return IntStream.range(from, to).mapToObj(i -> "line " + i).toList();
    }

    /** Waits until the sink has written and committed so many lines, and compares them. */
    private void arrived(Path sink, int count) throws Exception {
        until(count + " lines in the sink", () -> Files.exists(sink) && Files.readAllLines(sink).size() >= count);
        equal("lines", Files.readAllLines(sink), lines(0, count));
        until("their commit", () -> {
            try (Admin admin = checks.admin()) {
                var commits = checks.await(
                        admin.listConsumerGroupOffsets("connect-" + prefix + "-sink").partitionsToOffsetAndMetadata());
                OffsetAndMetadata last = commits.get(new TopicPartition(prefix + "-lines", 0));
                return last != null && last.offset() == count;
            }
        });
    }

    private void topicsAreCompacted() throws Exception {
        try (Admin admin = checks.admin()) {
            List<ConfigResource> resources = TOPICS.stream()
                    .map(name -> new ConfigResource(ConfigResource.Type.TOPIC, prefix + "-" + name)).toList();
            Map<ConfigResource, Config> configs = checks.await(admin.describeConfigs(resources).all());
            for (Config config : configs.values()) {
                equal("cleanup.policy", config.get("cleanup.policy").value(), "compact");
            }
        }
    }

    private void workerHasGroup() throws Exception {
        try (Admin admin = checks.admin()) {
            equal("kinds of its group", checks.await(admin.listGroups().all()).stream()
                    .filter(row -> row.groupId().equals(prefix)).map(row -> row.protocol()).toList(),
                    List.of("connect"));
        }
    }

    private String distributed() throws Exception {
        checks.newTopic("connect-lines", 1, Map.of());
        Path place = Files.createTempDirectory("compat-connect");
        Path source = place.resolve("source.txt");
        Path sink = place.resolve("sink.txt");
        Files.write(source, lines(0, LINES));
        Process worker = worker(place);
        try {
            until("the worker answers", () -> ask("/connectors", null).isEmpty());
            topicsAreCompacted();
            connect(prefix + "-source", "FileStreamSourceConnector", source, "topic");
            connect(prefix + "-sink", "FileStreamSinkConnector", sink, "topics");
            workerHasGroup();
            arrived(sink, LINES);
            int count = LINES;
            for (String how : List.of("clean", "kill")) {
                Main.restart(how);
                Files.write(source, lines(count, count + LINES), StandardOpenOption.APPEND);
                count += LINES;
                arrived(sink, count);
            }
            equal("the worker lives", worker.isAlive(), true);
        } finally {
            worker.destroyForcibly().waitFor();
            try (Stream<Path> files = Files.list(place)) {
                files.forEach(file -> file.toFile().delete());
            }
            Files.delete(place);
        }
        return "3 compacted topics; 300 lines from file to file, each once, over two restarts of the broker";
    }
}
