package ottla.compat;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * The Java client: runs the named checks (Checks, Groups), Kafka's own tools (Tools, GroupTools) and Connect, and
 * prints one JSON line for each, as compat/README.md describes. The Python, Go and JavaScript programs do the same
 * checks; the tools are here only.
 */
public final class Main {
    private static final BufferedReader INPUT =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    /** The client cannot do this at all, and why. */
    static final class NotAvailable extends Exception {
        NotAvailable(String reason) {
            super(reason);
        }
    }

    /** What came back is not what was expected. */
    static final class Wrong extends Exception {
        Wrong(String message) {
            super(message);
        }
    }

    /** A check: returns what it saw, or throws. */
    interface Check {
        String run() throws Exception;
    }

    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new LinkedHashMap<>();
        options.putAll(Map.of("--prefix", "compat", "--timeout", "30", "--only", "", "--member", ""));
        List<String> addresses = new ArrayList<>();
        for (int i = 0; i < arguments.length; i++) {
            if (options.containsKey(arguments[i]) && i + 1 < arguments.length) {
                options.put(arguments[i], arguments[++i]);
            } else {
                addresses.add(arguments[i]);
            }
        }
        if (addresses.size() != 1) {
            System.err.println("usage: Main HOST:PORT [--prefix NAME] [--timeout SECONDS] [--only TEXT]");
            System.exit(2);
        }
        String bootstrap = addresses.get(0);
        String prefix = options.get("--prefix");
        int timeout = Integer.parseInt(options.get("--timeout"));
        Checks named = new Checks(bootstrap, prefix, timeout);
        if (!options.get("--member").isEmpty()) {
            Groups.beMember(named, options.get("--member"));
        }
        say(Map.of("client", "java", "version", AppInfoParser.getVersion()));

        Map<String, Check> checks = new LinkedHashMap<>();
        named.addTo(checks);
        new Groups(named).addTo(checks);
        Tools tools = new Tools(bootstrap, prefix, timeout);
        tools.addTo(checks);
        new GroupTools(tools, named).addTo(checks);
        new Connect(named).addTo(checks);
        for (Map.Entry<String, Check> entry : checks.entrySet()) {
            if (entry.getKey().contains(options.get("--only"))) {
                one(entry.getKey(), entry.getValue());
            }
        }
        System.exit(0);
    }

    private static void one(String name, Check check) throws IOException {
        try {
            say(Map.of("check", name, "ok", true, "detail", check.run()));
        } catch (NotAvailable reason) {
            say(Map.of("check", name, "na", reason.getMessage()));
        } catch (Exception | AssertionError error) {
            String text = error.toString();
            say(Map.of("check", name, "ok", false, "detail", text.substring(0, Math.min(text.length(), 600))));
        }
    }

    private static void say(Map<String, Object> line) throws JsonProcessingException {
        System.out.println(new ObjectMapper().writeValueAsString(line));
    }

    /** Has the runner restart the broker, and returns when that is done. */
    static void restart(String how) throws IOException, NotAvailable {
        System.out.println("RESTART " + how);
        String answer = INPUT.readLine();
        if (!"RESTARTED".equals(answer)) {
            throw new NotAvailable(answer == null ? "the runner did not restart the broker" : answer);
        }
    }

    static void equal(String what, Object got, Object want) throws Wrong {
        if (!want.equals(got)) {
            throw new Wrong(what + ": got " + got + ", expected " + want);
        }
    }
}
