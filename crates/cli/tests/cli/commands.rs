//! The commands against our own broker: what a person types, and what comes out.

use crate::broker::{Broker, failure, ottla};
use serde_json::Value;

fn broker() -> (tempfile::TempDir, Broker) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), "127.0.0.1:0", &[]);
    (dir, broker)
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn records_come_back_as_they_were_written_in_every_codec() {
    let (_dir, broker) = broker();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let input: String = (0..3000).map(|number| format!("key {}:value {number}\n", number % 7)).collect();
        broker.ok(&["topic", "create", codec, "-p", "3"]);
        let written =
            broker.ok_with(&["produce", codec, "-k", ":", "-z", codec, "-H", "h=x", "--json"], input.as_bytes());
        assert_eq!(json_lines(&written)[0]["records"], 3000);
        let read = broker.ok(&["consume", codec, "--format", "%k:%v\\n"]);
        let mut expected: Vec<_> = input.lines().collect();
        let mut found: Vec<_> = read.lines().collect();
        // Between partitions there is no order, within a key there is.
        for key in 0..7 {
            let of_key = |lines: &[&str]| -> Vec<String> {
                lines.iter().filter(|line| line.starts_with(&format!("key {key}:"))).map(ToString::to_string).collect()
            };
            assert_eq!(of_key(&found), of_key(&expected), "{codec}, key {key}");
        }
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{codec}");
    }
}

#[test]
fn consume_begins_where_it_is_told() {
    let (_dir, broker) = broker();
    let input: String = (0..100).map(|number| format!("{number}\n")).collect();
    broker.ok_with(&["produce", "t"], input.as_bytes());
    let first = |args: &[&str]| {
        let args = [&["consume", "t"], args].concat();
        broker.ok(&args).lines().map(|line| line.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(first(&[]), (0..100).collect::<Vec<_>>());
    assert_eq!(first(&["--from", "42", "--max", "2"]), [42, 43]);
    assert_eq!(first(&["--last", "3"]), [97, 98, 99]);
    assert_eq!(first(&["--since", "1h"]).len(), 100);
    assert!(first(&["--since", "2999-01-01T00:00:00Z"]).is_empty());
    let record = &json_lines(&broker.ok(&["consume", "t", "--from", "7", "--max", "1", "--json"]))[0];
    assert_eq!((&record["value"], &record["key"], &record["offset"]), (&"7".into(), &Value::Null, &7.into()));
    let (code, said) = failure(&broker.run(&["consume", "t", "--from", "101"]));
    assert_eq!(code, Some(1));
    assert!(said.contains("begins at 0 and ends before 100"), "{said}");
}

#[test]
fn keys_go_where_kafkas_java_client_puts_them() {
    let (_dir, broker) = broker();
    broker.ok(&["topic", "create", "t", "-p", "4"]);
    broker.ok_with(&["produce", "t", "-k", ":"], b"21:a\nfoobar:b\na-little-bit-long-string:c\n");
    let read = broker.ok(&["consume", "t", "--format", "%k %p\\n"]);
    let mut found: Vec<_> = read.lines().collect();
    found.sort_unstable();
    // Kafka's published hashes of these keys, without their sign, modulo 4.
    let place = |hash: i32| (hash & i32::MAX) % 4;
    let expected = [
        format!("21 {}", place(-973_932_308)),
        format!("a-little-bit-long-string {}", place(-985_981_536)),
        format!("foobar {}", place(-790_332_482)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn topics_are_created_described_altered_and_deleted() {
    let (_dir, broker) = broker();
    broker.ok(&["topic", "create", "t", "-p", "2", "-o", "retention.ms=60000"]);
    let (code, said) = failure(&broker.run(&["topic", "create", "t"]));
    assert!(code == Some(1) && said.contains("TOPIC_ALREADY_EXISTS"), "{said}");
    broker.ok(&["topic", "create", "t", "--if-not-exists"]);
    broker.ok(&["topic", "alter", "t", "-p", "3", "--set", "max.message.bytes=5000", "--unset", "retention.ms"]);
    let described = &json_lines(&broker.ok(&["topic", "describe", "t", "--json"]))[0];
    assert_eq!(described["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(described["configs"], serde_json::json!({ "max.message.bytes": "5000" }));
    let (code, said) = failure(&broker.run_with(&["produce", "t", "--whole"], &[b'x'; 6000]));
    assert!(code == Some(1) && said.contains("MESSAGE_TOO_LARGE"), "{said}");
    broker.ok(&["topic", "delete", "t"]);
    assert_eq!(broker.ok(&["topic", "list", "--json"]), "");
    let (code, said) = failure(&broker.run(&["topic", "delete", "t"]));
    assert!(code == Some(1) && said.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{said}");
    broker.ok(&["topic", "delete", "t", "--if-exists"]);
}

#[test]
fn configs_tell_their_source_and_are_set_back() {
    let (_dir, broker) = broker();
    broker.ok(&["topic", "create", "t"]);
    let all = json_lines(&broker.ok(&["config", "list", "--topic", "t", "--json"]));
    assert!(all.len() >= 33 && all.iter().all(|config| config["source"] == "DEFAULT_CONFIG"), "{all:?}");
    broker.ok(&["config", "set", "--topic", "t", "retention.ms=5"]);
    let one = || json_lines(&broker.ok(&["config", "describe", "--topic", "t", "retention.ms", "--json"])).remove(0);
    assert_eq!((&one()["value"], &one()["source"]), (&"5".into(), &"DYNAMIC_TOPIC_CONFIG".into()));
    broker.ok(&["config", "unset", "--topic", "t", "retention.ms"]);
    assert_eq!(one()["value"], "604800000");
    broker.ok(&["config", "set", "--all-brokers", "log.retention.ms=7"]);
    assert_eq!((&one()["value"], &one()["source"]), (&"7".into(), &"DYNAMIC_DEFAULT_BROKER_CONFIG".into()));
    let (code, said) = failure(&broker.run(&["config", "set", "--topic", "t", "retention.ms=soon"]));
    assert!(code == Some(1) && said.contains("retention.ms"), "{said}");
}

#[test]
fn dump_reads_what_the_broker_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, "127.0.0.1:0", &[]);
    let input: String = (0..5000).map(|number| format!("value {number}\n")).collect();
    broker.ok_with(&["produce", "t", "-z", "lz4"], input.as_bytes());
    assert_eq!(broker.stop(), Some(0));
    let dump = |path: &std::path::Path, more: &[&str]| {
        let output = ottla().arg("dump").arg(path).args(more).arg("--json").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        json_lines(&String::from_utf8(output.stdout).unwrap())
    };
    let of_kind = |values: &[Value], kind: &str| values.iter().filter(|value| value["kind"] == kind).count();

    let top = dump(&data, &[]);
    assert_eq!((of_kind(&top, "identity"), of_kind(&top, "clean shutdown"), of_kind(&top, "damage")), (1, 1, 0));
    assert_eq!(of_kind(&top, "checkpoint"), 2, "the partition and the metadata log");
    let metadata = dump(&data.join("metadata"), &[]);
    assert!(metadata.iter().any(|value| value["record"].as_str().is_some_and(|text| text.starts_with("TopicCreated"))));
    let partition = std::fs::read_dir(data.join("topics")).unwrap().next().unwrap().unwrap().path();
    let files = dump(&partition, &["--records"]);
    let batches: Vec<_> = files.iter().filter(|value| value["kind"] == "batch").collect();
    assert!(batches.iter().all(|batch| batch["crc_valid"] == true && batch["compression"] == "lz4"));
    assert_eq!(batches.iter().map(|batch| batch["records"].as_i64().unwrap()).sum::<i64>(), 5000);
    assert_eq!(of_kind(&files, "record"), 5000);
    assert_eq!((of_kind(&files, "producer"), of_kind(&files, "epoch"), of_kind(&files, "damage")), (1, 1, 0));
    assert!(of_kind(&files, "unknown") == 0, "{files:?}");

    // One bit, and the batch that holds it is named.
    let log = partition.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let first = &dump(&log, &[])[0];
    assert_eq!((&first["base_offset"], &first["crc_valid"]), (&0.into(), &false.into()));
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_was() {
    let run = |args: &[&str]| failure(&ottla().args(args).output().unwrap());
    let (code, said) = run(&["topic", "list", "-b", "127.0.0.1:1"]);
    assert!(code == Some(3) && said.contains("ottla serve"), "{said}");
    assert_eq!(run(&["topic", "create"]).0, Some(2));
    assert_eq!(run(&["consume", "t", "--format", "%x"]).0, Some(2));
    assert_eq!(run(&["dump", "/nonexistent"]).0, Some(1));
}
