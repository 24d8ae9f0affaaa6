package ottla.compat;

import static ottla.compat.Main.equal;

import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import ottla.compat.Checks.Item;
import ottla.compat.Main.Wrong;

/**
 * The named checks of consumer groups, in the classic protocol and in the new one. Members are polled in turn, so that
 * a check sees each of them between two polls; the one that crashes is a process of its own, which is Main again.
 */
final class Groups {
    private static final int PLACES = 4; // partitions of a group's topic
    private static final int LONG_SESSION = 30_000; // longer than any check of what happens without a timeout
    private static final int SHORT_SESSION = 6_000; // the shortest that Kafka allows
    private static final long SOON = 5_000; // for what may not wait for a session to time out
    private static final long REFRESH = 500; // how often members look for new partitions
    private static final long QUIET = 200; // in which a record too many would come

    private final Checks checks;

    Groups(Checks checks) {
        this.checks = checks;
    }

    void addTo(Map<String, Main.Check> table) {
        for (String protocol : List.of("classic", "consumer")) {
            boolean classic = protocol.equals("classic");
            String kind = classic ? "group." : "group848.";
            table.put(kind + "join", () -> join(protocol));
            table.put(kind + "rebalance", () -> rebalance(protocol, false));
            if (classic) {
                table.put(kind + "cooperative", () -> rebalance(protocol, true));
            }
            table.put(kind + "leave", () -> leave(protocol));
            table.put(kind + "crash", () -> crash(protocol));
            table.put(kind + "static", () -> staticMembers(protocol));
            table.put(kind + "resume", () -> resume(protocol));
            if (classic) {
                table.put(kind + "metadata", this::metadata);
                table.put(kind + "reset", this::reset);
            } else {
                table.put(kind + "regex", this::regex);
                table.put(kind + "migrate", this::migrate);
            }
            table.put(kind + "admin", () -> admin(protocol));
            table.put(kind + "delete", () -> delete(protocol));
            if (classic) {
                table.put(kind + "delete_offsets", this::deleteOffsets);
            }
            table.put(kind + "restart.clean", () -> restart("clean", protocol));
            table.put(kind + "restart.kill", () -> restart("kill", protocol));
        }
    }

    /** What a member is made with. */
    private record Membership(
            String group, String topic, String pattern, String protocol, boolean cooperative, String instance,
            int session, String clientId) {
        Membership as(String clientId, String instance) {
            return new Membership(group, topic, pattern, protocol, cooperative, instance, session, clientId);
        }

        Membership speaking(String protocol) {
            return new Membership(group, topic, pattern, protocol, cooperative, instance, session, clientId);
        }
    }

    /** A consumer that is a member. It begins at the earliest offset and commits nothing by itself. */
    private static final class Member implements ConsumerRebalanceListener {
        final KafkaConsumer<byte[], byte[]> consumer;
        final Set<TopicPartition> places = new HashSet<>();
        final Set<TopicPartition> lost = new HashSet<>(); // ever taken from it
        final List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        int changes;

        Member(Checks checks, Membership membership) {
            Properties properties = checks.common();
            properties.put("group.id", membership.group());
            properties.put("client.id", membership.clientId());
            properties.put("group.protocol", membership.protocol());
            properties.put("enable.auto.commit", "false");
            properties.put("auto.offset.reset", "earliest");
            properties.put("fetch.max.wait.ms", "100");
            properties.put("metadata.max.age.ms", String.valueOf(REFRESH));
            if (membership.protocol().equals("classic")) {
                String assignor = membership.cooperative() ? "CooperativeStickyAssignor" : "RangeAssignor";
                properties.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
                properties.put("session.timeout.ms", String.valueOf(membership.session()));
                properties.put("heartbeat.interval.ms", "500");
            }
            if (membership.instance() != null) {
                properties.put("group.instance.id", membership.instance());
            }
            consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            if (membership.pattern() != null) {
                consumer.subscribe(new SubscriptionPattern(membership.pattern()), this);
            } else {
                consumer.subscribe(List.of(membership.topic()), this);
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
            changes++;
            places.addAll(assigned);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
            changes++;
            places.removeAll(revoked);
            lost.addAll(revoked);
        }

        void step() {
            consumer.poll(Duration.ofMillis(20)).forEach(got::add);
        }

        void commitRead() {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            for (ConsumerRecord<byte[], byte[]> record : got) {
                TopicPartition place = new TopicPartition(record.topic(), record.partition());
                offsets.put(place, new OffsetAndMetadata(record.offset() + 1));
            }
            if (!offsets.isEmpty()) {
                consumer.commitSync(offsets);
            }
            got.clear();
        }
    }

    /** The process that crashes: it joins, says how many partitions it holds when that changes, and is killed. */
    static void beMember(Checks checks, String text) {
        String[] parts = text.split(",");
        Member member = new Member(checks, new Membership(
                parts[0], parts[1], null, parts[2], false, null, Integer.parseInt(parts[3]), "child"));
        for (int said = -1; ; ) {
            member.step();
            if (member.places.size() != said) {
                said = member.places.size();
                System.out.println(said);
            }
        }
    }

    /** One group, its members, and the records written for them. */
    private final class Party implements AutoCloseable {
        final List<TopicPartition> places = new ArrayList<>();
        final List<Member> members = new ArrayList<>();
        final Map<TopicPartition, List<Item>> written = new LinkedHashMap<>();
        final Map<TopicPartition, List<Item>> unread = new LinkedHashMap<>();
        Membership membership;
        boolean repeats; // what is not committed may come again
        Process child;

        Party(String name, String protocol, boolean cooperative, int session) throws Exception {
            String full = protocol.equals("classic") ? name : name + "-848";
            String topic = checks.newTopic("group-" + full, PLACES, Map.of());
            membership = new Membership(
                    "group of " + topic, topic, null, protocol, cooperative, null, session, "compat");
            IntStream.range(0, PLACES).forEach(p -> places.add(new TopicPartition(topic, p)));
        }

        Party(String name, String protocol) throws Exception {
            this(name, protocol, false, LONG_SESSION);
        }

        @Override
        public void close() throws InterruptedException {
            if (child != null) {
                child.destroyForcibly().waitFor();
            }
            members.forEach(member -> member.consumer.close());
        }

        String group() {
            return membership.group();
        }

        Member join(Membership as) {
            Member member = new Member(checks, as);
            members.add(member);
            return member;
        }

        Member join() {
            return join(membership);
        }

        void leave(Member member) {
            members.remove(member);
            member.consumer.close();
        }

        /** 5 new records to each of these. */
        void write(Collection<TopicPartition> to) throws Exception {
            try (KafkaProducer<byte[], byte[]> producer = checks.producer(Map.of())) {
                for (TopicPartition place : to) {
                    List<Item> before = written.computeIfAbsent(place, ignored -> new ArrayList<>());
                    List<Item> batch = Checks.batch(place.toString(), before.size() + 5);
                    List<Item> items = batch.subList(before.size(), batch.size());
                    checks.send(producer, place.topic(), place.partition(), items);
                    before.addAll(items);
                    unread.computeIfAbsent(place, ignored -> new ArrayList<>()).addAll(items);
                }
            }
        }

        void until(String what, long patience, BooleanSupplier holds) throws Wrong {
            long deadline = System.nanoTime() + patience * 1_000_000;
            while (!holds.getAsBoolean()) {
                if (System.nanoTime() > deadline) {
                    throw new Wrong(what + ": " + members.stream()
                            .map(member -> member.places + " and " + member.got.size() + " records").toList());
                }
                members.forEach(Member::step);
            }
        }

        void settled() throws Wrong {
            settled(checks.timeout, 0);
        }

        /** Waits until the members share the partitions evenly, and no rebalance has begun for a while. */
        void settled(long patience, long still) throws Wrong {
            long[] seen = {-1, 0};
            until("each partition has one owner, and no member more than another", patience, () -> {
                long changes = members.stream().mapToInt(member -> member.changes).sum();
                if (changes != seen[0]) {
                    seen[0] = changes;
                    seen[1] = System.nanoTime();
                }
                var sizes = members.stream().mapToInt(member -> member.places.size()).summaryStatistics();
                Set<TopicPartition> held = members.stream().flatMap(m -> m.places.stream()).collect(Collectors.toSet());
                return sizes.getSum() == places.size() && held.equals(Set.copyOf(places))
                        && sizes.getMax() - sizes.getMin() <= 1 && System.nanoTime() - seen[1] >= still * 1_000_000;
            });
        }

        int total() {
            return members.stream().mapToInt(member -> member.got.size()).sum();
        }

        /** Waits until members have got what was written and not read; each record once, in order, by its owner. */
        void read() throws Wrong {
            int want = unread.values().stream().mapToInt(List::size).sum();
            until(want + " records", checks.timeout, () -> total() >= want);
            long quiet = System.nanoTime() + QUIET * 1_000_000;
            until("quiet", checks.timeout, () -> System.nanoTime() > quiet);
            for (TopicPartition place : unread.keySet()) {
                List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
                for (Member member : members) {
                    List<ConsumerRecord<byte[], byte[]>> own = member.got.stream()
                            .filter(r -> r.partition() == place.partition() && r.topic().equals(place.topic()))
                            .toList();
                    if (!own.isEmpty() && !member.places.contains(place)) {
                        throw new Wrong("records of " + place + " came to a member with " + member.places);
                    }
                    got.addAll(own);
                }
                List<Item> items = unread.get(place);
                if (repeats) {
                    Map<Long, ConsumerRecord<byte[], byte[]>> last = new TreeMap<>();
                    got.forEach(record -> last.put(record.offset(), record));
                    got = List.copyOf(last.values());
                }
                Checks.same(got, items, written.get(place).size() - items.size());
            }
            if (!repeats) {
                equal("number of records", total(), want);
            }
            unread.clear();
        }

        void exchange() throws Exception {
            write(places);
            readAndCommit();
        }

        void readAndCommit() throws Wrong {
            read();
            members.forEach(Member::commitRead);
        }

        /** Has every partition read anew from there. */
        void again(Map<TopicPartition, OffsetAndMetadata> from) {
            written.forEach((place, items) -> {
                int first = from.containsKey(place) ? (int) from.get(place).offset() : 0;
                unread.put(place, new ArrayList<>(items.subList(first, items.size())));
            });
        }

        /** A member in a process of its own; returns when it holds half of the partitions. */
        void joinChild() throws Exception {
            String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
            String text = String.join(",", group(), membership.topic(), membership.protocol(),
                    String.valueOf(membership.session()));
            child = new ProcessBuilder(java, "-XX:TieredStopAtLevel=1",
                    "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile"),
                    "-cp", System.getProperty("java.class.path"), "ottla.compat.Main", checks.bootstrap,
                    "--member", text).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            LinkedBlockingQueue<String> said = new LinkedBlockingQueue<>();
            var lines = child.inputReader();
            new Thread(() -> lines.lines().forEach(said::add)).start();
            String[] last = {""};
            until("half here and half in the other process", checks.timeout, () -> {
                last[0] = said.isEmpty() ? last[0] : said.remove();
                return last[0].equals("" + PLACES / 2) && members.get(0).places.size() == PLACES / 2;
            });
        }

        Map<TopicPartition, OffsetAndMetadata> committed() throws Exception {
            try (Admin admin = checks.admin()) {
                return new HashMap<>(checks.await(
                        admin.listConsumerGroupOffsets(group()).partitionsToOffsetAndMetadata()));
            }
        }

        ConsumerGroupDescription describe() throws Exception {
            try (Admin admin = checks.admin()) {
                return checks.await(admin.describeConsumerGroups(List.of(group())).all()).get(group());
            }
        }

        void setOffsets(Map<TopicPartition, OffsetAndMetadata> offsets) throws Exception {
            try (Admin admin = checks.admin()) {
                checks.await(admin.alterConsumerGroupOffsets(group(), offsets).all());
            }
        }

        Map<TopicPartition, OffsetAndMetadata> offsets(Function<TopicPartition, OffsetAndMetadata> offset) {
            return places.stream().collect(Collectors.toMap(place -> place, offset));
        }
    }

    private interface Call {
        void run() throws Exception;
    }

    private static void refused(Class<? extends Exception> with, Call call) throws Exception {
        try {
            call.run();
        } catch (Exception error) {
            if (with.isInstance(error) || with.isInstance(error.getCause())) {
                return;
            }
            throw error;
        }
        throw new Wrong("not refused with " + with.getSimpleName());
    }

    private String join(String protocol) throws Exception {
        try (Party party = new Party("join", protocol)) {
            party.write(party.places);
            party.join();
            party.settled();
            party.readAndCommit();
            party.exchange();
        }
        return PLACES + " partitions, records from before and after";
    }

    private String rebalance(String protocol, boolean cooperative) throws Exception {
        try (Party party = new Party(cooperative ? "cooperative" : "rebalance", protocol, cooperative, LONG_SESSION)) {
            Member first = party.join();
            party.settled();
            party.exchange();
            Member second = party.join();
            party.settled();
            boolean eager = protocol.equals("classic") && !cooperative;
            equal("taken from the first", first.lost, eager ? Set.copyOf(party.places) : second.places);
            party.exchange();
            String topic = party.membership.topic();
            try (Admin admin = checks.admin()) {
                checks.await(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(PLACES + 2))).all());
            }
            party.places.addAll(List.of(new TopicPartition(topic, PLACES), new TopicPartition(topic, PLACES + 1)));
            // The member that learns of them last begins another rebalance.
            party.settled(checks.timeout, 3 * REFRESH);
            party.exchange();
        }
        return "4 partitions among 1, then 2, then 6 among 2; each record once, by its owner";
    }

    private String leave(String protocol) throws Exception {
        try (Party party = new Party("leave", protocol)) {
            party.join();
            Member second = party.join();
            party.settled();
            party.exchange();
            party.leave(second);
            party.settled(SOON, 0);
            party.exchange();
        }
        return "the other takes over at once";
    }

    private String crash(String protocol) throws Exception {
        try (Party party = new Party("crash", protocol, false, SHORT_SESSION)) {
            Member first = party.join();
            party.settled();
            party.exchange();
            party.joinChild();
            party.child.destroyForcibly().waitFor();
            long killed = System.nanoTime();
            party.write(party.places.stream().filter(place -> !first.places.contains(place)).toList());
            party.settled();
            long took = (System.nanoTime() - killed) / 1_000_000;
            party.read();
            if (took < SHORT_SESSION / 2 || took > SHORT_SESSION * 2) {
                throw new Wrong("taken over after " + took + " ms");
            }
        }
        return "taken over when the session of " + SHORT_SESSION + " ms was over";
    }

    private String staticMembers(String protocol) throws Exception {
        try (Party party = new Party("static", protocol)) {
            Member first = party.join(party.membership.as("compat", "first"));
            Member second = party.join(party.membership.as("compat", "second"));
            party.settled();
            party.exchange();
            Set<TopicPartition> held = Set.copyOf(second.places);
            int seen = first.changes;
            party.leave(second);
            party.write(party.places);
            second = party.join(party.membership.as("compat", "second"));
            party.settled();
            party.read();
            equal("partitions of the one that came again", second.places, held);
            equal("rebalances of the other", first.changes, seen);
        }
        return "the same partitions again, and no rebalance for the other";
    }

    private String resume(String protocol) throws Exception {
        try (Party party = new Party("resume", protocol)) {
            Member first = party.join();
            party.write(party.places);
            party.read();
            var offsets = party.offsets(place -> new OffsetAndMetadata(1 + place.partition()));
            first.consumer.commitSync(offsets);
            party.leave(first);
            party.again(offsets);
            party.join();
            party.read();
            equal("committed", party.committed(), offsets);
        }
        return "a new member goes on behind the committed offsets";
    }

    private String metadata() throws Exception {
        // Counted in characters: the third has 7000 bytes.
        List<String> texts = List.of("", "plain", "не ASCII".repeat(500), "x".repeat(4096));
        try (Party party = new Party("metadata", "classic")) {
            Member member = party.join();
            party.settled();
            var offsets = party.offsets(p -> new OffsetAndMetadata(p.partition(), texts.get(p.partition())));
            member.consumer.commitSync(offsets);
            equal("committed", party.committed(), offsets);
            var over = Map.of(party.places.get(0), new OffsetAndMetadata(9, "x".repeat(4097)));
            refused(OffsetMetadataTooLarge.class, () -> member.consumer.commitSync(over));
            equal("committed", party.committed(), offsets);
        }
        return "empty, plain, not ASCII, 4096 characters; one more refused";
    }

    private String reset() throws Exception {
        try (Party party = new Party("reset", "classic")) {
            Member member = party.join();
            party.exchange();
            var offsets = party.offsets(place -> new OffsetAndMetadata(1 + place.partition()));
            refused(UnknownMemberIdException.class, () -> party.setOffsets(offsets));
            party.leave(member);
            party.setOffsets(offsets);
            party.again(offsets);
            party.join();
            party.read();
        }
        return "refused while there is a member; then the next begins where it was told";
    }

    private String admin(String protocol) throws Exception {
        try (Party party = new Party("admin", protocol);
                Admin admin = checks.admin()) {
            for (String id : List.of("member-0", "member-1")) {
                party.join(party.membership.as(id, null));
            }
            party.settled();
            GroupType type = protocol.equals("classic") ? GroupType.CLASSIC : GroupType.CONSUMER;
            var options = new ListGroupsOptions().withTypes(Set.of(type)).inGroupStates(Set.of(GroupState.STABLE));
            GroupListing listed = checks.await(admin.listGroups(options).all()).stream()
                    .filter(row -> row.groupId().equals(party.group())).findFirst().orElse(null);
            if (listed == null || !listed.protocol().equals("consumer")) {
                throw new Wrong("listed: " + listed);
            }
            Map<String, Set<TopicPartition>> want = new TreeMap<>();
            want.put("member-0", party.members.get(0).places);
            want.put("member-1", party.members.get(1).places);
            ConsumerGroupDescription described = party.describe();
            equal("type", described.type(), type);
            equal("state", described.groupState(), GroupState.STABLE);
            equal("assignor", described.partitionAssignor(), type == GroupType.CLASSIC ? "range" : "uniform");
            equal("members", new TreeMap<>(described.members().stream().collect(
                    Collectors.toMap(MemberDescription::clientId, member -> member.assignment().topicPartitions()))),
                    want);
            List.copyOf(party.members).forEach(party::leave);
            long deadline = System.currentTimeMillis() + SOON;
            while (party.describe().groupState() != GroupState.EMPTY && System.currentTimeMillis() < deadline) {
                Thread.sleep(20);
            }
            equal("state", party.describe().groupState(), GroupState.EMPTY);
            equal("members", party.describe().members().size(), 0);
            refused(GroupIdNotFoundException.class,
                    () -> checks.await(admin.describeConsumerGroups(List.of("there is no such group")).all()));
        }
        return "listed by type and state; described with its members, without them, and when there is none";
    }

    private String delete(String protocol) throws Exception {
        try (Party party = new Party("delete", protocol);
                Admin admin = checks.admin()) {
            Member member = party.join();
            party.exchange();
            Call delete = () -> checks.await(admin.deleteConsumerGroups(List.of(party.group())).all());
            refused(GroupNotEmptyException.class, delete);
            party.leave(member);
            delete.run();
            equal("in the list", checks.await(admin.listGroups().all()).stream()
                    .anyMatch(row -> row.groupId().equals(party.group())), false);
            refused(GroupIdNotFoundException.class, delete);
            party.again(Map.of());
            party.join();
            party.read();
        }
        return "refused while there is a member; then gone, and a new one begins at the start";
    }

    private String deleteOffsets() throws Exception {
        try (Party party = new Party("delete-offsets", "classic");
                Admin admin = checks.admin()) {
            Member member = party.join();
            party.exchange();
            TopicPartition gone = party.places.get(0);
            Call delete = () -> checks.await(admin.deleteConsumerGroupOffsets(party.group(), Set.of(gone)).all());
            refused(GroupSubscribedToTopicException.class, delete);
            party.leave(member);
            delete.run();
            var left = party.offsets(place -> new OffsetAndMetadata(5));
            left.remove(gone);
            equal("committed", party.committed(), left);
        }
        return "refused while there is a member; then that one gone and the others there";
    }

    private String regex() throws Exception {
        try (Party party = new Party("regex", "consumer")) {
            String prefix = checks.prefix + "-regex";
            Membership m = party.membership;
            party.membership = new Membership(
                    m.group(), null, "^" + prefix + "-[a-z]+$", "consumer", false, null, LONG_SESSION, "compat");
            party.places.clear();
            checks.newTopic("regex-1", 1, Map.of());
            for (String name : List.of("regex-a", "regex-b")) {
                party.places.add(new TopicPartition(checks.newTopic(name, 1, Map.of()), 0));
                if (party.members.isEmpty()) {
                    party.join();
                }
                party.settled();
                party.exchange();
            }
        }
        return "a topic from before and one from after; none that does not match";
    }

    /** A live group changes from the classic protocol to the new one, and back. */
    private String migrate() throws Exception {
        try (Party party = new Party("migrate", "consumer")) {
            Member classic = party.join(party.membership.speaking("classic"));
            party.settled();
            party.exchange();
            equal("type", party.describe().type(), GroupType.CLASSIC);
            Member consumer = party.join();
            party.settled();
            party.exchange();
            equal("type", party.describe().type(), GroupType.CONSUMER);
            party.leave(classic);
            party.settled(SOON, 0);
            party.exchange();
            party.join(party.membership.speaking("classic"));
            party.settled();
            party.exchange();
            party.leave(consumer);
            party.settled(SOON, 0);
            party.exchange();
            equal("type", party.describe().type(), GroupType.CLASSIC);
        }
        return "from one classic member to one of each, to a new one, to one of each, to a classic one";
    }

    private String restart(String how, String protocol) throws Exception {
        try (Party party = new Party("restart-" + how, protocol, false, SHORT_SESSION)) {
            party.join();
            party.join();
            party.settled();
            party.exchange();
            Main.restart(how);
            // A member that finds the broker gone may join again, and begins at what is committed.
            party.repeats = true;
            party.exchange();
            party.settled();
            equal("committed", party.committed(), party.offsets(place -> new OffsetAndMetadata(10)));
        }
        return "the same members go on behind their commits";
    }
}
